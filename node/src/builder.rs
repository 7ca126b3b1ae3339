//! Puts a node together.
//!
//! ```text
//!   data dir ─▶ key ─▶ Broadcaster ─lent to─▶ network (hybrid, WebSocket or libp2p) ─▶ Running
//!                      Door ─────────────────▶
//! ```
//!
//! # Invariants
//!
//! * The broadcaster is made first and lent to the network; a start that fails stops it again.
//! * Without a data directory and without a key file a node has a new identity each time.

use std::{path::PathBuf, sync::Arc, time::Duration};

use broadcaster::{Broadcaster, Limits, Metrics, Relaying, Setup};
use gossip::{
    GossipNode, Handler, Keypair, NetworkId, NetworkProfile, NodeAddress, Tag, Validator,
    http::HttpService,
};
use mesh::{DialLimits, Door, InboundLimits};
use net_http::{
    HttpServer, Protection, ServeLimits,
    client::{ClientLimits, Clients},
};
use net_p2p::{GossipStreams, Mdns};
use rand::Rng;
use runtime::Environment;
use tokio_util::sync::CancellationToken;

use crate::{
    check::{self, Role},
    data_dir::DataDir,
    error::StartError,
    keys,
    network::{self, Lent, Network},
    running::{Http, Parts, Running},
    served::{OnStart, Served, TlsFiles},
    view::Seen,
};

/// How long the tasks of a start that failed may take to end.
const CLEAN_UP_TIME: Duration = Duration::from_secs(5);

/// Which transports a node uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Both, over one broadcaster. The default.
    #[default]
    Hybrid,
    /// WebSocket alone.
    WebSocket,
    /// libp2p alone.
    Libp2p,
}

impl Mode {
    /// Its name in configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hybrid => "hybrid",
            Self::WebSocket => "ws",
            Self::Libp2p => "p2p",
        }
    }
}

/// Where the identity of a node comes from.
#[derive(Clone, Debug, Default)]
enum KeySource {
    /// A file in the data directory, or a new one each time where there is none.
    #[default]
    DataDir,
    /// This file, which is there.
    File(PathBuf),
    /// This key.
    Given(Keypair),
}

/// Where a node keeps its data.
#[derive(Debug, Default)]
enum DirSource {
    /// Nowhere.
    #[default]
    None,
    /// In this directory.
    Path(PathBuf),
    /// In this one, which is its own already.
    Opened(DataDir),
}

/// What a node is made of. What has no sensible default is an argument of [`NodeBuilder::new`].
#[must_use = "nothing runs until `NodeBuilder::start`"]
pub struct NodeBuilder {
    pub(crate) network: NetworkId,
    profile: &'static NetworkProfile,
    pub(crate) mode: Mode,
    pub(crate) listen_ws: Option<String>,
    pub(crate) listen_p2p: Vec<String>,
    pub(crate) peers: Vec<NodeAddress>,
    pub(crate) public_address: Option<NodeAddress>,
    pub(crate) mdns: Mdns,
    pub(crate) inbound: InboundLimits,
    pub(crate) dial: DialLimits,
    pub(crate) gossip: GossipStreams,
    pub(crate) tls_roots: Option<PathBuf>,
    pub(crate) tls: Option<TlsFiles>,
    served: Served,
    serve_limits: ServeLimits,
    client_limits: ClientLimits,
    environment: Environment,
    on_start: Vec<OnStart>,
    key: KeySource,
    data_dir: DirSource,
    relaying: Relaying,
    limits: Limits,
    handlers: Vec<(Tag, Arc<dyn Handler>)>,
    validators: Vec<(Tag, Arc<dyn Validator>)>,
}

impl std::fmt::Debug for NodeBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeBuilder")
            .field("network", &self.network)
            .field("mode", &self.mode)
            .field("listen_ws", &self.listen_ws)
            .field("listen_p2p", &self.listen_p2p)
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}

impl NodeBuilder {
    /// A hybrid node of a network, in the `tandem` profile, that listens on free loopback ports,
    /// dials nobody, passes nothing on and has a new identity.
    pub fn new(network: NetworkId) -> Self {
        Self {
            network,
            profile: &NetworkProfile::TANDEM,
            mode: Mode::default(),
            listen_ws: Some("127.0.0.1:0".to_owned()),
            listen_p2p: vec!["/ip4/127.0.0.1/tcp/0".to_owned()],
            peers: Vec::new(),
            public_address: None,
            mdns: Mdns::default(),
            inbound: InboundLimits::default(),
            dial: DialLimits::default(),
            gossip: GossipStreams::default(),
            tls_roots: None,
            tls: None,
            served: Served::default(),
            serve_limits: ServeLimits::default(),
            client_limits: ClientLimits::default(),
            environment: Environment::default(),
            on_start: Vec::new(),
            key: KeySource::default(),
            data_dir: DirSource::None,
            relaying: Relaying::Off,
            limits: Limits::default(),
            handlers: Vec::new(),
            validators: Vec::new(),
        }
    }

