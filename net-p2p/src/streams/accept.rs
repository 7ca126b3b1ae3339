//! Where inbound streams wait until they are accepted.
//!
//! # Invariants
//!
//! * At most [`PER_CONNECTION`] streams of one connection wait, over all queues, and at most as many in
//!   one queue as it was made for. What finds no place is reset and counted, at once.
//! * A stream leaves its place when it is taken from the queue.

use std::{collections::HashMap, sync::Arc};

use gossip::Direction;
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol, swarm::ConnectionId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::metrics::{P2pEvent, P2pMetrics};

/// Streams of one connection that wait to be accepted.
///
/// Chosen: more than a well-behaved peer opens at once, and a quarter of a queue.
pub(crate) const PER_CONNECTION: usize = 64;

/// Streams that wait in one queue. Chosen: four connections at their bound.
pub(crate) const PER_QUEUE: usize = 256;

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
    queues: HashMap<StreamProtocol, mpsc::Sender<Waiting<T>>>,
    protocols: Vec<StreamProtocol>,
    metrics: P2pMetrics,
}

/// The streams of some protocols, in the order in which they were negotiated.
#[derive(Debug)]
pub(crate) struct AcceptQueue<T = InboundStream> {
    waiting: mpsc::Receiver<Waiting<T>>,
}

/// The places of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(PER_CONNECTION)))
    }
}

impl<T> Acceptors<T> {
    /// Nobody accepts anything.
    pub(crate) fn new(metrics: P2pMetrics) -> Self {
        Self { queues: HashMap::new(), protocols: Vec::new(), metrics }
    }

    /// Adds a queue for some protocols, of at most `bound` waiting streams.
    pub(crate) fn accept(&mut self, protocols: &[StreamProtocol], bound: usize) -> AcceptQueue<T> {
        let (sender, waiting) = mpsc::channel(bound);
        for protocol in protocols {
            self.queues.insert(protocol.clone(), sender.clone());
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
        let Some(queue) = self.queues.get(protocol) else {
            return self.metrics.note(P2pEvent::AcceptorGone);
        };
        let Ok(place) = Arc::clone(&places.0).try_acquire_owned() else {
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

    const GOSSIP: StreamProtocol = StreamProtocol::new("/gossip");

    #[tokio::test]
    async fn what_overflows_the_places_of_a_connection_is_counted_and_the_rest_is_kept() {
        let metrics = P2pMetrics::default();
        let mut acceptors = Acceptors::new(metrics.clone());
        let mut queue = acceptors.accept(&[GOSSIP], PER_QUEUE);
        let places = Places::default();
        for stream in 0..PER_CONNECTION + 3 {
            acceptors.offer(&GOSSIP, stream, &places);
        }
        assert_eq!(metrics.count(P2pEvent::AcceptQueueFullForConnection), 3);
        assert_eq!(queue.next().await, Some(0));
        acceptors.offer(&GOSSIP, 1_000, &places);
        assert_eq!(metrics.count(P2pEvent::AcceptQueueFullForConnection), 3, "a place was free");
        for stream in 1..PER_CONNECTION {
            assert_eq!(queue.next().await, Some(stream));
        }
        assert_eq!(queue.next().await, Some(1_000));
    }

    #[tokio::test]
    async fn what_overflows_a_queue_is_counted() {
        let metrics = P2pMetrics::default();
        let mut acceptors = Acceptors::new(metrics.clone());
        let queue = acceptors.accept(&[GOSSIP], PER_QUEUE);
        let connections: Vec<Places> =
            (0..=PER_QUEUE / PER_CONNECTION).map(|_| Places::default()).collect();
        for places in &connections {
            for _ in 0..PER_CONNECTION {
                acceptors.offer(&GOSSIP, (), places);
            }
        }
        assert_eq!(metrics.count(P2pEvent::AcceptQueueFull), PER_CONNECTION as u64);
        drop(queue);
        acceptors.offer(&GOSSIP, (), &Places::default());
        assert_eq!(metrics.count(P2pEvent::AcceptorGone), 1);
    }
}
