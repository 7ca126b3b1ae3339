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

mod check;
#[cfg(feature = "discovery")]
mod found;
mod networks;
#[cfg(feature = "p2p")]
mod p2p;
#[cfg(any(feature = "ws", feature = "websocket"))]
mod pages;
#[cfg(feature = "http")]
mod served;
#[cfg(any(feature = "ws", feature = "websocket"))]
mod tls;
#[cfg(all(feature = "p2p", feature = "discovery"))]
mod trees;
#[cfg(feature = "ws")]
mod ws;

use std::{path::PathBuf, sync::Arc, time::Duration};

use broadcaster::{Broadcaster, Limits, Metrics, Relaying, Setup, WantError, WantedTags};
use gossip::{
    BoxFuture, Durations, GossipNode, Handler, Keypair, LateNode, NetworkId, NetworkProfile,
    NodeAddress, Tag, Validator, wire::features::VoteCompression,
};
use mesh::{Admit, Door, InboundLimits, MeshLimits};
#[cfg(feature = "http")]
use net_http::ServeContext;
use net_http::client::{ClientLimits, Clients};
#[cfg(any(feature = "ws", feature = "websocket"))]
use net_tcp::origins::PageOrigins;
use rand::Rng;
use runtime::Environment;
use tokio_util::sync::CancellationToken;

#[cfg(feature = "discovery")]
use self::found::{Described, Found};
#[cfg(feature = "p2p")]
use self::p2p::P2pSide;
#[cfg(feature = "http")]
use self::served::Served;
#[cfg(any(feature = "ws", feature = "websocket"))]
pub use self::tls::TlsFiles;
#[cfg(feature = "ws")]
use self::ws::WsSide;
use self::{check::Role, networks::Lent};
#[cfg(feature = "discovery")]
use crate::keeper::Keeping;
use crate::{
    data_dir::DataDir,
    error::StartError,
    keys,
    mode::Mode,
    running::{Http, Parts, Running},
    view::Seen,
};

/// A callback with the started node. See [`NodeBuilder::on_start`].
type OnStart = Box<dyn FnOnce(&Arc<dyn GossipNode>) + Send>;

/// Longest time for the tasks of a failed start to end.
const CLEAN_UP_TIME: Duration = Duration::from_secs(5);

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

impl DirSource {
    /// Opens the directory, if there is to be one.
    fn open(self) -> Result<Option<DataDir>, StartError> {
        Ok(match self {
            Self::None => None,
            Self::Path(path) => Some(DataDir::open(path)?),
            Self::Opened(dir) => Some(dir),
        })
    }
}

