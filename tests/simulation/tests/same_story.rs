//! One seed gives one trace. Issue 9, 9.

use std::process::Command;

use testkit::simulation::{MESSAGES, NODES};

/// The handled messages of a seed, each on a line.
fn story(seed: u64) -> String {
    let run = Command::new(env!("CARGO_BIN_EXE_simulation")).arg(seed.to_string()).output();
    let run = run.expect("the program starts");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).expect("it prints text")
}

#[test]
fn three_hybrid_nodes_handle_the_same_messages_at_the_same_times_for_the_same_seed() {
    for seed in 1..=5 {
        let (one, again) = (story(seed), story(seed));
        let differ = one.lines().zip(again.lines()).find(|(one, again)| one != again);
        assert_eq!(differ, None, "seed {seed}");
        assert_eq!(one.lines().count(), NODES * (NODES - 1) * MESSAGES, "seed {seed}");
        assert_eq!(again.lines().count(), one.lines().count(), "seed {seed}");
    }
}

#[test]
fn another_seed_is_another_story() {
    assert_ne!(story(1), story(2));
}
