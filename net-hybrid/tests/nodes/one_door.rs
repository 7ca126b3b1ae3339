//! One limit on the inbound peers of a hybrid node, over both transports together.

use std::time::Duration;

use broadcaster::{Broadcaster, Setup};
use gossip::{GossipNode, Keypair, NetworkId, NetworkProfile, PeerClass};
use mesh::{Door, InboundLimits, Refusal};
use net_p2p::P2pConfig;
use net_ws::WsConfig;
use rand::Rng;
use runtime::Random;
use tandem_net_hybrid::{HybridConfig, HybridNetwork};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

struct Node {
    network: HybridNetwork,
    _root: CancellationToken,
}

async fn node(door: Door) -> Node {
    let root = CancellationToken::new();
    let broadcaster = Broadcaster::start(Setup::new(&NetworkProfile::TANDEM), &root);
    let name = NetworkId::new("one-door").expect("the name is a short path segment");
    let mut ws = WsConfig::new(name.clone());
    ws.listen = Some("127.0.0.1:0".to_owned());
    let mut p2p = P2pConfig::new(name, Keypair::from_seed(Random::system().random()));
    p2p.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().expect("it is a multiaddr")];
    p2p.door = door;
    let config = HybridConfig { ws, p2p };
    let network = HybridNetwork::start(config, broadcaster, &root).await;
    Node { network: network.expect("the node starts"), _root: root }
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

// Issue 8, 10. Before, `--max-inbound 2` on a hybrid admitted two peers per transport.
#[tokio::test(flavor = "multi_thread")]
async fn a_hybrid_has_one_total() {
    let door = Door::new(InboundLimits::default().with_total(2));
    let hub = node(door.clone()).await;
    let mut leaves = Vec::new();
    for number in 0..4 {
        let leaf = node(Door::default()).await;
        if number % 2 == 0 {
            let address = hub.network.ws().addresses().remove(0);
            leaf.network.ws().add_peer(&address).expect("the address can be dialled");
        } else {
            let address = hub.network.p2p().addresses().remove(0);
            leaf.network.p2p().add_peer(&address).expect("the address can be dialled");
        }
        let refused = || door.refused(Refusal::Total);
        until("let in or refused", || door.peers() == number + 1 || refused() >= 1).await;
        leaves.push(leaf);
    }
    until("two of each were refused", || door.refused(Refusal::Total) >= 2).await;
    assert_eq!(door.peers(), 2);
    assert_eq!(hub.network.peers(PeerClass::ConnectedIn).len(), 2);
}
