//! Requests and answers.

use std::{future::pending, sync::Arc};

use broadcaster::DropReason;
use gossip::{
    DisconnectReason, Inbound, LinkId, Request, RequestError, Response, Tag, Verdict,
    wire::{
        block::{self, BlockRequest},
        request::{self, RequestKey},
        topics::Topics,
    },
};
use testkit::{
    harness::{Events, Harness, connect, fence, join, next_of},
    wait::soon,
};
use tokio::time::Instant;

use crate::scene::{UNIT, body, patient, plain, recording, send};

fn question(round: u64) -> Request {
    Request { topics: BlockRequest { round }.topics() }
}

pub(crate) async fn a_request_gets_its_answer<H: Harness>() {
    let (asking, answering) = (H::start(plain()).await, H::start(plain()).await);
    let (peer, back) = connect(&asking, &answering).await;
    let gossip = asking.gossip();
    for round in 0..20 {
        let answer = soon("an answer", gossip.request(peer, question(round))).await;
        assert_eq!(answer, Ok(Response { topics: block::unavailable(0) }));
    }
    let answer = soon("an answer", answering.gossip().request(back, question(1))).await;
    assert_eq!(answer, Ok(Response { topics: block::unavailable(0) }), "whoever dialled");
}

pub(crate) async fn a_request_to_nobody_fails_at_once<H: Harness>() {
    let node = H::start(plain()).await;
    let peer = LinkId(4_000_000);
    let answer = soon("an answer", node.gossip().request(peer, question(1))).await;
    assert_eq!(answer, Err(RequestError::NotConnected { peer }));
}

pub(crate) async fn a_request_that_is_too_long_is_refused<H: Harness>() {
    let node = H::start(plain()).await;
    let (mut raw, peer) = join(&node).await;
    let topics = Topics::new().with("key", vec![7; 70_000]);
    let answer = soon("an answer", node.gossip().request(peer, Request { topics })).await;
    assert!(matches!(answer, Err(RequestError::TooLarge { max: 65_536, .. })), "{answer:?}");
    fence(&mut raw, 1).await;
}

pub(crate) async fn a_request_that_is_not_answered_times_out<H: Harness>() {
    let node = H::start(plain().limits(patient().with_request_timeout(UNIT))).await;
    let (_raw, peer) = join(&node).await;
    let began = Instant::now();
    let answer = soon("an answer", node.gossip().request(peer, question(1))).await;
    assert_eq!(answer, Err(RequestError::TimedOut { peer }));
    assert!(began.elapsed() >= UNIT);
}

pub(crate) async fn a_request_fails_when_the_peer_leaves<H: Harness>() {
    let node = H::start(plain()).await;
    let (mut raw, peer) = join(&node).await;
    let gossip = node.gossip();
    let leave = async {
        next_of(&mut raw, Tag::UE).await;
        drop(raw);
    };
    let (answer, ()) = futures::join!(gossip.request(peer, question(1)), leave);
    assert_eq!(answer, Err(RequestError::NotConnected { peer }));
}

pub(crate) async fn an_answer_that_comes_too_late_is_dropped<H: Harness>() {
    let node = H::start(plain().limits(patient().with_request_timeout(UNIT / 10))).await;
    let (mut raw, peer) = join(&node).await;
    let answer = soon("an answer", node.gossip().request(peer, question(1))).await;
    assert_eq!(answer, Err(RequestError::TimedOut { peer }));
    let asked = next_of(&mut raw, Tag::UE).await;
    let answer = request::answer(block::unavailable(0), RequestKey::of(&asked));
    send(&mut raw, Tag::TS, &answer).await;
    fence(&mut raw, 1).await;
    assert_eq!(node.broadcaster().metrics().drops(DropReason::LateAnswer), 1);
}

pub(crate) async fn an_answer_that_nobody_asked_for_ends_the_connection<H: Harness>() {
    let node = H::start(plain()).await;
    let (mut raw, peer) = join(&node).await;
    let mut events = Events::of(node.broadcaster());
    let answer = request::answer(block::unavailable(0), RequestKey::of(b"never asked"));
    send(&mut raw, Tag::TS, &answer).await;
    assert_eq!(events.disconnected(peer).await, DisconnectReason::UnexpectedResponse);
}

/// Issue 9, 4: an existing node that catches up has sixteen requests in progress.
pub(crate) async fn requests_under_way_hold_up_no_vote<H: Harness>() {
    let (setup, votes) = recording(&[Tag::AV]);
    let never = |_request: Inbound| pending::<Verdict>();
    let node = H::start(setup.handler(Tag::UE, Arc::new(never))).await;
    let (mut raw, _) = join(&node).await;
    for nonce in 0..16 {
        send(&mut raw, Tag::UE, &request::seal(&BlockRequest { round: 1 }.topics(), nonce)).await;
    }
    let vote = body("vote", 300);
    send(&mut raw, Tag::AV, &vote).await;
    votes.hears(&vote).await;
}
