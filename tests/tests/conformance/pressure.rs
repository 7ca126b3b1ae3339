//! Slow peers, floods, and handlers that misbehave.

use std::{collections::HashSet, num::NonZeroUsize, sync::Arc, time::Duration};

use broadcaster::{DropReason, LaneLimits, Limits};
use bytes::Bytes;
use futures::future;
use gossip::{Admission, DisconnectReason, Inbound, Outbound, PeerClass, Tag, Verdict};
use testkit::{
    harness::{Clock, Events, Harness, RawPeer, connect, fence, join, next_of},
    recorder::Recorder,
    wait::until,
};
use tokio::{
    sync::Semaphore,
    time::{self, Instant},
};

use crate::scene::{
    UNIT, body, broadcast, listeners, patient, plain, queued, recording, relay, send, stall,
};

pub(crate) async fn a_peer_that_stops_reading_is_cut_off_and_the_others_do_not_notice<
    H: Harness,
>() {
    let deadline = 2 * UNIT;
    let hub = H::start(plain().limits(patient().with_write_timeout(deadline))).await;
    let listeners = listeners(&hub, 2, &[Tag::VB, Tag::AV]).await;
    let (_raw, stalled) = join(&hub).await;
    let mut events = Events::of(hub.broadcaster());
    let (gossip, began) = (hub.gossip(), Instant::now());
    let mut sent = 0;
    while hub.broadcaster().peers(PeerClass::Connected).len() > 2 {
        assert!(began.elapsed() < 20 * UNIT, "it is never cut off");
        let message = body(&format!("bundle {sent}"), 256 * 1024);
        broadcast(&gossip, Tag::VB, &message);
        sent += 1;
        for (_, recorder, _) in &listeners {
            recorder.hears(&message).await;
        }
    }
    assert_eq!(events.disconnected(stalled).await, DisconnectReason::Slow);
    assert_eq!(hub.broadcaster().metrics().disconnects(DisconnectReason::Slow), 1);
    if H::CLOCK == Clock::Paused {
        let late = began.elapsed().saturating_sub(deadline);
        assert!(late < Duration::from_millis(20), "cut off {late:?} after its deadline");
    }
    broadcast(&gossip, Tag::AV, &body("last", 100));
    for (_, recorder, _) in &listeners {
        recorder.hears(&body("last", 100)).await;
        assert_eq!(recorder.count(), sent + 1);
    }
}

pub(crate) async fn a_priority_message_overtakes_waiting_bulk<H: Harness>() {
    let hub = H::start(plain()).await;
    let (mut raw, id) = join(&hub).await;
    let bulk = stall(&hub, id, 2 * 1024 * 1024).await;
    let vote = body("vote", 600);
    let waiting = queued(&hub, id) / bulk[0].len();
    broadcast(&hub.gossip(), Tag::AV, &vote);
    let last = body("last", 100);
    broadcast(&hub.gossip(), Tag::VB, &last);
    let mut behind = None;
    loop {
        let (tag, payload) = raw.recv().await.expect("the connection is open");
        match &mut behind {
            _ if payload == last => break,
            None if tag == Tag::AV => behind = Some(0),
            Some(count) if tag == Tag::VB => *count += 1,
            _ => {}
        }
    }
    let behind = behind.expect("the vote came");
    // One batch of bulk may have been in the socket already.
    assert!(behind + 4 >= waiting, "{behind} of {waiting} waiting messages came after the vote");
}

pub(crate) async fn bulk_is_not_starved_by_priority<H: Harness>() {
    let hub = H::start(plain()).await;
    let (mut raw, id) = join(&hub).await;
    let bulk = stall(&hub, id, 512 * 1024).await;
    let waiting = queued(&hub, id) / bulk[0].len();
    let votes = 2_000;
    for number in 0..votes {
        broadcast(&hub.gossip(), Tag::AV, &body(&format!("vote {number}"), 600));
    }
    let (mut heard, mut between) = (0, 0);
    while heard < votes {
        match raw.recv().await.expect("the connection is open") {
            (Tag::AV, _) => heard += 1,
            (Tag::VB, _) if heard > 0 => between += 1,
            _ => {}
        }
    }
    assert!(between + 2 >= waiting.min(votes / 33), "{between} of {waiting} came between votes");
}

