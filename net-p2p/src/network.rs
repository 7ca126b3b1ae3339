//! The handle of a libp2p network.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use broadcaster::Broadcaster;
use gossip::{
    Admission, ApplicationReason, BoxFuture, ConnectPolicy, Delivery, DeliveryError, GossipNode,
    Identity, LinkId, NetworkId, NodeAddress, Outbound, PeerClass, PeerInfo, Request, RequestError,
    Response, SubmitError, Tag, Transport,
    http::{HttpAddressError, HttpClient},
};
use http::HeaderValue;
use libp2p::{Multiaddr, StreamProtocol, gossipsub::IdentTopic};
use mesh::{DialState, Dials, Door};
use net_http::client::{ClientLimits, Clients, STREAM_IDLE, Target};
use runtime::{Fault, Shutdown, TaskSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    command::{Command, NotTaken, ToSwarm},
    config::{GossipStreams, P2pConfig, PeerAddress, PeerAddressError, libp2p_key},
    http::{StreamConnect, unusable},
    link::{LinkContext, StrangersLines},
    listening::Bound,
    metrics::P2pMetrics,
    pubsub,
    streams::{OpenError, OutboundStream, StreamTarget},
    supervisor::{BuildError, SwarmParts},
    topic::Topic,
};

/// Why a libp2p network did not start. Nothing keeps running after one of these.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A peer to dial has an address that cannot be dialled.
    #[error("cannot dial a configured peer")]
    Peer(#[from] PeerAddressError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address as configured.
        address: Multiaddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A part of libp2p cannot be set up.
    #[error("cannot set up libp2p")]
    Setup {
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Why an address was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddPeerError {
    /// It cannot be dialled.
    #[error(transparent)]
    Address(#[from] PeerAddressError),
    /// There are as many configured addresses as there may be.
    #[error("too many addresses are configured")]
    TooMany,
}

/// A running libp2p network. A cheap handle; the last one to be dropped aborts its tasks.
#[derive(Clone, Debug)]
pub struct P2pNetwork {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    around: Arc<LinkContext>,
    swarm: ToSwarm,
    bound: Bound,
    dials: Dials,
    door: Door,
    local: libp2p::PeerId,
    gossip: GossipStreams,
    clients: Clients,
    tasks: TaskSet,
}

impl P2pNetwork {
    /// Starts a network, and resolves when it listens on every configured address.
    ///
    /// It attaches its links and topics to `broadcaster`, which is shared with the other networks of the
    /// node. It ends with `parent`, or by [`P2pNetwork::stop`].
    ///
    /// # Errors
    ///
    /// [`StartError`]. Nothing keeps running then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind.
    pub async fn start(
        config: P2pConfig,
        broadcaster: Broadcaster,
        parent: &CancellationToken,
    ) -> Result<Self, StartError> {
        let configured: Result<Vec<_>, _> = config.peers.iter().map(PeerAddress::parse).collect();
        let configured = configured?;
        configured.iter().for_each(|peer| config.door.configure(peer.identity));
        let dials = Dials::default();
        let local = libp2p_key(&config.key).public().to_peer_id();
        let around = Arc::new(LinkContext {
            run: broadcaster.environment().hasher(),
            broadcaster,
            network: config.network.clone(),
            local: config.key.identity(),
            metrics: P2pMetrics::default(),
            configured: Mutex::new(configured),
            lines: StrangersLines::default(),
        });
        let (swarm, bound) = (ToSwarm::default(), Bound::default());
        let tasks = TaskSet::new(parent);
        let (listen, gossip) = (config.listen.clone(), config.gossip);
        let door = config.door.clone();
        let clients = config
            .clients
            .clone()
            .unwrap_or_else(|| Clients::new(ClientLimits::default(), config.agent.clone(), parent));
        let blueprint = SwarmParts {
            config,
            around: Arc::clone(&around),
            swarm: swarm.clone(),
            bound: bound.clone(),
            dials: dials.clone(),
        };
        let life = blueprint.make(&listen, tasks.token()).await.map_err(|error| match error {
            BuildError::Listen { address, source } => StartError::Listen { address, source },
            other => StartError::Setup { source: Box::new(other) },
        })?;
        tasks.spawn_lasting("swarm", |cancel| blueprint.supervise(life, cancel));
        let shared = Shared { around, swarm, bound, dials, door, local, gossip, clients, tasks };
        let network = Self { shared: Arc::new(shared) };
        network.attach_topics();
        Ok(network)
    }

    fn attach_topics(&self) {
        let LinkContext { broadcaster, metrics, .. } = &*self.shared.around;
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
            GossipStreams::On => pubsub::topics(self.shared.around.broadcaster.profile()),
            GossipStreams::Off => Vec::new(),
        }
    }

    /// Takes the topics out of the broadcaster, ends links and connections, and waits for at most
    /// `grace`.
    ///
    /// # Panics
    ///
    /// Resumes the panic of a task, if one panicked that cannot be restarted.
    ///
    /// # Cancel safety
    ///
    /// A dropped `stop` aborts what it was waiting for.
    pub async fn stop(&self, grace: Duration) -> Shutdown {
        let broadcaster = &self.shared.around.broadcaster;
        for (tag, _) in self.topics() {
            broadcaster.detach_topic(tag);
        }
        self.shared.tasks.stop(grace).await
    }

    /// How it stands with every address that was configured, in the order of their texts.
    #[must_use]
    pub fn dials(&self) -> Vec<DialState> {
        self.shared.dials.states()
    }

    /// Whether a swarm lives. One that died is made anew after a while; until then nobody is connected over
    /// libp2p.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.shared.swarm.is_up()
    }

    /// The first task of the network that ended unasked, if one did.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.shared.tasks.fault()
    }

    /// Waits until the task that keeps the swarm alive has ended unasked, which only a bug makes it do; for
    /// ever if it does not.
    ///
    /// # Cancel safety
    ///
    /// Safe: a fault stays.
    pub async fn faulted(&self) -> Fault {
        self.shared.tasks.faulted().await
    }

    /// The public key by which this node is recognised.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.shared.around.local
    }

    /// Where this node listens, each address with `/p2p/ID` at its end.
    #[must_use]
    pub fn listen_addresses(&self) -> Vec<String> {
        let id = self.shared.local;
        self.shared.bound.addresses().iter().map(|address| format!("{address}/p2p/{id}")).collect()
    }

    /// What this network counts.
    #[must_use]
    pub fn metrics(&self) -> &P2pMetrics {
        &self.shared.around.metrics
    }

    /// Dials an address from now on, whenever there is no link to who is found there.
    ///
    /// # Errors
    ///
    /// [`AddPeerError`] when it cannot be dialled.
    pub fn add_peer(&self, address: &NodeAddress) -> Result<(), AddPeerError> {
        let address = PeerAddress::parse(address)?;
        {
            let mut known =
                self.shared.around.configured.lock().unwrap_or_else(PoisonError::into_inner);
            if known.contains(&address) {
                return Ok(());
            }
            if known.len() >= mesh::dial::MAX_ADDRESSES {
                return Err(AddPeerError::TooMany);
            }
            known.push(address.clone());
        }
        self.shared.door.configure(address.identity);
        match self.shared.swarm.offer(Command::Dial(address)) {
            // A swarm that is made anew reads the list.
            Ok(()) | Err(NotTaken::Down) => Ok(()),
            Err(NotTaken::Full) => Err(AddPeerError::TooMany),
        }
    }

    /// Opens a stream to a connected peer, in the first of `protocols` that it speaks. It waits for its
    /// turn while many others are open.
    ///
    /// # Errors
    ///
    /// [`OpenError`], within `limit`.
    ///
    /// # Cancel safety
    ///
    /// A stream that comes up after the future was dropped is reset.
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
            .wish(StreamTarget::Connected(peer), protocols, Instant::now() + limit)
            .await
    }

    /// Opens a stream to the peer of an address, in the first of `protocols` that it speaks. The peer is
    /// dialled there, unless it is connected already, through whatever address; `/p2p/ID` alone leads to a
    /// connected peer only. The stream waits for its turn while many others are open.
    ///
    /// A connection made for this is not used for gossip, unless the peer wants to or is to be dialled
    /// for it anyway. It ends a minute after its last stream.
    ///
    /// # Errors
    ///
    /// [`OpenError`], within `limit`.
    ///
    /// # Cancel safety
    ///
    /// A stream that comes up after the future was dropped is reset. A dial goes on, at most for as long
    /// as dials may take.
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
        self.shared.swarm.offer(Command::Panic).unwrap();
    }
}

