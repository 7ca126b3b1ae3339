//! A flooder that was cut and comes back at once, over real sockets: its host pays at the door and in its pace, and an
//! honest peer at the same address is let in and loses nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use broadcaster::{LaneRates, Limits, Rate, Rates};
use gossip::{Inbound, Tag, Verdict};
use tandem::NodeBuilder;
use testkit::{
    hostile::{Attack, Attacker, Carrier, NEIGHBOURS_VOTE, hub_with, neighbour},
    wait::eventually,
};
use tokio_util::sync::CancellationToken;

/// Votes that a peer may send at once.
const BURST: u64 = 20_000;

/// Time for which the flooder comes back.
const LASTING: Duration = Duration::from_secs(10);

/// Time until the last vote of the honest peer is handled, behind those of the flooder.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
struct Heard {
    flood: AtomicU64,
    neighbour: AtomicU64,
}

/// Rates at which a flooder is cut soon.
fn limits() -> Limits {
    let rates = Rates::default()
        .with_gossip(LaneRates::each(Rate::new(2_000, BURST)))
        .with_flood_after(Duration::from_millis(500));
    Limits::default().with_rates(rates)
}

// Issue 8, 24: a flooder that was cut came back at once with a new burst.
async fn check(attack: Attack, carrier: Carrier) {
    let _permit = crate::beside_one_other().await;
    let (root, heard) = (CancellationToken::new(), Arc::new(Heard::default()));
    let ear = Arc::clone(&heard);
    let listen = move |message: Inbound| {
        let is_neighbours = message.body.starts_with(&NEIGHBOURS_VOTE);
        let count = if is_neighbours { &ear.neighbour } else { &ear.flood };
        count.fetch_add(1, Relaxed);
        async { Verdict::Ignore }
    };
    let built = |builder: NodeBuilder| builder.limits(limits()).handler(Tag::AV, listen);
    let (hub, target) = Box::pin(hub_with(&root, built)).await.expect("the hub starts");
    let attacker = Attacker::start(attack, &target, 1).expect("a thread");
    let tally = attacker.tally().clone();
    eventually("the flooder is cut", PATIENCE, || tally.counts().first_cut).await;
    let all = async |sent| {
        let count = || (heard.neighbour.load(Relaxed) >= sent).then_some(());
        eventually("every vote of the honest peer is handled", PATIENCE, count).await;
    };
    let honest = neighbour(&target, carrier, LASTING, all).await;
    let counts = tally.counts();
    drop(attacker);
    let flood = heard.flood.load(Relaxed);
    println!(
        "{attack:?}: {counts:?}, {flood} votes of the flood heard; the honest peer: {honest:?}"
    );
    assert!(counts.cut > 1, "it came back: {counts:?}");
    assert!(flood < 4 * BURST, "{flood} votes got in, bursts of {BURST}: {counts:?}");
    assert!(honest.stayed, "the honest peer was cut: {honest:?}");
    assert!(honest.tries < 40, "the honest peer was shut out: {honest:?}");
    // The test is over; a forced stop changes nothing.
    let _ = hub.stop(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flooder_that_comes_back_over_websocket_pays_and_its_neighbour_loses_nothing() {
    check(Attack::VotesWs, Carrier::WebSocket).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flooder_that_comes_back_over_libp2p_pays_and_its_neighbour_loses_nothing() {
    check(Attack::VotesP2p, Carrier::Libp2p).await;
}