/// A node with a small budget.
fn tight(budget_bytes: usize, lane_bytes: usize) -> Limits {
    let peer_bulk = LaneLimits::new(4_096, lane_bytes);
    patient().with_budget_bytes(budget_bytes).with_peer_bulk(peer_bulk)
}

pub(crate) async fn a_flood_stays_within_the_budget_and_every_drop_is_counted<H: Harness>() {
    flood::<H>(tight(4 * 1024 * 1024, 8 * 1024 * 1024), DropReason::BudgetFull).await;
}

pub(crate) async fn a_flood_stays_within_the_queue_of_a_peer_and_every_drop_is_counted<
    H: Harness,
>() {
    flood::<H>(tight(16 * 1024 * 1024, 1024 * 1024), DropReason::PeerFull).await;
}

/// Broadcasts more than three silent peers can take, and then lets them read.
async fn flood<H: Harness>(limits: Limits, expected: DropReason) {
    const FLOOD: usize = 600;
    let hub = H::start(plain().limits(limits)).await;
    let mut raws = Vec::new();
    for _ in 0..3 {
        raws.push(join(&hub).await.0);
    }
    let (gossip, budget) = (hub.gossip(), hub.broadcaster().budget().clone());
    let metrics = hub.broadcaster().metrics().clone();
    let (mut taken, mut refused) = (0, 0);
    let name = |number: usize| body(&format!("flood {number}"), 64 * 1024);
    for number in 0..FLOOD {
        match gossip.broadcast(Outbound::new(Tag::VB, name(number))) {
            Ok(Admission::Queued) => taken += 1,
            Ok(Admission::Full) => refused += 1,
            other => panic!("the node is gone: {other:?}"),
        }
        assert!(budget.used() <= budget.total(), "{} of {}", budget.used(), budget.total());
        tokio::task::yield_now().await;
    }
    until("the flood is too much", || metrics.drops(expected) > 0).await;
    let last = body("last", 100);
    let flood: HashSet<Bytes> = (0..FLOOD).map(name).collect();
    let readers = raws.iter_mut().map(|raw| async {
        let mut count = 0;
        loop {
            let payload = next_of(raw, Tag::VB).await;
            if payload == last {
                return count;
            }
            assert!(flood.contains(&payload));
            count += 1;
        }
    });
    let finish = async {
        until("everything is written", || {
            let peers = gossip.peers(PeerClass::Connected);
            peers.iter().all(|peer| peer.queued_bytes == 0)
        })
        .await;
        let full = metrics.drops(DropReason::PeerFull);
        broadcast(&gossip, Tag::VB, &last);
        full
    };
    let (received, full) = future::join(future::join_all(readers), finish).await;
    let received: u64 = received.into_iter().sum();
    let not_taken = metrics.drops(DropReason::BudgetFull) + metrics.drops(DropReason::IntakeFull);
    assert_eq!(not_taken, refused);
    assert_eq!(received + full, 3 * taken, "{received} received, {full} dropped of {taken}");
    until("the budget is given back", || budget.used() == 0).await;
}

