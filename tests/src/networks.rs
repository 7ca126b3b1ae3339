//! The harnesses of the networks: over memory links, WebSocket, libp2p, and both of these.
//!
//! In the hybrid network links alternate between WebSocket and libp2p, so that each case spans both.

use std::{
    marker::PhantomData,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use broadcaster::{Broadcaster, Setup};
use bytes::Bytes;
use gossip::{GossipNode, Identity, Keypair, Tag, Transport};
use mesh::{Door, InboundLimits};
use net_hybrid::{HybridConfig, HybridNetwork};
use net_p2p::{P2pConfig, P2pNetwork, Security};
use net_tcp::tls::{TlsIdentity, read_certificates};
use net_ws::{WsConfig, WsNetwork};
use runtime::Shutdown;
use tokio_util::sync::CancellationToken;

use crate::{
    harness::{Clock, Harness, RawPeer, network},
    http::certificate::Certificate,
    libp2p::RawLibp2p,
    memory::{MemoryNetwork, MemoryPeer, Shape},
    websocket::{RawWebSocket, upgrade_request},
};

/// Nodes over memory links.
#[derive(Debug)]
pub struct Memory(MemoryNetwork);

impl Memory {
    /// The node itself.
    #[must_use]
    pub fn network(&self) -> &MemoryNetwork {
        &self.0
    }
}

impl Harness for Memory {
    type Raw = MemoryPeer;

    const CLOCK: Clock = Clock::Paused;
    const TRANSPORTS: &[Transport] = &[Transport::Memory];

    async fn start(setup: Setup) -> Self {
        Self(MemoryNetwork::start(network(), setup))
    }

    fn gossip(&self) -> Arc<dyn GossipNode> {
        Arc::new(self.0.clone())
    }

    fn broadcaster(&self) -> &Broadcaster {
        self.0.broadcaster()
    }

    fn identity(&self) -> Option<Identity> {
        Some(self.0.identity())
    }

    async fn dial(&self, other: &Self) {
        let link = self.0.connect(&other.0, Shape::default());
        assert!(link.is_some(), "a node is stopping");
    }

    async fn dial_raw(&self) -> MemoryPeer {
        let scripted = self.0.scripted(Shape::default());
        scripted.expect("the node is not stopping").0
    }

    async fn stop(&self, grace: Duration) -> Shutdown {
        self.0.stop(grace).await
    }

    fn task_count(&self) -> usize {
        self.0.task_count()
    }
}

/// State shared by all networks of a node.
#[derive(Debug)]
struct Base {
    broadcaster: Broadcaster,
    door: Door,
    identity: Identity,
    seed: [u8; 32],
    root: CancellationToken,
}

impl Base {
    fn new(setup: Setup) -> Self {
        let root = CancellationToken::new();
        let broadcaster = Broadcaster::start(setup, &root);
        // All peers of a test come from one host.
        let door = Door::new(InboundLimits::default().with_per_ip(64));
        let seed: [u8; 32] = rand::random();
        let identity = Keypair::from_seed(seed).identity();
        Self { broadcaster, door, identity, seed, root }
    }

    fn ws_config(&self) -> WsConfig {
        let mut config = WsConfig::new(network());
        config.listen = Some("127.0.0.1:0".to_owned());
        config.identity = Some(Arc::new(Keypair::from_seed(self.seed)));
        config.door = self.door.clone();
        config
    }

    fn p2p_config(&self) -> P2pConfig {
        let mut config = P2pConfig::new(network(), Keypair::from_seed(self.seed));
        config.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().expect("it is a multiaddr")];
        config.door = self.door.clone();
        config
    }

    /// Stops a node from the top down: its links can be written to only while their network runs.
    async fn stop(&self, network: impl Future<Output = Shutdown>, grace: Duration) -> Shutdown {
        let broadcaster = self.broadcaster.stop(grace).await;
        broadcaster.and(network.await)
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        self.root.cancel();
    }
}

async fn raw_websocket(address: SocketAddr, node: &Broadcaster) -> RawWebSocket {
    let request = upgrade_request(node.profile(), &network());
    RawWebSocket::connect(address, &request).await.expect("the node takes a WebSocket peer")
}

async fn raw_libp2p(address: &str, node: &Broadcaster) -> RawLibp2p {
    let connected = RawLibp2p::connect(address, node.profile(), &network()).await;
    connected.expect("the node takes a libp2p peer")
}

/// A node with a WebSocket network.
#[derive(Debug)]
pub struct Ws {
    base: Base,
    network: WsNetwork,
}

impl Harness for Ws {
    type Raw = RawWebSocket;

    const CLOCK: Clock = Clock::Real;
    const TRANSPORTS: &[Transport] = &[Transport::WebSocket];

    async fn start(setup: Setup) -> Self {
        let base = Base::new(setup);
        let lent = base.broadcaster.clone();
        let started = WsNetwork::start(base.ws_config(), lent, &base.root).await;
        Self { network: started.expect("a WebSocket node starts"), base }
    }

