//! Nodes for tests, and polling with a deadline.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use broadcaster::{Broadcaster, Relaying, Setup};
use gossip::{
    GossipNode, Inbound, Keypair, NetworkId, NetworkProfile, NodeAddress, PeerClass, PeerInfo, Tag,
    Validator, Verdict,
};
use rand::Rng;
use runtime::{Random, Shutdown};
use tandem_net_p2p::{P2pConfig, P2pNetwork};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

/// Longest time for any step. Only a fault takes this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Polls until `is_so` holds; panics with `what` after [`PATIENCE`].
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not so after {PATIENCE:?}: {what}");
        time::sleep(Duration::from_millis(5)).await;
    }
}

/// Draws the key of a new node.
pub(crate) fn new_key() -> Keypair {
    Keypair::from_seed(Random::system().random())
}

/// A node with one libp2p network.
pub(crate) struct Node {
    pub(crate) network: P2pNetwork,
    pub(crate) broadcaster: Broadcaster,
    heard: Arc<Mutex<Vec<Inbound>>>,
    root: CancellationToken,
}

/// The configuration of a node.
pub(crate) struct Plan {
    pub(crate) profile: &'static NetworkProfile,
    pub(crate) network: &'static str,
    pub(crate) key: Keypair,
    pub(crate) relaying: Relaying,
    pub(crate) validator: Option<Arc<dyn Validator>>,
}

impl Plan {
    pub(crate) fn new(profile: &'static NetworkProfile) -> Self {
        let (key, relaying) = (new_key(), Relaying::Off);
        Self { profile, network: "test-v1", key, relaying, validator: None }
    }

    /// Sets the validator of transactions.
    pub(crate) fn validator(self, validator: Arc<dyn Validator>) -> Self {
        Self { validator: Some(validator), ..self }
    }

    pub(crate) fn key(self, key: &Keypair) -> Self {
        Self { key: key.clone(), ..self }
    }

    pub(crate) async fn start(self) -> Node {
        self.start_with(|config| config).await
    }

    pub(crate) async fn start_with(self, change: impl FnOnce(P2pConfig) -> P2pConfig) -> Node {
        let root = CancellationToken::new();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let mut setup = Setup::new(self.profile).relaying(self.relaying);
        for tag in [Tag::AV, Tag::VB, Tag::PP, Tag::TX] {
            let into = Arc::clone(&heard);
            let handler = move |message: Inbound| {
                into.lock().unwrap().push(message);
                async { Verdict::Ignore }
            };
            setup = setup.handler(tag, Arc::new(handler));
        }
        if let Some(validator) = self.validator {
            setup = setup.validator(Tag::TX, validator);
        }
        let broadcaster = Broadcaster::start(setup, &root);
        let mut config = P2pConfig::new(NetworkId::new(self.network).unwrap(), self.key);
        config.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
        let started = P2pNetwork::start(change(config), broadcaster.clone(), &root);
        let network = started.await.unwrap();
        Node { network, broadcaster, heard, root }
    }
}

impl Node {
    pub(crate) fn address(&self) -> NodeAddress {
        self.network.addresses().remove(0)
    }

    pub(crate) fn dial(&self, other: &Self) {
        self.network.add_peer(&other.address()).unwrap();
    }

    pub(crate) fn peers(&self) -> Vec<PeerInfo> {
        self.network.peers(PeerClass::Connected)
    }

    pub(crate) fn is_linked_to(&self, other: &Self) -> bool {
        let id = Some(other.network.identity());
        self.peers().iter().any(|peer| peer.identity == id)
    }

    /// The bodies of the received messages of a tag.
    pub(crate) fn heard(&self, tag: Tag) -> Vec<Vec<u8>> {
        let heard = self.heard.lock().unwrap();
        let of_tag = heard.iter().filter(|message| message.tag == tag);
        of_tag.map(|message| message.body.to_vec()).collect()
    }

    pub(crate) async fn stop(self) {
        assert_eq!(self.network.stop(Duration::from_secs(10)).await, Shutdown::Clean);
        assert_eq!(self.broadcaster.claimed(), 0, "every claim is released");
        assert_eq!(self.broadcaster.stop(Duration::from_secs(10)).await, Shutdown::Clean);
        assert_eq!(self.broadcaster.task_count(), 0);
        self.root.cancel();
    }
}

/// Waits until both nodes have a link to the other.
pub(crate) async fn linked(one: &Node, other: &Node) {
    until("both ends have a link", || one.is_linked_to(other) && other.is_linked_to(one)).await;
}

/// Draws two keys; the first has the smaller peer ID.
pub(crate) fn ordered_keys() -> (Keypair, Keypair) {
    let (one, other) = (new_key(), new_key());
    if one.identity() < other.identity() { (one, other) } else { (other, one) }
}