    /// Speaks under the names of another profile.
    pub fn profile(self, profile: &'static NetworkProfile) -> Self {
        Self { profile, ..self }
    }

    /// Uses these transports.
    pub fn mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// Listens for WebSocket peers on `host:port`; port 0 picks a free one.
    pub fn listen_ws(self, address: impl Into<String>) -> Self {
        Self { listen_ws: Some(address.into()), ..self }
    }

    /// Listens for libp2p peers on these multiaddrs; `/tcp/0` picks a free port.
    pub fn listen_p2p(self, addresses: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { listen_p2p: addresses.into_iter().map(Into::into).collect(), ..self }
    }

    /// Stays connected to one more node.
    pub fn peer(mut self, address: NodeAddress) -> Self {
        self.peers.push(address);
        self
    }

    /// Tells others that they reach the WebSocket side of this node at an address.
    pub fn public_address(self, address: NodeAddress) -> Self {
        Self { public_address: Some(address), ..self }
    }

    /// Keeps the identity in a directory, which no other node may use at the same time.
    pub fn data_dir(self, path: impl Into<PathBuf>) -> Self {
        Self { data_dir: DirSource::Path(path.into()), ..self }
    }

    /// Keeps the identity in a directory that was opened for this node already.
    pub fn opened_data_dir(self, dir: DataDir) -> Self {
        Self { data_dir: DirSource::Opened(dir), ..self }
    }

    /// Has the identity in a file, in PKCS#8 and PEM, instead. The file must be there: a node that is asked to
    /// be somebody never makes up somebody else. `tandem keygen --out FILE` makes one.
    pub fn key_file(self, path: impl Into<PathBuf>) -> Self {
        Self { key: KeySource::File(path.into()), ..self }
    }

    /// Has this identity.
    pub fn key(self, key: Keypair) -> Self {
        Self { key: KeySource::Given(key), ..self }
    }

    /// Does this with the messages of others. Default: [`Relaying::Off`].
    pub fn relaying(self, relaying: Relaying) -> Self {
        Self { relaying, ..self }
    }

    /// Handles the messages of a tag.
    pub fn handler(mut self, tag: Tag, handler: impl Handler) -> Self {
        self.handlers.push((tag, Arc::new(handler)));
        self
    }

    /// Judges the messages of a tag before they are handled or passed on.
    pub fn validator(mut self, tag: Tag, validator: impl Validator) -> Self {
        self.validators.push((tag, Arc::new(validator)));
        self
    }

    /// Sets every bound and deadline of the message flow.
    pub fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Sets whom to let in.
    pub fn inbound_limits(self, inbound: InboundLimits) -> Self {
        Self { inbound, ..self }
    }

    /// Sets how much to dial, and how eagerly.
    pub fn dial_limits(self, dial: DialLimits) -> Self {
        Self { dial, ..self }
    }

    /// Looks for libp2p peers in the local network. Default: [`Mdns::Off`].
    pub fn mdns(self, mdns: Mdns) -> Self {
        Self { mdns, ..self }
    }

    /// Serves a router over HTTP, on the WebSocket port and on libp2p streams, behind the default
    /// [`Protection`]. Routers are asked in the order in which they are given; of their fallbacks only
    /// that of the last one counts, and only if nothing is given to [`NodeBuilder::http_service`].
    pub fn http(self, router: axum::Router) -> Self {
        self.http_with(router, &Protection::default())
    }

    /// Serves a router as [`NodeBuilder::http`] does, behind another protection.
    pub fn http_with(mut self, router: axum::Router, protection: &Protection) -> Self {
        self.served.router(protection.apply(router));
        self
    }

    /// Serves what no router knows by any tower service. It is behind no protection but the limits on
    /// connections and requests: add layers to it.
    pub fn http_service(mut self, service: HttpService) -> Self {
        self.served.last(service);
        self
    }

    /// Sets the limits on what is served over HTTP.
    pub fn serve_limits(self, serve_limits: ServeLimits) -> Self {
        Self { serve_limits, ..self }
    }

    /// Sets the limits on calling others over HTTP.
    pub fn client_limits(self, client_limits: ClientLimits) -> Self {
        Self { client_limits, ..self }
    }

    /// Takes clock, random numbers, names and sockets from somewhere else, such as a network in memory.
    /// Default: [`Environment::system`].
    pub fn environment(self, environment: Environment) -> Self {
        Self { environment, ..self }
    }

    /// Serves HTTPS too, on the WebSocket port.
    pub fn tls(self, files: TlsFiles) -> Self {
        Self { tls: Some(files), ..self }
    }

    /// Trusts the certificates of a PEM file too, besides those of the system, when calling others.
    pub fn tls_roots(self, path: impl Into<PathBuf>) -> Self {
        Self { tls_roots: Some(path.into()), ..self }
    }

    /// Neither listens nor gossips: for programs that only call others.
    pub fn outward(self) -> Self {
        Self { listen_ws: None, listen_p2p: Vec::new(), gossip: GossipStreams::Off, ..self }
    }

