//! The gate in front of GossipSub: it checks topic messages before the library stores anything about them.
//!
//! ```text
//!   connection ──▶ GatedPubsub: notes the peer ──▶ library ──▶ Gate: passes the message, or empties it
//! ```
//!
//! The library stores the ID of every message for minutes, twice, even of ignored ones: half a kilobyte for a
//! message of one byte. This cannot be undone afterwards, so excess messages are emptied before the library
//! assigns an ID. All empty messages have the same ID, which the library already knows.
//!
//! # Invariants
//!
//! * An excess message of a peer leaves nothing but a count, and does not change the peer's score.
//! * A peer that floods is disconnected and counted.
//! * The names that the library keeps cost the gate's bound at most, and those of one request more. A peer that floods
//!   leaves room for the names of others.
//! * Messages passed to peers cost each of them less than it lets in of this node.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use libp2p::{
    PeerId,
    gossipsub::{DataTransform, Message, RawMessage, TopicHash},
};
use mesh::Door;
use runtime::time::{self, Instant};

use crate::{
    address::identity_of,
    ledger::Ledger,
    metrics::{P2pEvent, P2pMetrics},
    origin::Origin,
    own_topics::TopicPolicies,
    topic_rates::{RateVerdict, TopicRates},
};

/// Memory of a received message's ID, in bytes, and the time for which it is stored: in the cache of seen IDs
/// and in the scores of peers. Computed from the library's tables, half full; source: gossipsub 0.50.
const HEARD_BYTES: usize = 640;
const HEARD_FOR: Duration = Duration::from_secs(120);

/// Memory of a published message's ID, in bytes; it is not in the scores.
const PUBLISHED_BYTES: usize = 256;

/// Decides which messages the library gets. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct TopicGate {
    gate: Arc<Mutex<Gate>>,
}

#[derive(Debug)]
struct Gate {
    metrics: P2pMetrics,
    rates: TopicRates,
    /// The control messages of each peer, each counted as an empty message.
    controls: TopicRates,
    /// The peer whose RPC is being handled.
    from: Option<PeerId>,
    /// Peers that must be disconnected for flooding.
    flooded: VecDeque<PeerId>,
    /// Memory of message IDs in bytes, until the library drops them.
    names: Ledger,
    /// Memory that the messages that were passed to peers take at each of them.
    passed: Ledger,
    /// Where floods are noted, so that their senders pay when they come again.
    door: Option<Door>,
}

impl TopicGate {
    /// Creates a gate. The bound on message IDs is `bound` bytes, in addition to the byte budget
    /// ([`MemoryBounds`](crate::MemoryBounds) has the default). Five sixths of it are for what is passed to peers.
    pub(crate) fn new(bound: usize, metrics: P2pMetrics) -> Self {
        let gate = Gate {
            metrics,
            rates: TopicRates::default(),
            controls: TopicRates::default(),
            from: None,
            flooded: VecDeque::new(),
            names: Ledger::new(bound, HEARD_FOR),
            // One peer gets eight ninths of the bound at the next node.
            passed: Ledger::new(bound / 6 * 5, HEARD_FOR),
            door: None,
        };
        Self { gate: Arc::new(Mutex::new(gate)) }
    }

    /// Notes floods at this door.
    pub(crate) fn at(self, door: Door) -> Self {
        self.lock().door = Some(door);
        self
    }

    /// The counters of the network.
    pub(crate) fn metrics(&self) -> P2pMetrics {
        self.lock().metrics.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns `true` if another message of this origin may be published.
    pub(crate) fn may_publish(&self, origin: Origin, now: Instant) -> bool {
        let mut gate = self.lock();
        gate.names.has_room(origin, PUBLISHED_BYTES, now) && gate.may_pass(origin, now)
    }

    /// Returns `true` if another received message of this peer may be passed on.
    pub(crate) fn may_pass_on(&self, from: PeerId, now: Instant) -> bool {
        self.lock().may_pass(Origin::Peer(from), now)
    }

    /// Notes that the library keeps the name of a message that was heard.
    pub(crate) fn heard(&self, from: PeerId, now: Instant) {
        self.lock().names.note(Origin::Peer(from), HEARD_BYTES, now);
    }

    /// Notes that a received message was passed on.
    pub(crate) fn passed_on(&self, from: PeerId, now: Instant) {
        self.lock().passed.note(Origin::Peer(from), HEARD_BYTES, now);
    }

    /// Notes that the library keeps the name of a message that was published.
    pub(crate) fn published(&self, origin: Origin, now: Instant) {
        let mut gate = self.lock();
        gate.names.note(origin, PUBLISHED_BYTES, now);
        gate.passed.note(origin, HEARD_BYTES, now);
    }

    /// Charges the peer whose RPC is being handled for a subscription to a topic of no network.
    pub(crate) fn unknown_topic(&self) {
        let mut gate = self.lock();
        // This node's own subscriptions belong to no RPC.
        if let Some(from) = gate.from {
            gate.charge(from, 0, Instant::now());
        }
    }

    /// Charges a peer for control messages: GRAFT, PRUNE, IHAVE, IWANT, IDONTWANT. Most of them the library leaves without
    /// effect, and none costs its sender anything there.
    pub(crate) fn controls(&self, from: PeerId, count: usize) {
        let (mut gate, now) = (self.lock(), Instant::now());
        for _ in 0..count {
            if gate.controls.note(from, 0, now) == RateVerdict::Flood {
                gate.flooded.push_back(from);
            }
        }
    }

    /// Notes the peer whose RPC is handled next, or that none is.
    pub(crate) fn handles(&self, from: Option<PeerId>) {
        self.lock().from = from;
    }

    /// The next peer that must be disconnected for flooding.
    pub(crate) fn next_flooded(&self) -> Option<PeerId> {
        let mut gate = self.lock();
        let flooded = gate.flooded.pop_front()?;
        gate.metrics.note(P2pEvent::TopicFlood);
        if let Some(door) = &gate.door {
            note_flood(door, &flooded);
        }
        Some(flooded)
    }

    /// Removes the record of a peer that has disconnected.
    pub(crate) fn forget(&self, peer: &PeerId) {
        let mut gate = self.lock();
        gate.rates.forget(peer);
        gate.controls.forget(peer);
    }
}

/// Notes at the door that a peer flooded a topic.
pub(crate) fn note_flood(door: &Door, peer: &PeerId) {
    let conduct = identity_of(peer).and_then(|identity| door.conduct_of(&identity));
    if let Some(conduct) = conduct {
        conduct.misbehaved(time::into_std(Instant::now()));
    }
}

impl Gate {
    /// Returns `true` if one more message of this origin may be passed to peers.
    fn may_pass(&mut self, origin: Origin, now: Instant) -> bool {
        self.passed.has_room(origin, HEARD_BYTES, now)
    }

