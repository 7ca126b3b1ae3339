//! Forwarding of other nodes' messages.

use std::sync::Arc;

use broadcaster::{DropReason, Relaying};
use bytes::Bytes;
use gossip::{DisconnectReason, Inbound, Tag, Validation, Verdict};
use testkit::{
    harness::{Clock, Events, Harness, connect, fence, join, next_of},
    recorder::Recorder,
    wait::until,
};

use crate::scene::{UNIT, body, broadcast, patient, plain, read_to, recording, relay, send};

/// Connects two nodes through a third; the first sends messages, and the last records those it gets.
async fn heard_through<H: Harness>(between: H) -> (Recorder, H) {
    let (setup, recorder) = recording(&[Tag::AV, Tag::VB]);
    let (first, last) = (H::start(plain()).await, H::start(setup).await);
    connect(&first, &between).await;
    connect(&last, &between).await;
    for number in 0..10 {
        broadcast(&first.gossip(), Tag::AV, &body(&format!("vote {number}"), 600));
        broadcast(&first.gossip(), Tag::VB, &body(&format!("bundle {number}"), 9_000));
    }
    // Every message of the first node that is forwarded arrives before these two.
    let delivered = first.gossip();
    for tag in [Tag::AV, Tag::VB] {
        broadcast(&delivered, tag, &body(&format!("end {tag}"), 100));
    }
    let received = between.broadcaster().metrics().clone();
    until("the node between has read everything", || {
        let unhandled = received.drops(DropReason::Unhandled);
        recorder.count() == 22 || unhandled == 22
    })
    .await;
    // Sent by the node in between itself, after the messages that it forwarded.
    for tag in [Tag::AV, Tag::VB] {
        broadcast(&between.gossip(), tag, &body(&format!("last {tag}"), 100));
        recorder.hears(&body(&format!("last {tag}"), 100)).await;
    }
    drop(last);
    (recorder, between)
}

pub(crate) async fn a_relay_passes_messages_on<H: Harness>() {
    let (recorder, _relay) = heard_through(H::start(relay()).await).await;
    assert_eq!(recorder.count(), 24);
    for number in 0..10 {
        assert_eq!(recorder.times(&body(&format!("vote {number}"), 600)), 1);
        assert_eq!(recorder.times(&body(&format!("bundle {number}"), 9_000)), 1);
    }
}

pub(crate) async fn a_node_that_does_not_relay_passes_nothing_on<H: Harness>() {
    let (recorder, between) = heard_through(H::start(plain()).await).await;
    assert_eq!(recorder.count(), 2);
    assert_eq!(between.broadcaster().metrics().drops(DropReason::Unhandled), 22);
}

pub(crate) async fn a_handler_may_ask_for_a_message_to_be_passed_on<H: Harness>() {
    let handler = |message: Inbound| async move {
        if message.body.starts_with(b"yes") { Verdict::Relay } else { Verdict::Ignore }
    };
    let setup = plain().relaying(Relaying::OnRequest).handler(Tag::AV, Arc::new(handler));
    let node = H::start(setup).await;
    let ((mut near, _), (mut far, _)) = (join(&node).await, join(&node).await);
    for name in ["no 1", "yes 1", "no 2", "yes 2", "yes last"] {
        send(&mut near, Tag::AV, &body(name, 300)).await;
    }
    let passed = read_to(&mut far, Tag::AV, &body("yes last", 300)).await;
    assert_eq!(passed, [body("yes 1", 300), body("yes 2", 300)]);
}

/// A relay whose validator decides by the first bytes of a vote.
async fn judging<H: Harness>() -> H {
    let validator = |message: &Inbound| match message.body.first() {
        Some(b'a') => Validation::Accept,
        Some(b'i') => Validation::Ignore,
        _ => Validation::Reject,
    };
    H::start(relay().validator(Tag::AV, Arc::new(validator))).await
}

pub(crate) async fn an_ignored_message_is_not_passed_on<H: Harness>() {
    let node = judging::<H>().await;
    let ((mut near, _), (mut far, _)) = (join(&node).await, join(&node).await);
    for name in ["ignore 1", "accept 1", "ignore 2", "accept 2", "accept last"] {
        send(&mut near, Tag::AV, &body(name, 300)).await;
    }
    let passed = read_to(&mut far, Tag::AV, &body("accept last", 300)).await;
    assert_eq!(passed, [body("accept 1", 300), body("accept 2", 300)]);
    assert_eq!(node.broadcaster().metrics().drops(DropReason::Ignored), 2);
}

