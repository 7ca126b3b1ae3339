//! An honest caller, alone and beside a peer that does its worst.
//!
//! ```text
//!   honest caller ──▶ node, limits as shipped ◀── attack: a process of its own, at the lowest priority
//!       └──▶ p99 alone, p99 under attack
//! ```
//!
//! # Invariants
//!
//! * The attack has another address, or another key, than the honest caller.
//! * It has a process of its own, and takes only what the others leave of the processor: what it costs
//!   to attack is not what is measured, what it costs to be attacked is.

mod attack;
mod drive;

use std::time::Duration;

pub(crate) use attack::{Attack, attack};

use super::{Args, Carrier};
use crate::{
    error::Failure,
    row::{Output, Row},
    stats::median,
};

/// Measures TCP and libp2p, or which of them was asked for.
pub(super) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let time = Duration::try_from_secs_f64(args.seconds)?;
    let period = Duration::from_secs(1) / u32::from(args.rate);
    let mut failed = 0;
    for carrier in Carrier::chosen(&args.transport) {
        if carrier == Carrier::Tls {
            // The server is the same as on TCP.
            continue;
        }
        let (mut alone, mut attacked) = (Vec::new(), Vec::new());
        for round in 1..=args.rounds {
            let turn = drive::run(carrier, period, time)?;
            eprintln!("round {round}/{} {}: {turn}", args.rounds, carrier.name());
            alone.push(turn.alone);
            attacked.push(turn.attacked);
        }
        let alone = row(carrier, "honest caller alone", &alone);
        let mut attacked = row(carrier, "honest caller, attacked", &attacked);
        attacked.p99_ratio_to_alone = attacked.p99_us.zip(alone.p99_us).map(|(a, b)| a / b);
        failed += alone.failed.unwrap_or(0) + attacked.failed.unwrap_or(0);
        output.add(alone)?;
        output.add(attacked)?;
    }
    output.finish()?;
    if failed > 0 {
        return Err(format!("{failed} requests of the honest caller failed").into());
    }
    Ok(())
}

fn row(carrier: Carrier, contender: &'static str, turns: &[super::Paced]) -> Row {
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
