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

// Issue 11, 1: "statistics for the governor".
#[tokio::test]
async fn a_link_over_quic_tells_what_has_arrived_and_one_over_tcp_does_not() {
    let at = |address: &'static str| {
        move |config| P2pConfig { listen: vec![address.parse().unwrap()], ..config }
    };
    for (address, is_measured) in
        [("/ip4/127.0.0.1/udp/0/quic-v1", true), ("/ip4/127.0.0.1/tcp/0", false)]
    {
        let hub = Node::start_with(&NetworkProfile::TANDEM, "net", new_key(), at(address)).await;
        let peer = NodeAddress::Multiaddr(hub.address().to_string());
        let dials = |config| P2pConfig { listen: vec![], peers: vec![peer.clone()], ..config };
        let peer = Node::start_with(&NetworkProfile::TANDEM, "net", new_key(), dials).await;
        until("both are connected", || connected(&hub) == 1 && connected(&peer) == 1).await;
        let sample = |node: &Node| {
            let [link] = &node.network.peers(PeerClass::Connected)[..] else { panic!("one link") };
            node.broadcaster.pressure(link.id)
        };
        let before = sample(&hub).map_or(0, |sample| sample.acked_bytes);
        let sent = hub.network.broadcast(Outbound::new(Tag::VB, vec![1; 100_000]));
        assert!(sent.is_ok());
        until("it is heard", || peer.heard().len() == 1).await;
        if !is_measured {
            assert_eq!((sample(&hub), sample(&peer)), (None, None));
            continue;
        }
        let sampled = || sample(&hub).filter(|sample| sample.acked_bytes >= before + 100_000);
        until("it is acknowledged", || sampled().is_some()).await;
        let there = sampled().unwrap();
        assert!(there.acked_bytes < before + 150_000, "{there:?}");
        assert!(
            there.min_round_trip > Duration::ZERO && there.min_round_trip < there.round_trip * 2
        );
        until("nothing is left", || sample(&hub).unwrap().in_flight_bytes < 5_000).await;
        assert!(sample(&peer).is_some(), "the end that was dialled and the one that dialled");
    }
}
