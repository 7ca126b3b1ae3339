//! The seam to the transports: what a connection must be able to do, and what it tells of itself.

use std::{future::Future, io, sync::Arc, time::Duration};

use bytes::Bytes;
use gossip::{
    BoxFuture, Direction, DisconnectReason, Identity, LinkId, LinkPath, NodeAddress, Roles, Tag,
    Transport, wire::features::Features,
};
use mesh::{Conduct, ConfiguredAddress};
use tokio::sync::oneshot;

use crate::{
    assembler::MessageMemory,
    codec::{LinkCodec, PipeGauge},
    frame::Frame,
    vitals::RoundTrip,
};

/// The outbound half of a framed connection. Implemented once per transport; one write loop owns it.
pub trait FrameSink: Send + 'static {
    /// Writes every frame in `batch`, in order, and flushes once. An empty batch only flushes what
    /// [`FrameSink::urgent`] announced.
    ///
    /// # Cancel safety
    ///
    /// None. After an error or a dropped future part of the batch may have been sent, and the sink
    /// may only be closed.
    fn write_batch(&mut self, batch: &[Frame]) -> impl Future<Output = io::Result<()>> + Send;

    /// Resolves when the transport itself has something to write, such as the answer to a ping.
    ///
    /// # Cancel safety
    ///
    /// Safe. The default never resolves.
    fn urgent(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// Ends the outbound half, in the way of the transport for `reason`. After
    /// [`DisconnectReason::Duplicate`] and [`DisconnectReason::RemoteClosed`] what was written must
    /// still reach the peer, and what the peer has sent must still be readable.
    fn close(&mut self, reason: DisconnectReason) -> impl Future<Output = ()> + Send;
}

/// The inbound half of a framed connection. Implemented once per transport; one read loop owns it.
pub trait FrameSource: Send + 'static {
    /// Waits for the next whole message. The source checks the tag's bound before it takes memory,
    /// and ends a peer that has been silent for too long.
    ///
    /// # Errors
    ///
    /// Why no further message will come.
    ///
    /// # Cancel safety
    ///
    /// Safe: what was read of a message is kept for the next call.
    fn next_message(&mut self) -> impl Future<Output = Result<Received, SourceEnd>> + Send;
}

/// A message as it came off the wire, before anything of it was judged but its length.
#[derive(Debug)]
pub struct Received {
    /// Tag of the message. It need not be one of the network.
    pub tag: Tag,
    /// The whole message, tag included. At least as long as a tag.
    pub wire: Bytes,
    /// The memory that `wire` lies in, charged to the budget for as long as this is kept.
    pub memory: MessageMemory,
}

/// Why a source ended.
#[derive(Debug)]
pub struct SourceEnd {
    /// The reason by which the node counts the end.
    pub reason: DisconnectReason,
    /// The error of the system, if there was one.
    pub error: Option<io::Error>,
}

impl SourceEnd {
    /// Creates an end without an error of the system.
    #[must_use]
    pub fn because(reason: DisconnectReason) -> Self {
        Self { reason, error: None }
    }
}

impl From<io::Error> for SourceEnd {
    /// For the reason in an [`EndedFor`], or for [`DisconnectReason::Transport`].
    fn from(error: io::Error) -> Self {
        Self { reason: reason_of(&error), error: Some(error) }
    }
}

/// The cause that a transport puts into an [`io::Error`] when it knows why a connection ended, such as that it
/// was evicted: the link ends for this reason, and not as one that broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection ended: {0}")]
pub struct EndedFor(pub DisconnectReason);

impl From<EndedFor> for io::Error {
    fn from(ended: EndedFor) -> Self {
        Self::new(io::ErrorKind::ConnectionAborted, ended)
    }
}

/// Why a link ends that met this error.
pub(crate) fn reason_of(error: &io::Error) -> DisconnectReason {
    let known = error.get_ref().and_then(|cause| cause.downcast_ref::<EndedFor>());
    known.map_or(DisconnectReason::Transport, |ended| ended.0)
}

/// The sinks of a connection: one for all, or one per lane where the transport keeps lanes apart.
#[derive(Debug)]
pub enum LaneSinks<S> {
    /// Both lanes share one sink and one write loop.
    Shared(S),
    /// Each lane has a sink and a write loop of its own.
    PerLane {
        /// Carries the priority lane.
        priority: S,
        /// Carries the bulk lane.
        bulk: S,
    },
}

