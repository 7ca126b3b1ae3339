//! Many peers behind one address, as behind a NAT or the gateway of containers: each is served like any other.

use std::{collections::HashSet, time::Duration};

use bytes::Bytes;
use gossip::{GossipNode, Inbound, NetworkProfile, Outbound, Tag};
use mesh::{Door, InboundLimits};
use tokio::{
    sync::broadcast,
    time::{self, Instant},
};

use super::host::{Node, PATIENCE, new_key, until};
use crate::P2pEvent;

/// Number of peers behind the address, as in the report.
const PEERS: usize = 19;

/// Number of transactions that each of them must receive.
const TRANSACTIONS: u8 = 50;

fn transaction(number: u8) -> Outbound {
    Outbound::new(Tag::TX, vec![number; 40])
}

/// Waits until the node serves all peers on the topic: no event reports that subscriptions were exchanged.
async fn serves_all(node: &Node) {
    let deadline = Instant::now() + PATIENCE;
    let mut number = 0_u32;
    loop {
        let probe = Outbound::new(Tag::TX, [b"probe".as_slice(), &number.to_be_bytes()].concat());
        let written = node.broadcaster.broadcast_and_wait(&probe).await.unwrap().written;
        if written == PEERS {
            return;
        }
        assert!(Instant::now() < deadline, "{written} of {PEERS} peers are served");
        number += 1;
        time::sleep(Duration::from_millis(100)).await;
    }
}

/// Adds the bodies of the transactions that have arrived.
fn take(observed: &mut broadcast::Receiver<Inbound>, heard: &mut HashSet<Bytes>) {
    while let Ok(message) = observed.try_recv() {
        if message.tag == Tag::TX && message.body.len() == 40 {
            heard.insert(message.body);
        }
    }
}

// Issue 8, 11. With the library's penalty for peers that share an address, 19 of them received nothing, and `send`
// said "to 19 peers".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nineteen_peers_behind_one_address_receive_everything() {
    let profile = &NetworkProfile::ALGORAND;
    let node = Node::start_with(profile, "net", new_key(), |mut config| {
        config.door = Door::new(InboundLimits::default().with_per_ip(PEERS));
        config
    })
    .await;
    let mut peers = Vec::new();
    for _ in 0..PEERS {
        let peer = Node::start(profile, "net", new_key()).await;
        peer.network.add_peer(&node.network.listen_addresses()[0].parse().unwrap()).unwrap();
        peers.push(peer);
    }
    let linked = || node.network.peers(gossip::PeerClass::Connected).len() == PEERS;
    until("all are linked", linked).await;
    serves_all(&node).await;

    let mut observed: Vec<_> = peers.iter().map(|peer| peer.broadcaster.observe()).collect();
    for number in 0..TRANSACTIONS {
        let delivery = node.broadcaster.broadcast_and_wait(&transaction(number)).await.unwrap();
        assert_eq!((delivery.written, delivery.given_up), (PEERS, 0), "transaction {number}");
    }
    for observed in &mut observed {
        let mut heard = HashSet::new();
        until("a peer has received every transaction", || {
            take(observed, &mut heard);
            heard.len() == usize::from(TRANSACTIONS)
        })
        .await;
    }
    for side in peers.iter().chain([&node]) {
        assert_eq!(side.network.metrics().count(P2pEvent::TopicPeerMuted), 0);
        assert_eq!(side.network.metrics().count(P2pEvent::TopicPeerFull), 0);
    }
}
