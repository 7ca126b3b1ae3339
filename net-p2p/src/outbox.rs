//! Messages that wait to be published, and the charge for those that GossipSub keeps.
//!
//! ```text
//!   topics ──▶ waiting ──paced──▶ GossipSub, which copies it to the queue of each peer
//!                                    │
//!   received and accepted ───────────┴──▶ charged for as long as the library keeps it
//! ```
//!
//! The library accepts every message, drops it for peers whose queue is full, and keeps it for [`KEPT_FOR`].
//! So it is given no more than its queues take, and the memory stays charged to the node's budget until the
//! library frees it.
//!
//! # Invariants
//!
//! * Messages that GossipSub keeps are charged until it forgets them. Their charge is at most
//!   [`MAX_KEPT_BYTES`] or a quarter of the budget.
//! * At most [`BURST_MESSAGES`] are published at once, and [`MESSAGES_PER_SECOND`] over time.
//! * At most [`MAX_WAITING`] wait, each with its charge. Further ones are returned to the caller.

use std::{collections::VecDeque, time::Duration};

use broadcaster::{Reservation, TopicReceipt};
use bytes::Bytes;
use libp2p::gossipsub::TopicHash;
use tokio::time::Instant;

/// Time for which GossipSub keeps a message. Source: wire facts 8.6, heartbeat and history length.
pub(crate) const KEPT_FOR: Duration = Duration::from_secs(10);

/// Memory of a message besides its body, in bytes: its entries in the library's caches and in the queues of
/// peers. Chosen: three times the figure measured for one peer.
const MESSAGE_BYTES: usize = 1_024;

/// Largest charge for messages that GossipSub keeps, in bytes. Chosen: 6.4 MiB a second, several times the
/// traffic of a busy network, and less than
/// [`PEER_BYTES_PER_SECOND`](crate::topic_rates::PEER_BYTES_PER_SECOND).
pub(crate) const MAX_KEPT_BYTES: usize = 64 * 1024 * 1024;

/// Largest number of messages that wait to be published. Chosen: four bursts of a block's transactions.
const MAX_WAITING: usize = 8_192;

/// Messages published at once. Chosen: half the library's queue for one peer.
const BURST_MESSAGES: u32 = 4_096;

/// Messages published per second over time. Chosen: four times the rate known to do no harm.
const MESSAGES_PER_SECOND: u32 = 20_000;

/// The charge for a message with a body of `body_bytes`, in bytes.
pub(crate) const fn cost(body_bytes: usize) -> usize {
    body_bytes.saturating_add(MESSAGE_BYTES)
}

/// A message that waits to be published.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) topic: TopicHash,
    pub(crate) body: Bytes,
    /// The charge for [`cost`] bytes.
    pub(crate) held: Reservation,
    /// Receives the number of peers the message was sent to.
    pub(crate) receipt: TopicReceipt,
}

/// The pace of publishing, and the charges for one swarm's GossipSub.
#[derive(Debug)]
pub(crate) struct Outbox {
    waiting: VecDeque<Publication>,
    kept: VecDeque<Kept>,
    kept_bytes: usize,
    max_kept_bytes: usize,
    /// Tokens: messages that may be published now.
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
    /// Creates an empty outbox. `budget_bytes` is the budget of the whole node.
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

    /// Adds a message, or returns it if too many wait.
    pub(crate) fn offer(&mut self, message: Publication) -> Result<(), Publication> {
        if self.waiting.len() >= MAX_WAITING {
            return Err(message);
        }
        self.waiting.push_back(message);
        Ok(())
    }

    /// Takes the next message to publish; `None` if there is none, or not before [`due`](Self::due).
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

    /// The time at which the next message may be published; `None` if none waits.
    pub(crate) fn due(&self) -> Option<Instant> {
        let bytes = cost(self.waiting.front()?.body.len());
        let turn = self.counted + Duration::from_secs_f64(1.0 / f64::from(MESSAGES_PER_SECOND));
        let full = self.kept_bytes.saturating_add(bytes) > self.max_kept_bytes;
        let room = self.kept.front().filter(|_| full).map(|kept| kept.until);
        Some(room.map_or(turn, |room| room.max(turn)))
    }

    /// Returns `true` if GossipSub may be given a message with a charge of `bytes`. A message larger than the
    /// whole bound has to wait until nothing is kept.
    pub(crate) fn has_room(&mut self, bytes: usize, now: Instant) -> bool {
        while self.kept.front().is_some_and(|kept| kept.until <= now) {
            self.kept_bytes -= self.kept.pop_front().map_or(0, |kept| kept.bytes);
        }
        self.kept.is_empty() || self.kept_bytes.saturating_add(bytes) <= self.max_kept_bytes
    }

    /// Keeps the charge until GossipSub forgets the message.
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

    /// Publishes every message that may be published now, and returns their number.
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
    fn a_kept_message_is_charged_until_gossipsub_forgets_it() {
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
    fn a_message_larger_than_the_bound_is_published_alone() {
        let (budget, now) = (ByteBudget::new(BUDGET), Instant::now());
        let mut outbox = Outbox::new(1_000_000, now);
        outbox.offer(message(&budget, 900_000)).unwrap();
        outbox.offer(message(&budget, 900_000)).unwrap();
        assert_eq!(publish(&mut outbox, now), 1);
        assert_eq!(publish(&mut outbox, now + KEPT_FOR), 1);
    }
}
