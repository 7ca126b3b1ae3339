//! `bench observed`: a relay that is looked at, beside one that is not.
//!
//! ```text
//!   senders ──votes──▶ tandem run ──▶ N receivers          ◀── collector, dashboard, once a second
//!   honest pair ──votes, transactions──▶ and back           (one turn with them, one without)
//! ```
//!
//! # Invariants
//!
//! * The node is the program as it is installed, in a process of its own; its processor time is the figure, since
//!   senders, receivers and onlookers share the machine with it.
//! * A node without onlookers keeps no traces and opens no port for them. Both kinds take turns, each with a new node.

mod node;
mod onlookers;

use std::{env, path::PathBuf, time::Duration};

use testkit::hostile::Measured;
use tokio::runtime::Builder;

use crate::{
    error::Failure,
    row::{Output, Row},
    stats::median,
};

/// Settings of `bench observed`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The program `tandem`; the one beside this program if left out.
    #[arg(long)]
    program: Option<PathBuf>,
    /// Number of receivers.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u8).range(1..=100))]
    peers: u8,
    /// Number of senders.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..=100))]
    senders: u8,
    /// Votes a second of each sender.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Time of each turn, in seconds.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Number of rounds, with a turn of each kind; the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
}

/// One measurement.
#[derive(Clone, Debug)]
struct Plan {
    program: PathBuf,
    peers: usize,
    senders: usize,
    rate: u32,
    time: Duration,
}

/// Those who look at the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Onlookers {
    Nobody,
    /// A collector of metrics, a dashboard, and the way of one message in a thousand.
    All,
}

impl Onlookers {
    const EACH: [Self; 2] = [Self::Nobody, Self::All];

    const fn name(self) -> &'static str {
        match self {
            Self::Nobody => "unobserved",
            Self::All => "observed",
        }
    }
}

/// The result of a turn.
#[derive(Debug)]
struct Pace {
    /// Deliveries to the receivers per second.
    deliveries_per_s: f64,
    /// The same, per second of the node's processor time.
    deliveries_per_cpu_s: f64,
    /// Votes and transactions of the honest pair.
    pair: Measured,
    /// Looks of the onlookers that were answered.
    looks: u64,
}

/// Measures both kinds, and prints a row for each.
pub(crate) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let beside = env::current_exe()?.with_file_name("tandem");
    let plan = Plan {
        program: args.program.clone().unwrap_or(beside),
        peers: args.peers.into(),
        senders: args.senders.into(),
        rate: args.rate,
        time: Duration::try_from_secs_f64(args.seconds)?,
    };
    let mut paces: [Vec<Pace>; 2] = Default::default();
    for round in 1..=args.rounds {
        for (onlookers, paces) in Onlookers::EACH.into_iter().zip(&mut paces) {
            let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            let pace = runtime.block_on(node::measure(&plan, onlookers))?;
            eprintln!(
                "round {round}/{} {}: {:.0} deliveries/s, {:.0} per processor second, p99 {:.1} ms, {} looks",
                args.rounds,
                onlookers.name(),
                pace.deliveries_per_s,
                pace.deliveries_per_cpu_s,
                pace.pair.votes.quantile(0.99).as_secs_f64() * 1e3,
                pace.looks,
            );
            paces.push(pace);
        }
    }
    let middle =
        |paces: &[Pace], of: fn(&Pace) -> f64| median(&paces.iter().map(of).collect::<Vec<_>>());
    let quantile =
        |pace: &Pace, share: f64| pace.pair.votes.quantile(share).as_secs_f64() * 1_000.0;
    let per_cpu = |paces: &[Pace]| middle(paces, |pace| pace.deliveries_per_cpu_s);
    let alone = per_cpu(&paces[0]);
    for (onlookers, paces) in Onlookers::EACH.into_iter().zip(&paces) {
        let latencies = |share: f64| {
            median(&paces.iter().map(|pace| quantile(pace, share)).collect::<Vec<_>>())
        };
        output.add(Row {
            bench: "observed",
            transport: "ws",
            contender: Some(onlookers.name()),
            peers: Some(plan.peers),
            bytes: Some(node::VOTE_BYTES),
            deliveries_per_s: middle(paces, |pace| pace.deliveries_per_s),
            p50_ms: latencies(0.5),
            p99_ms: latencies(0.99),
            lost: Some(paces.iter().map(|pace| pace.pair.votes.lost as u64).sum()),
            lost_transactions: Some(
                paces.iter().map(|pace| pace.pair.transactions.lost as u64).sum(),
            ),
            cpu_ratio_to_unobserved: per_cpu(paces).zip(alone).map(|(ours, alone)| ours / alone),
            ..Row::default()
        })?;
    }
    output.finish()
}
