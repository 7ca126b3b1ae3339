//! `bench http`: a node beside hyper on the same bytes, with the same service behind both.
//!
//! ```text
//!   N callers ──▶ contender: bare hyper | ours ──▶ TCP, TLS or one libp2p connection ──▶ axum
//!       └──▶ Score: requests, latencies, failures
//! ```
//!
//! # Invariants
//!
//! * The contenders of a row take turns within one run, each on a fresh runtime with two workers.
//! * All contenders send the same requests to the same service, and every response is checked. Failed requests
//!   are counted and shown; of a node they are an error of the bench.

mod app;
mod bare;
mod hostile;
mod ours;
mod paced;
mod race;
mod score;
mod stage;
mod tls;
mod usual;

use std::{num::NonZeroU64, time::Duration};

use clap::ValueEnum;

use crate::{
    error::Failure,
    row::{Output, Row},
    stats::median,
};
use race::{Amount, Outcome};

pub(crate) use app::router;
pub(crate) use hostile::{Attack, attack};
pub(crate) use ours::{client_limits, serve_limits};
pub(crate) use paced::{Paced, paced};

/// Time before a measurement starts. Chosen: every caller has its connection by then.
const WARM_UP: Duration = Duration::from_millis(500);

/// Largest body that can be requested, in bytes.
const MAX_BYTES: u32 = 64 * 1024 * 1024;

/// Settings of `bench http`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Number of callers, each with one request at a time; may be given more than once.
    #[arg(long, default_values_t = [1, 16, 256], value_parser = clap::value_parser!(u16).range(1..=256))]
    callers: Vec<u16>,
    /// Size of a response's body, in bytes; may be given more than once. Five requests `/hello`.
    #[arg(long, default_values_t = [5, 1_048_576], value_parser = clap::value_parser!(u32).range(0..=i64::from(MAX_BYTES)))]
    bytes: Vec<u32>,
    /// Time for which each contender is measured in each round, in seconds.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Number of requests per contender and round, instead of a time.
    #[arg(long, conflicts_with = "seconds")]
    requests: Option<NonZeroU64>,
    /// Number of rounds. Every contender has a turn in each; the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
    /// Transport of the requests; may be given more than once. Default: all.
    #[arg(long, value_enum)]
    transport: Vec<Carrier>,
    /// Measure this contender alone, for example under a profiler.
    #[arg(long, value_enum)]
    only: Option<Contender>,
    /// Use a new connection, or a new stream of the one libp2p connection, for each request.
    #[arg(long)]
    fresh: bool,
    /// Measure an honest caller instead: alone, and beside a hostile peer.
    #[arg(long, conflicts_with_all = ["requests", "only", "fresh", "callers", "bytes"])]
    hostile: bool,
    /// Requests per second of the honest caller.
    #[arg(long, default_value_t = 50, requires = "hostile", value_parser = clap::value_parser!(u16).range(1..=1000))]
    rate: u16,
}

/// A transport for HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Carrier {
    /// A plain socket; for a node the port of its WebSocket network.
    Tcp,
    /// The same with TLS.
    Tls,
    /// Streams of one libp2p connection: TCP, Noise, Yamux.
    P2p,
}

impl Carrier {
    const ALL: [Self; 3] = [Self::Tcp, Self::Tls, Self::P2p];

    /// The name in the rows.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::P2p => "p2p",
        }
    }

    /// The transports in `asked`; all if it is empty.
    pub(crate) fn chosen(asked: &[Self]) -> Vec<Self> {
        if asked.is_empty() { Self::ALL.to_vec() } else { asked.to_vec() }
    }
}

/// A server and client that are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Contender {
    /// hyper at both ends, with a connection or stream per caller.
    Bare,
    /// The server of a node, with the callers of the bare contender. On TCP and TLS.
    Server,
    /// A node at both ends.
    Ours,
    /// axum's server and the pooled client of hyper-util, as an application would have them. On TCP and TLS.
    Usual,
}

impl Contender {
    const ALL: [Self; 4] = [Self::Bare, Self::Server, Self::Ours, Self::Usual];