impl GossipNode for P2pNetwork {
    fn network_id(&self) -> &NetworkId {
        &self.shared.around.network
    }

    fn addresses(&self) -> Vec<NodeAddress> {
        self.listen_addresses().into_iter().map(NodeAddress::Multiaddr).collect()
    }

    fn broadcast(&self, message: Outbound) -> Result<Admission, SubmitError> {
        self.shared.around.broadcaster.broadcast(&message)
    }

    fn broadcast_and_wait(
        &self,
        message: Outbound,
    ) -> BoxFuture<'_, Result<Delivery, DeliveryError>> {
        Box::pin(self.shared.around.broadcaster.broadcast_and_wait(&message))
    }

    fn relay(&self, message: Outbound) -> Result<Admission, SubmitError> {
        self.shared.around.broadcaster.relay(&message)
    }

    fn peers(&self, class: PeerClass) -> Vec<PeerInfo> {
        let mut peers = self.shared.around.broadcaster.peers(class);
        peers.retain(|peer| peer.transport == Transport::Libp2p);
        peers
    }

    fn request(
        &self,
        peer: LinkId,
        request: Request,
    ) -> BoxFuture<'_, Result<Response, RequestError>> {
        Box::pin(self.shared.around.broadcaster.request(peer, request))
    }

    /// Clients of one peer share connections and limits, whatever the address. The peer is connected
    /// when there is something to send, as by [`P2pNetwork::open_stream_to`].
    fn http_client(&self, address: &NodeAddress) -> Result<HttpClient, HttpAddressError> {
        let to = StreamTarget::parse(address).map_err(|error| unusable(address, &error))?;
        let profile = self.shared.around.broadcaster.profile();
        let target = Target {
            name: to.peer().to_string(),
            // Source: wire facts 9.1. The peer is named by its key, not by a host.
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
        if self.shared.swarm.offer(Command::Connect(policy)).is_err() {
            tracing::debug!("the swarm is busy and dials when it gets to it");
        }
    }

    fn disconnect(&self, peer: LinkId, reason: ApplicationReason) {
        self.shared.around.broadcaster.disconnect(peer, reason.into());
    }

    /// Without effect: no part of this network looks for cliques.
    fn network_advanced(&self) {}
}
