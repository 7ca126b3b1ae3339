//! The part of one connection: it negotiates streams and hands them over.
//!
//! # Invariants
//!
//! * The handler keeps no stream. An inbound one goes to its accept queue or is reset; an outbound one goes to
//!   the caller. A stream keeps its connection alive for as long as it is open, and so does whoever keeps what a stream
//!   says of its connection ([`About`]).
//! * At most [`MAX_OPEN`] queued outbound streams are open or being opened at one time. Up to [`MAX_WANTED`]
//!   more requests wait, each until its caller gives up.
//! * Gossip does not wait for a place: its streams are opened at once, at most [`MAX_URGENT`] at a time.

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
use runtime::time::Instant;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::sync::PollSemaphore;

use super::accept::{About, Acceptors, InboundStream, Places};
use crate::address::PeerAddressError;

/// Longest time for the negotiation of a stream that the peer opened. Source: threats and goals, row 1.
const NEGOTIATION_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest number of open outbound streams per connection, gossip not counted.
///
/// Chosen: one for each of the callers that are meant to be served at once. Other muxers of this kind end
/// the whole connection when more than 512 streams are open, and hold back the 257th stream that was not
/// acknowledged.
pub(crate) const MAX_OPEN: usize = 256;

/// Largest number of requests that wait for one of these. Chosen: four for each.
pub(crate) const MAX_WANTED: usize = 1_024;

/// Largest number of gossip streams in outbound negotiation. Chosen: the number that may wait inbound.
const MAX_URGENT: usize = 64;

/// A stream opened by this node, with a negotiated protocol.
#[derive(Debug)]
pub struct OutboundStream {
    pub(crate) about: About,
    /// The negotiated protocol.
    pub protocol: StreamProtocol,
    /// The stream's bytes. Dropping it resets the stream.
    pub stream: Stream,
    /// One of the [`MAX_OPEN`] places. It must be given back after the stream is gone.
    pub(crate) place: Option<OwnedSemaphorePermit>,
}

impl OutboundStream {
    /// The peer the stream leads to, as proven by the connection's handshake.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.about.peer
    }

    /// Number of the stream's connection within the swarm.
    #[must_use]
    pub fn connection(&self) -> ConnectionId {
        self.about.connection
    }

    /// The direction of the connection: [`Direction::Outbound`] if this node dialled it.
    #[must_use]
    pub fn direction(&self) -> Direction {
        self.about.direction
    }

    /// The address dialled, or the address the peer connected from.
    #[must_use]
    pub fn address(&self) -> &Multiaddr {
        &self.about.address
    }
}

/// The reason why a stream was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The address cannot be dialled.
    #[error(transparent)]
    Address(#[from] PeerAddressError),
    /// The name of the protocol is not valid.
    #[error("{name:?} is no name of a protocol: it begins with a slash")]
    Malformed {
        /// The name as given.
        name: String,
    },
    /// The address belongs to this node itself.
    #[error("the address names this node itself")]
    Ourselves,
    /// The host name in the address could not be resolved.
    #[error("the name in the address cannot be looked up")]
    Unresolved,
    /// A peer with another ID answered at the address.
    #[error("{obtained} answered at the address")]
    WrongPeer {
        /// The ID of the peer that answered.
        obtained: PeerId,
    },
    /// The address could not be reached.
    #[error("the address could not be reached")]
    Dial(#[source] Arc<DialError>),
    /// The peer, or the given connection, is not connected.
    #[error("the peer is not connected")]
    NotConnected,
    /// The queue of stream requests is full.
    #[error("too many streams are being opened")]
    Busy,
    /// The peer supports none of the protocols.
    #[error("the peer speaks none of the protocols")]
    Unsupported,
    /// The deadline passed before the stream was open.
    #[error("no stream was opened in time")]
    TimedOut,
    /// The stream broke during its negotiation.
    #[error("the stream broke while it was opened")]
    Io(#[source] io::Error),
    /// The connection ended, or the network stopped.
    #[error("the connection ended")]
    Closed,
}

/// The time at which a stream is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// At once. For gossip.
    Urgent,
    /// When there is a place for it. For every other protocol.
    Queued,
}

/// A request for a stream on one connection.
#[derive(Debug)]
pub(crate) struct OpenRequest {
    /// The protocols to offer, in order of preference.
    protocols: Vec<StreamProtocol>,
    /// The time at which the caller gives up.
    deadline: Instant,
    turn: Turn,
    /// The place of the stream, once there is one.
    place: Option<OwnedSemaphorePermit>,
    /// Receives the stream. Closed when the caller no longer waits.
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

    /// Returns `true` if the caller no longer waits for the stream.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    /// Answers with an error. If the caller no longer waits, the error is dropped.
    pub(crate) fn fail(self, error: OpenError) {
        let _gone = self.reply.send(Err(error));
    }
}

/// The upgrade of a stream: offers protocols, and returns the stream unchanged after the negotiation.
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
    /// Gossip requests that were not yet passed to the connection.
    urgent: VecDeque<OpenRequest>,
    /// Number of gossip requests passed to the connection and not yet answered.
    opening: usize,
    /// Other requests, which wait for a place.
    wanted: VecDeque<OpenRequest>,
    /// Places for the other requests.
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

    /// Takes the next request that may be opened now.
    fn next_request(&mut self, context: &mut Context<'_>) -> Poll<OpenRequest> {
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

    /// Counts the answer to a request that was passed to the connection.
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

    fn connection_keep_alive(&self) -> bool {
        self.about.usage.is_shared()
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Offer, OpenRequest, Infallible>> {
        // `on_behaviour_event` is followed by a poll, so only the wait for a place has to keep a waker.
        let request = std::task::ready!(self.next_request(context));
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
                // The send fails only if the caller has given up; dropping the stream then resets it.
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
