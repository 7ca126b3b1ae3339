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
};
use mesh::{DialLimits, Door, InboundLimits};
use net_http::client::{ClientLimits, Clients};
use rand::Rng;
use runtime::Environment;
use tokio_util::sync::CancellationToken;

#[cfg(feature = "p2p")]
use crate::p2p::P2pSide;
#[cfg(feature = "http")]
use crate::served::Served;
#[cfg(feature = "ws")]
use crate::ws::WsSide;
use crate::{
    check::{self, Role},
    data_dir::DataDir,
    error::StartError,
    keys,
    network::{Lent, Network},
    running::{Http, Parts, Running},
    view::Seen,
};

/// Is told the node once it runs. See [`NodeBuilder::on_start`].
type OnStart = Box<dyn FnOnce(&Arc<dyn GossipNode>) + Send>;

/// How long the tasks of a start that failed may take to end.
const CLEAN_UP_TIME: Duration = Duration::from_secs(5);

/// Which transports a node uses: those there are, of which the default is what has most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Both, over one broadcaster. Needs the features `ws` and `p2p`, and is the default with them.
    #[cfg(all(feature = "ws", feature = "p2p"))]
    #[default]
    Hybrid,
    /// WebSocket alone. Needs the feature `ws`.
    #[cfg(feature = "ws")]
    #[cfg_attr(not(feature = "p2p"), default)]
    WebSocket,
    /// libp2p alone. Needs the feature `p2p`.
    #[cfg(feature = "p2p")]
    #[cfg_attr(not(feature = "ws"), default)]
    Libp2p,
}

impl Mode {
    /// Its name in configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            #[cfg(all(feature = "ws", feature = "p2p"))]
            Self::Hybrid => "hybrid",
            #[cfg(feature = "ws")]
            Self::WebSocket => "ws",
            #[cfg(feature = "p2p")]
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
    #[cfg(feature = "ws")]
    pub(crate) ws: WsSide,
    #[cfg(feature = "p2p")]
    pub(crate) p2p: P2pSide,
    #[cfg(feature = "http")]
    pub(crate) served: Served,
    pub(crate) peers: Vec<NodeAddress>,
    inbound: InboundLimits,
    pub(crate) dial: DialLimits,
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
        let mut shown = f.debug_struct("NodeBuilder");
        shown.field("network", &self.network).field("mode", &self.mode);
        #[cfg(feature = "ws")]
        shown.field("listen_ws", &self.ws.listen);
        #[cfg(feature = "p2p")]
        shown.field("listen_p2p", &self.p2p.listen);
        shown.field("peers", &self.peers).finish_non_exhaustive()
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
            #[cfg(feature = "ws")]
            ws: WsSide::default(),
            #[cfg(feature = "p2p")]
            p2p: P2pSide::default(),
            #[cfg(feature = "http")]
            served: Served::default(),
            peers: Vec::new(),
            inbound: InboundLimits::default(),
            dial: DialLimits::default(),
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

    /// Stays connected to one more node.
    pub fn peer(mut self, address: NodeAddress) -> Self {
        self.peers.push(address);
        self
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

    /// Sets the limits on calling others over HTTP.
    pub fn client_limits(self, client_limits: ClientLimits) -> Self {
        Self { client_limits, ..self }
    }

    /// Takes clock, random numbers, names and sockets from somewhere else, such as a network in memory.
    /// Default: [`Environment::system`].
    pub fn environment(self, environment: Environment) -> Self {
        Self { environment, ..self }
    }

    /// Neither listens nor gossips: for programs that only call others.
    pub fn outward(mut self) -> Self {
        #[cfg(feature = "ws")]
        {
            self.ws.listen = None;
        }
        #[cfg(feature = "p2p")]
        self.p2p.outward();
        self
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
        #[cfg(feature = "p2p")]
        self.p2p.addresses()?;
        check::tags(self.profile, Role::Handler, self.handlers.iter().map(|(tag, _)| *tag))?;
        check::tags(self.profile, Role::Validator, self.validators.iter().map(|(tag, _)| *tag))?;
        #[cfg(feature = "ws")]
        self.ws.check()?;
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
        #[cfg(feature = "http")]
        let http_server = std::mem::take(&mut self.served).server(self.environment.clock().clone());
        #[cfg(not(feature = "http"))]
        let http_server = None;
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
        let http = Http {
            #[cfg(feature = "http")]
            http_server,
            clients,
        };
        let seen = Arc::new(Seen { network, broadcaster });
        let parts = Parts { seen, node, http, events, identity, metrics, data_dir, cancel };
        Ok(Running::new(parts))
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
