//! One connection's part: negotiates streams and hands them over.
//!
//! # Invariants
//!
//! * The handler keeps no stream: an inbound one goes into its accept queue or is reset, an outbound
//!   one goes to who asked for it. A stream keeps its connection alive for as long as it is open.
//! * At most [`MAX_OPEN`] outbound streams that wait for their turn are open, or being opened, at one
//!   time. Up to [`MAX_WANTED`] more wait, each until who asked for it gives up.
//! * Gossip waits for nobody's turn: its streams are opened at once, at most [`MAX_URGENT`] at a time.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future, io,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use gossip::Direction;
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo},
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, ConnectionId, DialError, StreamUpgradeError,
        SubstreamProtocol,
        handler::{
            ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
        },
    },
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::Instant,
};
use tokio_util::sync::PollSemaphore;

use super::accept::{About, Acceptors, InboundStream, Places};
use crate::config::PeerAddressError;

/// How long the peer may take to agree on a protocol for a stream it opened. Source: threats and
/// goals, row 1.
const NEGOTIATION_TIMEOUT: Duration = Duration::from_secs(10);

/// Outbound streams of one connection, gossip aside.
///
/// Chosen: a stream for each of the callers that are meant to be served at once. Other muxers of this
/// kind end the whole connection when more than 512 streams are open, and hold back the 257th that
/// was not acknowledged.
pub(crate) const MAX_OPEN: usize = 256;

/// Wishes that wait for one of those. Chosen: four for each.
pub(crate) const MAX_WANTED: usize = 1_024;

/// Outbound streams for gossip that are being negotiated. Chosen: as many as may wait inbound.
const MAX_URGENT: usize = 64;

/// A stream that we opened, its protocol agreed on.
#[derive(Debug)]
pub struct OutboundStream {
    pub(crate) about: About,
    /// The protocol agreed on.
    pub protocol: StreamProtocol,
    /// The stream. Dropping it resets it.
    pub stream: Stream,
    /// Its place among the open ones, which must not be given up before the stream is.
    pub(crate) place: Option<OwnedSemaphorePermit>,
}

impl OutboundStream {
    /// Whom the stream leads to, as proven by the connection's handshake.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.about.peer
    }

    /// The connection the stream is on.
    #[must_use]
    pub fn connection(&self) -> ConnectionId {
        self.about.connection
    }

    /// Who dialled the connection the stream is on.
    #[must_use]
    pub fn direction(&self) -> Direction {
        self.about.direction
    }

    /// The address dialled, or the one the peer came from.
    #[must_use]
    pub fn address(&self) -> &Multiaddr {
        &self.about.address
    }
}

/// Why a stream was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The address cannot be dialled.
    #[error(transparent)]
    Address(#[from] PeerAddressError),
    /// The address is one of this node.
    #[error("the address names this node itself")]
    Ourselves,
    /// The name in the address cannot be looked up.
    #[error("the name in the address cannot be looked up")]
    Unresolved,
    /// Somebody else answered at the address.
    #[error("{obtained} answered at the address")]
    WrongPeer {
        /// Who answered.
        obtained: PeerId,
    },
    /// Nobody was reached at the address.
    #[error("nobody was reached at the address")]
    Dial(#[source] Arc<DialError>),
    /// There is no such connection.
    #[error("the peer is not connected")]
    NotConnected,
    /// Too many streams are being opened.
    #[error("too many streams are being opened")]
    Busy,
    /// The peer speaks none of the protocols.
    #[error("the peer speaks none of the protocols")]
    Unsupported,
    /// There was no stream in time.
    #[error("no stream was opened in time")]
    TimedOut,
    /// The stream broke.
    #[error("the stream broke while it was opened")]
    Io(#[source] io::Error),
    /// The connection ended, or the network stopped.
    #[error("the connection ended")]
    Closed,
}

/// When a stream is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// At once: gossip.
    Urgent,
    /// When there is a place for it: all else.
    Queued,
}

/// A wish for a stream.
#[derive(Debug)]
pub(crate) struct OpenRequest {
    /// In the order of preference.
    protocols: Vec<StreamProtocol>,
    /// When to give up.
    deadline: Instant,
    turn: Turn,
    /// Its place, once it was its turn.
    place: Option<OwnedSemaphorePermit>,
    /// Who waits for it. Gone if nobody does any more.
    reply: oneshot::Sender<Result<OutboundStream, OpenError>>,
}

impl OpenRequest {
    pub(crate) fn new(
        protocols: Vec<StreamProtocol>,
        deadline: Instant,
        turn: Turn,
        reply: oneshot::Sender<Result<OutboundStream, OpenError>>,
    ) -> Self {
        Self { protocols, deadline, turn, place: None, reply }
    }

    /// Whether nobody waits for the stream any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    /// Answers with an error. Nobody may be waiting any more, which is no loss.
    pub(crate) fn fail(self, error: OpenError) {
        let _gone = self.reply.send(Err(error));
    }
}

/// Offers some protocols, and takes the stream as it is once one is agreed on.
#[derive(Clone, Debug)]
pub(crate) struct Offer(Arc<[StreamProtocol]>);

impl UpgradeInfo for Offer {
    type Info = StreamProtocol;
    type InfoIter = Vec<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.to_vec()
    }
}