pub(crate) async fn a_flood_from_a_peer_stays_within_the_budget<H: Harness>() {
    const FLOOD: usize = 60;
    let (setup, recorder) = recording(&[Tag::AV]);
    let (gate, handled) = (Arc::new(Semaphore::new(0)), Recorder::default());
    let handler = {
        let (gate, handled) = (Arc::clone(&gate), handled.clone());
        move |message: Inbound| {
            let (gate, handled) = (Arc::clone(&gate), handled.clone());
            async move {
                gate.acquire().await.expect("the gate stays").forget();
                gossip::Handler::handle(&handled, message).await
            }
        }
    };
    let setup =
        setup.limits(tight(4 * 1024 * 1024, 8 * 1024 * 1024)).handler(Tag::VB, Arc::new(handler));
    let hub = H::start(setup).await;
    let budget = hub.broadcaster().budget().clone();
    let ((mut raw, _), (mut other, _)) = (join(&hub).await, join(&hub).await);
    let name = |number: usize| body(&format!("flood {number}"), 512 * 1024);
    let flood = async {
        for number in 0..FLOOD {
            raw.send(Tag::VB, &name(number)).await.expect("the connection is open");
        }
    };
    let watch = async {
        until("the peer is held up", || {
            assert!(budget.used() <= budget.total());
            budget.used() > budget.total() / 2
        })
        .await;
        send(&mut other, Tag::AV, b"a vote of another peer").await;
        recorder.hears(b"a vote of another peer").await;
        gate.add_permits(FLOOD);
        until("everything is handled", || {
            assert!(budget.used() <= budget.total());
            handled.count() == FLOOD
        })
        .await;
    };
    future::join(flood, watch).await;
    assert_eq!(handled.bodies(), (0..FLOOD).map(name).collect::<Vec<_>>());
    until("the budget is given back", || budget.used() == 0).await;
}

/// A handler that never answers.
fn stalling() -> Arc<dyn gossip::Handler> {
    Arc::new(|_message: Inbound| std::future::pending::<Verdict>())
}

// Issue 9, 3; issue 8, 26.
pub(crate) async fn messages_that_never_end_cost_their_senders_and_nobody_else<H: Harness>() {
    const MIB: usize = 1024 * 1024;
    let limits = patient().with_budget_bytes(32 * MIB).with_message_time(3 * UNIT);
    let hub = H::start(relay().limits(limits)).await;
    let (mut sender, _) = join(&hub).await;
    let (mut reader, _) = join(&hub).await;
    let (mut attackers, began) = (Vec::new(), Instant::now());
    for _ in 0..8 {
        let (mut raw, _) = join(&hub).await;
        raw.begin(Tag::VB, 5_000_000).await.expect("the connection is open");
        attackers.push(raw);
    }
    for round in 0..40 {
        let vote = body(&format!("vote {round}"), 500);
        send(&mut sender, Tag::AV, &vote).await;
        assert_eq!(next_of(&mut reader, Tag::AV).await, vote);
        let used = hub.broadcaster().budget().used();
        assert!(used < MIB, "{used} bytes are held for what has not come");
        for raw in &mut attackers {
            // The write fails if the node has disconnected the peer.
            let _ = raw.go_on(&[0]).await;
        }
        time::sleep(UNIT / 10).await;
    }
    let metrics = hub.broadcaster().metrics();
    until("the attackers are cut off", || metrics.disconnects(DisconnectReason::Protocol) == 8)
        .await;
    let late = if H::CLOCK == Clock::Paused { UNIT * 4 } else { UNIT * 20 };
    assert!(began.elapsed() < late + UNIT, "after {:?}", began.elapsed());
    assert_eq!(hub.broadcaster().peers(PeerClass::Connected).len(), 2);
}

pub(crate) async fn a_handler_that_stalls_delays_no_vote<H: Harness>() {
    let (setup, recorder) = recording(&[Tag::AV]);
    let limits = patient().with_handler_timeout(UNIT);
    let node = H::start(setup.limits(limits).handler(Tag::VB, stalling())).await;
    let ((mut near, _), (mut far, _)) = (join(&node).await, join(&node).await);
    for number in 0..5 {
        send(&mut near, Tag::VB, &body(&format!("bundle {number}"), 300)).await;
    }
    let began = Instant::now();
    for raw in [&mut near, &mut far] {
        let vote = body(&format!("vote {:?}", raw.identity()), 300);
        send(raw, Tag::AV, &vote).await;
        recorder.hears(&vote).await;
    }
    if H::CLOCK == Clock::Paused {
        assert!(began.elapsed() < UNIT / 10, "a vote took {:?}", began.elapsed());
    }
    let metrics = node.broadcaster().metrics().clone();
    until("the handler is given up", || metrics.drops(DropReason::HandlerTimedOut) == 5).await;
}

