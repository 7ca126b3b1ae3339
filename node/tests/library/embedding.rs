//! The library, as an application embeds it.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use gossip::{
    Admission, GossipNode, Inbound, NetworkId, NodeAddress, Outbound, PeerClass, Request, Tag,
    Verdict,
    wire::block::{BlockAnswer, BlockRequest},
};
use runtime::Shutdown;
use services::blocks::{Capacity, Responder};
use tandem::{Mode, NodeBuilder, Relaying, Running, StartError};
use tokio::{sync::mpsc, time};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(30);
const MODES: [Mode; 3] = [Mode::Hybrid, Mode::WebSocket, Mode::Libp2p];

fn builder(mode: Mode) -> NodeBuilder {
    NodeBuilder::new(NetworkId::new("embedded").expect("a name")).mode(mode)
}

/// Starts a node that dials the first address of another.
async fn dial(builder: NodeBuilder, other: &Running) -> Running {
    let address: NodeAddress = other.node().addresses().swap_remove(0);
    builder.peer(address).start(&CancellationToken::new()).await.expect("the node starts")
}

async fn until_connected(node: &dyn GossipNode) {
    let connected = async {
        while node.peers(PeerClass::Connected).is_empty() {
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    time::timeout(PATIENCE, connected).await.expect("a peer connects in time");
}

// Issue 8, 6 and 18: what a running node would pass over in silence is refused at the start.
#[tokio::test]
async fn a_node_that_could_not_do_what_it_is_told_does_not_start() {
    let refused = async |builder: NodeBuilder, expected: &str| {
        let error = builder.start(&CancellationToken::new()).await.expect_err(expected);
        assert!(error.is_misconfiguration(), "{error}");
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        let told = format!("{error}: {source}");
        assert!(told.contains(expected), "{told}");
    };
    let id = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
    let peer = |mode, text: &str| builder(mode).peer(text.parse().expect("an address"));
    let multiaddr = format!("/ip4/127.0.0.1/tcp/1/p2p/{id}");
    refused(peer(Mode::Libp2p, "127.0.0.1:4160"), "no multiaddr, which mode p2p does not dial")
        .await;
    refused(peer(Mode::WebSocket, &multiaddr), "a multiaddr, which mode ws does not dial").await;
    refused(peer(Mode::Hybrid, "wss://h..example"), "no certificate can be for its host").await;
    let quic = format!("/ip4/127.0.0.1/udp/1/quic/p2p/{id}");
    refused(peer(Mode::Hybrid, &quic), "because of /udp/1: this build dials").await;
    refused(
        builder(Mode::Hybrid).listen_p2p(["/ip4/127.0.0.1/tcp/0/http"]),
        "is no multiaddr that this build",
    )
    .await;
    let ignore = |_: Inbound| async { Verdict::Ignore };
    let two = builder(Mode::Hybrid).handler(Tag::AV, ignore).handler(Tag::AV, ignore);
    refused(two, "there are two handlers for AV: put them into one").await;
    let unknown = builder(Mode::Hybrid).handler(Tag(*b"ZZ"), ignore);
    refused(unknown, "the handler for ZZ would never be called: the tags of this network are")
        .await;
}

#[tokio::test]
async fn a_broadcast_of_one_node_is_handled_by_another_over_any_transport() {
    for mode in MODES {
        let (heard, mut handled) = mpsc::channel(16);
        let echo = move |message: Inbound| {
            let heard = heard.clone();
            async move {
                heard.send(message.body).await.expect("the test listens");
                Verdict::Ignore
            }
        };
        let listener = builder(mode)
            .handler(Tag::AV, echo)
            .handler(Tag::UE, Responder::new(Capacity::default()));
        let listener = listener.start(&CancellationToken::new()).await.expect("the node starts");
        let speaker = dial(builder(mode), &listener).await;
        let node: Arc<dyn GossipNode> = speaker.node();
        until_connected(&*node).await;
        assert_eq!(node.broadcast(Outbound::new(Tag::AV, "hello")), Ok(Admission::Queued));
        let body = time::timeout(PATIENCE, handled.recv()).await.expect("it is handled in time");
        assert_eq!(body.as_deref(), Some(&b"hello"[..]));

        let peer = node.peers(PeerClass::Connected)[0].id;
        let request = Request { topics: BlockRequest { round: 1 }.topics() };
        let answer = node.request(peer, request).await.expect("it is answered");
        let answer = BlockAnswer::decode(&answer.topics);
        assert_eq!(answer, Ok(BlockAnswer::Unavailable { latest: Some(0) }));
        for running in [speaker, listener] {
            let broadcaster = running.broadcaster().clone();
            assert_eq!(running.stop(Duration::from_secs(5)).await, Shutdown::Clean, "{mode:?}");
            assert_eq!(broadcaster.task_count(), 0, "{mode:?}");
        }
    }
}

#[tokio::test]
async fn a_hybrid_passes_on_from_one_transport_to_the_other() {
    let hybrid = builder(Mode::Hybrid).relaying(Relaying::Accepted);
    let hybrid = hybrid.start(&CancellationToken::new()).await.expect("the node starts");
    let heard = Arc::new(Mutex::new(0));
    let counter = Arc::clone(&heard);
    let count = move |_message: Inbound| {
        *counter.lock().expect("no panic") += 1;
        std::future::ready(Verdict::Ignore)
    };
    let ws: NodeAddress = hybrid.ws_url().expect("it listens").parse().expect("an address");
    let p2p: NodeAddress = hybrid.p2p_addresses()[0].parse().expect("an address");
    let root = CancellationToken::new();
    let speaker = builder(Mode::WebSocket).peer(ws).start(&root).await.expect("it starts");
    let listener = builder(Mode::Libp2p).peer(p2p).handler(Tag::VB, count);
    let listener = listener.start(&root).await.expect("it starts");
    until_connected(&*speaker.node()).await;
    until_connected(&*listener.node()).await;
    let all_there = async {
        while hybrid.node().peers(PeerClass::Connected).len() < 2 {
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    time::timeout(PATIENCE, all_there).await.expect("both peers are there in time");
    let mut observed = listener.observe();
    assert_eq!(speaker.node().broadcast(Outbound::new(Tag::VB, "bundle")), Ok(Admission::Queued));
    let message = time::timeout(PATIENCE, observed.recv()).await.expect("heard in time");
    assert_eq!(message.expect("the node runs").body, "bundle");
    for running in [speaker, listener, hybrid] {
        assert_eq!(running.stop(Duration::from_secs(5)).await, Shutdown::Clean);
    }
    assert_eq!(*heard.lock().expect("no panic"), 1);
}

#[tokio::test]
async fn events_are_told_from_the_start_on() {
    let root = CancellationToken::new();
    let first = builder(Mode::WebSocket).start(&root).await.expect("it starts");
    let mut second = dial(builder(Mode::WebSocket), &first).await;
    until_connected(&*second.node()).await;
    // The peer was there before anybody asked.
    let event = second.events().try_recv().expect("an event waits");
    assert!(matches!(event, tandem::PeerEvent::Connected(_)), "{event:?}");
    let peers = second.node().peers(PeerClass::Connected);
    assert_eq!(event.peer().id, peers[0].id);
    drop((first, second));
}

// Issue 9, 13: a handler that asks the node back had to wait for it in a callback.
#[tokio::test]
async fn a_running_node_takes_another_handler() {
    let listener = builder(Mode::WebSocket).start(&CancellationToken::new()).await;
    let listener = listener.expect("it starts");
    let (heard, mut handled) = mpsc::channel(16);
    let listen = move |message: Inbound| {
        let heard = heard.clone();
        async move {
            heard.send(message.body).await.expect("the test listens");
            Verdict::Ignore
        }
    };
    assert_eq!(listener.handle(Tag::AV, listen.clone()), Ok(()));
    let again = listener.handle(Tag::AV, listen).expect_err("it has one");
    assert_eq!(again.to_string(), "there is one for AV already");
    let speaker = dial(builder(Mode::WebSocket), &listener).await;
    until_connected(&*speaker.node()).await;
    assert_eq!(speaker.node().broadcast(Outbound::new(Tag::AV, "hello")), Ok(Admission::Queued));
    let body = time::timeout(PATIENCE, handled.recv()).await.expect("it is handled in time");
    assert_eq!(body.as_deref(), Some(&b"hello"[..]));
    drop((speaker, listener));
}

// Issue 9, 13: what a running node shows of itself has its names in this crate.
#[tokio::test]
async fn a_dropped_message_is_counted_by_reason() {
    let node = builder(Mode::WebSocket).start(&CancellationToken::new()).await;
    let node = node.expect("it starts");
    let metrics: &tandem::Metrics = node.metrics();
    assert_eq!(metrics.drops(tandem::DropReason::UnknownTag), 0);
    metrics.dropped(tandem::DropReason::UnknownTag, tandem::gossip::Lane::Bulk);
    assert_eq!(node.broadcaster().metrics().drops(tandem::DropReason::UnknownTag), 1);
}

#[tokio::test]
async fn a_node_that_does_not_start_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("a directory");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    for mode in [Mode::Hybrid, Mode::WebSocket] {
        let root = CancellationToken::new();
        let node = builder(mode).data_dir(dir.path()).listen_ws(address.clone());
        let error = node.start(&root).await.expect_err("the port is taken");
        assert!(matches!(error, StartError::AddressInUse { .. }), "{error:?}");
        assert!(!root.is_cancelled(), "the caller's token is its own");
    }
    // The directory is free again.
    let node = builder(Mode::Hybrid).data_dir(dir.path());
    let running = node.start(&CancellationToken::new()).await.expect("now it starts");
    assert_eq!(running.stop(Duration::from_secs(5)).await, Shutdown::Clean);
}

#[tokio::test]
async fn a_node_keeps_its_identity_in_its_directory_and_has_a_new_one_without() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut identities = Vec::new();
    for _ in 0..2 {
        let root = CancellationToken::new();
        let kept = builder(Mode::WebSocket).data_dir(dir.path()).start(&root).await;
        let kept = kept.expect("it starts");
        let fresh = builder(Mode::WebSocket).start(&root).await.expect("it starts");
        identities.push((kept.identity(), fresh.identity()));
        assert_eq!(kept.stop(Duration::from_secs(5)).await, Shutdown::Clean);
        assert_eq!(fresh.stop(Duration::from_secs(5)).await, Shutdown::Clean);
    }
    assert_eq!(identities[0].0, identities[1].0);
    assert_ne!(identities[0].1, identities[1].1);
}

#[tokio::test]
async fn a_node_that_is_dropped_ends() {
    let root = CancellationToken::new();
    let running = builder(Mode::Hybrid).start(&root).await.expect("it starts");
    let broadcaster = running.broadcaster().clone();
    assert!(broadcaster.task_count() > 0);
    drop(running);
    let ended = async {
        while broadcaster.task_count() > 0 {
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    time::timeout(PATIENCE, ended).await.expect("every task ends");
    assert!(!root.is_cancelled());
}
