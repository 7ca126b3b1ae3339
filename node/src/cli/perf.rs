//! `tandem perf`: latency and throughput to a peer, over streams of libp2p.
//!
//! # Invariants
//!
//! * Every measurement has a stream of its own and a deadline, so that a peer that stands still ends the command.
//! * The connection is there before the first measurement that counts.

use std::{fs, io, path::Path, process::ExitCode, time::Duration};

use gossip::{NodeAddress, http::BoxError};
use indicatif::{HumanBytes, ProgressDrawTarget};
use serde::Serialize;
use services::perf::{self, Exchange, Measured, PerfError};

use super::{
    args::PerfArgs,
    failure::Failure,
    output,
    perf_plot::{self, Series},
    progress,
    reach::Reach,
};

/// Exchanges of nothing by which latency is measured, in each run. Chosen: ten make a median.
const ECHOES: usize = 10;

/// The outcome, as it is printed.
#[derive(Debug, Serialize)]
struct Outcome {
    peer: String,
    /// From the request for a stream until its end was heard: a round trip, in microseconds, the shortest first.
    latency_us: Vec<u64>,
    upload: Direction,
    download: Direction,
}

/// The measurements of one direction.
#[derive(Debug, Default, Serialize)]
struct Direction {
    bytes: u64,
    /// Of each run.
    seconds: Vec<f64>,
    /// Of each run, in megabits.
    mbit_per_s: Vec<f64>,
}

impl Direction {
    fn add(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        self.seconds.push(seconds);
        self.mbit_per_s.push(self.bytes as f64 * 8e-6 / seconds);
    }

    fn line(&self, name: &str) -> Option<String> {
        let mut rates = self.mbit_per_s.clone();
        rates.sort_by(f64::total_cmp);
        let (least, most) = (rates.first()?, rates.last()?);
        let (middle, bytes) = (rates[rates.len() / 2], HumanBytes(self.bytes));
        Some(format!("{name:<9} {middle:.0} Mbit/s ({least:.0} to {most:.0}), {bytes} each time"))
    }
}

impl Outcome {
    fn text(&self) -> String {
        let millis = |us: &u64| *us as f64 / 1e3;
        let all = &self.latency_us;
        let middle = all.get(all.len() / 2).map_or(0.0, millis);
        let (least, most) = (all.first().map_or(0.0, millis), all.last().map_or(0.0, millis));
        let latency = format!("latency   {middle:.2} ms ({least:.2} to {most:.2})");
        let directions = [self.upload.line("upload"), self.download.line("download")];
        [Some(latency)].into_iter().chain(directions).flatten().collect::<Vec<_>>().join("\n")
    }
}

impl Outcome {
    /// All of it as SVG.
    fn plot(&self) -> Result<String, BoxError> {
        let latency: Vec<f64> = self.latency_us.iter().map(|us| *us as f64 / 1e3).collect();
        let series = [("upload", &self.upload), ("download", &self.download)];
        let series = series.map(|(name, direction)| Series { name, values: &direction.mbit_per_s });
        perf_plot::svg(&format!("tandem perf {}", self.peer), &latency, &series)
    }
}

/// Measures, and prints what came of it.
pub(crate) async fn perf(args: PerfArgs) -> Result<ExitCode, Failure> {
    if !matches!(args.peer, NodeAddress::Multiaddr(_)) {
        let text =
            format!("{} is no multiaddr, and measurements go over streams of libp2p", args.peer);
        return Err(Failure::Usage { text });
    }
    // Before anything is measured: a path that cannot be written costs no minutes.
    let unwritten = |path: &Path, source| Failure::Write { path: path.to_owned(), source };
    if let Some(path) = &args.plot {
        fs::File::create(path).map_err(|source| unwritten(path, source))?;
    }
    let reach = Reach::start(std::slice::from_ref(&args.peer), None).await?;
    let outcome = measure(&reach, &args).await;
    reach.stop().await;
    let outcome = outcome?;
    if let Some(path) = &args.plot {
        let drawn = outcome.plot().map_err(|error| unwritten(path, io::Error::other(error)))?;
        fs::write(path, drawn).map_err(|source| unwritten(path, source))?;
    }
    let text = if args.json { output::json(&outcome) } else { outcome.text() };
    output::print(&text).await?;
    Ok(ExitCode::SUCCESS)
}

async fn measure(reach: &Reach, args: &PerfArgs) -> Result<Outcome, Failure> {
    let target = Target { reach, args };
    let nothing = Exchange::default();
    // It makes the connection.
    target.once(nothing, |_| ()).await?;
    let direction = |bytes| Direction { bytes, ..Direction::default() };
    let (mut upload, mut download) = (direction(args.upload), direction(args.download));
    let mut latency_us = Vec::new();
    for _ in 0..args.runs {
        for _ in 0..ECHOES {
            let (took, _) = target.once(nothing, |_| ()).await?;
            latency_us.push(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        }
        let each = [
            Exchange { upload: args.upload, ..nothing },
            Exchange { download: args.download, ..nothing },
        ];
        for exchange in each.into_iter().filter(|exchange| *exchange != nothing) {
            let bytes = exchange.upload + exchange.download;
            let bar = progress::bar(Some(bytes), ProgressDrawTarget::stderr());
            let measured = target.once(exchange, |moved| bar.inc(moved)).await;
            bar.finish_and_clear();
            let (_, measured) = measured?;
            match exchange.download {
                0 => upload.add(measured.upload),
                _ => download.add(measured.download),
            }
        }
    }
    latency_us.sort_unstable();
    Ok(Outcome { peer: args.peer.to_string(), latency_us, upload, download })
}

/// The peer to measure to.
struct Target<'a> {
    reach: &'a Reach,
    args: &'a PerfArgs,
}

impl Target<'_> {
    /// Makes one exchange on a stream of its own. Returns how long it took with the opening of the stream, too.
    async fn once(
        &self,
        exchange: Exchange,
        moved: impl FnMut(u64),
    ) -> Result<(Duration, Measured), Failure> {
        let limit = Duration::from_secs_f64(self.args.max_time);
        let started = tokio::time::Instant::now();
        let opened = self.reach.stream(&self.args.peer, perf::PROTOCOL, limit).await;
        let failed =
            |source| Failure::Open { peer: self.args.peer.clone(), source: Box::new(source) };
        let mut stream = opened.map_err(failed)?;
        let left = limit.saturating_sub(started.elapsed());
        let measured =
            tokio::time::timeout(left, perf::measure(&mut stream, exchange, moved)).await;
        let late = |_| PerfError::TimedOut { after: limit };
        let measured = measured.map_err(late)??;
        Ok((started.elapsed(), measured))
    }
}
