//! Shared parts of the tests over real sockets: nodes that record their messages, and polling with a deadline.

// Each test program uses its part of this.
#![allow(dead_code)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]

pub(crate) mod authority;
pub(crate) mod dialled;
pub(crate) mod raw;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use broadcaster::{Broadcaster, Limits, Relaying, Setup};
use gossip::{
    GossipNode, Inbound, NetworkId, NetworkProfile, NodeAddress, PeerClass, PeerInfo, Tag, Verdict,
    wire::features::VoteCompression,
};
use mesh::{Door, InboundLimits, MeshLimits};
use runtime::Shutdown;
use tandem_net_ws::{WsConfig, WsNetwork};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Longest time for any step whose time-out was not recorded.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// For addresses that are to be dialled once.
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);

/// A node, and the messages its handlers received.
pub(crate) struct Node {
    pub(crate) network: WsNetwork,
    pub(crate) broadcaster: Broadcaster,
    pub(crate) heard: Heard,
    pub(crate) door: Door,
    _root: CancellationToken,
}

/// Messages that reached a handler, in their order.
#[derive(Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<Vec<Inbound>>>);

impl Heard {
    pub(crate) fn all(&self) -> Vec<Inbound> {
        self.0.lock().unwrap().clone()
    }

    /// Tag and length of each message, in their order.
    pub(crate) fn summary(&self) -> Vec<String> {
        let all = self.all();
        all.iter().map(|message| format!("{}:{}", message.tag, message.body.len())).collect()
    }
}

/// Builds a node from the defaults and a few changes.
pub(crate) struct Recipe {
    pub(crate) profile: &'static NetworkProfile,
    pub(crate) relaying: Relaying,
    pub(crate) votes: VoteCompression,
    pub(crate) limits: Limits,
    pub(crate) mesh: MeshLimits,
    pub(crate) config: WsConfig,
}

impl Recipe {
    pub(crate) fn new(profile: &'static NetworkProfile) -> Self {
        let config = WsConfig::new(NetworkId::new("test-v1").unwrap());
        let (relaying, votes) = (Relaying::Off, profile.votes);
        let (limits, mesh) = (Limits::default(), MeshLimits::default());
        Self { profile, relaying, votes, limits, mesh, config }
    }

    pub(crate) fn listening(mut self) -> Self {
        self.config.listen = Some("127.0.0.1:0".to_owned());
        self
    }

    pub(crate) fn dialling(mut self, addresses: &[SocketAddr]) -> Self {
        self.config.peers = addresses.iter().map(address_of).collect();
        self
    }

    /// Uses these limits for inbound connections.
    pub(crate) fn guarded(self, limits: InboundLimits) -> Self {
        self.with(|config| config.door = Door::new(limits))
    }

    pub(crate) fn relaying(mut self) -> Self {
        self.relaying = Relaying::OnRequest;
        self
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut WsConfig)) -> Self {
        change(&mut self.config);
        self
    }

    /// Dials an address that fails again so soon, at the earliest and at the latest.
    pub(crate) fn redialling(mut self, base: Duration, cap: Duration) -> Self {
        self.mesh = self.mesh.with_base(base).with_cap(cap);
        self
    }

    pub(crate) async fn start(self) -> Node {
        let root = CancellationToken::new();
        let heard = Heard::default();
        let setup = Setup::new(self.profile).limits(self.limits).relaying(self.relaying);
        let mut setup = setup.votes(self.votes).mesh(self.mesh);
        for tag in [Tag::AV, Tag::PP, Tag::TX, Tag::VB, Tag::UE] {
            let heard = heard.clone();
            setup = setup.handler(
                tag,
                Arc::new(move |message: Inbound| {
                    heard.0.lock().unwrap().push(message);
                    async { Verdict::Ignore }
                }),
            );
        }
        let broadcaster = Broadcaster::start(setup, &root);
        let door = self.config.door.clone();
        let network = WsNetwork::start(self.config, broadcaster.clone(), &root).await.unwrap();
        Node { network, broadcaster, heard, door, _root: root }
    }
}

impl Node {
    pub(crate) fn address(&self) -> SocketAddr {
        self.network.local_address().unwrap()
    }

    pub(crate) fn peers(&self) -> Vec<PeerInfo> {
        self.network.peers(PeerClass::Connected)
    }

    pub(crate) async fn until_peers(&self, count: usize) {
        until(&format!("{count} peers"), || self.peers().len() == count).await;
    }

    pub(crate) async fn stop(self) {
        let grace = Duration::from_secs(5);
        let stopped = tokio::join!(self.network.stop(grace), self.broadcaster.stop(grace));
        assert_eq!(stopped, (Shutdown::Clean, Shutdown::Clean));
        assert_eq!(self.network.task_count(), 0);
        assert_eq!(self.broadcaster.task_count(), 0);
    }
}

pub(crate) fn address_of(address: &SocketAddr) -> NodeAddress {
    address.to_string().parse().unwrap()
}

/// Polls until `condition` holds; panics with `what` after [`PATIENCE`].
#[track_caller]
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let what = what.to_owned();
    let caller = std::panic::Location::caller();
    async move {
        let began = Instant::now();
        while !condition() {
            assert!(began.elapsed() < PATIENCE, "{what} never came, waited for at {caller}");
            sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Awaits a future; panics after [`PATIENCE`].
#[track_caller]
pub(crate) fn soon<T>(future: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        match timeout(PATIENCE, future).await {
            Ok(value) => value,
            Err(_) => panic!("nothing came, waited for at {caller}"),
        }
    }
}