/// Handles messages that belong to the transport's own handshake, such as the end of the identity exchange.
pub trait LinkHooks: Send + Sync + 'static {
    /// Called from the read loop for a hop-local tag that the broadcaster does not handle itself.
    ///
    /// # Errors
    ///
    /// The reason to end the connection for.
    fn control(&self, peer: LinkId, tag: Tag, payload: &Bytes) -> Result<(), DisconnectReason>;

    /// Asks the peer whether it is there, and resolves when it has answered; never if it does not. Asked
    /// when a newcomer with the same identity says that the peer has lost this link.
    fn sign_of_life(&self) -> BoxFuture<'static, ()>;

    /// Called for each message of the peer that was accepted and that nobody had brought before. It must be
    /// cheap and must not wait. The default does nothing.
    fn delivered(&self) {}
}

/// A transport's description of a connection that it attaches.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LinkInfo {
    /// Transport that carries the connection.
    pub transport: Transport,
    /// The end that dialled, seen from this node.
    pub direction: Direction,
    /// Its way to the peer. Default: direct.
    pub path: LinkPath,
    /// The address that was dialled, or the one that the peer came from. Shown, never parsed.
    pub address: String,
    /// The verified identity; `None` if the handshake proves none, or only later.
    pub identity: Option<Identity>,
    /// The parts it is known to play before it has said a word.
    pub roles: Roles,
    /// Address at which HTTP calls reach the peer.
    pub http_address: Option<NodeAddress>,
    /// The configured address that leads to the peer, if the operator named one.
    pub configured: Option<ConfiguredAddress>,
    /// The cell in which the transport notes the round-trip time of the connection. Default: one that stays empty.
    pub round_trip: RoundTrip,
    /// The time that the peer has to prove its identity, where an exchange for that goes on: its
    /// [`PeerEvent::Connected`](crate::PeerEvent::Connected) waits for the exchange so long at most. `None`, the
    /// default, tells of the peer at once.
    pub identity_time: Option<Duration>,
    /// Where misbehaviour of the peer is noted; `None`, the default, if it is forgotten with the link.
    pub conduct: Option<Conduct>,
    /// The features that the peer announced, such as the forms of votes that it reads. Default: none.
    pub features: Features,
}

impl LinkInfo {
    /// Describes a connection of which nothing else is known.
    #[must_use]
    pub fn new(transport: Transport, direction: Direction, address: String) -> Self {
        Self {
            transport,
            direction,
            path: LinkPath::default(),
            address,
            identity: None,
            roles: Roles::NONE,
            http_address: None,
            configured: None,
            round_trip: RoundTrip::default(),
            identity_time: None,
            conduct: None,
            features: Features::NONE,
        }
    }
}

/// A connection that is ready to be attached, with its handshake behind it.
pub struct Link<S, R> {
    /// Description of the connection, for the application and the logs.
    pub about: LinkInfo,
    /// Outbound halves, to which messages are written.
    pub sinks: LaneSinks<S>,
    /// Inbound halves, from which messages come: one source, or one per lane.
    pub sources: Vec<R>,
    /// Messages to send first, in this order, ahead of everything else: tag and payload.
    pub greeting: Vec<(Tag, Bytes)>,
    /// Callbacks into the transport, if it has messages of its own or can be pinged.
    pub hooks: Option<Arc<dyn LinkHooks>>,
    /// Encoding of its messages; `None` writes them as they are.
    pub codec: Option<LinkCodec>,
    /// Gauge of its path; `None` where the transport cannot tell.
    pub gauge: Option<Arc<dyn PipeGauge>>,
}

impl<S, R> std::fmt::Debug for Link<S, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("about", &self.about).finish_non_exhaustive()
    }
}

/// A connection that was attached. Dropping it neither ends nor detaches the connection.
#[derive(Debug)]
#[must_use = "the transport learns from it when the connection has ended"]
pub struct Attached {
    /// The number of the link.
    pub peer: LinkId,
    pub(crate) ended: oneshot::Receiver<DisconnectReason>,
}

impl Attached {
    /// Resolves when both halves have ended and been closed.
    ///
    /// # Cancel safety
    ///
    /// Safe, but the reason is given once only.
    pub async fn ended(&mut self) -> DisconnectReason {
        (&mut self.ended).await.unwrap_or(DisconnectReason::LocalShutdown)
    }
}

/// The node is stopping and takes no further connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node is stopping")]
pub struct Stopping;
