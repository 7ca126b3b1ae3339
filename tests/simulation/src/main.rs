//! Runs the simulation of a seed and prints each handled message on a line: `simulation SEED`.
//!
//! # Invariants
//!
//! * One process runs one simulation: the library's connection numbers and the standard library's hash keys
//!   depend on earlier ones in the same process.
//! * All random bytes come from the seed: hash keys, the keys of Noise, the choices of GossipSub. This is the
//!   only unsafe code of the project, and it is not shipped.

use std::{
    env,
    process::ExitCode,
    slice,
    sync::atomic::{AtomicU64, Ordering},
};

use testkit::simulation;
use tokio::runtime::Builder;

/// The state of the generator; the seed is its first value.
static STATE: AtomicU64 = AtomicU64::new(0);

/// The next random number. Source: Steele, Lea and Flood, "SplitMix64".
fn next() -> u64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut mixed = STATE.fetch_add(STEP, Ordering::Relaxed);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Replaces the system's `getrandom`.
///
/// # Safety
///
/// `into` must point to `len` writable bytes, as for the original.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(into: *mut u8, len: usize, _flags: u32) -> isize {
    if len > 0 {
        // SAFETY: the caller guarantees that the bytes are writable.
        let into = unsafe { slice::from_raw_parts_mut(into, len) };
        into.iter_mut().for_each(|byte| *byte = (next() >> 24) as u8);
    }
    len as isize
}

fn main() -> ExitCode {
    let Some(seed) = env::args().nth(1).and_then(|seed| seed.parse().ok()) else {
        eprintln!("usage: simulation SEED");
        return ExitCode::from(2);
    };
    STATE.store(seed, Ordering::Relaxed);
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    for handled in runtime.block_on(simulation::run(seed)) {
        let simulation::Handled { at, node, tag, about: [sender, number], len } = handled;
        println!(
            "{:.6} s: node {node} handled {tag} {number} of node {sender}, {len} bytes",
            at.as_secs_f64()
        );
    }
    ExitCode::SUCCESS
}