    /// Charges a peer for a message, and notes whether it floods. Returns `true` if the message is within its share.
    fn charge(&mut self, from: PeerId, body_bytes: usize, now: Instant) -> bool {
        let verdict = self.rates.note(from, body_bytes, now);
        if verdict == RateVerdict::Within {
            return true;
        }
        self.metrics.note(P2pEvent::TopicExcess);
        if verdict == RateVerdict::Flood {
            self.flooded.push_back(from);
        }
        false
    }

    /// Returns `true` if the library may get this message.
    fn lets_in(&mut self, body_bytes: usize, now: Instant) -> bool {
        // Messages come to the library only within RPCs of peers, so a missing peer is not possible in
        // practice.
        let Some(from) = self.from else { return true };
        if !self.charge(from, body_bytes, now) {
            return false;
        }
        let has_room = self.names.has_room(Origin::Peer(from), HEARD_BYTES, now);
        if !has_room {
            self.metrics.note(P2pEvent::TopicNamesFull);
        }
        has_room
    }
}

/// Rejects messages that break the policy of their topic, and empties excess ones.
#[derive(Clone, Debug)]
pub(crate) struct TopicTransform {
    gate: TopicGate,
    policies: TopicPolicies,
}

impl TopicTransform {
    /// Uses `gate` to find excess messages, and `policies` to find those that break one.
    pub(crate) const fn new(gate: TopicGate, policies: TopicPolicies) -> Self {
        Self { gate, policies }
    }
}

impl DataTransform for TopicTransform {
    fn inbound_transform(&self, raw: RawMessage) -> Result<Message, io::Error> {
        self.policies.check(&raw).map_err(io::Error::other)?;
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

    fn transform(gate: TopicGate) -> TopicTransform {
        TopicTransform::new(gate, TopicPolicies::default())
    }

    fn said(gate: &TopicGate, by: PeerId, bytes: usize) -> usize {
        gate.lock().from = Some(by);
        let message = transform(gate.clone()).inbound_transform(raw(bytes, None, None));
        message.unwrap().data.len()
    }

    #[test]
    fn a_signed_message_is_rejected_and_an_author_alone_is_not() {
        let transform = transform(TopicGate::new(1 << 20, P2pMetrics::default()));
        assert!(transform.inbound_transform(raw(1, None, None)).is_ok());
        assert!(transform.inbound_transform(raw(1, Some(vec![1]), None)).is_err());
        assert!(transform.inbound_transform(raw(1, None, Some(vec![1]))).is_err());
    }

    // Issue 8, 23. Before, the library stored the IDs of excess messages for two minutes.
    #[test]
    fn a_message_beyond_the_share_of_its_peer_is_emptied() {
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
    async fn the_memory_of_message_ids_is_bounded_and_given_back() {
        let metrics = P2pMetrics::default();
        let gate = TopicGate::new(100 * HEARD_BYTES, metrics.clone());
        let (peer, other) = (PeerId::random(), PeerId::random());
        let mut taken = 0;
        while said(&gate, peer, 1) > 0 {
            gate.heard(peer, Instant::now());
            taken += 1;
        }
        // Eight ninths: issue 8, 24.
        assert_eq!((taken, metrics.count(P2pEvent::TopicNamesFull)), (89, 1));
        assert_eq!(said(&gate, other, 1), 1, "a peer that floods leaves room for others");
        while gate.lock().names.has_room(Origin::Own, HEARD_BYTES, Instant::now()) {
            gate.heard(other, Instant::now());
        }
        assert_eq!(said(&gate, other, 1), 0, "all together have a bound");
        tokio::time::advance(HEARD_FOR).await;
        assert_eq!(said(&gate, peer, 1), 0);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(said(&gate, peer, 1), 1);
        assert_eq!(gate.lock().names.total(), 0);
    }
}
