//! What waits to be published, and what GossipSub keeps of what was.
//!
//! ```text
//!   topics ──▶ waiting ──paced──▶ GossipSub, which copies it to the queue of each peer
//!                                    │
//!   heard and accepted ──────────────┴──▶ kept, as long as the library keeps it
//! ```
//!
//! The library takes whatever it is given, drops what finds a queue full, and keeps every message for
//! [`KEPT_FOR`]. So it is given no more than its queues take, and its memory stays charged to the node's
//! budget for as long as it lasts.
//!
//! # Invariants
//!
//! * What GossipSub keeps is charged until it is forgotten, and costs [`MAX_KEPT_BYTES`] or a quarter of
//!   the budget at most.
//! * At most [`BURST_MESSAGES`] are published at once, and [`MESSAGES_PER_SECOND`] over time.
//! * At most [`MAX_WAITING`] wait, each with its charge. One more is given back.

use std::{collections::VecDeque, time::Duration};

use broadcaster::{Reservation, TopicReceipt};
use bytes::Bytes;
use libp2p::gossipsub::TopicHash;
use tokio::time::Instant;

/// How long GossipSub keeps a message. Source: wire facts 8.6, heartbeat and history length.
pub(crate) const KEPT_FOR: Duration = Duration::from_secs(10);

/// What a message costs beside its body, in bytes: its names in the caches of the library, and its places
/// in the queues of peers. Chosen: three times what was measured for one peer.
const MESSAGE_BYTES: usize = 1_024;

/// What GossipSub may keep, in bytes of cost. Chosen: 6.4 MiB a second, several times what a busy network
/// sends, and less than [`PEER_BYTES_PER_SECOND`](crate::topic_rates::PEER_BYTES_PER_SECOND).
pub(crate) const MAX_KEPT_BYTES: usize = 64 * 1024 * 1024;

/// Messages that wait to be published. Chosen: four bursts of a block's transactions.
const MAX_WAITING: usize = 8_192;

/// Messages published at once. Chosen: half of what the library's queue for one peer takes.
const BURST_MESSAGES: u32 = 4_096;

/// Messages published in a second, over time. Chosen: four times what is known to do no harm.
const MESSAGES_PER_SECOND: u32 = 20_000;

/// What a message of so many bytes costs.
pub(crate) const fn cost(body_bytes: usize) -> usize {
    body_bytes.saturating_add(MESSAGE_BYTES)
}

/// A message that waits.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) topic: TopicHash,
    pub(crate) body: Bytes,
    /// Its [`cost`].
    pub(crate) held: Reservation,
    /// Told how many peers it was sent to.
    pub(crate) receipt: TopicReceipt,
}

/// What GossipSub has, or will have, of one swarm.
#[derive(Debug)]
pub(crate) struct Outbox {
    waiting: VecDeque<Publication>,
    kept: VecDeque<Kept>,
    kept_bytes: usize,
    max_kept_bytes: usize,
    /// Messages that may be published at once.
    turns: f64,
    counted: Instant,
}

#[derive(Debug)]
struct Kept {
    until: Instant,
    bytes: usize,
    _held: Reservation,
}

impl Outbox {
    /// Nothing waits. `budget_bytes` is what all queues of the node may hold.
    pub(crate) fn new(budget_bytes: usize, now: Instant) -> Self {
        Self {
            waiting: VecDeque::new(),
            kept: VecDeque::new(),
            kept_bytes: 0,
            max_kept_bytes: (budget_bytes / 4).min(MAX_KEPT_BYTES),
            turns: f64::from(BURST_MESSAGES),
            counted: now,
        }
    }

    /// Takes a message, or gives it back because too many wait.
    pub(crate) fn offer(&mut self, message: Publication) -> Result<(), Publication> {
        if self.waiting.len() >= MAX_WAITING {
            return Err(message);
        }
        self.waiting.push_back(message);
        Ok(())
    }

    /// The next message to publish, unless it has to wait until [`due`](Self::due).
    pub(crate) fn next(&mut self, now: Instant) -> Option<Publication> {
        let elapsed = now.saturating_duration_since(self.counted).as_secs_f64();
        let turns = elapsed.mul_add(f64::from(MESSAGES_PER_SECOND), self.turns);
        (self.turns, self.counted) = (turns.min(f64::from(BURST_MESSAGES)), now);
        let bytes = cost(self.waiting.front()?.body.len());
        if self.turns < 1.0 || !self.has_room(bytes, now) {
            return None;
        }
        self.turns -= 1.0;
        self.waiting.pop_front()
    }

