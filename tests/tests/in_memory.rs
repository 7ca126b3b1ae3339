//! Whole nodes on a network in memory, with the clock paused. That a seed decides everything takes a libp2p
//! whose timers can be paused too: see `tests/simulation`.

#![allow(clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;

use testkit::simulation::{self, MESSAGES, NODES};

// Issue 9, 9.
#[tokio::test(start_paused = true)]
async fn three_hybrid_nodes_in_memory_hear_each_other_over_both_transports() {
    let trace = simulation::run(1).await;
    for node in 0..NODES {
        let heard = trace.iter().filter(|handled| handled.node == node);
        let about: Vec<_> = heard.map(|handled| handled.about).collect();
        let each: BTreeSet<_> = about.iter().copied().collect();
        assert_eq!(each.len(), (NODES - 1) * MESSAGES, "node {node} misses some");
        assert_eq!(about.len(), each.len(), "node {node} handled some twice");
    }
}
