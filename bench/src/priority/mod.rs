//! `bench priority`: priority messages while bulk fills a slow link.
//!
//! ```text
//!   open loop, one AV every 5 ms ──▶ contender ──▶ link of 200 Mbit/s ──▶ Probe: latencies
//!   some bulk always waiting     ──▶                                  ──▶ Probe: goodput
//! ```
//!
//! # Invariants
//!
//! * Both ends are in this process, in a network namespace of its own, and use the same clock.
//! * A priority message is sent at its time, even if earlier ones have not arrived.
//! * HTTP requests go in the other direction, to the end that sends votes and bulk: the answers compete with
//!   both, over the same port or the same libp2p connection.
//! * The goodput of a contender is compared with that of a raw TCP sender on the same link.

mod drive;
mod dual_queue;
mod namespace;
mod ours;
mod probe;
mod raw;
mod stage;

use std::time::Duration;

use tokio::runtime::Builder;

use crate::{
    error::Failure,
    row::{Output, Row},
    transport::Transport,
};

pub(crate) use namespace::InNamespace;

/// Longest time for a contender to stop.
const TEARDOWN: Duration = Duration::from_secs(5);

/// Time for which bulk flows before a measurement: every buffer on the path is full by then.
const WARM_UP: Duration = Duration::from_secs(3);

/// Settings of `bench priority`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Size of a bulk message, in bytes; may be given more than once.
    #[arg(long, default_values_t = [65_536], value_parser = clap::value_parser!(u32).range(1_024..=6_000_000))]
    bulk_bytes: Vec<u32>,
    /// Time for which each contender is measured, in seconds.
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
    /// Transport; may be given more than once. Default: all.
    #[arg(long, value_enum)]
    transport: Vec<Transport>,
    /// HTTP requests per second to the node during a second measurement of each transport.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    http: Option<u16>,
    /// Set by the bench when it starts itself in a network namespace.
    #[arg(long, hide = true, value_enum, default_value_t)]
    namespace: InNamespace,
}

/// A sender that is measured.
#[derive(Clone, Copy, Debug)]
enum Contender {
    /// Bulk only, over a plain TCP socket: the capacity of the link.
    Raw,
    /// A WebSocket with two queues and no low-water mark, as in existing nodes.
    DualQueue,
    /// A Tandem node.
    Ours(Transport),
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
struct Plan {
    contender: Contender,
    bulk_bytes: usize,
    /// Time between two HTTP requests, for a node only.
    http: Option<Duration>,
    warm_up: Duration,
    time: Duration,
}

/// Measures every transport, or reports why it cannot.
pub(crate) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    if args.namespace == InNamespace::No {
        return match namespace::enter()? {
            namespace::Entered::Done => Ok(()),
            namespace::Entered::Impossible { reason } => {
                eprintln!("bench: priority needs a network namespace with tc: {reason}");
                output.skip("priority", reason)
            }
        };
    }
    let time = Duration::try_from_secs_f64(args.seconds)?;
    for &bulk_bytes in &args.bulk_bytes {
        let bulk_bytes = usize::try_from(bulk_bytes)?;
        let plan = |contender| Plan { contender, bulk_bytes, http: None, warm_up: WARM_UP, time };
        let raw = measure(plan(Contender::Raw))?;
        output.add(row("raw", bulk_bytes, &raw, &raw))?;
        let dual = measure(plan(Contender::DualQueue))?;
        output.add(row("ws_dual_queue", bulk_bytes, &dual, &raw))?;
        for transport in Transport::chosen(&args.transport) {
            let plan = plan(Contender::Ours(transport));
            let alone = measure(plan)?;
            output.add(row(transport.name(), bulk_bytes, &alone, &raw))?;
            let Some(rate) = args.http else { continue };
            let period = Duration::from_secs(1) / u32::from(rate);
            let ours = measure(Plan { http: Some(period), ..plan })?;
            output.add(Row {
                contender: Some("with http"),
                p99_ratio_to_alone: ours.p99_ms.zip(alone.p99_ms).map(|(with, p99)| with / p99),
                ..row(transport.name(), bulk_bytes, &ours, &raw)
            })?;
        }
    }
    output.finish()
}

fn measure(plan: Plan) -> Result<probe::Report, Failure> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let report = runtime.block_on(drive::run(plan));
    runtime.shutdown_timeout(TEARDOWN);
    let report = report?;
    eprintln!("{:?} {} B: {report}", plan.contender, plan.bulk_bytes);
    Ok(report)
}

fn row(transport: &'static str, bytes: usize, report: &probe::Report, raw: &probe::Report) -> Row {
    Row {
        bench: "priority",
        transport,
        peers: Some(1),
        bytes: Some(bytes),
        p50_ms: report.p50_ms,
        p99_ms: report.p99_ms,
        goodput_ratio: Some(report.goodput / raw.goodput),
        goodput_mb_per_s: Some(report.goodput / 1e6),
        lost: report.p50_ms.map(|_| report.lost),
        requests_per_s: report.http.as_ref().map(|http| http.per_s),
        p50_us: report.http.as_ref().and_then(|http| http.paced.latencies.quantile_us(0.5)),
        p99_us: report.http.as_ref().and_then(|http| http.paced.latencies.quantile_us(0.99)),
        failed: report.http.as_ref().map(|http| http.paced.failed),
        ..Row::default()
    }
}