/// The parts and settings of a node that is to be started.
///
/// The name of the network has no sensible default and is an argument of [`NodeBuilder::new`]; every method sets one
/// more thing, and [`NodeBuilder::start`] checks all of them. Of a setting that is made twice the later one counts,
/// except for peers, handlers, validators, routers and callbacks, which add up.
#[must_use = "nothing runs until `NodeBuilder::start`"]
pub struct NodeBuilder {
    network: NetworkId,
    profile: &'static NetworkProfile,
    mode: Mode,
    #[cfg(any(feature = "ws", feature = "websocket"))]
    tls: tls::TlsSide,
    #[cfg(any(feature = "ws", feature = "websocket"))]
    page_origins: PageOrigins,
    #[cfg(feature = "ws")]
    ws: WsSide,
    #[cfg(feature = "p2p")]
    p2p: P2pSide,
    #[cfg(feature = "http")]
    served: Served,
    #[cfg(feature = "discovery")]
    found: Found,
    peers: Vec<NodeAddress>,
    inbound: InboundLimits,
    mesh: MeshLimits,
    client_limits: ClientLimits,
    environment: Environment,
    on_start: Vec<OnStart>,
    key: KeySource,
    data_dir: DirSource,
    relaying: Relaying,
    votes: Option<VoteCompression>,
    on_topics: Vec<Tag>,
    wanted: WantedTags,
    limits: Limits,
    traced_one_in: u64,
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
    /// A node of the network `network`, in the `tandem` profile and the default [`Mode`], that listens on free ports of
    /// 127.0.0.1, dials nobody, passes nothing on, and has a new identity each time it is started.
    pub fn new(network: NetworkId) -> Self {
        Self {
            network,
            profile: &NetworkProfile::TANDEM,
            mode: Mode::default(),
            #[cfg(any(feature = "ws", feature = "websocket"))]
            tls: tls::TlsSide::default(),
            #[cfg(any(feature = "ws", feature = "websocket"))]
            page_origins: PageOrigins::default(),
            #[cfg(feature = "ws")]
            ws: WsSide::default(),
            #[cfg(feature = "p2p")]
            p2p: P2pSide::default(),
            #[cfg(feature = "http")]
            served: Served::default(),
            #[cfg(feature = "discovery")]
            found: Found::default(),
            peers: Vec::new(),
            inbound: InboundLimits::default(),
            mesh: MeshLimits::default(),
            client_limits: ClientLimits::default(),
            environment: Environment::default(),
            on_start: Vec::new(),
            key: KeySource::default(),
            data_dir: DirSource::None,
            relaying: Relaying::Off,
            votes: None,
            on_topics: Vec::new(),
            wanted: WantedTags::default(),
            limits: Limits::default(),
            traced_one_in: 0,
            handlers: Vec::new(),
            validators: Vec::new(),
        }
    }

    /// Sets the names, numbers and tags of the protocol. Nodes of different profiles refuse each other. Default:
    /// [`NetworkProfile::TANDEM`]; [`ProfileBuilder`](gossip::ProfileBuilder) makes one with other tags.
    pub fn profile(self, profile: &'static NetworkProfile) -> Self {
        Self { profile, ..self }
    }

    /// Sets the transports. Default: all that are compiled.
    pub fn mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// Adds a node to stay connected to: `host:port`, a URL, or a multiaddr with `/p2p/ID`. It is dialled again, with
    /// growing pauses, whenever there is no link to it ([`MeshLimits`]). Default: none.
    pub fn peer(mut self, address: NodeAddress) -> Self {
        self.peers.push(address);
        self
    }

    /// Adds nodes to stay connected to, as [`NodeBuilder::peer`] does with one.
    pub fn peers(mut self, addresses: impl IntoIterator<Item = NodeAddress>) -> Self {
        self.peers.extend(addresses);
        self
    }

    /// Sets the directory that holds the node's key and its lock; the directory is made if it is missing, and no other
    /// node may use it at the same time. Default: none, and with it a new identity at each start.
    pub fn data_dir(self, path: impl Into<PathBuf>) -> Self {
        Self { data_dir: DirSource::Path(path.into()), ..self }
    }

    /// Sets the data directory as [`NodeBuilder::data_dir`] does, to one that was opened before: for programs that
    /// keep files of their own there.
    pub fn opened_data_dir(self, dir: DataDir) -> Self {
        Self { data_dir: DirSource::Opened(dir), ..self }
    }

    /// Sets the file of the node's key, in PKCS#8 and PEM, in place of the one in the data directory. The start fails if
    /// the file is missing, since a new key would make the node a stranger to its peers. `tandem keygen --out FILE`
    /// makes one.
    pub fn key_file(self, path: impl Into<PathBuf>) -> Self {
        Self { key: KeySource::File(path.into()), ..self }
    }

    /// Sets the node's key itself, in place of any file.
    pub fn key(self, key: Keypair) -> Self {
        Self { key: KeySource::Given(key), ..self }
    }

    /// Sets the nodes that are let in and dialled, over all transports. Default: [`Admit::Everybody`]. The members are
    /// set while the node runs, by [`PeerControl::set_members`](crate::PeerControl::set_members).
    pub fn admit(self, admit: Admit) -> Self {
        Self { mesh: self.mesh.with_admit(admit), ..self }
    }

    /// Sets which messages of others the node passes on. Default: [`Relaying::Off`], none.
    pub fn relaying(self, relaying: Relaying) -> Self {
        Self { relaying, ..self }
    }

