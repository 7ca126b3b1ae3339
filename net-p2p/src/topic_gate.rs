//! What peers say on topics is judged before the library keeps anything of it.
//!
//! ```text
//!   connection ──▶ GatedPubsub: says whose it is ──▶ library ──▶ Gate: takes it, or empties it
//! ```
//!
//! The library keeps the name of each message for minutes, twice, also of those that are ignored: half a
//! kilobyte for a message of one byte. What it was told of it can't take back. So what is too much is
//! emptied before the library names it. All empty messages are one, which the library has heard already.
//!
//! # Invariants
//!
//! * What a peer says beyond its share leaves no trace but a count, and costs it no score.
//! * A peer that floods is disconnected and counted.
//! * The names that the library keeps cost [`Gate::bound`](Gate) at most, and those of one request more.

use std::{
    collections::VecDeque,
    io,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    gossipsub::{self, DataTransform, Message, RawMessage, TopicHash},
    swarm::{
        CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm,
    },
};
use tokio::time::Instant;

use crate::{
    metrics::{P2pEvent, P2pMetrics},
    pubsub::Behaviour,
    topic_rates::{RateVerdict, TopicRates},
};

/// The part of the byte budget that names of messages may cost beside it. Chosen: with the default budget
/// 96 MiB, 157,000 messages that were heard within two minutes.
const PART_OF_BUDGET: usize = 8;
const PARTS: usize = 3;

/// What the name of a message costs that was heard, and how long it is kept: by the memory of what was seen,
/// and by the scores of peers. Computed from the library's tables, half full; source: gossipsub 0.50.
const HEARD_BYTES: usize = 640;
const HEARD_FOR: Duration = Duration::from_secs(120);

/// The same of a message that was published, which no score knows.
const PUBLISHED_BYTES: usize = 256;

/// Decides what the library hears. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct TopicGate {
    gate: Arc<Mutex<Gate>>,
}

#[derive(Debug)]
struct Gate {
    metrics: P2pMetrics,
    rates: TopicRates,
    /// Whose request is being looked at.
    from: Option<PeerId>,
    /// Peers that are to be disconnected.
    flooded: VecDeque<PeerId>,
    /// What names cost, by the time at which they are forgotten.
    names: VecDeque<(Instant, usize)>,
    name_bytes: usize,
    bound: usize,
}

impl TopicGate {
    /// Names may cost a part of what is in the byte budget.
    pub(crate) fn new(budget_bytes: usize, metrics: P2pMetrics) -> Self {
        let gate = Gate {
            metrics,
            rates: TopicRates::default(),
            from: None,
            flooded: VecDeque::new(),
            names: VecDeque::new(),
            name_bytes: 0,
            bound: budget_bytes / PART_OF_BUDGET * PARTS,
        };
        Self { gate: Arc::new(Mutex::new(gate)) }
    }

    fn lock(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether another message may be given to the library.
    pub(crate) fn has_room(&self, now: Instant) -> bool {
        self.lock().has_room(now)
    }

    /// Notes that the library keeps the name of a message that was heard.
    pub(crate) fn heard(&self, now: Instant) {
        self.lock().keep(HEARD_BYTES, now);
    }

    /// Notes that the library keeps the name of a message that was published.
    pub(crate) fn published(&self, now: Instant) {
        self.lock().keep(PUBLISHED_BYTES, now);
    }

    /// Forgets a peer that is gone.
    pub(crate) fn forget(&self, peer: &PeerId) {
        self.lock().rates.forget(peer);
    }
}

impl Gate {
    fn has_room(&mut self, now: Instant) -> bool {
        while self.names.front().is_some_and(|(until, _)| *until <= now) {
            self.name_bytes -= self.names.pop_front().map_or(0, |(_, bytes)| bytes);
        }
        self.name_bytes < self.bound
    }

    fn keep(&mut self, bytes: usize, now: Instant) {
        self.name_bytes += bytes;
        // One entry a second is exact enough, and small.
        let until = now + HEARD_FOR;
        match self.names.back_mut() {
            Some((last, sum)) if until < *last + Duration::from_secs(1) => *sum += bytes,
            _ => self.names.push_back((until + Duration::from_secs(1), bytes)),
        }
    }

    /// Whether the library may hear a message.
    fn lets_in(&mut self, body_bytes: usize, now: Instant) -> bool {
        // Nobody else gives messages to the library.
        let Some(from) = self.from else { return true };
        match self.rates.note(from, body_bytes, now) {
            RateVerdict::Within => {}
            RateVerdict::Excess => {
                self.metrics.note(P2pEvent::TopicExcess);
                return false;
            }
            RateVerdict::Flood => {
                self.metrics.note(P2pEvent::TopicExcess);
                if !self.flooded.contains(&from) {
                    self.flooded.push_back(from);
                }
                return false;
            }
        }
        let has_room = self.has_room(now);
        if !has_room {
            self.metrics.note(P2pEvent::TopicNamesFull);
        }
        has_room
    }
}

/// Refuses what is signed, and empties what is too much.
#[derive(Clone, Debug)]
pub(crate) struct StrictNoSign {
    gate: TopicGate,
}

impl StrictNoSign {
    /// Asks `gate` about what is too much.
    pub(crate) const fn new(gate: TopicGate) -> Self {
        Self { gate }
    }
}

impl DataTransform for StrictNoSign {
    fn inbound_transform(&self, raw: RawMessage) -> Result<Message, io::Error> {
        if raw.signature.is_some() || raw.key.is_some() {
            return Err(io::Error::other("a signed message"));
        }
        let RawMessage { source, mut data, sequence_number, topic, .. } = raw;
        if !self.gate.lock().lets_in(data.len(), Instant::now()) {
            data = Vec::new();
        }
        Ok(Message { source, data, sequence_number, topic })
    }