    /// The contenders on a transport.
    fn on(carrier: Carrier) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |each| match each {
            Self::Bare | Self::Ours => true,
            Self::Server | Self::Usual => carrier != Carrier::P2p,
        })
    }

    fn name(self, carrier: Carrier) -> &'static str {
        match (self, carrier) {
            (Self::Bare, Carrier::Tcp) => "hyper on tcp",
            (Self::Bare, Carrier::Tls) => "hyper on tokio-rustls",
            (Self::Bare, Carrier::P2p) => "hyper on libp2p-stream",
            (Self::Server, _) => "our server, hyper's client",
            (Self::Ours, _) => "ours",
            (Self::Usual, _) => "axum, hyper-util's client",
        }
    }
}

/// The use of connections and streams after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reuse {
    /// They are kept for further requests.
    Kept,
    /// Each carries one request.
    Fresh,
}

impl Reuse {
    fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Fresh => "fresh",
        }
    }
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
struct Plan {
    contender: Contender,
    carrier: Carrier,
    callers: usize,
    bytes: usize,
    reuse: Reuse,
    amount: Amount,
}

/// Measures every combination of transport, number of callers and size, and prints a row for each contender.
pub(crate) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    if args.hostile {
        return hostile::run(args, output);
    }
    let mut failed = 0;
    for carrier in Carrier::chosen(&args.transport) {
        for &bytes in &args.bytes {
            for &callers in &args.callers {
                for row in measure(args, carrier, usize::try_from(bytes)?, callers.into())? {
                    if row.contender == Some(Contender::Ours.name(carrier)) {
                        failed += row.failed.unwrap_or(0);
                    }
                    output.add(row)?;
                }
            }
        }
    }
    output.finish()?;
    if failed > 0 {
        return Err(format!("{failed} requests of ours failed").into());
    }
    Ok(())
}

fn measure(
    args: &Args,
    carrier: Carrier,
    bytes: usize,
    callers: usize,
) -> Result<Vec<Row>, Failure> {
    let contenders: Vec<Contender> =
        Contender::on(carrier).filter(|each| args.only.is_none_or(|only| only == *each)).collect();
    let amount = match args.requests {
        Some(requests) => Amount::Requests(requests.get()),
        None => {
            let time = Duration::try_from_secs_f64(args.seconds)?;
            Amount::Time { warm_up: WARM_UP, time }
        }
    };
    let reuse = if args.fresh { Reuse::Fresh } else { Reuse::Kept };
    let mut outcomes = vec![Vec::new(); contenders.len()];
    for round in 1..=args.rounds {
        for (contender, outcomes) in contenders.iter().zip(&mut outcomes) {
            let contender = *contender;
            let outcome = race::run(Plan { contender, carrier, callers, bytes, reuse, amount })?;
            let name = contender.name(carrier);
            eprintln!(
                "round {round}/{} {} {name}, {callers} callers, {bytes} B: {outcome}",
                args.rounds,
                carrier.name()
            );
            outcomes.push(outcome);
        }
    }
    let middle = |outcomes: &[Outcome], of: fn(&Outcome) -> Option<f64>| {
        median(&outcomes.iter().filter_map(of).collect::<Vec<_>>())
    };
    let bare = contenders.iter().zip(&outcomes).find(|(each, _)| **each == Contender::Bare);
    let to_bare = |outcomes: &[Outcome], of: fn(&Outcome) -> Option<f64>| {
        Some(middle(outcomes, of)? / middle(bare?.1, of)?)
    };
    let rows = contenders.iter().zip(&outcomes).map(|(contender, outcomes)| {
        let is_bare = *contender == Contender::Bare;
        Row {
            bench: "http",
            transport: carrier.name(),
            contender: Some(contender.name(carrier)),
            streams: Some(reuse.name()),
            callers: Some(callers),
            bytes: Some(bytes),
            requests_per_s: middle(outcomes, |each| Some(each.per_s)),
            p50_us: middle(outcomes, |each| each.p50_us),
            p99_us: middle(outcomes, |each| each.p99_us),
            failed: Some(outcomes.iter().map(|each| each.failed).sum()),
            ratio_to_bare: to_bare(outcomes, |each| Some(each.per_s)).filter(|_| !is_bare),
            cpu_ratio_to_bare: to_bare(outcomes, |each| each.per_cpu_s).filter(|_| !is_bare),
            ..Row::default()
        }
    });
    Ok(rows.collect())
}
