//! One connection's part: negotiates streams and hands them over.
//!
//! # Invariants
//!
//! * The handler keeps no stream: an inbound one goes into its accept queue or is reset, an outbound
//!   one goes to who asked for it. A stream keeps its connection alive for as long as it is open.
//! * At most [`MAX_OPENING`] outbound streams are being negotiated; one more is refused at once.

use std::{collections::VecDeque, convert::Infallible, future, io, sync::Arc, time::Duration};

use gossip::Direction;
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo},
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, ConnectionId, StreamUpgradeError,
        SubstreamProtocol,
        handler::{
            ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
        },
    },
};
use tokio::{sync::oneshot, time::Instant};

use super::accept::{About, Acceptors, InboundStream, Places};

/// How long the peer may take to agree on a protocol for a stream it opened. Source: threats and
/// goals, row 1.
const NEGOTIATION_TIMEOUT: Duration = Duration::from_secs(10);

/// Outbound streams of one connection that are being negotiated. Chosen: as many as may wait inbound.
const MAX_OPENING: usize = 64;

/// A stream that we opened, its protocol agreed on.
#[derive(Debug)]
pub struct OutboundStream {
    pub(crate) about: About,
    /// The protocol agreed on.
    pub protocol: StreamProtocol,
    /// The stream. Dropping it resets it.
    pub stream: Stream,
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
    /// There is no such connection.
    #[error("the peer is not connected")]
    NotConnected,
    /// Too many streams are being opened.
    #[error("too many streams are being opened")]
    Busy,
    /// The peer speaks none of the protocols.
    #[error("the peer speaks none of the protocols")]
    Unsupported,
    /// The peer did not agree in time.
    #[error("the peer did not agree on a protocol in time")]
    TimedOut,
    /// The stream broke.
    #[error("the stream broke while it was opened")]
    Io(#[source] io::Error),
    /// The connection ended, or the network stopped.
    #[error("the connection ended")]
    Closed,
}

/// A wish for a stream.
#[derive(Debug)]
pub(crate) struct OpenRequest {
    /// In the order of preference.
    pub(crate) protocols: Vec<StreamProtocol>,
    /// When to give up.
    pub(crate) deadline: Instant,
    /// Who waits for it. Gone if nobody does any more.
    pub(crate) reply: oneshot::Sender<Result<OutboundStream, OpenError>>,
}

impl OpenRequest {
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
    /// Asked for, and not yet requested from the connection.
    wanted: VecDeque<OpenRequest>,
    /// Requested from the connection, and not yet answered.
    opening: usize,
}

impl Handler {
    pub(super) fn new(about: About, acceptors: Arc<Acceptors>) -> Self {
        let offer = Offer(acceptors.protocols().into());
        let places = Places::default();
        Self { about, acceptors, offer, places, wanted: VecDeque::new(), opening: 0 }
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
        _cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<ConnectionHandlerEvent<Offer, OpenRequest, Infallible>> {
        // `on_behaviour_event` is followed by a poll, so no waker is kept.
        let Some(request) = self.wanted.pop_front() else { return std::task::Poll::Pending };
        self.opening += 1;
        let offer = Offer(request.protocols.as_slice().into());
        let left = request.deadline.saturating_duration_since(Instant::now());
        let protocol = SubstreamProtocol::new(offer, request).with_timeout(left);
        std::task::Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
    }

    fn on_behaviour_event(&mut self, request: OpenRequest) {
        if self.opening + self.wanted.len() >= MAX_OPENING {
            return request.fail(OpenError::Busy);
        }
        self.wanted.push_back(request);
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
                self.opening = self.opening.saturating_sub(1);
                let opened = OutboundStream { about: self.about.clone(), protocol, stream };
                // Who asked may have given up; dropping the stream then resets it.
                let _gone = info.reply.send(Ok(opened));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                self.opening = self.opening.saturating_sub(1);
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
