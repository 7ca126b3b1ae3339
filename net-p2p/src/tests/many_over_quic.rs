//! A node over QUIC with more to send than its peers take.

use std::time::Duration;

use futures::future::join_all;
use gossip::{GossipNode, NetworkProfile, NodeAddress, Outbound, PeerClass, Tag};
use mesh::{Door, InboundLimits};
use tokio::time::{self, Instant};

use super::host::{Node, new_key, until};
use crate::{P2pConfig, P2pEvent};

/// More connections than had a part in the bound: each of eight could fill it.
const PEERS: usize = 12;

/// Bound on what all connections keep, in bytes.
const BACKLOG: usize = 4 * 1024 * 1024;

/// Time for which the node sends, several times that between two counts of a connection.
const SENDING: Duration = Duration::from_secs(3);

/// Number of connected peers of a node.
fn connected(node: &Node) -> usize {
    node.network.peers(PeerClass::Connected).len()
}

// Issue 11, "Shown by". Before, `bench fanout --transport quic` lost its peers from the eighth on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_read_as_fast_as_they_can_are_kept_however_much_is_sent() {
    let listens = |config| P2pConfig {
        listen: vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()],
        backlog_bytes: Some(BACKLOG),
        door: Door::new(InboundLimits::default().with_per_ip(64)),
        ..config
    };
    let hub = Node::start_with(&NetworkProfile::TANDEM, "net", new_key(), listens).await;
    let address = NodeAddress::Multiaddr(hub.address().to_string());
    let peers = join_all((0..PEERS).map(|_| {
        let dials = |config| P2pConfig { listen: vec![], peers: vec![address.clone()], ..config };
        Node::start_with(&NetworkProfile::TANDEM, "net", new_key(), dials)
    }))
    .await;
    until("all are connected", || connected(&hub) == PEERS).await;
    let end = Instant::now() + SENDING;
    let mut number = 0_u32;
    while Instant::now() < end {
        let mut body = vec![0; 1_000];
        body[..4].copy_from_slice(&number.to_be_bytes());
        // A queue that is full takes the next one.
        if hub.network.broadcast(Outbound::new(Tag::VB, body)).is_err() {
            time::sleep(Duration::from_millis(1)).await;
        }
        number += 1;
    }
    let ended = [P2pEvent::BacklogStream, P2pEvent::BacklogConnection];
    assert_eq!(ended.map(|event| hub.network.metrics().count(event)), [0, 0]);
    assert_eq!(connected(&hub), PEERS);
    assert!(peers.iter().all(|peer| peer.heard().len() > 1_000));
}