pub(crate) async fn a_rejected_message_ends_the_connection<H: Harness>() {
    let node = judging::<H>().await;
    let ((mut near, id), (mut far, _)) = (join(&node).await, join(&node).await);
    let mut events = Events::of(node.broadcaster());
    send(&mut near, Tag::AV, &body("reject", 300)).await;
    assert_eq!(events.disconnected(id).await, DisconnectReason::BadData);
    let last = body("last", 300);
    broadcast(&node.gossip(), Tag::AV, &last);
    assert!(read_to(&mut far, Tag::AV, &last).await.is_empty());
    assert_eq!(node.broadcaster().metrics().drops(DropReason::Rejected), 1);
}

pub(crate) async fn a_message_heard_from_two_sides_is_passed_on_once<H: Harness>() {
    let node = H::start(relay()).await;
    let ((mut left, _), (mut right, _)) = (join(&node).await, join(&node).await);
    let (mut far, _) = join(&node).await;
    for number in 0..10 {
        let vote = body(&format!("vote {number}"), 600);
        send(&mut left, Tag::AV, &vote).await;
        send(&mut right, Tag::AV, &vote).await;
    }
    // Senders take turns in the router, so a message of the node itself may overtake theirs: all are read first.
    let mut passed = Vec::new();
    for _ in 0..10 {
        passed.push(next_of(&mut far, Tag::AV).await);
    }
    passed.sort();
    passed.dedup();
    assert_eq!(passed.len(), 10);
    let drops = || node.broadcaster().metrics().drops(DropReason::Duplicate);
    until("every second copy was judged", || drops() == 10).await;
    let last = body("last", 600);
    broadcast(&node.gossip(), Tag::AV, &last);
    assert!(read_to(&mut far, Tag::AV, &last).await.is_empty());
    assert_eq!(drops(), 10);
}

pub(crate) async fn a_message_comes_back_to_nobody_who_sent_it<H: Harness>() {
    let node = H::start(relay()).await;
    let ((mut near, _), (mut far, _)) = (join(&node).await, join(&node).await);
    let (vote, last) = (body("vote", 600), body("last", 600));
    send(&mut near, Tag::AV, &vote).await;
    assert_eq!(next_of(&mut far, Tag::AV).await, vote);
    broadcast(&node.gossip(), Tag::AV, &last);
    assert!(read_to(&mut near, Tag::AV, &last).await.is_empty());
    // A node's own message that comes back is a duplicate, too.
    send(&mut far, Tag::AV, &last).await;
    fence(&mut far, 1).await;
    let end = body("end", 600);
    broadcast(&node.gossip(), Tag::AV, &end);
    assert!(read_to(&mut near, Tag::AV, &end).await.is_empty());
}

pub(crate) async fn a_newcomer_gets_a_duplicate_within_the_window<H: Harness>() {
    let node = H::start(relay()).await;
    let ((mut near, _), (mut far, _)) = (join(&node).await, join(&node).await);
    let (vote, last) = (body("vote", 600), body("last", 600));
    send(&mut near, Tag::AV, &vote).await;
    assert_eq!(next_of(&mut far, Tag::AV).await, vote);
    let (mut newcomer, _) = join(&node).await;
    for number in 0..3 {
        send(&mut far, Tag::AV, &vote).await;
        fence(&mut far, number).await;
    }
    // A message of the node itself may overtake those of others, so the vote is read first.
    assert_eq!(next_of(&mut newcomer, Tag::AV).await, vote);
    broadcast(&node.gossip(), Tag::AV, &last);
    assert!(read_to(&mut newcomer, Tag::AV, &last).await.is_empty());
    assert!(read_to(&mut near, Tag::AV, &last).await.is_empty());
    assert!(read_to(&mut far, Tag::AV, &last).await.is_empty());
}

pub(crate) async fn an_old_vote_is_heard_again_after_its_window<H: Harness>() {
    let (setup, recorder) = recording(&[Tag::AV]);
    let limits = patient().with_priority_window(UNIT);
    let node = H::start(setup.limits(limits).relaying(Relaying::Accepted)).await;
    let ((mut near, _), (mut far, _)) = (join(&node).await, join(&node).await);
    let vote: Bytes = body("vote", 600);
    let mut repeats = 0;
    while recorder.count() < 3 {
        send(&mut near, Tag::AV, &vote).await;
        fence(&mut near, repeats).await;
        repeats += 1;
        tokio::time::sleep(UNIT / 50).await;
    }
    let heard = recorder.messages();
    for pair in heard.windows(2) {
        let gap = pair[1].received.duration_since(pair[0].received);
        assert!(gap >= UNIT.mul_f32(0.98), "heard again after {gap:?}");
        if H::CLOCK == Clock::Paused {
            assert!(gap <= UNIT + UNIT / 25, "not heard before {gap:?}");
        }
    }
    for _ in 0..3 {
        assert_eq!(next_of(&mut far, Tag::AV).await, vote);
    }
}