    fn gossip(&self) -> Arc<dyn GossipNode> {
        Arc::new(self.network.clone())
    }

    fn broadcaster(&self) -> &Broadcaster {
        &self.base.broadcaster
    }

    fn identity(&self) -> Option<Identity> {
        Some(self.base.identity)
    }

    async fn dial(&self, other: &Self) {
        self.network.add_peer(&other.network.addresses()[0]).expect("the address can be dialled");
    }

    async fn dial_raw(&self) -> RawWebSocket {
        let address = self.network.local_address().expect("the node listens");
        raw_websocket(address, &self.base.broadcaster).await
    }

    async fn stop(&self, grace: Duration) -> Shutdown {
        self.base.stop(self.network.stop(grace), grace).await
    }

    fn task_count(&self) -> usize {
        self.network.task_count() + self.base.broadcaster.task_count()
    }
}

/// The way in which the nodes of a libp2p network reach each other.
pub trait Way: std::fmt::Debug + Send + Sync + 'static {
    /// The address that a node listens on, with port 0.
    const LISTEN: &str;

    /// The address that scripted peers dial, with port 0.
    const SCRIPTED: &str = Self::LISTEN;

    /// Adds what the nodes need for it.
    fn equip(_: &mut P2pConfig) {}
}

/// TCP and Noise.
#[derive(Debug)]
pub struct Tcp;

/// TCP and TLS. Scripted peers speak Noise.
#[derive(Debug)]
pub struct Tls;

/// QUIC. Scripted peers use TCP.
#[derive(Debug)]
pub struct Quic;

/// WebRTC Direct. Scripted peers use TCP.
#[derive(Debug)]
pub struct WebRtc;

/// A WebSocket over TCP.
#[derive(Debug)]
pub struct WebSocket;

/// A WebSocket over TLS. Scripted peers use a plain one.
#[derive(Debug)]
pub struct SecureWebSocket;

impl Way for Tcp {
    const LISTEN: &str = "/ip4/127.0.0.1/tcp/0";
}

impl Way for Tls {
    const LISTEN: &str = Tcp::LISTEN;

    fn equip(config: &mut P2pConfig) {
        config.security = vec![Security::Tls, Security::Noise];
    }
}

impl Way for Quic {
    const LISTEN: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
    const SCRIPTED: &str = Tcp::LISTEN;
}

impl Way for WebRtc {
    const LISTEN: &str = "/ip4/127.0.0.1/udp/0/webrtc-direct";
    const SCRIPTED: &str = Tcp::LISTEN;
}

impl Way for WebSocket {
    const LISTEN: &str = "/ip4/127.0.0.1/tcp/0/ws";
}

impl Way for SecureWebSocket {
    const LISTEN: &str = "/ip4/127.0.0.1/tcp/0/tls/ws";
    const SCRIPTED: &str = WebSocket::LISTEN;

    fn equip(config: &mut P2pConfig) {
        static CERTIFICATE: std::sync::LazyLock<Certificate> =
            std::sync::LazyLock::new(Certificate::generate);
        let files = CERTIFICATE.files();
        let roots = read_certificates(&CERTIFICATE.root()).expect("it is a certificate");
        config.web = std::mem::take(&mut config.web).with_roots(roots, None);
        let identity = TlsIdentity::load(&files.cert, &files.key);
        config.web.identity = Some(identity.expect("the certificate can be used"));
    }
}

/// A node with a libp2p network.
#[derive(Debug)]
pub struct Libp2pOver<W> {
    base: Base,
    network: P2pNetwork,
    _way: PhantomData<W>,
}

/// A node with a libp2p network over TCP.
pub type P2p = Libp2pOver<Tcp>;

impl<W: Way> Libp2pOver<W> {
    /// The address that the node got when it asked for this one with port 0.
    fn got(&self, listen: &str) -> String {
        let (below, above) = listen.split_once("/0").expect("it has port 0");
        let own = format!("/p2p/{}", self.base.identity);
        let addresses = self.network.listen_addresses();
        let is_so = |address: &String| {
            let rest = address.strip_prefix(below).and_then(|rest| rest.strip_suffix(&own));
            // An address of WebRTC names a certificate as well.
            let rest =
                rest.map(|rest| rest.split_once("/certhash/").map_or(rest, |(rest, _)| rest));
            rest.and_then(|rest| rest.strip_prefix('/')?.strip_suffix(above))
                .is_some_and(|port| port.parse::<u16>().is_ok())
        };
        addresses.into_iter().find(is_so).expect("the node listens there")
    }
}

impl<W: Way> Harness for Libp2pOver<W> {
    type Raw = RawLibp2p;

    const CLOCK: Clock = Clock::Real;
    const TRANSPORTS: &[Transport] = &[Transport::Libp2p];

    async fn start(setup: Setup) -> Self {
        let base = Base::new(setup);
        let lent = base.broadcaster.clone();
        let mut config = base.p2p_config();
        let mut listen = vec![W::LISTEN, W::SCRIPTED];
        listen.dedup();
        config.listen = listen.iter().map(|it| it.parse().expect("it is a multiaddr")).collect();
        W::equip(&mut config);
        let started = P2pNetwork::start(config, lent, &base.root).await;
        Self { network: started.expect("a libp2p node starts"), base, _way: PhantomData }
    }

