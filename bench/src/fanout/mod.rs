//! `bench fanout`: one node to many peers over loopback.
//!
//! ```text
//!   publisher ──▶ contender: raw | one write | batched | ours ──▶ N receivers ──▶ Meter
//! ```
//!
//! # Invariants
//!
//! * The contenders of a row take turns within one run, each on a fresh runtime with two workers.
//! * All contenders send the same messages, tag and number included, through the same window.

mod by_hand;
mod ours;
mod quic;
mod race;
mod raw;
mod stage;

use std::{num::NonZeroU64, time::Duration};

use clap::ValueEnum;

pub(crate) use by_hand::web_socket_config;
use race::{Amount, Pace};

use crate::{
    error::Failure,
    row::{Output, Row},
    stats::median,
    transport::Transport,
};

/// Time before a measurement starts. Chosen: the kernel's windows and buffers have grown by then.
const WARM_UP: Duration = Duration::from_millis(500);

/// Settings of `bench fanout`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Number of receivers.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u8).range(1..=200))]
    peers: u8,
    /// Size of a message's body, in bytes; may be given more than once. At most the bound of AV.
    #[arg(long, default_values_t = [200, 1024], value_parser = clap::value_parser!(u16).range(8..=1228))]
    bytes: Vec<u16>,
    /// Time for which each contender is measured in each round, in seconds.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Number of messages per contender and round, instead of a time: for a profiler that counts instructions.
    #[arg(long, conflicts_with = "seconds")]
    messages: Option<NonZeroU64>,
    /// Number of rounds. Every contender has a turn in each; the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
    /// Transport; may be given more than once. Default: all.
    #[arg(long, value_enum)]
    transport: Vec<Transport>,
    /// Measure this contender alone, for example under a profiler.
    #[arg(long, value_enum)]
    only: Option<Contender>,
}

/// A sender that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Contender {
    /// A queue per peer and vectored writes to plain TCP sockets, or to streams of bare quinn.
    Raw,
    /// A queue per peer and one write and flush per message.
    OneWrite,
    /// A queue per peer, and up to 256 waiting messages in one write and flush.
    Batched,
    /// A Tandem node.
    Ours,
}

impl Contender {
    const ALL: [Self; 4] = [Self::Raw, Self::OneWrite, Self::Batched, Self::Ours];
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
struct Plan {
    contender: Contender,
    transport: Transport,
    peers: usize,
    bytes: usize,
    amount: Amount,
}

/// Measures every transport and size, and prints a row for each pair.
pub(crate) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    for transport in Transport::chosen(&args.transport) {
        for &bytes in &args.bytes {
            output.add(measure(args, transport, bytes.into())?)?;
        }
    }
    output.finish()
}

fn measure(args: &Args, transport: Transport, bytes: usize) -> Result<Row, Failure> {
    let contenders: Vec<Contender> = Contender::ALL
        .into_iter()
        .filter(|each| args.only.is_none_or(|only| only == *each))
        .collect();
    let amount = match args.messages {
        Some(messages) => Amount::Messages(messages.get()),
        None => {
            let time = Duration::try_from_secs_f64(args.seconds)?;
            Amount::Time { warm_up: WARM_UP, time }
        }
    };
    let peers = usize::from(args.peers);
    let mut paces = vec![Vec::new(); contenders.len()];
    for round in 1..=args.rounds {
        for (contender, paces) in contenders.iter().zip(&mut paces) {
            let plan = Plan { contender: *contender, transport, peers, bytes, amount };
            let pace = race::run(plan)?;
            let (transport, rounds, per_s) = (transport.name(), args.rounds, pace.per_s);
            let per_cpu_s = pace.per_cpu_s.unwrap_or(f64::NAN);
            eprintln!(
                "round {round}/{rounds} {transport} {bytes} B {contender:?}: {per_s:.0}/s, \
                 {per_cpu_s:.0} per processor second"
            );
            paces.push(pace);
        }
    }
    let middle = |wanted: Contender, of: fn(&Pace) -> Option<f64>| {
        let (_, paces) = contenders.iter().zip(&paces).find(|(each, _)| **each == wanted)?;
        median(&paces.iter().filter_map(of).collect::<Vec<_>>())
    };
    let per_s = |wanted| middle(wanted, |pace| Some(pace.per_s));
    let per_cpu_s = |wanted| middle(wanted, |pace| pace.per_cpu_s);
    Ok(Row {
        bench: "fanout",
        transport: transport.name(),
        peers: Some(peers),
        bytes: Some(bytes),
        deliveries_per_s: per_s(Contender::Ours),
        raw_per_s: per_s(Contender::Raw),
        one_write_per_s: per_s(Contender::OneWrite),
        batched_per_s: per_s(Contender::Batched),
        ratio_to_raw: ratio(per_s(Contender::Ours), per_s(Contender::Raw)),
        ratio_to_one_write: ratio(per_s(Contender::Ours), per_s(Contender::OneWrite)),
        ratio_to_batched: ratio(per_s(Contender::Ours), per_s(Contender::Batched)),
        cpu_ratio_to_raw: ratio(per_cpu_s(Contender::Ours), per_cpu_s(Contender::Raw)),
        cpu_ratio_to_one_write: ratio(per_cpu_s(Contender::Ours), per_cpu_s(Contender::OneWrite)),
        cpu_ratio_to_batched: ratio(per_cpu_s(Contender::Ours), per_cpu_s(Contender::Batched)),
        ..Row::default()
    })
}

fn ratio(ours: Option<f64>, theirs: Option<f64>) -> Option<f64> {
    Some(ours? / theirs?)
}
