//! The public handle of a libp2p network.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use broadcaster::Broadcaster;
use bytes::Bytes;
use gossip::{
    Admission, ApplicationReason, BoxFuture, ConnectPolicy, Delivery, DeliveryError, DialState,
    DisconnectReason, GossipNode, Identity, Lane, LinkId, NetworkId, NetworkProfile, NodeAddress,
    Outbound, PeerClass, PeerInfo, PublishError, Request, RequestError, Response, SubmitError, Tag,
    TopicInbound, Transport,
    http::{HttpAddressError, HttpClient},
};
use http::HeaderValue;
use libp2p::{
    Multiaddr, StreamProtocol,
    gossipsub::{IdentTopic, TopicHash},
};
use mesh::Added;
use net_http::client::{ClientLimits, Clients, STREAM_IDLE, Target};
use runtime::{
    Fault, Shutdown, TaskSet,
    time::{self, Instant},
};
use tokio::sync::{broadcast, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    abouts::PeerAbout,
    address::{PeerAddress, PeerAddressError, TreeNames},
    command::ToSwarm,
    config::{GossipStreams, P2pConfig, libp2p_key},
    http::{StreamConnect, unusable},
    link::LinkContext,
    listening::Bound,
    metrics::{P2pEvent, P2pMetrics},
    origin::Origin,
    outbox::{cost, max_waiting_bytes},
    own_topics::{self, EndLinks, OwnTopic, TopicError, TopicPolicies, TopicPool},
    protocols::{self, OwnProtocol, ProtocolError, Streams},
    publications::{NotTaken, Publication, Receipt},
    pubsub,
    streams::{OpenError, OutboundStream, StreamTarget},
    supervisor::{BuildError, SwarmParts},
    topic::Topic,
    topic_scores::{TopicMesh, TopicScore},
};
#[cfg(feature = "dht")]
use crate::{dht_handle::DhtHandle, dht_source::DhtSource};

