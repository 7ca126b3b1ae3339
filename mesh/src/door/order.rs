//! The order in which peers give up their places: who goes first when a newcomer needs one.
//!
//! # Invariants
//!
//! * The order is total and depends on nothing but what is given: the standing and the weight of a peer, how long it has been
//!   there, when it last brought a new message, and when it came.
//! * A peer never stands worse for having brought a message, or for having come earlier.
//! * A connection that this node dialled is not in the order at all: it holds no inbound place.

use std::{
    cmp::Reverse,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use gossip::Instant;

/// The number of a guest. Never reused; the order is that of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Ticket(pub(super) u64);

/// A peer that has held its place for this long is preferred over others. Chosen: longer than anybody
/// floods without being noticed.
pub(super) const LONG: Duration = Duration::from_secs(600);

/// A peer counts as useful for this long after it brought a new message. Chosen: a peer of a network that makes a
/// block every few seconds brings many in this time, also one that is mostly a little later than others.
pub(super) const USEFUL: Duration = Duration::from_secs(300);

/// The merit of a peer: its link notes each message that nobody brought before, and the door asks when a
/// place is needed. Clones share the note. A link without a place may have one as well; nobody asks it.
#[derive(Clone, Debug)]
pub struct Merit {
    began: Instant,
    /// Milliseconds from `began` to the last new message, plus one; nought if there was none.
    last: Arc<AtomicU64>,
    weight: Arc<AtomicU64>,
}

impl Merit {
    /// The merit of a peer that has brought nothing yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { began: now, last: Arc::default(), weight: Arc::default() }
    }

    /// Notes that the peer brought a new message. Costs one atomic operation.
    pub fn delivered(&self, now: Instant) {
        let since = now.saturating_duration_since(self.began).as_millis();
        let since = u64::try_from(since).unwrap_or(u64::MAX - 1);
        self.last.fetch_max(since.saturating_add(1), Ordering::Relaxed);
    }

    /// Sets what the peer weighs by what it has proved to hold: zero, as at the start, for nothing. The heavier of two
    /// peers keeps its place.
    pub fn weigh(&self, weight: u64) {
        self.weight.store(weight, Ordering::Relaxed);
    }

    /// The weight of the peer.
    pub(super) fn weight(&self) -> u64 {
        self.weight.load(Ordering::Relaxed)
    }

    /// Time since the last new message; `None` if there was none.
    pub(super) fn idle(&self, now: Instant) -> Option<Duration> {
        let last = self.last.load(Ordering::Relaxed).checked_sub(1)?;
        Some(now.saturating_duration_since(self.began).saturating_sub(Duration::from_millis(last)))
    }
}

/// The relation of a peer to this node. The first to be evicted stands first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    Stranger,
    /// Its identity held a place for long before.
    Tried,
    /// An operator named it. It never makes room.
    Configured,
    /// It is a member, and its place is one of those kept for members. It makes room only for another connection of the
    /// same member, or for another member, and only until its identity is proved.
    Member,
}

/// The facts about a peer that the order depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub(super) standing: Standing,
    /// The weight of what it has proved to hold.
    pub(super) weight: u64,
    /// For how long it has held its place.
    pub(super) held: Duration,
    /// Time since it brought a new message, if it ever did.
    pub(super) idle: Option<Duration>,
    /// Tickets are handed out in the order of arrival.
    pub(super) ticket: Ticket,
}

/// A place in the order: the smallest goes first.
///
/// By standing; then by weight, which cannot be had for free; then by what speaks for a peer, which is that it was useful of late and that it has been there
/// for long, either as much as the other; and among equals the newest goes first.
pub(super) type Rank = (Standing, u64, u8, Reverse<Ticket>);

/// The place of a peer in the order.
pub(super) fn rank(record: Record) -> Rank {
    let is_useful = record.idle.is_some_and(|idle| idle < USEFUL);
    let merits = u8::from(is_useful) + u8::from(record.held >= LONG);
    (record.standing, record.weight, merits, Reverse(record.ticket))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn records() -> impl Strategy<Value = Record> {
        let standing = prop_oneof![Just(Standing::Stranger), Just(Standing::Tried)];
        let idle = proptest::option::of(0_u64..1_000);
        let weight = prop_oneof![4 => Just(0), 1 => 1_u64..3];
        let facts = (standing, weight, 0_u64..1_000, idle, 0_u64..20);
        facts.prop_map(|(standing, weight, held, idle, ticket)| Record {
            standing,
            weight,
            held: Duration::from_secs(held),
            idle: idle.map(Duration::from_secs),
            ticket: Ticket(ticket),
        })
    }

    #[test]
    fn a_merit_tells_the_last_new_message() {
        let began = Instant::now();
        let merit = Merit::new(began);
        assert_eq!(merit.idle(began + LONG), None);
        merit.delivered(began + LONG);
        merit.clone().delivered(began); // told late, by another thread
        assert_eq!(merit.idle(began + LONG + USEFUL), Some(USEFUL));
    }

    proptest! {
        // Issue 9, 5: "useful" peers are evicted last.
        #[test]
        fn a_peer_with_messages_or_a_past_is_never_evicted_earlier_for_it(
            peers in proptest::collection::vec(records(), 1..20),
            pick in any::<proptest::sample::Index>(),
        ) {
            let chosen = pick.index(peers.len());
            let before = rank(peers[chosen]);
            let useful = rank(Record { idle: Some(Duration::ZERO), ..peers[chosen] });
            let longer = rank(Record { held: peers[chosen].held + LONG, ..peers[chosen] });
            let earlier = rank(Record { ticket: Ticket(0), ..peers[chosen] });
            // Issue 10, 8.
            let heavier = rank(Record { weight: peers[chosen].weight + 1, ..peers[chosen] });
            prop_assert!(useful >= before && longer >= before && earlier >= before);
            prop_assert!(heavier > before);
            // A peer that went after the chosen one when it was better off did so before, too.
            for other in &peers {
                if rank(*other) >= useful {
                    prop_assert!(rank(*other) >= before);
                }
            }
            // Of two that are alike in everything else, the one that brought something stays.
            let idle = rank(Record { idle: None, ..peers[chosen] });
            prop_assert!(useful > idle);
            let tried = rank(Record { standing: Standing::Tried, ..peers[chosen] });
            prop_assert!(tried >= before || peers[chosen].standing == Standing::Tried);
        }
    }
}
