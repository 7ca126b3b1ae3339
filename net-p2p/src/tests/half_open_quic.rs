//! Handshakes of QUIC that are begun and left: honest peers get in, and the node holds no more of them than the door allows.
//! Issue 11, bad input.

use std::{net::SocketAddr, time::Duration};

use gossip::{GossipNode, NetworkProfile, PeerClass};
use libp2p::{Multiaddr, multiaddr::Protocol};
use mesh::{Door, InboundLimits, RateWindow};
use quinn::{Connecting, Endpoint};
use runtime::TaskSet;
use tokio::{
    net::UdpSocket,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::host::{Node, PATIENCE, backlog, new_key, until};
use crate::{config::libp2p_key, quic::client_config};

/// Handshakes that are begun. Source: issue 11.
const HANDSHAKES: usize = 2_000;

/// Handshakes begun before the next honest peer comes.
const TURN: usize = 400;

/// Longest datagram of a handshake, with room.
const DATAGRAM_BYTES: usize = 2_048;

/// Time in which the proxy has to be done with what is on its way. Chosen: many turns of the runtime.
const SETTLED: Duration = Duration::from_millis(50);

/// The address of a node that listens over QUIC, behind a door without limits on the rate.
async fn guarded() -> (Node, Door) {
    let off = RateWindow::OFF;
    let door = Door::new(InboundLimits::default().with_rate(off).with_subnet_rate(off));
    let lent = door.clone();
    let node = Node::start_with(&NetworkProfile::TANDEM, "net", new_key(), |mut config| {
        config.listen = vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()];
        config.door = lent;
        config
    });
    (node.await, door)
}

fn socket_of(address: &Multiaddr) -> SocketAddr {
    let port = address.iter().find_map(|part| match part {
        Protocol::Udp(port) => Some(port),
        _ => None,
    });
    ([127, 0, 0, 1], port.unwrap()).into()
}

/// Says whether a datagram is a Retry. Source: RFC 9000, 17.2.5.
fn is_retry(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| first & 0xf0 == 0xf0)
}

/// Passes datagrams to `node`, and back those that `passes`. Returns the address to call.
async fn proxy(tasks: &TaskSet, node: SocketAddr, passes: fn(&[u8]) -> bool) -> SocketAddr {
    let front = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let back = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    back.connect(node).await.unwrap();
    let address = front.local_addr().unwrap();
    tasks.spawn("proxy", |_cancel| async move {
        let (mut from_front, mut from_back) = ([0; DATAGRAM_BYTES], [0; DATAGRAM_BYTES]);
        let mut client = None;
        loop {
            tokio::select! {
                Ok((len, from)) = front.recv_from(&mut from_front) => {
                    client = Some(from);
                    // A full buffer loses a datagram, as a network may.
                    let _ = back.send(&from_front[..len]).await;
                }
                Ok(len) = back.recv(&mut from_back) => {
                    if let Some(client) = client.filter(|_| passes(&from_back[..len])) {
                        let _ = front.send_to(&from_back[..len], client).await;
                    }
                }
            }
        }
    });
    address
}

async fn honest_peers_get_in_beside(passes: fn(&[u8]) -> bool) {
    let (node, door) = guarded().await;
    let tasks = TaskSet::new(&CancellationToken::new());
    let at = proxy(&tasks, socket_of(&node.address()), passes).await;
    let mut stranger = Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    stranger.set_default_client_config(client_config(&libp2p_key(&new_key()), &backlog()));
    let most = door.limits().half_open_total;
    let (mut begun, mut honest, mut seen): (Vec<Connecting>, Vec<Node>, usize) = Default::default();
    while begun.len() < HANDSHAKES {
        for _ in 0..TURN {
            begun.push(stranger.connect(at, "127.0.0.1").unwrap());
            if begun.len() % 20 == 0 {
                // The proxy's buffers hold few datagrams.
                time::sleep(Duration::from_millis(1)).await;
                seen = seen.max(door.half_open());
                assert!(seen <= most, "{seen} half-open handshakes");
            }
        }
        let peer = Node::start_with(&NetworkProfile::TANDEM, "net", new_key(), |config| config);
        let peer = peer.await;
        let began = Instant::now();
        peer.network.add_peer(&node.network.listen_addresses()[0].parse().unwrap()).unwrap();
        honest.push(peer);
        until("an honest peer gets in", || {
            node.network.peers(PeerClass::Connected).len() == honest.len()
        })
        .await;
        assert!(began.elapsed() < PATIENCE);
    }
    time::sleep(SETTLED).await;
    assert!(seen > 0, "no handshake came to the door");
    assert!(door.half_open() <= most, "{} half-open handshakes", door.half_open());
    for (number, peer) in honest.iter().enumerate() {
        assert_eq!(peer.network.peers(PeerClass::Connected).len(), 1, "honest peer {number}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn honest_peers_get_in_beside_2000_handshakes_of_strangers_who_hear_no_answer() {
    honest_peers_get_in_beside(|_| false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn honest_peers_get_in_beside_2000_handshakes_of_strangers_who_prove_their_address() {
    honest_peers_get_in_beside(is_retry).await;
}
