//! Bans at the door, over real sockets and both transports: newcomers are refused, and those that are there go.

use std::{sync::Arc, time::Duration};

use broadcaster::{Broadcaster, PeerEvent, Setup};
use gossip::{
    DisconnectReason, GossipNode, Inbound, Keypair, NetworkId, NetworkProfile, NodeAddress,
    PeerClass, Tag, Transport, Verdict,
};
use mesh::{BanSubject, Door, InboundLimits, Refusal};
use net_hybrid::{HybridConfig, HybridNetwork};
use net_p2p::P2pConfig;
use net_ws::WsConfig;
use testkit::wait::{soon, until};
use tokio::time;
use tokio_util::sync::CancellationToken;

const HOUR: Duration = Duration::from_secs(3_600);

struct Node {
    network: HybridNetwork,
    broadcaster: Broadcaster,
    door: Door,
    root: CancellationToken,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.root.cancel();
    }
}

fn key(seed: u8) -> Keypair {
    Keypair::from_seed([seed; 32])
}

impl Node {
    async fn start(seed: u8) -> Self {
        let root = CancellationToken::new();
        let handler = |_: Inbound| async move { Verdict::Ignore };
        let setup = Setup::new(&NetworkProfile::TANDEM).handler(Tag::AV, Arc::new(handler));
        let broadcaster = Broadcaster::start(setup, &root);
        let network = NetworkId::new("bans").expect("the name is a short path segment");
        let mut ws = WsConfig::new(network.clone());
        ws.listen = Some("127.0.0.1:0".to_owned());
        let mut p2p = P2pConfig::new(network, key(seed));
        p2p.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().expect("it is a multiaddr")];
        let door = Door::new(InboundLimits::default());
        p2p.door = door.clone();
        let config = HybridConfig { ws, p2p };
        let network = HybridNetwork::start(config, broadcaster.clone(), &root).await;
        Self { network: network.expect("the node starts"), broadcaster, door, root }
    }

    fn address(&self, transport: Transport) -> NodeAddress {
        match transport {
            Transport::Libp2p => self.network.p2p().addresses().remove(0),
            _ => self.network.ws().addresses().remove(0),
        }
    }

    fn dial(&self, transport: Transport, to: &Self) {
        let address = to.address(transport);
        match transport {
            Transport::Libp2p => self.network.p2p().add_peer(&address).expect("it can be dialled"),
            _ => self.network.ws().add_peer(&address).expect("the address can be dialled"),
        }
    }

    fn peers(&self) -> usize {
        self.network.peers(PeerClass::Connected).len()
    }
}

/// A peer that connected to a node, and is banned there: its link ends as banned, and no further one comes about.
async fn a_ban_ends_the_link_and_keeps_the_peer_out(transport: Transport, subject: &str) {
    let (node, other) = (Node::start(1).await, Node::start(2).await);
    let mut events = node.broadcaster.events();
    other.dial(transport, &node);
    until("the first link", || node.peers() == 1 && other.peers() == 1).await;
    let subject: BanSubject = subject.parse().expect("it names somebody");
    node.broadcaster.ban(subject.clone(), HOUR, "a test").expect("there is room");
    let reason = soon("the end of the link", async {
        loop {
            if let Ok(PeerEvent::Disconnected(_, reason)) = events.recv().await {
                return reason;
            }
        }
    });
    assert_eq!(reason.await, DisconnectReason::Banned, "{transport:?} {subject}");
    // The other node goes on to dial.
    until("a refusal", || node.door.refused_over(Refusal::Banned, transport) > 0).await;
    time::sleep(Duration::from_millis(500)).await;
    while let Ok(event) = events.try_recv() {
        assert!(!matches!(event, PeerEvent::Connected(_)), "{transport:?} {subject} {event:?}");
    }
    assert_eq!(node.peers(), 0);
    assert!(node.broadcaster.mesh().unban(&subject));
    until("a link after the ban", || node.peers() == 1).await;
}

// Issue 10, 4.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_banned_identity_is_refused_over_libp2p() {
    let banned = key(2).identity().to_string();
    a_ban_ends_the_link_and_keeps_the_peer_out(Transport::Libp2p, &banned).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_banned_identity_is_refused_over_websocket() {
    let banned = key(2).identity().to_string();
    a_ban_ends_the_link_and_keeps_the_peer_out(Transport::WebSocket, &banned).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_banned_host_is_refused_over_libp2p() {
    a_ban_ends_the_link_and_keeps_the_peer_out(Transport::Libp2p, "127.0.0.1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_banned_network_is_refused_over_websocket() {
    a_ban_ends_the_link_and_keeps_the_peer_out(Transport::WebSocket, "127.0.0.0/8").await;
}