pub(crate) async fn a_message_that_waits_for_a_stalled_peer_is_heard_from_another<H: Harness>() {
    let (setup, recorder) = recording(&[Tag::SP]);
    let limits = patient().with_peer_tokens(2);
    let node = H::start(setup.limits(limits).handler(Tag::VB, stalling())).await;
    let ((mut near, _), (mut far, _)) = (join(&node).await, join(&node).await);
    for number in 0..2 {
        send(&mut near, Tag::VB, &body(&format!("bundle {number}"), 300)).await;
    }
    // The node handles two messages of this peer and lane, and accepts no third one.
    let proof = body("proof", 300);
    send(&mut near, Tag::SP, &proof).await;
    send(&mut far, Tag::SP, &proof).await;
    recorder.hears(&proof).await;
}

pub(crate) async fn a_peer_whose_messages_wait_too_long_is_cut_off<H: Harness>() {
    let (setup, recorder) = recording(&[Tag::AV]);
    let limits = patient().with_inbound_wait(UNIT).with_peer_tokens(2);
    let node = H::start(setup.limits(limits).handler(Tag::VB, stalling())).await;
    let ((mut near, id), (mut far, _)) = (join(&node).await, join(&node).await);
    let (mut events, began) = (Events::of(node.broadcaster()), Instant::now());
    for number in 0..3 {
        send(&mut near, Tag::VB, &body(&format!("bundle {number}"), 300)).await;
    }
    assert_eq!(events.disconnected(id).await, DisconnectReason::Stalled);
    assert!(began.elapsed() >= UNIT);
    assert_eq!(node.broadcaster().metrics().drops(DropReason::WorkerFull), 1);
    send(&mut far, Tag::AV, b"vote").await;
    recorder.hears(b"vote").await;
}

/// Sends two messages, of which the first makes the handler panic.
async fn survives_a_panic<H: Harness>(handler: Arc<dyn gossip::Handler>, recorder: Recorder) {
    let one = NonZeroUsize::MIN;
    let limits = patient().with_workers(one);
    let node = H::start(plain().limits(limits).handler(Tag::AV, handler)).await;
    let (mut raw, _) = join(&node).await;
    for name in ["panic", "calm"] {
        send(&mut raw, Tag::AV, name.as_bytes()).await;
    }
    recorder.hears(b"calm").await;
    fence(&mut raw, 1).await;
    assert_eq!(node.broadcaster().metrics().drops(DropReason::HandlerPanicked), 1);
    let other = H::start(plain()).await;
    connect(&other, &node).await;
}

pub(crate) async fn a_handler_that_panics_loses_one_message<H: Harness>() {
    let recorder = Recorder::default();
    let heard = recorder.clone();
    let handler = move |message: Inbound| {
        let heard = heard.clone();
        async move {
            assert_ne!(message.body, "panic", "as the test wants it");
            gossip::Handler::handle(&heard, message).await
        }
    };
    survives_a_panic::<H>(Arc::new(handler), recorder).await;
}

pub(crate) async fn a_handler_that_panics_before_its_first_await_loses_one_message<H: Harness>() {
    let recorder = Recorder::default();
    let heard = recorder.clone();
    let handler = move |message: Inbound| {
        assert_ne!(message.body, "panic", "as the test wants it");
        let heard = heard.clone();
        async move { gossip::Handler::handle(&heard, message).await }
    };
    survives_a_panic::<H>(Arc::new(handler), recorder).await;
}
