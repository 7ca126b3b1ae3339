//! Queues of inbound streams that wait to be accepted.
//!
//! # Invariants
//!
//! * Every queue bounds the streams of one connection, and the streams of all connections together. A stream
//!   beyond a bound is reset and counted at once. No queue takes places of another.
//! * A stream gives its place back when it is taken from the queue.

#[cfg(all(feature = "circuits", feature = "data-channels"))]
use std::task::{Context, Poll};
use std::{collections::HashMap, sync::Arc};

use gossip::Direction;
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol, swarm::ConnectionId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::connections::Usage;
use crate::metrics::{P2pEvent, P2pMetrics};

/// Bounds on the streams that wait in a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Largest number of streams of one connection.
    pub(crate) per_connection: usize,
    /// Largest number of streams of all connections together.
    pub(crate) in_all: usize,
}

/// Bounds for gossip. Chosen: per connection more than a well-behaved peer opens at once; in all, four
/// connections at their bound.
pub(crate) const GOSSIP: Bounds = Bounds { per_connection: 64, in_all: 256 };

/// Bounds for HTTP. These streams wait only for the task that hands them on, not for a handler.
///
/// Chosen: per connection twice the streams that a Tandem node opens at once; in all, two connections at their
/// bound.
pub(crate) const HTTP: Bounds = Bounds { per_connection: 512, in_all: 1_024 };

/// Properties of a connection that its streams carry.
#[derive(Clone, Debug)]
pub(crate) struct About {
    /// The peer at the other end, proven by the connection's handshake.
    pub(crate) peer: PeerId,
    /// Number of the connection within the swarm.
    pub(crate) connection: ConnectionId,
    /// [`Direction::Outbound`] if this node dialled the connection.
    pub(crate) direction: Direction,
    /// The address dialled, or the address the peer connected from.
    pub(crate) address: Multiaddr,
    /// Counts the stream as open for as long as it is held.
    pub(crate) usage: Usage,
}

/// A stream opened by the peer, with a negotiated protocol.
#[derive(Debug)]
pub struct InboundStream {
    pub(crate) about: About,
    /// The negotiated protocol.
    pub protocol: StreamProtocol,
    /// The stream's bytes. Dropping it resets the stream.
    pub stream: Stream,
}

impl InboundStream {
    /// The peer that opened the stream, as proven by the connection's handshake.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.about.peer
    }

    /// The direction of the connection: [`Direction::Outbound`] if this node dialled it.
    #[must_use]
    pub fn direction(&self) -> Direction {
        self.about.direction
    }
}

/// A stream in a queue, and its place. Generic so that the bounds can be tested without connections.
#[derive(Debug)]
struct Waiting<T> {
    stream: T,
    _place: OwnedSemaphorePermit,
}

/// The accept queues by protocol. Built once, then shared by every connection.
#[derive(Debug)]
pub(crate) struct Acceptors<T = InboundStream> {
    /// The sending end for each protocol, with the index of its queue.
    queues: HashMap<StreamProtocol, (usize, mpsc::Sender<Waiting<T>>)>,
    /// The bounds by index of the queue.
    bounds: Vec<Bounds>,
    protocols: Vec<StreamProtocol>,
    metrics: P2pMetrics,
}

/// The receiving end of one queue: streams of its protocols in the order of their negotiation.
#[derive(Debug)]
pub(crate) struct AcceptQueue<T = InboundStream> {
    waiting: mpsc::Receiver<Waiting<T>>,
}

/// The places of one connection, by index of the queue.
#[derive(Clone, Debug)]
pub(crate) struct Places(Vec<Arc<Semaphore>>);

impl<T> Acceptors<T> {
    /// Creates a set without queues, in which no protocol is accepted.
    pub(crate) fn new(metrics: P2pMetrics) -> Self {
        Self { queues: HashMap::new(), bounds: Vec::new(), protocols: Vec::new(), metrics }
    }

    /// Creates the places of a new connection.
    pub(crate) fn places(&self) -> Places {
        let places = self.bounds.iter().map(|bounds| Semaphore::new(bounds.per_connection));
        Places(places.map(Arc::new).collect())
    }

    /// Adds a queue for `protocols`.
    pub(crate) fn accept(
        &mut self,
        protocols: &[StreamProtocol],
        bounds: Bounds,
    ) -> AcceptQueue<T> {
        let (sender, waiting) = mpsc::channel(bounds.in_all);
        let number = self.bounds.len();
        self.bounds.push(bounds);
        for protocol in protocols {
            self.queues.insert(protocol.clone(), (number, sender.clone()));
            self.protocols.push(protocol.clone());
        }
        AcceptQueue { waiting }
    }

