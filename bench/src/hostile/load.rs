//! A load that harms nobody: it takes as much of the processors as an attack did, and sends nothing.

use std::{
    hint::black_box,
    io::Read,
    process, thread,
    time::{Duration, Instant},
};

use crate::error::Failure;

/// A thread computes for a share of each of these.
const PERIOD: Duration = Duration::from_millis(5);

/// Settings of the load.
#[derive(Debug, clap::Args)]
pub(crate) struct LoadArgs {
    /// Processors that it takes, as far as the others leave them.
    processors: f64,
}

/// Computes until standard input ends.
pub(crate) fn load(args: &LoadArgs) -> Result<(), Failure> {
    let mut left = args.processors.clamp(0.0, 64.0);
    while left > 0.0 {
        let share = left.min(1.0);
        left -= share;
        thread::spawn(move || compute(share));
    }
    println!("{{\"computes\":true}}");
    let mut nothing = Vec::new();
    std::io::stdin().read_to_end(&mut nothing)?;
    process::exit(0);
}

fn compute(share: f64) -> ! {
    loop {
        let began = Instant::now();
        while began.elapsed() < PERIOD.mul_f64(share) {
            black_box((0..1_000_u64).fold(0, |sum, number| sum ^ black_box(number)));
        }
        thread::sleep(PERIOD.saturating_sub(began.elapsed()));
    }
}
