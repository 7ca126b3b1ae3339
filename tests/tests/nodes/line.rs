//! A line of relays: a message crosses all of them, once, and no hop waits for anything but the message.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use gossip::{Admission, NetworkId, Outbound, PeerClass, Tag};
use tandem::{Mode, NodeBuilder, Relaying, Running, Shutdown};
use testkit::{recorder::Recorder, wait::until};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const NODES: usize = 6;
const MESSAGES: usize = 30;

/// Starts relays, each of which dials the one before it.
async fn line(mode: Mode) -> Vec<(Running, Recorder)> {
    let mut line: Vec<(Running, Recorder)> = Vec::new();
    for _ in 0..NODES {
        let recorder = Recorder::default();
        let mut node = NodeBuilder::new(NetworkId::new("line-v1").unwrap())
            .mode(mode)
            .relaying(Relaying::Accepted);
        for tag in [Tag::AV, Tag::PP, Tag::VB] {
            node = node.handler(tag, recorder.clone());
        }
        if let Some((before, _)) = line.last() {
            let address = before.ws_url().or_else(|| before.p2p_addresses().first().cloned());
            node = node.peer(address.unwrap().parse().unwrap());
        }
        line.push((node.start(&CancellationToken::new()).await.unwrap(), recorder));
        let links = |at: usize| line[at].0.node().peers(PeerClass::Connected).len();
        if let Some(before) = line.len().checked_sub(2) {
            let expected = if before == 0 { 1 } else { 2 };
            until("the link", || links(before) == expected && links(before + 1) == 1).await;
        }
    }
    line
}

async fn crosses(mode: Mode) {
    let line = line(mode).await;
    let (first, last) = (&line[0], &line[NODES - 1]);
    let mut slowest = Duration::ZERO;
    for number in 0..MESSAGES {
        // Votes and proposals travel in the priority lane, bundles in the other one.
        let tag = [Tag::AV, Tag::VB, Tag::PP][number % 3];
        let body = format!("{tag} {number}");
        let began = Instant::now();
        let (from, to) = if number % 2 == 0 { (first, last) } else { (last, first) };
        let sent = from.0.node().broadcast(Outbound::new(tag, body.clone()));
        assert_eq!(sent, Ok(Admission::Queued));
        to.1.hears(body.as_bytes()).await;
        slowest = slowest.max(began.elapsed());
    }
    println!("{mode:?}: {} hops took {slowest:?} at most", NODES - 1);
    // A second would be a timer on the way. Each message takes well under a millisecond a hop on an idle machine.
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    for (at, (_, recorder)) in line.iter().enumerate() {
        let own = if at == 0 || at == NODES - 1 { MESSAGES / 2 } else { 0 };
        until("everything is heard", || recorder.count() >= MESSAGES - own).await;
        for number in 0..MESSAGES {
            let tag = [Tag::AV, Tag::VB, Tag::PP][number % 3];
            let times = recorder.times(format!("{tag} {number}").as_bytes());
            let is_own = (at == 0 && number % 2 == 0) || (at == NODES - 1 && number % 2 == 1);
            assert_eq!(times, usize::from(!is_own), "{tag} {number} at node {at}");
        }
    }
    for (node, _) in line {
        assert_eq!(node.stop(Duration::from_secs(5)).await, Shutdown::Clean);
    }
}

// Issue 10, section 15.1 of the wire facts.
#[tokio::test]
async fn a_message_crosses_a_line_of_relays_over_websocket_once() {
    crosses(Mode::WebSocket).await;
}

#[tokio::test]
async fn a_message_crosses_a_line_of_relays_over_libp2p_once() {
    crosses(Mode::Libp2p).await;
}

#[tokio::test]
async fn a_message_crosses_a_line_of_hybrid_relays_once() {
    crosses(Mode::Hybrid).await;
}