    /// Sets which messages of others the node asks its peers for, so that no others are sent to it: it tells each of them
    /// first of all, and subscribes to no other topics. [`Running::want`] changes it later. For nodes that do not relay;
    /// those that do ask for everything. Default: [`WantedTags::Usual`].
    pub fn want(self, wanted: WantedTags) -> Self {
        Self { wanted, ..self }
    }

    /// Sets the form in which votes go to peers that read it, and which the node reads. Only the votes of existing
    /// Algorand nodes can be packed; other messages with the tag [`Tag::AV`] go as they are. Default: as the profile
    /// says, a table of 2,048 entries for [`NetworkProfile::ALGORAND`] and [`VoteCompression::Off`] for others.
    pub fn vote_packing(self, votes: VoteCompression) -> Self {
        Self { votes: Some(votes), ..self }
    }

    /// Carries the messages of these tags on GossipSub topics of their own between libp2p peers, in place of the stream of each:
    /// votes, proposals and bundles, say. WebSocket peers get them as before, and so do libp2p peers a message that is too large
    /// for a topic. All nodes of a network have to agree on it: a node that does not is not subscribed, and hears none of
    /// them from libp2p peers that do. Default: none. The start fails in a profile whose tags go fixed ways, such as
    /// [`NetworkProfile::ALGORAND`], and in a mode without libp2p.
    pub fn on_topics(self, tags: impl IntoIterator<Item = Tag>) -> Self {
        Self { on_topics: tags.into_iter().collect(), ..self }
    }

    /// Adds the handler of a tag. It gets each message once within the window of the duplicate filter, after the tag's
    /// validator has accepted it. A tag has one handler at most; [`Running::handle`] adds one later. Messages of tags
    /// without a handler are judged, passed on and observed all the same.
    pub fn handler(mut self, tag: Tag, handler: impl Handler) -> Self {
        self.handlers.push((tag, Arc::new(handler)));
        self
    }

    /// Adds the validator of a tag, which judges each message before it is handled or passed on. A tag has one at most;
    /// messages of a tag without one are accepted.
    pub fn validator(mut self, tag: Tag, validator: impl Validator) -> Self {
        self.validators.push((tag, Arc::new(validator)));
        self
    }

    /// Keeps the way of one message in so many through the node, of none for zero: when each copy came and from whom, and what
    /// became of it ([`Tracer`](broadcaster::Tracer)). Nodes with the same number keep that of the same messages. Default: zero.
    pub fn traced_one_in(self, traced_one_in: u64) -> Self {
        Self { traced_one_in, ..self }
    }

    /// Sets the bounds and deadlines of the message flow. Default: [`Limits::default`].
    pub fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Sets how many inbound connections are admitted, in all and by host and subnet, over all transports together.
    /// Default: [`InboundLimits::default`]. Its
    /// `loopback` is the rule for everything that counts by host: connections of both transports, HTTP and the
    /// protection layers.
    pub fn inbound_limits(self, inbound: InboundLimits) -> Self {
        Self { inbound, ..self }
    }

    /// Sets how many learnt addresses are dialled, how many dials may be under way, and the pauses between tries. Default: [`MeshLimits::default`].
    pub fn mesh_limits(self, mesh: MeshLimits) -> Self {
        Self { mesh, ..self }
    }

    /// Sets the limits on calling others over HTTP. Default: [`ClientLimits::default`].
    pub fn client_limits(self, client_limits: ClientLimits) -> Self {
        Self { client_limits, ..self }
    }

    /// Sets where the node takes its clock, random numbers, names and sockets from, such as a network in memory
    /// ([`crate::memory::Network`]). Default: [`Environment::system`].
    pub fn environment(self, environment: Environment) -> Self {
        Self { environment, ..self }
    }

    /// Makes a node that neither listens nor gossips, for programs that only call others over HTTP.
    pub fn outward(mut self) -> Self {
        #[cfg(feature = "ws")]
        {
            self.ws.listen = None;
        }
        #[cfg(feature = "p2p")]
        self.p2p.outward();
        self
    }