/// The reason why a libp2p network did not start. Nothing keeps running after any of these errors.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A configured peer cannot be dialled.
    #[error("cannot dial a configured peer")]
    Peer(#[from] PeerAddressError),
    /// A protocol of the application cannot be accepted.
    #[error("cannot accept streams of a protocol")]
    Protocol(#[from] ProtocolError),
    /// A topic of the application cannot be served.
    #[error("cannot serve a topic")]
    Topic(#[from] TopicError),
    /// The node cannot listen on an address.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address as configured.
        address: Multiaddr,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A part of libp2p could not be set up.
    #[error("cannot set up libp2p")]
    Setup {
        /// The error of the library.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The certificate for WebRTC cannot be made.
    #[cfg(feature = "webrtc")]
    #[error(transparent)]
    WebRtc(#[from] crate::webrtc::WebRtcCertificateError),
}

/// Checks that a network of this profile can accept streams of these protocols.
///
/// # Errors
///
/// [`ProtocolError`] for the first protocol that it cannot accept.
pub fn check_protocols(
    profile: &NetworkProfile,
    protocols: &[OwnProtocol],
) -> Result<(), ProtocolError> {
    protocols::check(profile, protocols)
}

/// Checks that a network of this profile can serve these topics of an application.
///
/// # Errors
///
/// [`TopicError`] for the first topic that it cannot serve.
pub fn check_topics(profile: &NetworkProfile, topics: &[OwnTopic]) -> Result<(), TopicError> {
    own_topics::check(profile, topics)
}

/// The reason why an address was not added.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddPeerError {
    /// The address cannot be dialled.
    #[error(transparent)]
    Address(#[from] PeerAddressError),
    /// The dial schedule is full of configured addresses.
    #[error("too many addresses are configured")]
    TooMany,
}

/// A running libp2p network: a cheap handle. Dropping the last one aborts the tasks.
#[derive(Clone, Debug)]
pub struct P2pNetwork {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    #[cfg(feature = "dht")]
    dht: DhtHandle,
    context: Arc<LinkContext>,
    swarm: ToSwarm,
    bound: Bound,
    local: libp2p::PeerId,
    gossip: GossipStreams,
    policies: TopicPolicies,
    pool: TopicPool,
    trees: TreeNames,
    announced: Vec<Multiaddr>,
    #[cfg(feature = "websocket")]
    tls: Option<net_tcp::tls::TlsIdentity>,
    clients: Clients,
    tasks: TaskSet,
}

impl P2pNetwork {
    /// Starts a network. Resolves when it listens on every configured address.
    ///
    /// Its links and topics are attached to `broadcaster`, which all networks of a node share. The network runs
    /// until `parent` is cancelled, [`P2pNetwork::stop`] is called, or the last handle is dropped.
    ///
    /// # Errors
    ///
    /// [`StartError`]. Nothing keeps running after an error.
    ///
    /// # Cancel safety
    ///
    /// Safe: a dropped future leaves nothing running.
    pub async fn start(
        config: P2pConfig,
        broadcaster: Broadcaster,
        parent: &CancellationToken,
    ) -> Result<Self, StartError> {
        #[cfg(feature = "webrtc")]
        let config = config.with_certificate()?;
        let door = config.door.over(Transport::Libp2p);
        protocols::check(broadcaster.profile(), &config.protocols)?;
        own_topics::check(broadcaster.profile(), &config.topics)?;
        let configured =
            config.peers.iter().map(PeerAddress::parse).collect::<Result<Vec<_>, _>>()?;
        let trees = config.resolver.as_ref().map_or(TreeNames::Unresolved, |_| TreeNames::Resolved);
        configured.iter().try_for_each(|peer| peer.needs(trees))?;
        configured.iter().for_each(|peer| config.door.configure(peer.identity));
        broadcaster.mesh().guard(&door, Some(config.key.identity()));
        let local = libp2p_key(&config.key).public().to_peer_id();
        let context = Arc::new(LinkContext::new(broadcaster, &config, configured.clone(), door));
        let (swarm, bound, tasks) = (ToSwarm::default(), Bound::default(), TaskSet::new(parent));
        let (listen, announced) = (config.listen.clone(), config.announce.clone());
        let gossip = config.gossip;
        let clients = config
            .clients
            .clone()
            .unwrap_or_else(|| Clients::new(ClientLimits::default(), config.agent.clone(), parent));
        let (policies, pool) = serve_topics(&config, &context, &tasks);
        let parts = SwarmParts {
            config,
            context: Arc::clone(&context),
            swarm: swarm.clone(),
            bound: bound.clone(),
            policies: policies.clone(),
            pool: pool.clone(),
        };
        // Boxed, so that the futures of those who start networks stay small.
        let life = Box::pin(parts.make(&listen, tasks.token()));
        let life = life.await.map_err(|error| match error {
            BuildError::Listen { address, source } => StartError::Listen { address, source },
            other => StartError::Setup { source: Box::new(other) },
        })?;
        for peer in &configured {
            if context.broadcaster.mesh().configure(peer.node_address()) == Added::Full {
                tracing::warn!(address = %peer.address, "too many addresses are known; not added");
            }
        }
        #[cfg(feature = "dht")]
        let dht = DhtHandle::new(&parts.config, context.broadcaster.profile(), &swarm);
        #[cfg(feature = "dht")]
        DhtSource::attach(&parts.config, context.broadcaster.mesh(), &swarm);
        #[cfg(feature = "websocket")]
        watch_certificates(&parts.config, &tasks);
        #[cfg(feature = "websocket")]
        let tls = parts.config.web.identity.clone();
        tasks.spawn_lasting("swarm", |cancel| parts.supervise(life, cancel));
        let shared = Shared {
            #[cfg(feature = "dht")]
            dht,
            context,
            swarm,
            bound,
            local,
            gossip,
            policies,
            pool,
            trees,
            announced,
            #[cfg(feature = "websocket")]
            tls,
            clients,
            tasks,
        };
        let network = Self { shared: Arc::new(shared) };
        network.attach_topics();
        Ok(network)
    }

    fn attach_topics(&self) {
        let LinkContext { broadcaster, metrics, .. } = &*self.shared.context;
        let profile = broadcaster.profile();
        for (tag, topic) in self.topics() {
            let Some(rule) = profile.tags.rule(tag) else { continue };
            let sink = Topic {
                hash: topic.hash(),
                lane: rule.lane,
                swarm: self.shared.swarm.clone(),
                budget: broadcaster.budget().clone(),
                metrics: metrics.clone(),
            };
            broadcaster.attach_topic(tag, Transport::Libp2p, Arc::new(sink));
        }
    }

    fn topics(&self) -> Vec<(Tag, IdentTopic)> {
        match self.shared.gossip {
            GossipStreams::On => pubsub::topics(self.shared.context.broadcaster.profile()),
            GossipStreams::Off => Vec::new(),
        }
    }

    /// The messages of the application's topics that are accepted from now on, of all topics together. A reader that falls
    /// 64 messages behind misses the oldest.
    #[must_use]
    pub fn observe_topics(&self) -> broadcast::Receiver<TopicInbound> {
        self.shared.pool.observe()
    }

    /// The names of the application's topics; none while this network does not gossip.
    pub fn own_topics(&self) -> impl Iterator<Item = &str> {
        self.shared.policies.own().map(|(_, topic)| topic.name())
    }

    /// Offers a message of an application's topic for publication.
    fn offer(
        &self,
        topic: &str,
        body: Bytes,
    ) -> Result<oneshot::Receiver<Result<usize, PublishError>>, PublishError> {
        let unknown = || PublishError::UnknownTopic { topic: topic.to_owned() };
        let hash = TopicHash::from_raw(topic);
        let max = self.shared.policies.of(&hash).ok_or_else(unknown)?.max_bytes;
        match body.len() {
            0 => return Err(PublishError::Empty),
            bytes if bytes > max => return Err(PublishError::TooLarge { bytes, max }),
            _ => {}
        }
        let LinkContext { broadcaster, metrics, .. } = &*self.shared.context;
        let full = || {
            metrics.note(P2pEvent::PublishQueueFull);
            PublishError::Full
        };
        let held = broadcaster.budget().try_reserve(cost(body.len()), Lane::Bulk);
        let (sender, outcome) = oneshot::channel();
        let publication = Publication {
            origin: Origin::Own,
            topic: hash,
            lane: Lane::Bulk,
            body,
            held: held.ok_or_else(full)?,
            receipt: Receipt::Awaited(sender),
        };
        match self.shared.swarm.publish(publication) {
            Ok(displaced) => metrics.note_many(P2pEvent::PublishQueueFull, displaced as u64),
            Err(NotTaken::Full) => return Err(full()),
            Err(NotTaken::Down) => return Err(PublishError::Closed),
        }
        Ok(outcome)
    }

    /// Detaches the topics, closes links and connections in an orderly way, and waits for that. Tasks that
    /// still run after `grace` are aborted.
    ///
    /// # Panics
    ///
    /// Resumes the panic of a task that cannot be restarted.
    ///
    /// # Cancel safety
    ///
    /// Not safe: dropping the future aborts the tasks that still run.
    pub async fn stop(&self, grace: Duration) -> Shutdown {
        let broadcaster = &self.shared.context.broadcaster;
        for (tag, _) in self.topics() {
            broadcaster.detach_topic(tag);
        }
        self.shared.tasks.stop(grace).await
    }

    /// Returns `true` while the swarm is running. A swarm that panicked is restarted after a delay of 1 s to 30
    /// s; until then no peer is connected over libp2p.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.shared.swarm.is_up()
    }

    /// The standing of a peer on topics, at most a second old; `None` if it is not connected over libp2p, or while this
    /// network does not gossip.
    #[must_use]
    pub fn topic_score(&self, peer: &Identity) -> Option<TopicScore> {
        self.shared.context.scores.of(peer)
    }

    /// The topics of this node and their meshes, at most a second old; none while this network does not gossip.
    #[must_use]
    pub fn topic_meshes(&self) -> Vec<TopicMesh> {
        self.shared.context.scores.meshes()
    }

    /// A connected peer's own description; `None` if it is not connected over libp2p, or has not sent one yet. The texts
    /// are the peer's: show them escaped, and decide nothing by them.
    #[must_use]
    pub fn about(&self, peer: &Identity) -> Option<PeerAbout> {
        self.shared.context.abouts.of(peer)
    }

    /// Returns `true` if most of the connected peers have had a score too low to be served on topics for a minute
    /// or longer. This node then hardly takes part in topics.
    #[must_use]
    pub fn mutes_most_peers(&self) -> bool {
        self.shared.context.scores.are_mostly_muted(time::into_std(Instant::now()))
    }

    /// The first task of this network that ended without being asked to, if one did.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.shared.tasks.fault()
    }

    /// Waits until the task that restarts the swarm ends without being asked to, which only a bug causes.
    /// Otherwise it never returns.
    ///
    /// # Cancel safety
    ///
    /// Safe: the fault is kept and returned by the next call.
    pub async fn faulted(&self) -> Fault {
        self.shared.tasks.faulted().await
    }

    /// The identity of this node: its peer ID.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.shared.context.local
    }

    /// The addresses this node listens on, each with `/p2p/ID` at its end.
    #[must_use]
    pub fn listen_addresses(&self) -> Vec<String> {
        self.with_id(&self.shared.bound.addresses())
    }

    /// The ports of a router that lead to this node, as the router says; none unless the node asks for some.
    #[cfg(feature = "reachability")]
    #[must_use]
    pub fn mapped_ports(&self) -> Vec<crate::reach::MappedPort> {
        self.shared.context.mapped.now()
    }

    /// The addresses that other nodes are told in place of those it listens on, each with `/p2p/ID` at its end.
    #[must_use]
    pub fn announced_addresses(&self) -> Vec<String> {
        self.with_id(&self.shared.announced)
    }

    fn with_id(&self, addresses: &[Multiaddr]) -> Vec<String> {
        let id = self.shared.local;
        addresses.iter().map(|address| format!("{address}/p2p/{id}")).collect()
    }

    /// The certificate for TLS connections to this network; `None` if it has none.
    #[cfg(feature = "websocket")]
    #[must_use]
    pub fn tls(&self) -> Option<&net_tcp::tls::TlsIdentity> {
        self.shared.tls.as_ref()
    }

    /// Reads the files of the certificate again. Returns `true` if connections that begin from now on use something else
    /// than before; `None` if there is no certificate. Blocks on the file system.
    ///
    /// # Errors
    ///
    /// [`TlsError`](net_tcp::tls::TlsError) when the files cannot be used; what they held before stays in use.
    #[cfg(feature = "websocket")]
    pub fn reload_certificates(&self) -> Result<Option<bool>, net_tcp::tls::TlsError> {
        self.shared.tls.as_ref().map(net_tcp::tls::TlsIdentity::reload).transpose()
    }

    /// Counters of this network.
    #[must_use]
    pub fn metrics(&self) -> &P2pMetrics {
        &self.shared.context.metrics
    }

    /// Adds a configured address. It is dialled now, and whenever there is no link to its peer.
    ///
    /// # Errors
    ///
    /// [`AddPeerError`] when the address cannot be dialled or the schedule is full.
    pub fn add_peer(&self, address: &NodeAddress) -> Result<(), AddPeerError> {
        let address = PeerAddress::parse(address)?;
        address.needs(self.shared.trees)?;
        {
            let mut known =
                self.shared.context.configured.lock().unwrap_or_else(PoisonError::into_inner);
            if known.contains(&address) {
                return Ok(());
            }
            if self.shared.context.broadcaster.mesh().configure(address.node_address())
                == Added::Full
            {
                return Err(AddPeerError::TooMany);
            }
            known.push(address.clone());
        }
        self.shared.context.door.configure(address.identity);
        Ok(())
    }

    /// The way to the DHT.
    #[cfg(feature = "dht")]
    pub(crate) fn dht(&self) -> &DhtHandle {
        &self.shared.dht
    }

    /// Forgets an address, whoever named it, and ends the links that were dialled to it. Returns `false` if it was not
    /// known.
    #[must_use = "the address may not have been known"]
    pub fn remove_peer(&self, address: &NodeAddress) -> bool {
        let context = &self.shared.context;
        if let Ok(address) = PeerAddress::parse(address) {
            let mut known = context.configured.lock().unwrap_or_else(PoisonError::into_inner);
            let before = known.len();
            known.retain(|other| *other != address);
            if known.len() < before && !known.iter().any(|other| other.identity == address.identity)
            {
                context.door.dismiss(&address.identity);
            }
        }
        context.broadcaster.remove_peer(address)
    }

    /// Returns a handle that opens streams with the application's own protocols. It does not keep the network running.
    #[must_use]
    pub fn streams(&self) -> Streams {
        Streams::new(self.shared.swarm.clone())
    }

    /// Opens a stream to a connected peer, with the first of `protocols` that the peer supports. Waits for a
    /// place while 256 other streams to the peer are open.
    ///
    /// # Errors
    ///
    /// [`OpenError`], at the latest after `limit`.
    ///
    /// # Cancel safety
    ///
    /// Safe: a stream that opens after the future was dropped is reset.
    pub async fn open_stream(
        &self,
        peer: &Identity,
        protocols: Vec<StreamProtocol>,
        limit: Duration,
    ) -> Result<OutboundStream, OpenError> {
        let peer = libp2p::PeerId::from_bytes(peer.peer_id_bytes())
            .map_err(|_| OpenError::NotConnected)?;
        self.shared
            .swarm
            .request_stream(StreamTarget::Connected(peer), protocols, Instant::now() + limit)
            .await
    }

    /// Opens a stream to the peer of an address, with the first of `protocols` that the peer supports. If the
    /// peer is not connected, through whatever address, it is dialled; the address `/p2p/ID` reaches connected
    /// peers only. Waits for a place while 256 other streams to the peer are open.
    ///
    /// A connection opened by this call carries gossip only if the peer opens a gossip stream on it, or if the
    /// peer's address is in the dial schedule anyway. It is closed one minute after its last stream.
    ///
    /// # Errors
    ///
    /// [`OpenError`], at the latest after `limit`.
    ///
    /// # Cancel safety
    ///
    /// Safe: a stream that opens after the future was dropped is reset. A dial in progress continues until it
    /// succeeds or reaches its own deadline.
    pub async fn open_stream_to(
        &self,
        address: &NodeAddress,
        protocols: Vec<StreamProtocol>,
        limit: Duration,
    ) -> Result<OutboundStream, OpenError> {
        let to = StreamTarget::parse(address)?;
        self.shared.swarm.open_to(to, protocols, Instant::now() + limit).await
    }

    /// Makes the swarm panic, as a bug in a behaviour would.
    #[cfg(test)]
    pub(crate) fn panic_for_test(&self) {
        self.shared.swarm.offer(crate::command::Command::Panic).unwrap();
    }
}

impl GossipNode for P2pNetwork {
    fn network_id(&self) -> &NetworkId {
        &self.shared.context.network
    }

    fn addresses(&self) -> Vec<NodeAddress> {
        let announced = self.announced_addresses().into_iter();
        announced.chain(self.listen_addresses()).map(NodeAddress::Multiaddr).collect()
    }

    fn broadcast(&self, message: Outbound) -> Result<Admission, SubmitError> {
        self.shared.context.broadcaster.broadcast(&message)
    }

    fn broadcast_and_wait(
        &self,
        message: Outbound,
    ) -> BoxFuture<'_, Result<Delivery, DeliveryError>> {
        Box::pin(self.shared.context.broadcaster.broadcast_and_wait(&message))
    }

    fn relay(&self, message: Outbound) -> Result<Admission, SubmitError> {
        self.shared.context.broadcaster.relay(&message)
    }

    fn publish(&self, topic: &str, body: Bytes) -> BoxFuture<'_, Result<usize, PublishError>> {
        let offered = self.offer(topic, body);
        Box::pin(async move {
            // A message that was dropped made room for others, or the swarm that was to send it has ended.
            let dropped = || if self.is_up() { PublishError::Full } else { PublishError::Closed };
            offered?.await.unwrap_or_else(|_dropped| Err(dropped()))
        })
    }

    fn peers(&self, class: PeerClass) -> Vec<PeerInfo> {
        let mut peers = self.shared.context.broadcaster.peers(class);
        peers.retain(|peer| peer.transport == Transport::Libp2p);
        peers
    }

    fn dials(&self) -> Vec<DialState> {
        self.shared.context.broadcaster.mesh().dials().states(Transport::Libp2p)
    }

    fn request(
        &self,
        peer: LinkId,
        request: Request,
    ) -> BoxFuture<'_, Result<Response, RequestError>> {
        Box::pin(self.shared.context.broadcaster.request(peer, request))
    }

    /// Clients of one peer share connections and limits, whatever the address. The peer is connected when the
    /// first request is sent, as by [`P2pNetwork::open_stream_to`].
    fn http_client(&self, address: &NodeAddress) -> Result<HttpClient, HttpAddressError> {
        let to = StreamTarget::parse(address).map_err(|error| unusable(address, &error))?;
        let profile = self.shared.context.broadcaster.profile();
        let target = Target {
            name: to.peer().to_string(),
            // Source: wire facts 9.1. Requests name the peer by its key, so `Host` is empty.
            host: HeaderValue::from_static(""),
            prefix: String::new(),
            streams: profile.http_streams,
            idle: STREAM_IDLE,
            connect: Arc::new(StreamConnect {
                swarm: self.shared.swarm.clone(),
                to,
                protocol: StreamProtocol::new(profile.http_protocol),
            }),
        };
        Ok(self.shared.clients.client(target))
    }

    fn connect_outgoing(&self, policy: ConnectPolicy) {
        self.shared.context.broadcaster.connect_outgoing(policy, Transport::Libp2p);
    }

    fn disconnect(&self, peer: LinkId, reason: ApplicationReason) {
        self.shared.context.broadcaster.disconnect(peer, reason.into());
    }

    fn network_advanced(&self) {
        self.shared.context.broadcaster.mesh().network_advanced();
    }
}

