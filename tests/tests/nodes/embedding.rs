//! The node as a consensus engine sees it: an `Arc<dyn GossipNode>`, the same for every network.

use std::{sync::Arc, time::Duration};

use gossip::{
    Admission, GossipNode, Inbound, NetworkId, Outbound, PeerClass, Request, Tag, Verdict,
    wire::block::{self, BlockRequest},
};
use tandem::{Mode, NodeBuilder, Shutdown};
use testkit::wait::{soon, until};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

// The embedding itself, at most 40 lines: the doctest of the facade shows the same.

/// Votes, receives the other engine's vote, and fetches a block from it.
async fn embed(node: Arc<dyn GossipNode>, mut votes: mpsc::Receiver<Inbound>, vote: &'static str) {
    assert_eq!(node.broadcast(Outbound::new(Tag::AV, vote)), Ok(Admission::Queued));
    let heard = votes.recv().await.expect("a vote is heard");
    assert_ne!(heard.body, vote);
    let peer = heard.from.expect("it came from a peer");
    let request = Request { topics: BlockRequest { round: 7 }.topics() };
    let answer = node.request(peer, request).await.expect("the peer answers");
    assert_eq!(answer.topics, block::found("block 7", "certificate 7"));
    let delivery = node.broadcast_and_wait(Outbound::new(Tag::PP, "proposal")).await;
    assert_eq!(delivery.expect("it is taken").written, node.peers(PeerClass::Connected).len());
    node.network_advanced();
}

/// A node whose votes go to the engine, and which serves blocks.
fn engine(mode: Mode) -> (NodeBuilder, mpsc::Receiver<Inbound>) {
    let (sender, votes) = mpsc::channel(16);
    let on_vote = move |message: Inbound| {
        let sender = sender.clone();
        async move { sender.send(message).await.map_or(Verdict::Ignore, |()| Verdict::Relay) }
    };
    let on_request =
        |_: Inbound| async { Verdict::Respond(block::found("block 7", "certificate 7")) };
    let network = NetworkId::new("embedded-v1").expect("the name is a short path segment");
    let builder = NodeBuilder::new(network).mode(mode);
    (builder.handler(Tag::AV, on_vote).handler(Tag::UE, on_request), votes)
}

// The end of it.

#[test]
fn the_embedding_takes_forty_lines() {
    let source = include_str!("embedding.rs");
    let start = source.find("// The embedding itself").expect("it is above");
    let end = source.find("// The end of it.").expect("it is above");
    let lines = source[start..end].lines().filter(|line| !line.trim().is_empty()).count();
    assert!(lines <= 40, "it takes {lines} lines");
}

/// Two engines, each with a node of the same kind.
async fn two_engines(mode: Mode) {
    let root = CancellationToken::new();
    let ((first, first_votes), (second, second_votes)) = (engine(mode), engine(mode));
    let first = first.start(&root).await.expect("the first node starts");
    let address = first.node().addresses()[0].clone();
    let second = second.peer(address).start(&root).await.expect("the second node starts");
    for node in [first.node(), second.node()] {
        until("the nodes are connected", || !node.peers(PeerClass::Connected).is_empty()).await;
    }
    let both = futures::future::join(
        embed(first.node(), first_votes, "vote of the first"),
        embed(second.node(), second_votes, "vote of the second"),
    );
    soon("both engines are served", both).await;
    for node in [first, second] {
        assert_eq!(node.stop(Duration::from_secs(5)).await, Shutdown::Clean);
    }
}

#[tokio::test]
async fn an_engine_over_websocket() {
    two_engines(Mode::WebSocket).await;
}

#[tokio::test]
async fn an_engine_over_libp2p() {
    two_engines(Mode::Libp2p).await;
}

#[tokio::test]
async fn an_engine_over_both() {
    two_engines(Mode::Hybrid).await;
}