    /// Adds a callback that runs once with the started node, before [`NodeBuilder::start`] returns: for a handler or a
    /// service that asks the node back. Keep a `Weak` of the node there, or it holds itself in memory. Messages may come
    /// before the callback has run.
    pub fn on_start(mut self, tell: impl FnOnce(&Arc<dyn GossipNode>) + Send + 'static) -> Self {
        self.on_start.push(Box::new(tell));
        self
    }

    /// Puts the started node into `late`, before [`NodeBuilder::start`] returns: for handlers and services that ask the
    /// node back. Messages and requests may come before it is there.
    pub fn late_node(self, late: &LateNode) -> Self {
        let late = late.clone();
        self.on_start(move |node| late.fill(node))
    }

    /// Checks everything that can be judged without starting the node: addresses, handlers, and the files of keys and
    /// certificates, which are read. [`NodeBuilder::start`] does so first.
    ///
    /// # Errors
    ///
    /// The [`StartError`] that a start would give.
    pub fn check(&self) -> Result<(), StartError> {
        self.limits.check()?;
        self.inbound.check()?;
        self.mesh.check()?;
        self.client_limits.check()?;
        #[cfg(feature = "http")]
        self.served.check()?;
        #[cfg(feature = "discovery")]
        self.found.check(&self.environment)?;
        for peer in &self.peers {
            self.mode.check_peer(peer)?;
        }
        #[cfg(feature = "p2p")]
        {
            self.p2p.addresses()?;
            self.p2p.announced()?;
            self.p2p.check_protocols(self.profile)?;
            self.p2p.check_topics(self.profile)?;
        }
        #[cfg(feature = "websocket")]
        self.check_listeners()?;
        #[cfg(feature = "private-network")]
        self.check_private_network()?;
        #[cfg(all(feature = "ws", feature = "p2p"))]
        if self.mode == Mode::WebSocket {
            self.p2p.check_no_protocols()?;
            self.p2p.check_no_topics()?;
            if let Some(&tag) = self.on_topics.first() {
                return Err(StartError::NoTagTopics { tag });
            }
        }
        self.profile.check_on_topics(&self.on_topics)?;
        check::tags(self.profile, Role::Handler, self.handlers.iter().map(|(tag, _)| *tag))?;
        check::tags(self.profile, Role::Validator, self.validators.iter().map(|(tag, _)| *tag))?;
        #[cfg(any(feature = "ws", feature = "websocket"))]
        self.tls.load()?;
        self.wanted.check(&self.profile.tags)?;
        if self.relaying != Relaying::Off && self.wanted != WantedTags::Usual {
            return Err(WantError::Relays.into());
        }
        if let KeySource::File(path) = &self.key {
            keys::load(path)?;
        }
        Ok(())
    }

    /// Starts the node: opens the data directory, loads or makes the key, and binds the sockets. The node listens when
    /// this returns, and dials its peers from then on. It ends when `parent` is cancelled, when the [`Running`] is
    /// dropped, or by [`Running::stop`].
    ///
    /// # Errors
    ///
    /// [`StartError`], such as a port or a directory in use; everything that was started has been stopped again.
    ///
    /// # Cancel safety
    ///
    /// A start that is dropped leaves nothing running.
    pub async fn start(self, parent: &CancellationToken) -> Result<Running, StartError> {
        self.starting(parent).await
    }

