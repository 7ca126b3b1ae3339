//! A peer that the application disconnects for a reason of its own is not dialled again, over real sockets.

use std::{sync::Arc, time::Duration};

use broadcaster::{Broadcaster, PeerEvent, Setup};
use gossip::{
    Admission, ApplicationReason, GossipNode, Inbound, Keypair, NetworkId, NetworkProfile,
    NodeAddress, Outbound, PeerClass, Tag, Transport, Verdict,
};
use net_hybrid::{HybridConfig, HybridNetwork};
use net_p2p::P2pConfig;
use net_ws::WsConfig;
use testkit::wait::until;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

struct Node {
    network: HybridNetwork,
    broadcaster: Broadcaster,
    root: CancellationToken,
}

impl Node {
    async fn start(seed: u8) -> Self {
        let root = CancellationToken::new();
        let verdict = |message: Inbound| async move {
            if message.body.starts_with(b"equivocation") {
                Verdict::Disconnect(ApplicationReason::Own("equivocated"))
            } else {
                Verdict::Ignore
            }
        };
        let setup = Setup::new(&NetworkProfile::TANDEM).handler(Tag::AV, Arc::new(verdict));
        let broadcaster = Broadcaster::start(setup, &root);
        let network = NetworkId::new("misbehaviour").expect("the name is a short path segment");
        let mut ws = WsConfig::new(network.clone());
        ws.listen = Some("127.0.0.1:0".to_owned());
        let mut p2p = P2pConfig::new(network, Keypair::from_seed([seed; 32]));
        p2p.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().expect("it is a multiaddr")];
        let config = HybridConfig { ws, p2p };
        let network = HybridNetwork::start(config, broadcaster.clone(), &root).await;
        Self { network: network.expect("the node starts"), broadcaster, root }
    }

    fn address(&self, transport: Transport) -> NodeAddress {
        match transport {
            Transport::Libp2p => self.network.p2p().addresses().remove(0),
            _ => self.network.ws().addresses().remove(0),
        }
    }

    fn dial(&self, transport: Transport, address: &NodeAddress) {
        match transport {
            Transport::Libp2p => self.network.p2p().add_peer(address).expect("it can be dialled"),
            _ => self.network.ws().add_peer(address).expect("the address can be dialled"),
        }
    }
}

/// The number of links of a node that dials an equivocator for five seconds, which equivocates on each of them; and why
/// it banned.
async fn links_to_an_equivocator(transport: Transport) -> (usize, Vec<String>) {
    let (node, equivocator) = (Node::start(1).await, Node::start(2).await);
    let mut events = node.broadcaster.events();
    node.dial(transport, &equivocator.address(transport));
    until("the first link", || !node.network.peers(PeerClass::Connected).is_empty()).await;
    let (began, mut number) = (Instant::now(), 0_u32);
    while began.elapsed() < Duration::from_secs(5) {
        if !equivocator.network.peers(PeerClass::Connected).is_empty() {
            number += 1;
            let message = Outbound::new(Tag::AV, format!("equivocation {number}"));
            let said = equivocator.broadcaster.broadcast(&message);
            assert_eq!(said, Ok(Admission::Queued));
        }
        time::sleep(Duration::from_millis(20)).await;
    }
    let mut links = 0;
    while let Ok(event) = events.try_recv() {
        links += usize::from(matches!(event, PeerEvent::Connected(_)));
    }
    let bans = node.broadcaster.mesh().bans().into_iter().map(|ban| ban.reason).collect();
    node.root.cancel();
    equivocator.root.cancel();
    (links, bans)
}

// Issue 10, 4: the node itself dialled an equivocator 45 times in 10 s.
#[tokio::test]
async fn an_equivocator_over_websocket_is_not_dialled_again() {
    let banned = vec!["application (equivocated)".to_owned()];
    assert_eq!(links_to_an_equivocator(Transport::WebSocket).await, (1, banned));
}

// Issue 10, 4.
#[tokio::test]
async fn an_equivocator_over_libp2p_is_not_dialled_again() {
    let banned = vec!["application (equivocated)".to_owned()];
    assert_eq!(links_to_an_equivocator(Transport::Libp2p).await, (1, banned));
}
