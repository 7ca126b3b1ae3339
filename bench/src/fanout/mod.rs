//! One node to many peers over loopback.
//!
//! ```text
//!   publisher ──▶ contender: raw | one write | ours ──▶ N receivers ──▶ Meter
//! ```
//!
//! # Invariants
//!
//! * The contenders of a row take turns within one run, each on a fresh runtime of two workers.
//! * All send the same messages, tag and number included, through the same window.

mod one_write;
mod ours;
mod race;
mod raw;

use std::time::Duration;

use clap::ValueEnum;

pub(crate) use one_write::web_socket_config;

use crate::{
    error::Failure,
    row::{Output, Row},
    stats::median,
};

/// Settings of `bench fanout`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Receivers.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u8).range(1..=200))]
    peers: u8,
    /// Bytes of a message's body; may be given more than once. At most what an AV may have.
    #[arg(long, default_values_t = [200, 1024], value_parser = clap::value_parser!(u16).range(8..=1228))]
    bytes: Vec<u16>,
    /// Seconds each contender is measured in each round.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Rounds, in each of which every contender has a turn. The median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
    /// Transport; may be given more than once. Default: both.
    #[arg(long, value_enum)]
    transport: Vec<Transport>,
    /// Measure only this contender, as for a profiler.
    #[arg(long, value_enum)]
    only: Option<Contender>,
}

/// What carries the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Transport {
    /// WebSocket.
    Ws,
    /// A gossip stream of libp2p: TCP, Noise, Yamux.
    P2p,
}

impl Transport {
    const ALL: [Self; 2] = [Self::Ws, Self::P2p];

    /// Name in rows.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ws => "ws",
            Self::P2p => "p2p",
        }
    }

    /// Those that were asked for, or all.
    pub(crate) fn chosen(asked: &[Self]) -> Vec<Self> {
        if asked.is_empty() { Self::ALL.to_vec() } else { asked.to_vec() }
    }
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Contender {
    /// A queue per peer and vectored writes to plain TCP sockets.
    Raw,
    /// A queue per peer and one write and flush per message.
    OneWrite,
    /// A Tandem node.
    Ours,
}

impl Contender {
    const ALL: [Self; 3] = [Self::Raw, Self::OneWrite, Self::Ours];
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
struct Plan {
    contender: Contender,
    transport: Transport,
    peers: usize,
    bytes: usize,
    time: Duration,
}

/// Measures every transport and size, and prints a row for each.
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
    let time = Duration::try_from_secs_f64(args.seconds)?;
    let peers = usize::from(args.peers);
    let mut rates = vec![Vec::new(); contenders.len()];
    for round in 1..=args.rounds {
        for (contender, rates) in contenders.iter().zip(&mut rates) {
            let plan = Plan { contender: *contender, transport, peers, bytes, time };
            let rate = race::run(plan)?;
            let (transport, rounds) = (transport.name(), args.rounds);
            eprintln!("round {round}/{rounds} {transport} {bytes} B {contender:?}: {rate:.0}/s");
            rates.push(rate);
        }
    }
    let middle = |wanted: Contender| {
        let found = contenders.iter().zip(&rates).find(|(each, _)| **each == wanted);
        found.and_then(|(_, rates)| median(rates))
    };
    let ratio = |to: Option<f64>| Some(middle(Contender::Ours)? / to?);
    let (raw, one_write) = (middle(Contender::Raw), middle(Contender::OneWrite));
    Ok(Row {
        bench: "fanout",
        transport: transport.name(),
        peers: Some(peers),
        bytes: Some(bytes),
        deliveries_per_s: middle(Contender::Ours),
        raw_per_s: raw,
        one_write_per_s: one_write,
        ratio_to_raw: ratio(raw),
        ratio_to_one_write: ratio(one_write),
        ..Row::default()
    })
}
