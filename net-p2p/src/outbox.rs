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
//! * At most [`BURST_MESSAGES`] and [`BURST_BYTES`] are published at once, and [`MESSAGES_PER_SECOND`] and
//!   [`BYTES_PER_SECOND`] over time.
//! * At most [`MAX_WAITING`] wait, each with its charge. Further ones are returned to the caller.
//! * Peers take turns. A peer that floods leaves room for others in the queue and in the memory of GossipSub.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use broadcaster::{Reservation, TopicReceipt};
use bytes::Bytes;
use gossip::LinkId;
use libp2p::{PeerId, gossipsub::TopicHash};
use tokio::time::Instant;

use crate::{backlog::MAX_WAITING_BYTES, waiting::Waiting};

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

/// Bytes published at once, as they are charged; one message more may exceed it. Chosen: less than may wait for one
/// peer, so that no peer loses a message of a burst.
const BURST_BYTES: u32 = 6 * 1024 * 1024;
const _: () = assert!((BURST_BYTES as usize) < MAX_WAITING_BYTES);

/// Bytes published per second over time. Chosen: several times the charge that GossipSub may keep, and a fraction of
/// what one connection carries.
const BYTES_PER_SECOND: u32 = 32 * 1024 * 1024;

/// The factor by which the charge of one peer may exceed what is free. Chosen: a single peer gets eight ninths of
/// the memory, two get eight seventeenths each, and there is always some left for one more.
const PEER_FACTOR: usize = 8;

/// Origins that are tried in a row when the first one has no room. Chosen: the next message continues with the
/// others.
const TRIES: usize = 16;

/// Where a message comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Origin {
    /// This node.
    Own,
    /// A gossip link of this node.
    Link(LinkId),
    /// A peer on the topic.
    Peer(PeerId),
}

/// The charge for a message with a body of `body_bytes`, in bytes.
pub(crate) const fn cost(body_bytes: usize) -> usize {
    body_bytes.saturating_add(MESSAGE_BYTES)
}

/// Returns `true` if an origin that holds `own` bytes of a shared memory may take `bytes` of the `free` ones.
pub(crate) fn leaves_room(origin: Origin, own: usize, bytes: usize, free: usize) -> bool {
    let most = free.saturating_mul(PEER_FACTOR);
    bytes <= free && (origin == Origin::Own || own.saturating_add(bytes) <= most)
}

/// A message that waits to be published.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) origin: Origin,
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
    waiting: Waiting<Origin, Publication>,
    kept: VecDeque<Kept>,
    kept_bytes: usize,
    /// The part of it that each origin has.
    kept_of: HashMap<Origin, usize>,
    max_kept_bytes: usize,
    /// Tokens: messages that may be published now.
    turns: f64,
    /// Tokens: bytes that may be published now; negative after a large message.
    bytes: f64,
    counted: Instant,
}

#[derive(Debug)]
struct Kept {
    origin: Origin,
    until: Instant,
    bytes: usize,
    _held: Reservation,
}

impl Outbox {
    /// Creates an empty outbox. `budget_bytes` is the budget of the whole node.
    pub(crate) fn new(budget_bytes: usize, now: Instant) -> Self {
        Self {
            waiting: Waiting::new(MAX_WAITING),
            kept: VecDeque::new(),
            kept_bytes: 0,
            kept_of: HashMap::new(),
            max_kept_bytes: (budget_bytes / 4).min(MAX_KEPT_BYTES),
            turns: f64::from(BURST_MESSAGES),
            bytes: f64::from(BURST_BYTES),
            counted: now,
        }
    }

    /// Adds a message, and returns the one for which there is no room: this one, or one of an origin with more.
    pub(crate) fn offer(&mut self, message: Publication) -> Option<Publication> {
        self.waiting.push(message.origin, message)
    }

    /// Takes the next message to publish; `None` if there is none, or not before [`due`](Self::due).
    pub(crate) fn next(&mut self, now: Instant) -> Option<Publication> {
        let elapsed = now.saturating_duration_since(self.counted).as_secs_f64();
        let turns = elapsed.mul_add(f64::from(MESSAGES_PER_SECOND), self.turns);
        (self.turns, self.counted) = (turns.min(f64::from(BURST_MESSAGES)), now);
        let bytes = elapsed.mul_add(f64::from(BYTES_PER_SECOND), self.bytes);
        self.bytes = bytes.min(f64::from(BURST_BYTES));
        if self.turns < 1.0 || self.bytes <= -1.0 {
            return None;
        }
        for _ in 0..self.waiting.origins().min(TRIES) {
            let (origin, message) = self.waiting.front()?;
            let bytes = cost(message.body.len());
            if self.has_room(origin, bytes, now) {
                self.turns -= 1.0;
                self.bytes -= bytes as f64;
                return self.waiting.pop();
            }
            self.waiting.skip();
        }
        None
    }

    /// The time at which the next message may be published; `None` if none waits.
    pub(crate) fn due(&self) -> Option<Instant> {
        let (origin, message) = self.waiting.front()?;
        let debt = (-self.bytes).max(0.0) / f64::from(BYTES_PER_SECOND);
        let pause = debt.max(1.0 / f64::from(MESSAGES_PER_SECOND));
        let turn = self.counted + Duration::from_secs_f64(pause);
        let full = !self.fits(origin, cost(message.body.len()));
        let room = self.kept.front().filter(|_| full).map(|kept| kept.until);
        Some(room.map_or(turn, |room| room.max(turn)))
    }