    /// The start in a box, which is compiled here and not once more in every program that starts a node.
    fn starting(self, parent: &CancellationToken) -> BoxFuture<'_, Result<Running, StartError>> {
        Box::pin(self.start_parts(parent))
    }

    async fn start_parts(mut self, parent: &CancellationToken) -> Result<Running, StartError> {
        self.check()?;
        self.profile = self.profile.on_topics(&self.on_topics)?;
        let data_dir = std::mem::take(&mut self.data_dir).open()?;
        let key = self.find_key(data_dir.as_ref())?;
        let cancel = parent.child_token();
        // An early end of this function ends the tasks that it started.
        let guard = cancel.clone().drop_guard();
        let metrics = Metrics::default();
        let broadcaster = Broadcaster::start(self.setup(&metrics), &cancel);
        let events = broadcaster.events();
        let identity = key.identity();
        let agent = concat!("tandem/", env!("CARGO_PKG_VERSION")).to_owned();
        let clients = Clients::new(self.client_limits, agent, &cancel);
        #[cfg(all(feature = "http", any(feature = "ws", feature = "websocket")))]
        self.served.for_pages(self.page_origins.clone());
        #[cfg(feature = "http")]
        let http_server = std::mem::take(&mut self.served).server(ServeContext {
            clock: self.environment.clock().clone(),
            loopback: self.inbound.loopback,
            ..ServeContext::default()
        });
        #[cfg(not(feature = "http"))]
        let http_server = None;
        let door = Door::new(self.inbound);
        #[cfg(feature = "discovery")]
        let dns = self.found.metrics();
        // Before the first dial, so that peers of the last run come first.
        #[cfg(feature = "discovery")]
        let keeper = {
            let node = self.described(data_dir.as_ref());
            self.found.begin(broadcaster.mesh(), node).await
        };
        let lent = Lent {
            key,
            #[cfg(any(feature = "ws", feature = "websocket"))]
            certificates: self.tls.load()?,
            #[cfg(feature = "webrtc")]
            webrtc_certificate: self.webrtc_certificate(data_dir.as_ref())?,
            broadcaster: broadcaster.clone(),
            door: door.clone(),
            http_server: http_server.clone(),
            clients: clients.clone(),
        };
        let on_start = std::mem::take(&mut self.on_start);
        let network = match Box::pin(self.start_network(lent, &cancel)).await {
            Ok(network) => network,
            Err(error) => {
                cancel.cancel();
                // Aborted tasks are gone all the same, and the error is what matters.
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
        let seen = Arc::new(Seen { network, broadcaster, door });
        let parts = Parts {
            seen,
            node,
            http,
            events,
            identity,
            metrics,
            data_dir,
            #[cfg(feature = "discovery")]
            dns,
            #[cfg(feature = "discovery")]
            keeping: keeper.map(|keeper| Keeping::start(keeper, &cancel)),
            cancel,
        };
        Ok(Running::new(parts))
    }

    /// The node as the sources of addresses see it.
    #[cfg(feature = "discovery")]
    fn described<'a>(&'a self, data_dir: Option<&'a DataDir>) -> Described<'a> {
        Described {
            network: &self.network,
            profile: self.profile,
            mode: self.mode,
            environment: &self.environment,
            dir: data_dir.map(DataDir::path),
        }
    }

    fn find_key(&mut self, data_dir: Option<&DataDir>) -> Result<Keypair, StartError> {
        match (std::mem::take(&mut self.key), data_dir) {
            (KeySource::Given(key), _) => Ok(key),
            (KeySource::File(path), _) => Ok(keys::load(&path)?),
            (KeySource::DataDir, Some(dir)) => Ok(dir.key(self.profile)?),
            (KeySource::DataDir, None) => {
                Ok(Keypair::from_seed(self.environment.random().random()))
            }
        }
    }

    fn setup(&mut self, metrics: &Metrics) -> Setup {
        let mut setup = Setup::new(self.profile)
            .limits(self.limits.clone())
            .relaying(self.relaying)
            .wanted(self.wanted.clone())
            .metrics(metrics.clone())
            .mesh(self.mesh)
            .traced_one_in(self.traced_one_in)
            .environment(self.environment.clone());
        if let Some(votes) = self.votes {
            setup = setup.votes(votes);
        }
        for (tag, handler) in self.handlers.drain(..) {
            setup = setup.handler(tag, handler);
        }
        for (tag, validator) in self.validators.drain(..) {
            setup = setup.validator(tag, validator);
        }
        setup
    }
}