    /// Tells somebody the node once it runs, before [`NodeBuilder::start`] returns: a handler or a
    /// service that has to ask the node back. Keep a `Weak`, or the node holds itself in memory.
    pub fn on_start(mut self, tell: impl FnOnce(&Arc<dyn GossipNode>) + Send + 'static) -> Self {
        self.on_start.push(Box::new(tell));
        self
    }

    /// Checks everything that can be told without starting the node: addresses, handlers, the files of keys
    /// and certificates. [`NodeBuilder::start`] does so first.
    ///
    /// # Errors
    ///
    /// The [`StartError`] that a start would give.
    pub fn check(&self) -> Result<(), StartError> {
        for peer in &self.peers {
            self.mode.check_peer(peer)?;
        }
        for address in &self.listen_p2p {
            network::listen_address(address)?;
        }
        check::tags(self.profile, Role::Handler, self.handlers.iter().map(|(tag, _)| *tag))?;
        check::tags(self.profile, Role::Validator, self.validators.iter().map(|(tag, _)| *tag))?;
        if let Some(files) = &self.tls {
            net_ws::TlsIdentity::load(&files.cert, &files.key)?;
        }
        if let Some(path) = &self.tls_roots {
            net_ws::read_certificates(path)?;
        }
        if let KeySource::File(path) = &self.key {
            keys::load(path)?;
        }
        Ok(())
    }

    /// Starts the node. It ends with `parent`, or by [`Running::stop`].
    ///
    /// # Errors
    ///
    /// [`StartError`]; everything that was started has been stopped again.
    ///
    /// # Cancel safety
    ///
    /// A start that is dropped leaves nothing running.
    pub async fn start(mut self, parent: &CancellationToken) -> Result<Running, StartError> {
        self.check()?;
        let data_dir = match std::mem::take(&mut self.data_dir) {
            DirSource::None => None,
            DirSource::Path(path) => Some(DataDir::open(path)?),
            DirSource::Opened(dir) => Some(dir),
        };
        let key = self.find_key(data_dir.as_ref())?;
        let cancel = parent.child_token();
        // Whatever ends this function early ends what it started.
        let guard = cancel.clone().drop_guard();
        let metrics = Metrics::default();
        let broadcaster = Broadcaster::start(self.setup(&metrics), &cancel);
        let events = broadcaster.events();
        let identity = key.identity();
        let agent = concat!("tandem/", env!("CARGO_PKG_VERSION")).to_owned();
        let clients = Clients::new(self.client_limits, agent, &cancel);
        let http_server = self.http_server();
        let lent = Lent {
            key,
            broadcaster: broadcaster.clone(),
            door: Door::new(self.inbound),
            http_server: http_server.clone(),
            clients: clients.clone(),
        };
        let on_start = std::mem::take(&mut self.on_start);
        let network = match Box::pin(Network::start(self, lent, &cancel)).await {
            Ok(network) => network,
            Err(error) => {
                cancel.cancel();
                // What had to be aborted is gone all the same, and the error is what matters.
                let _ = broadcaster.stop(CLEAN_UP_TIME).await;
                let _ = clients.stop(CLEAN_UP_TIME).await;
                return Err(error);
            }
        };
        let node = network.node();
        for tell in on_start {
            tell(&node);
        }
        let cancel = guard.disarm();
        let http = Http { http_server, clients };
        let seen = Arc::new(Seen { network, broadcaster });
        let parts = Parts { seen, node, http, events, identity, metrics, data_dir, cancel };
        Ok(Running::new(parts))
    }

    /// What serves HTTP, if there is anything to serve.
    fn http_server(&mut self) -> Option<HttpServer> {
        let service = std::mem::take(&mut self.served).service()?;
        let clock = self.environment.clock().clone();
        Some(HttpServer::with_clock(service, self.serve_limits.clone(), clock))
    }

    fn find_key(&mut self, data_dir: Option<&DataDir>) -> Result<Keypair, StartError> {
        match (std::mem::take(&mut self.key), data_dir) {
            (KeySource::Given(key), _) => Ok(key),
            (KeySource::File(path), _) => Ok(keys::load(&path)?),
            (KeySource::DataDir, Some(dir)) => {
                Ok(keys::load_or_create(&dir.path().join(self.profile.key_file))?)
            }
            (KeySource::DataDir, None) => {
                Ok(Keypair::from_seed(self.environment.random().random()))
            }
        }
    }

    fn setup(&mut self, metrics: &Metrics) -> Setup {
        let mut setup = Setup::new(self.profile)
            .limits(self.limits.clone())
            .relaying(self.relaying)
            .metrics(metrics.clone())
            .environment(self.environment.clone());
        for (tag, handler) in self.handlers.drain(..) {
            setup = setup.handler(tag, handler);
        }
        for (tag, validator) in self.validators.drain(..) {
            setup = setup.validator(tag, validator);
        }
        setup
    }
}