/// Reads the files of the certificates again whenever it is time.
#[cfg(feature = "websocket")]
fn watch_certificates(config: &P2pConfig, tasks: &TaskSet) {
    if let (Some(identity), Some(interval)) = (config.web.identity.clone(), config.web.reread) {
        tasks.spawn_lasting("certificate", move |cancel| {
            net_tcp::tls::watch(identity, interval, cancel)
        });
    }
}

/// The policies of the application's topics, and the pool of their workers, which are started if there are any topics.
fn serve_topics(
    config: &P2pConfig,
    context: &Arc<LinkContext>,
    tasks: &TaskSet,
) -> (TopicPolicies, TopicPool) {
    let own = match config.gossip {
        GossipStreams::On => config.topics.as_slice(),
        GossipStreams::Off => &[],
    };
    let (policies, pool) = (TopicPolicies::new(own), topic_pool(context));
    if !own.is_empty() {
        pool.work(tasks);
    }
    (policies, pool)
}

/// The pool of the application's topics, whose handlers can end links.
fn topic_pool(context: &Arc<LinkContext>) -> TopicPool {
    let broadcaster = &context.broadcaster;
    let ends = Arc::downgrade(context);
    let end_links: EndLinks = Arc::new(move |message: &TopicInbound, reason: DisconnectReason| {
        let (Some(context), Some(from)) = (ends.upgrade(), message.from) else { return };
        let connected = context.broadcaster.peers(PeerClass::Connected);
        for peer in connected.iter().filter(|peer| peer.identity == Some(from)) {
            context.broadcaster.disconnect(peer.id, reason);
        }
    });
    let bound = max_waiting_bytes(broadcaster.budget().total());
    let handler_timeout = broadcaster.limits().handler_timeout;
    TopicPool::new(bound, handler_timeout, end_links, context.metrics.clone())
}
