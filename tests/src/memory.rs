//! A network without sockets: nodes joined by pipes within this process.
//!
//! Everything above the transport is the code of the real networks. With tokio's clock paused, every deadline
//! is exact and takes no time.

mod codec;
mod link;
mod peer;

use std::{sync::Arc, time::Duration};

use broadcaster::{Attached, Broadcaster, LaneSinks, Link, LinkCodec, LinkInfo, Setup};
use gossip::{
    Admission, ApplicationReason, BoxFuture, ConnectPolicy, Delivery, DeliveryError, Direction,
    GossipNode, Identity, Keypair, LinkId, LinkPath, NetworkId, NodeAddress, Outbound, PeerClass,
    PeerInfo, Request, RequestError, Response, SubmitError, Transport,
};
use mesh::LinkClaim;
use runtime::{Shutdown, TaskSet};
use tokio_util::sync::CancellationToken;

pub use self::{
    codec::{MakeCodec, difference},
    link::{End, MemorySink, MemorySource, Shape, pair},
    peer::MemoryPeer,
};

/// A node over in-memory links: a cheap handle.
#[derive(Clone, Debug)]
pub struct MemoryNetwork {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    network: NetworkId,
    identity: Identity,
    broadcaster: Broadcaster,
    tasks: TaskSet,
    codec: Codec,
}

/// Creates the codecs of a node's links; `None` for links without a codec.
struct Codec(Option<MakeCodec>);

impl std::fmt::Debug for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Codec").finish_non_exhaustive()
    }
}

/// A link between two nodes.
#[derive(Debug)]
pub struct MemoryLink {
    /// The link at the dialling node.
    pub near: Attached,
    /// The link at the other node.
    pub far: Attached,
    cut: CancellationToken,
}

impl MemoryLink {
    /// Breaks the link at once, with any bytes in transit.
    pub fn cut(&self) {
        self.cut.cancel();
    }
}

impl MemoryNetwork {
    /// Starts a node with a random identity.
    #[must_use]
    pub fn start(network: NetworkId, setup: Setup) -> Self {
        Self::start_as(network, setup, Codec(None))
    }

    /// Starts a node whose links have a codec each, except those of [`MemoryNetwork::scripted_plain`].
    #[must_use]
    pub fn start_with_codec(network: NetworkId, setup: Setup, codec: MakeCodec) -> Self {
        Self::start_as(network, setup, Codec(Some(codec)))
    }

    fn start_as(network: NetworkId, setup: Setup, codec: Codec) -> Self {
        let token = CancellationToken::new();
        let broadcaster = Broadcaster::start(setup, &token);
        let identity = Keypair::from_seed(rand::random()).identity();
        let tasks = TaskSet::new(&token);
        Self { shared: Arc::new(Shared { network, identity, broadcaster, tasks, codec }) }
    }

    /// The broadcaster of the node.
    #[must_use]
    pub fn broadcaster(&self) -> &Broadcaster {
        &self.shared.broadcaster
    }

