//! Votes, proposals and bundles on topics in place of streams, where the nodes of a network agree on it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use bytes::Bytes;
use gossip::{
    Admission, Inbound, NetworkId, NetworkProfile, Outbound, PeerClass, Tag, TagTopicError,
    Transport, Verdict,
};
use tandem::{Mode, NodeBuilder, Relaying, Running, Shutdown, StartError};
use testkit::wait::{soon, until};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The tags that go over topics.
const TAGS: [Tag; 3] = [Tag::AV, Tag::PP, Tag::VB];

/// Longest body that fits a topic, and a little more.
const TOO_LARGE: usize = 1_100_000;

fn network() -> NetworkId {
    NetworkId::new("tag-topics-v1").unwrap()
}

/// A relay that tells what it handles.
fn relay(mode: Mode, on_topics: &[Tag]) -> (NodeBuilder, mpsc::Receiver<Inbound>) {
    let (heard, messages) = mpsc::channel(64);
    let handler = move |message: Inbound| {
        let heard = heard.clone();
        async move {
            // The test may have stopped listening.
            let _ = heard.send(message).await;
            Verdict::Ignore
        }
    };
    let builder = NodeBuilder::new(network()).mode(mode).relaying(Relaying::Accepted);
    let tags = [Tag::AV, Tag::PP, Tag::VB, Tag::SP];
    let builder =
        tags.into_iter().fold(builder, |builder, tag| builder.handler(tag, handler.clone()));
    (builder.on_topics(on_topics.iter().copied()), messages)
}

async fn start(builder: NodeBuilder) -> Running {
    builder.start(&CancellationToken::new()).await.unwrap()
}

async fn stop(node: Running) {
    assert_eq!(node.stop(Duration::from_secs(5)).await, Shutdown::Clean);
}

async fn linked(node: &Running, peers: usize) {
    until("the links are up", || node.node().peers(PeerClass::Connected).len() == peers).await;
}

/// Broadcasts bodies of a tag, each another one, until one arrives.
async fn heard(
    from: &Running,
    tag: Tag,
    bytes: usize,
    at: &mut mpsc::Receiver<Inbound>,
) -> Inbound {
    let mut number = 0_u32;
    let mut arrived = None;
    until("a message arrives", || {
        number += 1;
        let mut body = vec![7; bytes];
        body[..4].copy_from_slice(&number.to_be_bytes());
        let queued = from.node().broadcast(Outbound::new(tag, Bytes::from(body)));
        assert_eq!(queued, Ok(Admission::Queued));
        while let Ok(message) = at.try_recv() {
            if message.tag == tag {
                arrived.get_or_insert(message);
            }
        }
        arrived.is_some()
    })
    .await;
    arrived.unwrap()
}

// Issue 11, 3.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn votes_proposals_and_bundles_pass_over_topics_from_relay_to_relay() {
    let (between, _at_between) = relay(Mode::Libp2p, &TAGS);
    let between = start(between).await;
    let address = || between.p2p_addresses()[0].parse().unwrap();
    let (first, mut at_first) = relay(Mode::Libp2p, &TAGS);
    let first = start(first.peer(address())).await;
    let (last, mut at_last) = relay(Mode::Libp2p, &TAGS);
    let last = start(last.peer(address())).await;
    // It does not agree with the others, so the streams show whether they are used.
    let (other, mut at_other) = relay(Mode::Libp2p, &[]);
    let other = start(other.peer(address())).await;
    linked(&between, 3).await;
    for (tag, bytes) in [(Tag::AV, 200), (Tag::PP, 100_000), (Tag::VB, 3_000)] {
        let message = heard(&first, tag, bytes, &mut at_last).await;
        assert_eq!((message.tag, message.body.len()), (tag, bytes));
        assert_eq!(message.identity, Some(between.identity()));
    }
    // A message that is too large for a topic takes the streams, and behind it nothing of the others can be on its way.
    let large = Outbound::new(Tag::VB, vec![9; TOO_LARGE]);
    assert_eq!(first.node().broadcast(large), Ok(Admission::Queued));
    let comes = async { while at_last.recv().await.unwrap().body.len() != TOO_LARGE {} };
    soon("the large message arrives", comes).await;
    let message = soon("the large message arrives", at_other.recv()).await.unwrap();
    assert_eq!((message.tag, message.body.len()), (Tag::VB, TOO_LARGE), "the first that it hears");
    assert!(at_first.try_recv().is_err(), "nobody hears itself");
    let meshes = last.view().topic_meshes();
    let topics: Vec<_> = meshes.iter().map(|mesh| mesh.topic.as_str()).collect();
    assert_eq!(topics.len(), 4);
    for topic in ["tandem/AV/1", "tandem/PP/1", "tandem/VB/1", "tandem/tx/1"] {
        assert!(topics.contains(&topic), "{topics:?}");
    }
    for node in [first, last, other, between] {
        stop(node).await;
    }
}

// Issue 11, 3: nothing changes for WebSocket peers of a hybrid.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hybrid_brings_votes_from_a_topic_to_its_websocket_peers_and_back() {
    let (hybrid, _at_hybrid) = relay(Mode::Hybrid, &TAGS);
    let hybrid = start(hybrid).await;
    let (libp2p, mut at_libp2p) = relay(Mode::Libp2p, &TAGS);
    let libp2p = start(libp2p.peer(hybrid.p2p_addresses()[0].parse().unwrap())).await;
    let (websocket, mut at_websocket) = relay(Mode::WebSocket, &[]);
    let websocket = start(websocket.peer(hybrid.ws_url().unwrap().parse().unwrap())).await;
    linked(&hybrid, 2).await;
    let message = heard(&libp2p, Tag::AV, 100, &mut at_websocket).await;
    assert_eq!(message.transport, Transport::WebSocket);
    let message = soon("a message arrives", heard(&websocket, Tag::AV, 100, &mut at_libp2p)).await;
    assert_eq!(message.transport, Transport::Libp2p);
    for node in [libp2p, websocket, hybrid] {
        stop(node).await;
    }
}

// Issue 11, 3.
#[tokio::test]
async fn tags_stay_on_streams_where_others_would_not_hear_them_on_topics() {
    let refused = |builder: NodeBuilder| builder.check().unwrap_err();
    let algorand = NodeBuilder::new(network()).profile(&NetworkProfile::ALGORAND);
    let error = refused(algorand.mode(Mode::Libp2p).on_topics([Tag::AV]));
    assert!(
        matches!(&error, StartError::TagTopic(TagTopicError::Fixed { tag: Tag::AV, .. })),
        "{error:?}"
    );
    let error = refused(relay(Mode::WebSocket, &[Tag::VB]).0);
    assert!(matches!(&error, StartError::NoTagTopics { tag: Tag::VB }), "{error:?}");
    let error = refused(relay(Mode::Libp2p, &[Tag::MI]).0);
    assert!(matches!(&error, StartError::TagTopic(TagTopicError::NoGossip { .. })), "{error:?}");
    assert!(error.is_misconfiguration());
}
