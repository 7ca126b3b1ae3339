//! Peers whose keys are not Ed25519: py-libp2p's guides create secp256k1 keys, old hosts have RSA keys.

use futures::{AsyncReadExt, AsyncWriteExt};
use gossip::{Direction, GossipNode, Identity, KeyKind, NetworkProfile, NodeAddress, PeerClass};
use libp2p::{StreamProtocol, gossipsub::MessageAuthenticity, identity::Keypair};
use tokio::time;

use super::{
    host::{Host, Node, PATIENCE, new_key, until},
    http::serving,
    links::{ours, shake},
    topics::{heard, publish_as},
};
use crate::{P2pEvent, address::identity_of, handshake::LaneCount};

const ECHO: StreamProtocol = StreamProtocol::new("/test/echo");

/// A key of each kind that libp2p supports besides Ed25519.
pub(super) fn keys() -> [(KeyKind, Keypair); 3] {
    let mut rsa = include_bytes!("../../testdata/rsa-2048.pk8").to_vec();
    [
        (KeyKind::Secp256k1, Keypair::generate_secp256k1()),
        (KeyKind::Hashed, Keypair::generate_ecdsa()),
        (KeyKind::Hashed, Keypair::rsa_from_pkcs8(&mut rsa).unwrap()),
    ]
}

fn identity(key: &Keypair) -> Identity {
    identity_of(&key.public().to_peer_id()).unwrap()
}

// Issue 9, 6. Before, a host with a key other than Ed25519 was cut off right after it connected.
#[tokio::test]
async fn a_host_with_any_key_is_served_http_and_streams() {
    for profile in NetworkProfile::ALL {
        let node = serving(profile, new_key()).await;
        for (kind, key) in keys() {
            let identity = identity(&key);
            assert_eq!(identity.kind(), kind);
            let mut host = Host::dial_as(&key, &[ECHO], node.address()).await;
            let mut stream = host.open(profile.http_protocol).await;
            let request = b"GET /caller HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            stream.write_all(request).await.unwrap();
            stream.flush().await.unwrap();
            let mut answer = String::new();
            time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            assert!(answer.contains(&identity.to_string()), "{answer}");

            let opened = node.network.open_stream(&identity, vec![ECHO], PATIENCE).await;
            let mut stream = opened.unwrap().stream;
            stream.write_all(b"x").await.unwrap();
            stream.flush().await.unwrap();
            let mut inbound = host.accepted.next().await.unwrap();
            inbound.stream.read_exact(&mut [0]).await.unwrap();
            assert!(host.is_alive());
        }
        node.root.cancel();
    }
}

// Issue 9, 6.
#[tokio::test]
async fn a_host_with_any_key_takes_part_in_topics() {
    let node = Node::start(&NetworkProfile::ALGORAND, "net", new_key()).await;
    let mut observed = node.broadcaster.observe();
    for (_, key) in keys() {
        let author = MessageAuthenticity::Author(key.public().to_peer_id());
        let body = Box::leak(identity(&key).to_string().into_boxed_str()).as_bytes();
        let _publisher = publish_as(&key, author, &node, body);
        until("it is heard", || heard(&mut observed, body)).await;
    }
}

// Issue 9, 6: in a network of Tandem nodes, every kind of key may gossip.
#[tokio::test]
async fn a_host_with_any_key_gossips_among_tandem_nodes() {
    let profile = &NetworkProfile::TANDEM;
    let node = Node::start(profile, "net", new_key()).await;
    for (_, key) in keys() {
        let host = Host::dial_as(&key, &[], node.address()).await;
        let mut stream = host.open(profile.stream_protocol).await;
        shake(&mut stream, Direction::Outbound, &ours(profile, 1, LaneCount::One)).await;
        let is_linked = || {
            let peers = node.network.peers(PeerClass::Connected);
            peers.iter().any(|peer| peer.identity == Some(identity(&key)))
        };
        until("the link is up", is_linked).await;
    }
    assert_eq!(node.network.metrics().count(P2pEvent::ForeignKey), 0);
}

// Issue 9, 6: existing nodes know a gossiping peer by a key of 32 bytes (wire facts 8.1).
#[tokio::test]
async fn among_existing_nodes_a_host_with_another_key_keeps_its_connection_but_has_no_gossip() {
    let profile = &NetworkProfile::ALGORAND;
    let node = Node::start(profile, "net", new_key()).await;
    let (_, key) = keys().into_iter().next().unwrap();
    let mut host = Host::dial_as(&key, &[ECHO], node.address()).await;
    let mut stream = host.open(profile.stream_protocol).await;
    let _reset = time::timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await.unwrap();
    until("it is counted", || node.network.metrics().count(P2pEvent::ForeignKey) == 1).await;
    let opened = node.network.open_stream(&identity(&key), vec![ECHO], PATIENCE).await;
    let mut stream = opened.unwrap().stream;
    stream.write_all(b"x").await.unwrap();
    stream.flush().await.unwrap();
    host.accepted.next().await.unwrap().stream.read_exact(&mut [0]).await.unwrap();
    assert!(host.is_alive());
    assert!(node.network.peers(PeerClass::Connected).is_empty());
}

// Issue 9, 6: a configured host with another kind of key is dialled once, and kept for topics.
#[tokio::test]
async fn a_configured_host_with_another_key_is_dialled_and_kept() {
    for profile in NetworkProfile::ALL {
        let (_, key) = keys().into_iter().next().unwrap();
        let (host, address) = Host::listen_as(&key, &[]).await;
        let address: NodeAddress = address.to_string().parse().unwrap();
        let node = Node::start_with(profile, "net", new_key(), |config| crate::P2pConfig {
            peers: vec![address.clone()],
            ..config
        })
        .await;
        until("it is dialled", || host.seen.lock().unwrap().connected.len() == 1).await;
        time::sleep(std::time::Duration::from_millis(600)).await; // two ticks of the schedule
        let seen = host.seen.lock().unwrap();
        assert_eq!((seen.connected.len(), seen.closed), (1, 0), "{}", profile.name);
        node.root.cancel();
    }
}
