//! Two hybrid nodes that can reach each other in four ways keep exactly one gossip link.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use broadcaster::{Broadcaster, Relaying, Setup};
use gossip::{
    Admission, GossipNode, Inbound, Keypair, NetworkId, NetworkProfile, Outbound, PeerClass,
    PeerInfo, Tag, Transport, Verdict,
};
use net_p2p::P2pConfig;
use net_ws::WsConfig;
use rand::Rng;
use runtime::{Random, Shutdown};
use tandem_net_hybrid::{HybridConfig, HybridNetwork};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Number of meetings, each of two nodes with random keys, so that every order of keys and dials occurs.
const MEETINGS: usize = 100;
/// Number of meetings at a time. Chosen: a meeting mostly waits for its redials, so that many cost little.
const AT_A_TIME: usize = 20;
/// Longest time until two nodes have settled. Generous, because the machine may be busy with other tests.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);

struct Node {
    network: HybridNetwork,
    broadcaster: Broadcaster,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
    token: CancellationToken,
}

impl Node {
    async fn start() -> Self {
        let token = CancellationToken::new();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let listener = Arc::clone(&heard);
        let handler = move |message: Inbound| {
            listener.lock().unwrap_or_else(PoisonError::into_inner).push(message.body.to_vec());
            std::future::ready(Verdict::Ignore)
        };
        let setup = Setup::new(&NetworkProfile::TANDEM)
            .relaying(Relaying::Accepted)
            .handler(Tag::AV, Arc::new(handler));
        let broadcaster = Broadcaster::start(setup, &token);
        let name = NetworkId::new("one-link").expect("the name is a short path segment");
        let mut ws = WsConfig::new(name.clone());
        ws.listen = Some("127.0.0.1:0".to_owned());
        let mut p2p = P2pConfig::new(name, Keypair::from_seed(Random::system().random()));
        p2p.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().expect("it is a multiaddr")];
        let config = HybridConfig { ws, p2p };
        let network = HybridNetwork::start(config, broadcaster.clone(), &token)
            .await
            .expect("the node starts");
        Self { network, broadcaster, heard, token }
    }

    fn dial(&self, other: &Self) {
        for address in other.network.ws().addresses() {
            self.network.ws().add_peer(&address).expect("the address can be dialled");
        }
        for address in other.network.p2p().addresses() {
            self.network.p2p().add_peer(&address).expect("the address can be dialled");
        }
    }

    fn peers(&self) -> Vec<PeerInfo> {
        self.network.peers(PeerClass::Connected)
    }

    fn say(&self, what: &[u8]) {
        let message = Outbound::new(Tag::AV, what.to_vec());
        assert_eq!(self.network.broadcast(message), Ok(Admission::Queued));
    }

    fn times_heard(&self, what: &[u8]) -> usize {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.iter().filter(|body| body.as_slice() == what).count()
    }

    async fn stop(self) {
        let stopped = self.network.stop(Duration::from_secs(10)).await;
        assert_eq!(stopped, Shutdown::Clean);
        assert_eq!(self.broadcaster.stop(Duration::from_secs(10)).await, Shutdown::Clean);
        assert_eq!(self.broadcaster.task_count(), 0);
        self.token.cancel();
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + SETTLED_WITHIN;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {SETTLED_WITHIN:?}: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Returns `true` if both ends have one link of the same kind, with opposite directions.
fn agreed(a: &Node, b: &Node) -> bool {
    match (&a.peers()[..], &b.peers()[..]) {
        ([one], [other]) => {
            one.transport == other.transport
                && one.direction != other.direction
                && one.identity == Some(b.network.p2p().identity())
                && other.identity == Some(a.network.p2p().identity())
        }
        _ => false,
    }
}

async fn meeting(number: usize) {
    let (a, b) = tokio::join!(Node::start(), Node::start());
    a.dial(&b);
    if !number.is_multiple_of(4) {
        // In three of four meetings both nodes dial at once.
        b.dial(&a);
    }
    // Messages sent while the links are being sorted out must arrive exactly once.
    eventually("a first link", || !a.peers().is_empty() && !b.peers().is_empty()).await;
    for count in 0..40_u8 {
        a.say(&[b'a', count]);
        b.say(&[b'b', count]);
        tokio::task::yield_now().await;
    }
    eventually("one link that both ends agree on", || agreed(&a, &b)).await;
    for count in 0..40_u8 {
        let (by_a, by_b) = ([b'a', count], [b'b', count]);
        eventually("a message sent during the handover", || {
            a.times_heard(&by_b) == 1 && b.times_heard(&by_a) == 1
        })
        .await;
    }
    a.say(b"after");
    eventually("a message over the link that stayed", || b.times_heard(b"after") == 1).await;
    // Whichever link came first, both ends prefer libp2p, so the libp2p link is kept.
    eventually("the libp2p link alone", || {
        agreed(&a, &b) && a.peers().iter().all(|peer| peer.transport == Transport::Libp2p)
    })
    .await;
    tokio::join!(a.stop(), b.stop());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_pairs_that_meet_over_both_transports_keep_one_link_each() {
    let mut started = 0;
    while started < MEETINGS {
        let round: Vec<_> = (started..MEETINGS.min(started + AT_A_TIME)).map(meeting).collect();
        started += round.len();
        let round = futures::future::join_all(round);
        timeout(SETTLED_WITHIN * 4, round).await.expect("a round of meetings ends");
    }
    assert_eq!(started, MEETINGS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_from_one_transport_reaches_the_peers_of_the_other() {
    let (hub, leaf_ws, leaf_p2p) = tokio::join!(Node::start(), Node::start(), Node::start());
    for address in hub.network.ws().addresses() {
        leaf_ws.network.ws().add_peer(&address).expect("the address can be dialled");
    }
    for address in hub.network.p2p().addresses() {
        leaf_p2p.network.p2p().add_peer(&address).unwrap();
    }
    // Each end counts the other at a time of its own.
    eventually("two leaves at the hub, and the hub at both", || {
        let leaves = [&leaf_ws, &leaf_p2p].into_iter().flat_map(|leaf| leaf.peers());
        let transports: Vec<Transport> = leaves.map(|peer| peer.transport).collect();
        hub.peers().len() == 2 && transports == [Transport::WebSocket, Transport::Libp2p]
    })
    .await;
    leaf_ws.say(b"over ws");
    leaf_p2p.say(b"over p2p");
    eventually("each leaf hears the other", || {
        leaf_p2p.times_heard(b"over ws") == 1 && leaf_ws.times_heard(b"over p2p") == 1
    })
    .await;
    assert_eq!(hub.times_heard(b"over ws"), 1);
    assert_eq!(leaf_ws.times_heard(b"over ws"), 0, "nobody hears its own message");
    for node in [hub, leaf_ws, leaf_p2p] {
        node.stop().await;
    }
}