    /// Returns `true` if GossipSub may be given a message of this origin with a charge of `bytes`. A message larger
    /// than the whole bound has to wait until nothing is kept.
    pub(crate) fn has_room(&mut self, origin: Origin, bytes: usize, now: Instant) -> bool {
        while let Some(kept) = self.kept.front().filter(|kept| kept.until <= now) {
            self.kept_bytes -= kept.bytes;
            if let Some(of_origin) = self.kept_of.get_mut(&kept.origin) {
                *of_origin -= kept.bytes;
                if *of_origin == 0 {
                    self.kept_of.remove(&kept.origin);
                }
            }
            self.kept.pop_front();
        }
        self.fits(origin, bytes)
    }

    fn fits(&self, origin: Origin, bytes: usize) -> bool {
        if self.kept.is_empty() {
            return true;
        }
        let free = self.max_kept_bytes.saturating_sub(self.kept_bytes);
        let of_origin = self.kept_of.get(&origin).copied().unwrap_or(0);
        leaves_room(origin, of_origin, bytes, free)
    }

    /// Keeps the charge until GossipSub forgets the message.
    pub(crate) fn keep(&mut self, origin: Origin, held: Reservation, now: Instant) {
        let bytes = held.bytes();
        self.kept_bytes += bytes;
        *self.kept_of.entry(origin).or_default() += bytes;
        self.kept.push_back(Kept { origin, until: now + KEPT_FOR, bytes, _held: held });
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
            origin: Origin::Own,
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
            outbox.keep(message.origin, message.held, now);
            published += 1;
        }
        published
    }

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_its_pace() {
        let (budget, now) = (ByteBudget::new(BUDGET), Instant::now());
        let mut outbox = Outbox::new(BUDGET, now);
        for _ in 0..MAX_WAITING {
            assert!(outbox.offer(message(&budget, 1)).is_none());
        }
        assert!(outbox.offer(message(&budget, 1)).is_some(), "one too many");
        assert_eq!(publish(&mut outbox, now), BURST_MESSAGES as usize);
        let due = outbox.due().unwrap();
        assert!(due > now && due < now + Duration::from_millis(1));
        assert_eq!(publish(&mut outbox, now + Duration::from_millis(100)), 2_000);
    }

    #[test]
    fn a_kept_message_is_charged_until_gossipsub_forgets_it() {
        let (budget, start) = (ByteBudget::new(BUDGET), Instant::now());
        let mut outbox = Outbox::new(BUDGET, start);
        let fit = BUDGET / 4 / cost(100_000);
        for _ in 0..fit + 10 {
            assert!(outbox.offer(message(&budget, 100_000)).is_none());
        }
        let mut now = start;
        let mut published = 0;
        while now < start + Duration::from_secs(1) {
            published += publish(&mut outbox, now);
            now = outbox.due().unwrap();
        }
        assert_eq!((published, now), (fit, start + KEPT_FOR));
        assert_eq!(publish(&mut outbox, now - Duration::from_millis(1)), 0);
        assert_eq!(budget.used(), (fit + 10) * cost(100_000));
        assert_eq!(publish(&mut outbox, now + KEPT_FOR), 10);
        assert_eq!(budget.used(), 10 * cost(100_000));
        assert!(outbox.due().is_none());
        assert!(outbox.has_room(Origin::Own, 0, now + 2 * KEPT_FOR));
        assert_eq!(budget.used(), 0);
    }

    // Issue 8, 22.
    #[test]
    fn large_messages_go_at_a_pace_in_bytes() {
        let (budget, start) = (ByteBudget::new(4 * BUDGET), Instant::now());
        let mut outbox = Outbox::new(4 * BUDGET, start);
        for _ in 0..200 {
            assert!(outbox.offer(message(&budget, 100_000)).is_none());
        }
        let burst = publish(&mut outbox, start);
        assert_eq!(burst, BURST_BYTES as usize / cost(100_000) + 1);
        let due = outbox.due().unwrap();
        assert!(due > start && due < start + Duration::from_millis(4), "{:?}", due - start);
        assert_eq!(publish(&mut outbox, due), 1, "one message at a time");
    }

    #[test]
    fn a_message_larger_than_the_bound_is_published_alone() {
        let (budget, now) = (ByteBudget::new(BUDGET), Instant::now());
        let mut outbox = Outbox::new(1_000_000, now);
        assert!(outbox.offer(message(&budget, 900_000)).is_none());
        assert!(outbox.offer(message(&budget, 900_000)).is_none());
        assert_eq!(publish(&mut outbox, now), 1);
        assert_eq!(publish(&mut outbox, now + KEPT_FOR), 1);
    }

    // Issue 8, 24: the transactions of one peer were nine tenths of all, and of others so many were lost.
    #[test]
    fn a_flood_of_one_peer_delays_and_displaces_nothing_of_another() {
        let (budget, start) = (ByteBudget::new(4 * BUDGET), Instant::now());
        let mut outbox = Outbox::new(4 * BUDGET, start);
        let of = |link| Origin::Link(LinkId(link));
        let mut lost = 0;
        for ms in 0..20_000_u64 {
            let now = start + Duration::from_millis(ms);
            // 50,000 a second, and a hundred.
            for _ in 0..50 {
                // The flood loses what there is no room for.
                let _ = outbox.offer(Publication { origin: of(1), ..message(&budget, 10) });
            }
            if ms % 10 == 0 {
                let honest = Publication { origin: of(2), ..message(&budget, 300) };
                lost += usize::from(outbox.offer(honest).is_some_and(|lost| lost.origin == of(2)));
            }
            let mut waits = ms % 10 == 0;
            while let Some(message) = outbox.next(now) {
                waits &= message.origin != of(2);
                outbox.keep(message.origin, message.held, now);
            }
            assert!(!waits, "an honest message waits after {ms} ms");
        }
        assert_eq!(lost, 0);
        assert!(outbox.kept_bytes <= MAX_KEPT_BYTES);
    }
}
