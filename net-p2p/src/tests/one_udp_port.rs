//! A node whose UDP port QUIC and WebRTC share.

use std::{net::SocketAddr, time::Duration};

use gossip::{GossipNode as _, NetworkProfile, NodeAddress, Outbound, PeerClass, Tag};
use rand::Rng as _;
use runtime::Environment;
use tokio::{net::UdpSocket, time};

use super::host::{Node, new_key, until};
use crate::{P2pConfig, P2pEvent};

/// Messages to each peer.
const MESSAGES: usize = 400;

/// Datagrams of strangers, of each kind.
const STRAYS: usize = 5_000;

/// An address at which nothing listens. Its port is none that the system gives to those who ask for any, as other tests do.
fn free_port() -> SocketAddr {
    let mut random = Environment::system().random();
    loop {
        let at = SocketAddr::from(([127, 0, 0, 1], random.random_range(12_000..30_000)));
        if std::net::UdpSocket::bind(at).is_ok() {
            return at;
        }
    }
}

// Issue 13, 3: "one UDP port shared with QUIC if that is sound".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_over_quic_and_webrtc_gossip_through_one_port_beside_a_flood_of_strays() {
    let at = free_port();
    let host = format!("/ip4/127.0.0.1/udp/{}", at.port());
    let listens = |config| P2pConfig {
        listen: ["quic-v1", "webrtc-direct"]
            .map(|transport| format!("{host}/{transport}").parse().unwrap())
            .to_vec(),
        ..config
    };
    let hub = Node::start_with(&NetworkProfile::TANDEM, "net", new_key(), listens).await;
    until("both are announced", || hub.network.listen_addresses().len() == 2).await;
    let strays = async {
        let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for number in 0..STRAYS {
            for first in [0, 10, 22, 64, 128, 255] {
                // A full buffer loses it, as a network may.
                let _ = stranger.send_to(&[first; 200], at).await;
            }
            if number % 20 == 0 {
                time::sleep(Duration::from_millis(2)).await;
            }
        }
    };
    let gossip = async {
        let mut peers = Vec::new();
        for address in hub.network.listen_addresses() {
            let peer = NodeAddress::Multiaddr(address.clone());
            let dials = |config| P2pConfig { listen: vec![], peers: vec![peer], ..config };
            let peer = Node::start_with(&NetworkProfile::TANDEM, "net", new_key(), dials).await;
            peers.push(peer);
        }
        until("both are connected", || hub.network.peers(PeerClass::Connected).len() == 2).await;
        for number in 0..MESSAGES {
            let body = [&number.to_be_bytes()[..], &[7; 2_000]].concat();
            while hub.network.broadcast(Outbound::new(Tag::VB, body.clone())).is_err() {
                time::sleep(Duration::from_millis(1)).await;
            }
        }
        for (number, peer) in peers.iter().enumerate() {
            until("all is heard", || peer.heard().len() == MESSAGES).await;
            let body = vec![u8::try_from(number).unwrap(); 3_000];
            let sent = peer.network.broadcast(Outbound::new(Tag::VB, body));
            assert!(sent.is_ok());
        }
        until("both are heard", || hub.heard().len() == 2).await;
    };
    tokio::join!(strays, gossip);
    assert!(hub.network.metrics().count(P2pEvent::WebRtcStray) > 0);
}