    /// The accepted protocols, in the order in which they were added.
    pub(crate) fn protocols(&self) -> &[StreamProtocol] {
        &self.protocols
    }

    /// Puts a stream into the queue of its protocol, or drops it and counts the reason.
    pub(crate) fn offer(&self, protocol: &StreamProtocol, stream: T, places: &Places) {
        let queue = self.queues.get(protocol);
        let of = queue.and_then(|(number, queue)| Some((queue, places.0.get(*number)?)));
        let Some((queue, places)) = of else {
            return self.metrics.note(P2pEvent::AcceptorGone);
        };
        let Ok(place) = Arc::clone(places).try_acquire_owned() else {
            return self.metrics.note(P2pEvent::AcceptQueueFullForConnection);
        };
        match queue.try_send(Waiting { stream, _place: place }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => self.metrics.note(P2pEvent::AcceptQueueFull),
            Err(mpsc::error::TrySendError::Closed(_)) => self.metrics.note(P2pEvent::AcceptorGone),
        }
    }
}

impl<T> AcceptQueue<T> {
    /// Waits for the next stream; `None` once every connection has ended.
    ///
    /// # Cancel safety
    ///
    /// Safe: a stream that was not returned is returned by the next call.
    pub(crate) async fn next(&mut self) -> Option<T> {
        Some(self.waiting.recv().await?.stream)
    }

    /// The same for a caller that polls.
    #[cfg(all(feature = "circuits", feature = "data-channels"))]
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.waiting.poll_recv(context).map(|waiting| Some(waiting?.stream))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: StreamProtocol = StreamProtocol::new("/one");
    const OTHER: StreamProtocol = StreamProtocol::new("/other");
    const BOUNDS: Bounds = Bounds { per_connection: 4, in_all: 10 };

    #[tokio::test]
    async fn a_stream_beyond_the_places_of_its_connection_is_counted() {
        let metrics = P2pMetrics::default();
        let mut acceptors = Acceptors::new(metrics.clone());
        let mut queue = acceptors.accept(&[ONE], BOUNDS);
        let places = acceptors.places();
        for stream in 0..BOUNDS.per_connection + 3 {
            acceptors.offer(&ONE, stream, &places);
        }
        assert_eq!(metrics.count(P2pEvent::AcceptQueueFullForConnection), 3);
        assert_eq!(queue.next().await, Some(0));
        acceptors.offer(&ONE, 1_000, &places);
        assert_eq!(metrics.count(P2pEvent::AcceptQueueFullForConnection), 3, "a place was free");
        for stream in 1..BOUNDS.per_connection {
            assert_eq!(queue.next().await, Some(stream));
        }
        assert_eq!(queue.next().await, Some(1_000));
    }

    #[tokio::test]
    async fn a_stream_beyond_the_queue_is_counted() {
        let metrics = P2pMetrics::default();
        let mut acceptors = Acceptors::new(metrics.clone());
        let queue = acceptors.accept(&[ONE], BOUNDS);
        for _connection in 0..3 {
            let places = acceptors.places();
            for _ in 0..BOUNDS.per_connection {
                acceptors.offer(&ONE, (), &places);
            }
        }
        assert_eq!(metrics.count(P2pEvent::AcceptQueueFull), 2);
        drop(queue);
        acceptors.offer(&ONE, (), &acceptors.places());
        assert_eq!(metrics.count(P2pEvent::AcceptorGone), 1);
    }

    #[tokio::test]
    async fn a_full_queue_leaves_the_other_one_alone() {
        let metrics = P2pMetrics::default();
        let mut acceptors = Acceptors::new(metrics.clone());
        let _full = acceptors.accept(&[ONE], BOUNDS);
        let mut other = acceptors.accept(&[OTHER], BOUNDS);
        let places = acceptors.places();
        for _ in 0..BOUNDS.in_all {
            acceptors.offer(&ONE, "one", &places);
        }
        acceptors.offer(&OTHER, "other", &places);
        assert_eq!(other.next().await, Some("other"));
        let refused = (BOUNDS.in_all - BOUNDS.per_connection) as u64;
        assert_eq!(metrics.count(P2pEvent::AcceptQueueFullForConnection), refused);
    }
}
