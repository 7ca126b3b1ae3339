//! `bench votes`: the processor time of a WebSocket relay per vote, by the form in which its peers send and read votes.
//!
//! ```text
//!   sender, one form ──▶ relay, on a thread of its own ──▶ N receivers, the same form ──▶ Meter
//! ```
//!
//! # Invariants
//!
//! * The processor time is that of the relay's threads alone.
//! * All forms carry the same votes, take turns within one run, and have their receivers check every one.

mod made;
mod turn;

use std::time::Duration;

use clap::ValueEnum;
use gossip::{
    Tag,
    wire::{
        features::{MAX_TABLE, VoteCompression},
        vote,
    },
};

use crate::{
    error::Failure,
    receiver::Counted,
    row::{Output, Row},
    stats::median,
};

/// Settings of `bench votes`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Number of receivers.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u8).range(1..=200))]
    peers: u8,
    /// Time for which each form is measured in each round, in seconds.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Number of rounds. Every form has a turn in each; the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
    /// Votes a second; 0 for as many as arrive.
    #[arg(long, default_value_t = 0)]
    rate: u32,
    /// Number of voters, each with one vote in a round. More than a table has entries make it forget.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    voters: u32,
    /// Measure this form alone, for example under a profiler.
    #[arg(long, value_enum)]
    only: Option<Form>,
}

/// The form of all votes of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// As a message of its own.
    Plain,
    /// Packed by itself.
    Stateless,
    /// Packed against earlier ones.
    Stateful,
}

impl Form {
    const ALL: [Self; 3] = [Self::Plain, Self::Stateless, Self::Stateful];

    const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Stateless => "stateless",
            Self::Stateful => "stateful",
        }
    }

    const fn setting(self) -> VoteCompression {
        match self {
            Self::Plain => VoteCompression::Off,
            Self::Stateless => VoteCompression::Stateless,
            Self::Stateful => VoteCompression::Stateful(MAX_TABLE as u32),
        }
    }

    /// The messages in this form; the credential of a vote begins with its number.
    const fn counted(self) -> Counted {
        match self {
            Self::Plain => Counted { tag: Tag::AV, at: 12 },
            Self::Stateless => Counted { tag: Tag::AV, at: 2 },
            Self::Stateful => Counted { tag: Tag::VP, at: 2 },
        }
    }
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
struct Plan {
    form: Form,
    peers: usize,
    time: Duration,
    rate: u32,
    voters: u32,
}

/// The result of one turn.
#[derive(Clone, Copy, Debug)]
struct Pace {
    votes_per_s: f64,
    cpu_us_per_vote: f64,
    /// Length of a message to a peer, in bytes.
    bytes: f64,
}

/// Measures every form, and prints a row for each.
pub(crate) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let mut paces: [Vec<Pace>; 3] = Default::default();
    let (time, peers) = (Duration::try_from_secs_f64(args.seconds)?, usize::from(args.peers));
    for round in 1..=args.rounds {
        for (form, paces) in Form::ALL.into_iter().zip(&mut paces) {
            if args.only.is_some_and(|only| only != form) {
                continue;
            }
            let plan = Plan { form, peers, time, rate: args.rate, voters: args.voters };
            let pace = turn::run(plan)?;
            let Pace { votes_per_s, cpu_us_per_vote, bytes } = pace;
            let (form, rounds) = (form.name(), args.rounds);
            eprintln!(
                "round {round}/{rounds} {form}: {votes_per_s:.0} votes/s, {cpu_us_per_vote:.2} us, {bytes:.0} B"
            );
            paces.push(pace);
        }
    }
    let middle =
        |paces: &[Pace], of: fn(&Pace) -> f64| median(&paces.iter().map(of).collect::<Vec<_>>());
    let cost = |paces: &[Pace]| middle(paces, |pace| pace.cpu_us_per_vote);
    let plain = cost(&paces[0]);
    let measured = Form::ALL.into_iter().zip(&paces).filter(|(_, paces)| !paces.is_empty());
    for (form, paces) in measured {
        output.add(Row {
            bench: "votes",
            transport: "ws",
            contender: Some(form.name()),
            peers: Some(peers),
            bytes: middle(paces, |pace| pace.bytes).map(|bytes| bytes as usize),
            deliveries_per_s: middle(paces, |pace| pace.votes_per_s)
                .map(|rate| rate * f64::from(args.peers)),
            cpu_us_per_vote: cost(paces),
            cpu_ratio_to_plain: cost(paces).zip(plain).map(|(ours, plain)| ours / plain),
            ..Row::default()
        })?;
    }
    for (name, nanos) in made::codec_nanos(args.voters)? {
        output.add(Row {
            bench: "votes",
            contender: Some(name),
            bytes: Some(vote::MAX_PACKED_BYTES),
            cpu_us_per_vote: Some(nanos / 1_000.0),
            ..Row::default()
        })?;
    }
    output.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_delivers_every_vote_in_every_form() {
        for form in Form::ALL {
            let time = Duration::from_millis(500);
            let pace = turn::run(Plan { form, peers: 3, time, rate: 0, voters: 50 }).unwrap();
            assert!(pace.votes_per_s > 0.0 && pace.bytes > 100.0);
        }
    }
}