    fn outbound_transform(&self, _topic: &TopicHash, data: Vec<u8>) -> Result<Vec<u8>, io::Error> {
        Ok(data)
    }
}

/// GossipSub, with the gate before it.
pub(crate) struct GatedPubsub {
    inner: Behaviour,
    gate: TopicGate,
}

impl GatedPubsub {
    /// `inner` transforms messages with [`StrictNoSign`] of the same gate.
    pub(crate) const fn new(inner: Behaviour, gate: TopicGate) -> Self {
        Self { inner, gate }
    }

    /// What lets messages in.
    pub(crate) const fn gate(&self) -> &TopicGate {
        &self.gate
    }
}

impl Deref for GatedPubsub {
    type Target = Behaviour;

    fn deref(&self) -> &Behaviour {
        &self.inner
    }
}

impl DerefMut for GatedPubsub {
    fn deref_mut(&mut self) -> &mut Behaviour {
        &mut self.inner
    }
}

impl NetworkBehaviour for GatedPubsub {
    type ConnectionHandler = <Behaviour as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = gossipsub::Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        // The library transforms all messages of a request before it returns.
        self.gate.lock().from = Some(peer);
        self.inner.on_connection_handler_event(peer, connection, event);
        self.gate.lock().from = None;
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ToSwarm<gossipsub::Event, THandlerInEvent<Self>>> {
        let flooded = {
            let mut gate = self.gate.lock();
            let flooded = gate.flooded.pop_front();
            if flooded.is_some() {
                gate.metrics.note(P2pEvent::TopicFlood);
            }
            flooded
        };
        if let Some(peer_id) = flooded {
            tracing::info!(peer = %peer_id, "disconnecting a peer that floods a topic");
            return Poll::Ready(ToSwarm::CloseConnection {
                peer_id,
                connection: CloseConnection::All,
            });
        }
        self.inner.poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(bytes: usize, signature: Option<Vec<u8>>, key: Option<Vec<u8>>) -> RawMessage {
        RawMessage {
            source: Some(PeerId::random()),
            data: vec![1; bytes],
            sequence_number: Some(7),
            topic: TopicHash::from_raw("t"),
            signature,
            key,
            validated: false,
        }
    }

    fn said(gate: &TopicGate, by: PeerId, bytes: usize) -> usize {
        gate.lock().from = Some(by);
        let message = StrictNoSign::new(gate.clone()).inbound_transform(raw(bytes, None, None));
        message.unwrap().data.len()
    }

    #[test]
    fn a_signed_message_is_rejected_and_an_author_alone_is_not() {
        let transform = StrictNoSign::new(TopicGate::new(1 << 20, P2pMetrics::default()));
        assert!(transform.inbound_transform(raw(1, None, None)).is_ok());
        assert!(transform.inbound_transform(raw(1, Some(vec![1]), None)).is_err());
        assert!(transform.inbound_transform(raw(1, None, Some(vec![1]))).is_err());
    }

    // Issue 8, 23: the library kept the name of what was too much for two minutes.
    #[test]
    fn what_is_beyond_the_share_of_a_peer_is_emptied() {
        let metrics = P2pMetrics::default();
        let gate = TopicGate::new(usize::MAX, metrics.clone());
        let (loud, quiet) = (PeerId::random(), PeerId::random());
        while said(&gate, loud, 100_000) > 0 {}
        assert_eq!(metrics.count(P2pEvent::TopicExcess), 1);
        assert_eq!(said(&gate, quiet, 100_000), 100_000);
        while gate.lock().flooded.is_empty() {
            assert_eq!(said(&gate, loud, 100_000), 0);
        }
        assert_eq!(said(&gate, loud, 1), 0);
        assert_eq!(gate.lock().flooded, [loud], "once");
        gate.forget(&loud);
        assert_eq!(said(&gate, loud, 1), 1);
    }

    // Issue 8, 23.
    #[tokio::test(start_paused = true)]
    async fn what_names_cost_has_a_bound_and_is_given_back() {
        let metrics = P2pMetrics::default();
        let gate = TopicGate::new(100 * HEARD_BYTES * PART_OF_BUDGET / PARTS, metrics.clone());
        let peer = PeerId::random();
        let mut taken = 0;
        while said(&gate, peer, 1) > 0 {
            gate.heard(Instant::now());
            taken += 1;
        }
        assert_eq!((taken, metrics.count(P2pEvent::TopicNamesFull)), (100, 1));
        assert!(!gate.has_room(Instant::now()), "nothing is published either");
        tokio::time::advance(HEARD_FOR).await;
        assert_eq!(said(&gate, peer, 1), 0);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(said(&gate, peer, 1), 1);
        assert_eq!(gate.lock().name_bytes, 0);
    }
}