impl InboundUpgrade<Stream> for Offer {
    type Output = (StreamProtocol, Stream);
    type Error = Infallible;
    type Future = future::Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        future::ready(Ok((protocol, stream)))
    }
}

impl OutboundUpgrade<Stream> for Offer {
    type Output = (StreamProtocol, Stream);
    type Error = Infallible;
    type Future = future::Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        future::ready(Ok((protocol, stream)))
    }
}

/// The handler of one connection.
#[derive(Debug)]
pub(crate) struct Handler {
    about: About,
    acceptors: Arc<Acceptors>,
    offer: Offer,
    places: Places,
    /// For gossip: asked for, and not yet requested from the connection.
    urgent: VecDeque<OpenRequest>,
    /// For gossip: requested from the connection, and not yet answered.
    opening: usize,
    /// Wait for a place.
    wanted: VecDeque<OpenRequest>,
    /// Places for streams that wait for their turn.
    open: PollSemaphore,
}

impl Handler {
    pub(super) fn new(about: About, acceptors: Arc<Acceptors>) -> Self {
        let offer = Offer(acceptors.protocols().into());
        let places = acceptors.places();
        let open = PollSemaphore::new(Arc::new(Semaphore::new(MAX_OPEN)));
        let (urgent, wanted) = (VecDeque::new(), VecDeque::new());
        Self { about, acceptors, offer, places, urgent, opening: 0, wanted, open }
    }

    /// The next wish whose turn it is.
    fn next_wish(&mut self, context: &mut Context<'_>) -> Poll<OpenRequest> {
        if let Some(request) = self.urgent.pop_front() {
            self.opening += 1;
            return Poll::Ready(request);
        }
        while self.wanted.front().is_some_and(OpenRequest::is_abandoned) {
            self.wanted.pop_front();
        }
        if self.wanted.is_empty() {
            return Poll::Pending;
        }
        let place = std::task::ready!(self.open.poll_acquire(context));
        match self.wanted.pop_front() {
            Some(request) => Poll::Ready(OpenRequest { place, ..request }),
            None => Poll::Pending,
        }
    }

    /// A stream that was requested from the connection has come, or will not.
    fn answered(&mut self, request: &OpenRequest) {
        if request.turn == Turn::Urgent {
            self.opening = self.opening.saturating_sub(1);
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = OpenRequest;
    type ToBehaviour = Infallible;
    type InboundProtocol = Offer;
    type OutboundProtocol = Offer;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = OpenRequest;

    fn listen_protocol(&self) -> SubstreamProtocol<Offer> {
        SubstreamProtocol::new(self.offer.clone(), ()).with_timeout(NEGOTIATION_TIMEOUT)
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Offer, OpenRequest, Infallible>> {
        // `on_behaviour_event` is followed by a poll, so only the wait for a place keeps a waker.
        let request = std::task::ready!(self.next_wish(context));
        let offer = Offer(request.protocols.as_slice().into());
        let left = request.deadline.saturating_duration_since(Instant::now());
        let protocol = SubstreamProtocol::new(offer, request).with_timeout(left);
        Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
    }

    fn on_behaviour_event(&mut self, request: OpenRequest) {
        let (queue, full) = match request.turn {
            Turn::Urgent => {
                let full = self.opening + self.urgent.len() >= MAX_URGENT;
                (&mut self.urgent, full)
            }
            Turn::Queued => {
                if self.wanted.len() >= MAX_WANTED {
                    self.wanted.retain(|wanted| !wanted.is_abandoned());
                }
                let full = self.wanted.len() >= MAX_WANTED;
                (&mut self.wanted, full)
            }
        };
        if full {
            return request.fail(OpenError::Busy);
        }
        queue.push_back(request);
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Offer, Offer, (), OpenRequest>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (protocol, stream),
                ..
            }) => {
                let inbound =
                    InboundStream { about: self.about.clone(), protocol: protocol.clone(), stream };
                self.acceptors.offer(&protocol, inbound, &self.places);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (protocol, stream),
                info,
            }) => {
                self.answered(&info);
                let OpenRequest { place, reply, .. } = info;
                let opened = OutboundStream { about: self.about.clone(), protocol, stream, place };
                // Who asked may have given up; dropping the stream then resets it.
                let _gone = reply.send(Ok(opened));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                self.answered(&info);
                info.fail(match error {
                    StreamUpgradeError::Timeout => OpenError::TimedOut,
                    StreamUpgradeError::NegotiationFailed => OpenError::Unsupported,
                    StreamUpgradeError::Io(error) => OpenError::Io(error),
                    StreamUpgradeError::Apply(never) => match never {},
                });
            }
            _ => {}
        }
    }
}
