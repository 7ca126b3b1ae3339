//! Where inbound streams wait until they are accepted.
//!
//! # Invariants
//!
//! * Every queue has a bound of its own for the streams of one connection, and one for those of all.
//!   What finds no place is reset and counted, at once. No queue takes a place in another.
//! * A stream leaves its place when it is taken from the queue.

use std::{collections::HashMap, sync::Arc};

use gossip::Direction;
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol, swarm::ConnectionId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::connections::Usage;
use crate::metrics::{P2pEvent, P2pMetrics};

/// How many streams may wait in a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Of one connection.
    pub(crate) per_connection: usize,
    /// Of all connections together.
    pub(crate) in_all: usize,
}

/// Of gossip. Chosen: of one connection more than a well-behaved peer opens at once; in all four
/// connections at their bound.
pub(crate) const GOSSIP: Bounds = Bounds { per_connection: 64, in_all: 256 };

/// Of HTTP. They wait for no handler, only for the task that hands them on.
///
/// Chosen: of one connection twice what a peer of this make opens at once; in all two connections at
/// their bound.
pub(crate) const HTTP: Bounds = Bounds { per_connection: 512, in_all: 1_024 };

/// A connection, as far as its streams need to know it.
#[derive(Clone, Debug)]
pub(crate) struct About {
    /// Who is at the other end.
    pub(crate) peer: PeerId,
    /// The connection.
    pub(crate) connection: ConnectionId,
    /// Who dialled the connection.
    pub(crate) direction: Direction,
    /// The address dialled, or the one the peer came from.
    pub(crate) address: Multiaddr,
    /// Tells that a stream is open, for as long as this is kept.
    pub(crate) usage: Usage,
}

/// A stream that the peer opened, its protocol agreed on.
#[derive(Debug)]
pub struct InboundStream {
    pub(crate) about: About,
    /// The protocol agreed on.
    pub protocol: StreamProtocol,
    /// The stream. Dropping it resets it.
    pub stream: Stream,
}

impl InboundStream {
    /// Who opened the stream, as proven by the connection's handshake.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.about.peer
    }

    /// Who dialled the connection the stream is on.
    #[must_use]
    pub fn direction(&self) -> Direction {
        self.about.direction
    }
}

/// A stream in its place. Generic so that the bounds can be tested without connections.
#[derive(Debug)]
struct Waiting<T> {
    stream: T,
    _place: OwnedSemaphorePermit,
}

/// Who accepts which protocol. Made once, then shared by every connection.
#[derive(Debug)]
pub(crate) struct Acceptors<T = InboundStream> {
    /// By protocol, each with the number of its queue.
    queues: HashMap<StreamProtocol, (usize, mpsc::Sender<Waiting<T>>)>,
    /// By the number of the queue.
    bounds: Vec<Bounds>,
    protocols: Vec<StreamProtocol>,
    metrics: P2pMetrics,
}

/// The streams of some protocols, in the order in which they were negotiated.
#[derive(Debug)]
pub(crate) struct AcceptQueue<T = InboundStream> {
    waiting: mpsc::Receiver<Waiting<T>>,
}

/// The places of one connection, by the number of the queue.
#[derive(Clone, Debug)]
pub(crate) struct Places(Vec<Arc<Semaphore>>);

impl<T> Acceptors<T> {
    /// Nobody accepts anything.
    pub(crate) fn new(metrics: P2pMetrics) -> Self {
        Self { queues: HashMap::new(), bounds: Vec::new(), protocols: Vec::new(), metrics }
    }

    /// The places of a new connection.
    pub(crate) fn places(&self) -> Places {
        let places = self.bounds.iter().map(|bounds| Semaphore::new(bounds.per_connection));
        Places(places.map(Arc::new).collect())
    }

    /// Adds a queue for some protocols.
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

    /// The protocols that somebody accepts, in the order in which they were added.
    pub(crate) fn protocols(&self) -> &[StreamProtocol] {
        &self.protocols
    }

    /// Puts a stream into its queue, or drops it and counts why.
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
    /// Waits for the next stream; `None` once every connection is gone.
    ///
    /// # Cancel safety
    ///
    /// Safe: a stream that was not returned is returned by the next call.
    pub(crate) async fn next(&mut self) -> Option<T> {
        Some(self.waiting.recv().await?.stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: StreamProtocol = StreamProtocol::new("/one");
    const OTHER: StreamProtocol = StreamProtocol::new("/other");
    const BOUNDS: Bounds = Bounds { per_connection: 4, in_all: 10 };

    #[tokio::test]
    async fn what_overflows_the_places_of_a_connection_is_counted_and_the_rest_is_kept() {
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
    async fn what_overflows_a_queue_is_counted() {
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
