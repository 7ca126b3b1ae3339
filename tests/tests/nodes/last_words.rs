//! Messages that a node has accepted reach its peers even if the node stops at once.

use std::time::Duration;

use gossip::{Admission, Inbound, NetworkId, Outbound, PeerClass, Tag, Verdict};
use tandem::{Mode, NodeBuilder, Shutdown};
use testkit::wait::{soon, until};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Number of votes sent right before the end.
const VOTES: usize = 200;

async fn last_words(mode: Mode) {
    let root = CancellationToken::new();
    let network = NetworkId::new("last-words").expect("the name is a short path segment");
    let (sender, mut heard) = mpsc::channel(2 * VOTES);
    let on_vote = move |message: Inbound| {
        let sender = sender.clone();
        async move { sender.send(message.body).await.map_or(Verdict::Ignore, |()| Verdict::Ignore) }
    };
    let listener = NodeBuilder::new(network.clone()).mode(mode).handler(Tag::AV, on_vote);
    let listener = listener.start(&root).await.expect("the listener starts");
    let address = listener.node().addresses()[0].clone();
    let speaker = NodeBuilder::new(network).mode(mode).peer(address);
    let speaker = speaker.start(&root).await.expect("the speaker starts");
    let (node, other) = (speaker.node(), listener.node());
    until("the nodes are connected", || {
        [&node, &other].iter().all(|node| !node.peers(PeerClass::Connected).is_empty())
    })
    .await;
    for number in 0..VOTES {
        let vote = Outbound::new(Tag::AV, number.to_string());
        assert_eq!(node.broadcast(vote), Ok(Admission::Queued));
    }
    assert_eq!(speaker.stop(Duration::from_secs(5)).await, Shutdown::Clean);
    for number in 0..VOTES {
        let vote = soon(&format!("vote {number} is heard"), heard.recv())
            .await
            .expect("the listener runs");
        assert_eq!(vote, number.to_string());
    }
    assert_eq!(listener.stop(Duration::from_secs(5)).await, Shutdown::Clean);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_words_of_a_websocket_node_are_heard() {
    last_words(Mode::WebSocket).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_words_of_a_libp2p_node_are_heard() {
    last_words(Mode::Libp2p).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_words_of_a_hybrid_node_are_heard() {
    last_words(Mode::Hybrid).await;
}