    /// When the next message may be published; `None` when nothing waits.
    pub(crate) fn due(&self) -> Option<Instant> {
        let bytes = cost(self.waiting.front()?.body.len());
        let turn = self.counted + Duration::from_secs_f64(1.0 / f64::from(MESSAGES_PER_SECOND));
        let full = self.kept_bytes.saturating_add(bytes) > self.max_kept_bytes;
        let room = self.kept.front().filter(|_| full).map(|kept| kept.until);
        Some(room.map_or(turn, |room| room.max(turn)))
    }

    /// Whether GossipSub may be given a message that costs so much. What costs more than all may be kept
    /// has to wait until nothing is.
    pub(crate) fn has_room(&mut self, bytes: usize, now: Instant) -> bool {
        while self.kept.front().is_some_and(|kept| kept.until <= now) {
            self.kept_bytes -= self.kept.pop_front().map_or(0, |kept| kept.bytes);
        }
        self.kept.is_empty() || self.kept_bytes.saturating_add(bytes) <= self.max_kept_bytes
    }

    /// Keeps the charge for a message that GossipSub keeps.
    pub(crate) fn keep(&mut self, held: Reservation, now: Instant) {
        let bytes = held.bytes();
        self.kept_bytes += bytes;
        self.kept.push_back(Kept { until: now + KEPT_FOR, bytes, _held: held });
    }
}

#[cfg(test)]
mod tests {
    use broadcaster::ByteBudget;
    use gossip::Lane;

    use super::*;

    const BUDGET: usize = 64 * 1024 * 1024;

    fn message(budget: &ByteBudget, bytes: usize) -> Publication {
        let held = budget.try_reserve(cost(bytes), Lane::Bulk).unwrap();
        Publication {
            topic: TopicHash::from_raw("t"),
            body: vec![0; bytes].into(),
            held,
            receipt: TopicReceipt::unwanted(),
        }
    }

    /// Publishes what may be published, and returns how much that was.
    fn publish(outbox: &mut Outbox, now: Instant) -> usize {
        let mut published = 0;
        while let Some(message) = outbox.next(now) {
            outbox.keep(message.held, now);
            published += 1;
        }
        published
    }

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_its_pace() {
        let (budget, now) = (ByteBudget::new(BUDGET), Instant::now());
        let mut outbox = Outbox::new(BUDGET, now);
        for _ in 0..MAX_WAITING {
            outbox.offer(message(&budget, 1)).unwrap();
        }
        assert!(outbox.offer(message(&budget, 1)).is_err(), "one too many");
        assert_eq!(publish(&mut outbox, now), BURST_MESSAGES as usize);
        let due = outbox.due().unwrap();
        assert!(due > now && due < now + Duration::from_millis(1));
        assert_eq!(publish(&mut outbox, now + Duration::from_millis(100)), 2_000);
    }

    #[test]
    fn what_is_kept_is_charged_until_it_is_forgotten() {
        let (budget, now) = (ByteBudget::new(BUDGET), Instant::now());
        let mut outbox = Outbox::new(BUDGET, now);
        let fit = BUDGET / 4 / cost(100_000);
        for _ in 0..fit + 10 {
            outbox.offer(message(&budget, 100_000)).unwrap();
        }
        assert_eq!(publish(&mut outbox, now), fit);
        assert_eq!(outbox.due(), Some(now + KEPT_FOR));
        assert_eq!(publish(&mut outbox, now + KEPT_FOR - Duration::from_millis(1)), 0);
        assert_eq!(budget.used(), (fit + 10) * cost(100_000));
        assert_eq!(publish(&mut outbox, now + KEPT_FOR), 10);
        assert_eq!(budget.used(), 10 * cost(100_000));
        assert!(outbox.due().is_none());
        assert!(outbox.has_room(0, now + 2 * KEPT_FOR));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_message_larger_than_the_room_is_published_alone() {
        let (budget, now) = (ByteBudget::new(BUDGET), Instant::now());
        let mut outbox = Outbox::new(1_000_000, now);
        outbox.offer(message(&budget, 900_000)).unwrap();
        outbox.offer(message(&budget, 900_000)).unwrap();
        assert_eq!(publish(&mut outbox, now), 1);
        assert_eq!(publish(&mut outbox, now + KEPT_FOR), 1);
    }
}
