//! Bursts of transactions through each way into a node: its libp2p peers receive all of them, and the messages
//! that follow.

use std::{collections::HashSet, io, time::Duration};

use broadcaster::{
    Frame, FrameSink, FrameSource, LaneSinks, Link, LinkInfo, MessageMemory, Received, SourceEnd,
};
use bytes::Bytes;
use futures::AsyncWriteExt;
use gossip::{
    Admission, Direction, DisconnectReason, GossipNode, Inbound, NetworkProfile, Outbound, Tag,
    Transport,
};
use libp2p::Stream;
use tokio::{
    sync::{broadcast, mpsc},
    time,
};

use super::{
    host::{Host, Node, PATIENCE, new_key, ordered_keys, until},
    links::{ours, shake},
    rpc,
};
use crate::{P2pEvent, handshake::LaneCount};

/// Number of transactions per burst: about those of a block.
const BURST: u32 = 1_000;

/// Number of bursts, one second apart.
const BURSTS: u32 = 3;

/// A transaction with a body of its own.
fn transaction(number: u32) -> Vec<u8> {
    let mut body = vec![7; 300];
    body[..4].copy_from_slice(&number.to_be_bytes());
    body
}

/// A node and an honest peer, linked and subscribed to its topic.
async fn node_and_peer() -> (Node, Node) {
    let profile = &NetworkProfile::ALGORAND;
    let node = Node::relay(profile, "net").await;
    let peer = Node::start(profile, "net", new_key()).await;
    peer.network.add_peer(&node.network.listen_addresses()[0].parse().unwrap()).unwrap();
    let linked = || !peer.network.peers(gossip::PeerClass::Connected).is_empty();
    until("they are linked", linked).await;
    (node, peer)
}

/// Waits until a peer has received `all` transactions.
async fn hears(observed: &mut broadcast::Receiver<Inbound>, heard: &mut HashSet<Bytes>, all: u32) {
    let all = all as usize;
    let hearing = async {
        while heard.len() < all {
            match observed.recv().await {
                Ok(message) if message.tag == Tag::TX => heard.insert(message.body),
                Ok(_) => continue,
                Err(error) => panic!("{error}"),
            };
        }
    };
    if time::timeout(PATIENCE, hearing).await.is_err() {
        panic!("{} of {all} were heard", heard.len());
    }
}

/// Sends bursts with `say`, and waits until the peer has received them.
async fn is_heard<F: Future<Output = ()>>(
    node: &Node,
    peer: &Node,
    size: u32,
    mut say: impl FnMut(u32) -> F,
) {
    let mut observed = peer.broadcaster.observe();
    let mut heard = HashSet::new();
    // No event reports that subscriptions were exchanged, so the test polls for it.
    let mut met = 0;
    while heard.is_empty() {
        met += 1;
        assert!(met < 400, "nothing is heard");
        say(u32::MAX - met).await;
        if let Ok(Ok(message)) = time::timeout(Duration::from_millis(50), observed.recv()).await {
            heard.insert(message.body);
        }
    }
    time::sleep(Duration::from_millis(200)).await;
    while observed.try_recv().is_ok() {}
    heard.clear();
    for burst in 0..BURSTS {
        for number in burst * size..(burst + 1) * size {
            say(number).await;
        }
        hears(&mut observed, &mut heard, (burst + 1) * size).await;
    }
    say(BURSTS * size).await;
    hears(&mut observed, &mut heard, BURSTS * size + 1).await;
    for side in [node, peer] {
        assert_eq!(side.network.metrics().count(P2pEvent::TopicPeerMuted), 0);
        assert_eq!(side.network.metrics().count(P2pEvent::TopicPeerFull), 0);
    }
}

// Issue 8, 22.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_own_messages_arrives() {
    let (node, peer) = node_and_peer().await;
    is_heard(&node, &peer, BURST, async |number| {
        let message = || Outbound::new(Tag::TX, transaction(number));
        while node.network.broadcast(message()) != Ok(Admission::Queued) {
            time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// The read half of a peer on the other transport.
struct Feed(mpsc::Receiver<Bytes>);

impl FrameSource for Feed {
    async fn next_message(&mut self) -> Result<Received, SourceEnd> {
        match self.0.recv().await {
            Some(wire) => Ok(Received { tag: Tag::TX, wire, memory: MessageMemory::Uncharged }),
            None => Err(SourceEnd::because(DisconnectReason::RemoteClosed)),
        }
    }
}

/// The write half of that peer, which discards everything.
struct Sink;

impl FrameSink for Sink {
    async fn write_batch(&mut self, _batch: &[Frame]) -> io::Result<()> {
        Ok(())
    }

    async fn close(&mut self, _reason: DisconnectReason) {}
}

// Issue 8, 22.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_from_a_peer_of_the_other_transport_arrives() {
    let (node, peer) = node_and_peer().await;
    let (feed, messages) = mpsc::channel(1_024);
    let about = LinkInfo::new(Transport::WebSocket, Direction::Inbound, "127.0.0.1:1".to_owned());
    let (sinks, sources) = (LaneSinks::Shared(Sink), vec![Feed(messages)]);
    let link =
        Link { about, sinks, sources, greeting: Vec::new(), hooks: None, codec: None, gauge: None };
    let _attached = node.broadcaster.attach(node.broadcaster.next_link_id(), link).unwrap();
    is_heard(&node, &peer, BURST, async |number| {
        let wire = [&Tag::TX.0[..], &transaction(number)].concat();
        feed.send(wire.into()).await.unwrap();
    })
    .await;
}

async fn write(stream: &mut Stream, bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
}

// Issue 8, 22: a message from a stream is relayed over streams and topics alike.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_on_a_stream_arrives() {
    let (node, peer) = node_and_peer().await;
    let (host, _) = ordered_keys();
    let host = Host::dial(&host, &[], node.address()).await;
    let profile = &NetworkProfile::ALGORAND;
    let mut stream = host.open(profile.stream_protocol).await;
    shake(&mut stream, Direction::Outbound, &ours(profile, 1, LaneCount::One)).await;
    let stream = tokio::sync::Mutex::new(stream);
    is_heard(&node, &peer, BURST, async |number| {
        let body = [&Tag::TX.0[..], &transaction(number)].concat();
        let header = u32::try_from(body.len()).unwrap().to_be_bytes();
        write(&mut *stream.lock().await, &[&header[..], &body].concat()).await;
    })
    .await;
}

// Issue 8, 22.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_on_a_topic_arrives() {
    const MESHSUB: &str = "/meshsub/1.1.0";
    let (node, peer) = node_and_peer().await;
    let offered = [libp2p::StreamProtocol::new(MESHSUB)];
    let host = Host::dial(&new_key(), &offered, node.address()).await;
    let stream = tokio::sync::Mutex::new(host.open(MESHSUB).await);
    is_heard(&node, &peer, BURST, async |number| {
        let request = rpc::request(&[rpc::message("algotx01", &transaction(number))]);
        write(&mut *stream.lock().await, &request).await;
    })
    .await;
}
