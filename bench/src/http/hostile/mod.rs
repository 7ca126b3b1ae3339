//! `bench http --hostile`: an honest caller, alone and beside a hostile peer.
//!
//! ```text
//!   honest caller ──▶ node, default limits ◀── attack: a process of its own, at the lowest priority
//!       └──▶ p99 alone, p99 beside each kind of attack
//! ```
//!
//! # Invariants
//!
//! * The attacker has another address, or another key, than the honest caller.
//! * The attacker is a process at the lowest priority, so that the figures show the cost of being attacked, and
//!   not the cost of attacking.

mod attack;
mod drive;

use std::time::Duration;

use attack::AttackKind;
pub(crate) use attack::{Attack, attack};

use super::{Args, Carrier, Paced};
use crate::{
    error::Failure,
    row::{Output, Row},
    stats::median,
};

/// Measures TCP and libp2p, or the transports given.
pub(super) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let time = Duration::try_from_secs_f64(args.seconds)?;
    let period = Duration::from_secs(1) / u32::from(args.rate);
    let mut failed = 0;
    for carrier in Carrier::chosen(&args.transport) {
        if carrier == Carrier::Tls {
            // The server behind TLS is the one on TCP.
            continue;
        }
        let mut turns = Vec::new();
        for round in 1..=args.rounds {
            eprintln!("round {round}/{}", args.rounds);
            turns.push(drive::run(carrier, period, time)?);
        }
        let alone = row(carrier, "alone", turns.iter().map(|turn| &turn.alone));
        let alone_p99 = alone.p99_us;
        failed += alone.failed.unwrap_or(0);
        output.add(alone)?;
        for way in AttackKind::EVERY {
            let met = turns.iter().flat_map(|turn| &turn.attacked);
            let met = met.filter(|(each, _)| *each == way).map(|(_, met)| met);
            let mut row = row(carrier, way.name(), met);
            row.p99_ratio_to_alone = row.p99_us.zip(alone_p99).map(|(p99, alone)| p99 / alone);
            failed += row.failed.unwrap_or(0);
            output.add(row)?;
        }
    }
    output.finish()?;
    if failed > 0 {
        return Err(format!("{failed} requests of the honest caller failed").into());
    }
    Ok(())
}

fn row<'a>(
    carrier: Carrier,
    contender: &'static str,
    turns: impl Iterator<Item = &'a Paced>,
) -> Row {
    let turns: Vec<&Paced> = turns.collect();
    let middle = |share| {
        let values = turns.iter().filter_map(|turn| turn.latencies.quantile_us(share));
        median(&values.collect::<Vec<_>>())
    };
    Row {
        bench: "http-hostile",
        transport: carrier.name(),
        contender: Some(contender),
        p50_us: middle(0.5),
        p99_us: middle(0.99),
        failed: Some(turns.iter().map(|turn| turn.failed).sum()),
        ..Row::default()
    }
}