    fn gossip(&self) -> Arc<dyn GossipNode> {
        Arc::new(self.network.clone())
    }

    fn broadcaster(&self) -> &Broadcaster {
        &self.base.broadcaster
    }

    fn identity(&self) -> Option<Identity> {
        Some(self.base.identity)
    }

    async fn dial(&self, other: &Self) {
        let address = other.got(W::LISTEN).parse().expect("it is an address");
        self.network.add_peer(&address).expect("the address can be dialled");
    }

    async fn dial_raw(&self) -> RawLibp2p {
        raw_libp2p(&self.got(W::SCRIPTED), &self.base.broadcaster).await
    }

    async fn stop(&self, grace: Duration) -> Shutdown {
        self.base.stop(self.network.stop(grace), grace).await
    }

    fn task_count(&self) -> usize {
        self.base.broadcaster.task_count()
    }
}

/// A node with both networks.
#[derive(Debug)]
pub struct Hybrid {
    base: Base,
    network: HybridNetwork,
    /// Number of links made to this node or by it, scripted peers not counted.
    links: AtomicUsize,
    scripted: AtomicUsize,
}

impl Harness for Hybrid {
    type Raw = RawEither;

    const CLOCK: Clock = Clock::Real;
    const TRANSPORTS: &[Transport] = &[Transport::WebSocket, Transport::Libp2p];

    async fn start(setup: Setup) -> Self {
        let base = Base::new(setup);
        let lent = base.broadcaster.clone();
        let config = HybridConfig { ws: base.ws_config(), p2p: base.p2p_config() };
        let started = HybridNetwork::start(config, lent, &base.root).await;
        let network = started.expect("a hybrid node starts");
        Self { base, network, links: AtomicUsize::new(0), scripted: AtomicUsize::new(0) }
    }

    fn gossip(&self) -> Arc<dyn GossipNode> {
        Arc::new(self.network.clone())
    }

    fn broadcaster(&self) -> &Broadcaster {
        &self.base.broadcaster
    }

    fn identity(&self) -> Option<Identity> {
        Some(self.base.identity)
    }

    async fn dial(&self, other: &Self) {
        self.links.fetch_add(1, Ordering::Relaxed);
        if other.links.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            self.network
                .ws()
                .add_peer(&other.network.ws().addresses()[0])
                .expect("the address can be dialled");
        } else {
            let added = self.network.p2p().add_peer(&other.network.p2p().addresses()[0]);
            added.expect("the address can be dialled");
        }
    }

    async fn dial_raw(&self) -> RawEither {
        if self.scripted.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            let address = &self.network.p2p().listen_addresses()[0];
            RawEither::Libp2p(raw_libp2p(address, &self.base.broadcaster).await)
        } else {
            let address = self.network.ws().local_address().expect("the node listens");
            RawEither::WebSocket(Box::new(raw_websocket(address, &self.base.broadcaster).await))
        }
    }

    async fn stop(&self, grace: Duration) -> Shutdown {
        self.base.stop(self.network.stop(grace), grace).await
    }

    fn task_count(&self) -> usize {
        self.network.ws().task_count() + self.base.broadcaster.task_count()
    }
}

/// A scripted peer on either transport.
#[derive(Debug)]
pub enum RawEither {
    /// Over a WebSocket.
    WebSocket(Box<RawWebSocket>),
    /// Over libp2p.
    Libp2p(RawLibp2p),
}

impl RawPeer for RawEither {
    async fn send(&mut self, tag: Tag, payload: &[u8]) -> std::io::Result<()> {
        match self {
            Self::WebSocket(raw) => raw.send(tag, payload).await,
            Self::Libp2p(raw) => raw.send(tag, payload).await,
        }
    }

    async fn recv(&mut self) -> Option<(Tag, Bytes)> {
        match self {
            Self::WebSocket(raw) => raw.recv().await,
            Self::Libp2p(raw) => raw.recv().await,
        }
    }

    async fn begin(&mut self, tag: Tag, len: usize) -> std::io::Result<()> {
        match self {
            Self::WebSocket(raw) => raw.begin(tag, len).await,
            Self::Libp2p(raw) => raw.begin(tag, len).await,
        }
    }

    async fn go_on(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::WebSocket(raw) => raw.go_on(bytes).await,
            Self::Libp2p(raw) => raw.go_on(bytes).await,
        }
    }

    async fn break_within(self, tag: Tag, payload: &[u8]) {
        match self {
            Self::WebSocket(raw) => raw.break_within(tag, payload).await,
            Self::Libp2p(raw) => raw.break_within(tag, payload).await,
        }
    }

    fn identity(&self) -> Option<Identity> {
        match self {
            Self::WebSocket(raw) => raw.identity(),
            Self::Libp2p(raw) => raw.identity(),
        }
    }
}