    /// The identity of the node.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.shared.identity
    }

    /// Joins two nodes; `None` if one of them is stopping.
    #[must_use]
    pub fn connect(&self, other: &Self, shape: Shape) -> Option<MemoryLink> {
        let (near, far) = pair(shape, &self.shared.tasks);
        let cut = near.cut.clone();
        let near = self.attach(near, Direction::Outbound, Some(other.identity()), self.codec())?;
        let far = other.attach(far, Direction::Inbound, Some(self.identity()), other.codec())?;
        Some(MemoryLink { near, far, cut })
    }

    /// Joins a scripted peer to the node; `None` if the node is stopping.
    #[must_use]
    pub fn scripted(&self, shape: Shape) -> Option<(MemoryPeer, Attached)> {
        let identity = Keypair::from_seed(rand::random()).identity();
        self.scripted_as(identity, Direction::Inbound, shape)
    }

    /// Joins a scripted peer with this identity to the node.
    #[must_use]
    pub fn scripted_as(
        &self,
        identity: Identity,
        direction: Direction,
        shape: Shape,
    ) -> Option<(MemoryPeer, Attached)> {
        let (near, far) = pair(shape, &self.shared.tasks);
        let attached = self.attach(near, direction, Some(identity), self.codec())?;
        Some((MemoryPeer::new(far, identity), attached))
    }

    /// Joins a scripted peer with this identity, on a link without a codec.
    #[must_use]
    pub fn scripted_plain(
        &self,
        identity: Identity,
        shape: Shape,
    ) -> Option<(MemoryPeer, Attached)> {
        let (near, far) = pair(shape, &self.shared.tasks);
        let attached = self.attach(near, Direction::Inbound, Some(identity), None)?;
        Some((MemoryPeer::new(far, identity), attached))
    }

    fn codec(&self) -> Option<LinkCodec> {
        self.shared.codec.0.as_ref().map(|make| make())
    }

    fn attach(
        &self,
        end: End,
        direction: Direction,
        identity: Option<Identity>,
        codec: Option<LinkCodec>,
    ) -> Option<Attached> {
        let broadcaster = &self.shared.broadcaster;
        let id = broadcaster.next_link_id();
        let gauge = Some(end.gauge());
        let (sink, source) = end.into_halves(broadcaster.assembly());
        let mut about = LinkInfo::new(Transport::Memory, direction, format!("memory:{id}"));
        about.identity = identity;
        let sinks = LaneSinks::Shared(sink);
        let (sources, greeting, hooks) = (vec![source], Vec::new(), None);
        let link = Link { about, sinks, sources, greeting, hooks, codec, gauge };
        broadcaster.attach(id, link).ok()
    }

    /// Number of running tasks.
    #[must_use]
    pub fn task_count(&self) -> usize {
        self.shared.broadcaster.task_count() + self.shared.tasks.len()
    }

    /// Stops the node's links and tasks.
    pub async fn stop(&self, grace: Duration) -> Shutdown {
        let links = self.shared.broadcaster.stop(grace).await;
        links.and(self.shared.tasks.stop(grace).await)
    }
}

/// Makes two links claim one identity. The second claim is better, so the first link hands over.
pub fn replace(broadcaster: &Broadcaster, identity: Identity, loser: LinkId, winner: LinkId) {
    for (link, tie) in [(loser, 2), (winner, 1)] {
        broadcaster.verified(LinkClaim {
            link,
            identity,
            transport: Transport::Memory,
            path: LinkPath::Direct,
            dialer: identity,
            session: None,
            run: None,
            tie: [tie; 32],
        });
    }
}

impl GossipNode for MemoryNetwork {
    fn network_id(&self) -> &NetworkId {
        &self.shared.network
    }

    fn addresses(&self) -> Vec<NodeAddress> {
        Vec::new()
    }

    fn broadcast(&self, message: Outbound) -> Result<Admission, SubmitError> {
        self.shared.broadcaster.broadcast(&message)
    }

    fn broadcast_and_wait(
        &self,
        message: Outbound,
    ) -> BoxFuture<'_, Result<Delivery, DeliveryError>> {
        Box::pin(self.shared.broadcaster.broadcast_and_wait(&message))
    }

    fn relay(&self, message: Outbound) -> Result<Admission, SubmitError> {
        self.shared.broadcaster.relay(&message)
    }

    fn peers(&self, class: PeerClass) -> Vec<PeerInfo> {
        self.shared.broadcaster.peers(class)
    }

    fn request(
        &self,
        peer: LinkId,
        request: Request,
    ) -> BoxFuture<'_, Result<Response, RequestError>> {
        Box::pin(self.shared.broadcaster.request(peer, request))
    }

    /// Has no effect: links are made by [`MemoryNetwork::connect`].
    fn connect_outgoing(&self, _policy: ConnectPolicy) {}

    fn disconnect(&self, peer: LinkId, reason: ApplicationReason) {
        self.shared.broadcaster.disconnect(peer, reason.into());
    }

    fn network_advanced(&self) {}
}
