//! The one byte budget of a node: what all its queues may hold together.
//!
//! A message is charged once, however many peers it waits for, because its bytes are shared; the
//! charge ends when the last queue lets go of it.
//!
//! # Invariants
//!
//! * The bytes charged never exceed the budget.
//! * Bulk may charge three quarters of it at most, so that priority messages always find room.
//! * Messages that are still coming may charge half of it at most, so that peers who begin messages and
//!   do not end them leave room for everything else.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use gossip::Lane;
use tokio::sync::Notify;

/// The bytes that all queues of one node may hold together. Clones share the budget.
#[derive(Clone, Debug)]
pub struct ByteBudget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    total: usize,
    used: AtomicUsize,
    /// The part of `used` that is charged for messages still coming.
    unfinished: AtomicUsize,
    freed: Notify,
}

/// The stage of a message: whole, or still coming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The message is whole.
    Whole,
    /// The message is still coming from a peer, and may never be whole.
    Unfinished,
}

/// Bytes charged to a [`ByteBudget`], given back when dropped.
#[derive(Debug)]
#[must_use = "dropping a reservation gives it back"]
pub struct Reservation {
    bytes: usize,
    /// The part of `bytes` that is charged for a message still coming.
    unfinished: usize,
    shared: Arc<Shared>,
}

impl ByteBudget {
    /// Creates a budget of `total` bytes, none of which is charged.
    #[must_use]
    pub fn new(total: usize) -> Self {
        let shared = Shared {
            total,
            used: AtomicUsize::new(0),
            unfinished: AtomicUsize::new(0),
            freed: Notify::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Charges `bytes`, or says no because the budget, or the bulk share of it, is used up.
    #[must_use]
    pub fn try_reserve(&self, bytes: usize, lane: Lane) -> Option<Reservation> {
        self.try_reserve_for(bytes, lane, Stage::Whole)
    }

    /// As [`ByteBudget::try_reserve`], within the share of messages that are still coming where the
    /// message is one.
    #[must_use]
    pub fn try_reserve_for(&self, bytes: usize, lane: Lane, stage: Stage) -> Option<Reservation> {
        let unfinished = match stage {
            Stage::Whole => 0,
            Stage::Unfinished => bytes,
        };
        if unfinished > 0 {
            charge(&self.shared.unfinished, bytes, self.most(lane, Stage::Unfinished))?;
        }
        if charge(&self.shared.used, bytes, self.most(lane, Stage::Whole)).is_none() {
            self.shared.unfinished.fetch_sub(unfinished, Ordering::Relaxed);
            return None;
        }
        Some(Reservation { bytes, unfinished, shared: Arc::clone(&self.shared) })
    }

    /// Charges `bytes`, waiting until there is room. More than the budget is never granted.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is charged until the future resolves.
    pub async fn reserve(&self, bytes: usize, lane: Lane) -> Reservation {
        self.reserve_for(bytes, lane, Stage::Whole).await
    }

    /// As [`ByteBudget::reserve`], within the share of messages that are still coming where the message
    /// is one. More than [`ByteBudget::most`] is never granted.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is charged until the future resolves.
    pub async fn reserve_for(&self, bytes: usize, lane: Lane, stage: Stage) -> Reservation {
        loop {
            let freed = self.shared.freed.notified();
            tokio::pin!(freed);
            // Registered before the attempt, so that room made in between is not missed.
            freed.as_mut().enable();
            if let Some(reservation) = self.try_reserve_for(bytes, lane, stage) {
                return reservation;
            }
            freed.await;
        }
    }

    /// The most bytes that a lane may ever hold of messages in a stage.
    #[must_use]
    pub fn most(&self, lane: Lane, stage: Stage) -> usize {
        let share = match stage {
            Stage::Whole => self.shared.total,
            Stage::Unfinished => self.shared.total / 2,
        };
        match lane {
            Lane::Priority => share,
            Lane::Bulk => share / 4 * 3,
        }
    }

    /// Returns the bytes that are charged now, over all stages and lanes.
    #[must_use]
    pub fn used(&self) -> usize {
        self.shared.used.load(Ordering::Relaxed)
    }

    /// Returns the size of the budget, in bytes.
    #[must_use]
    pub fn total(&self) -> usize {
        self.shared.total
    }
}

/// Adds `bytes` to a sum, unless that would exceed `limit`.
fn charge(sum: &AtomicUsize, bytes: usize, limit: usize) -> Option<()> {
    let add = |sum: usize| sum.checked_add(bytes).filter(|&sum| sum <= limit);
    sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok().map(|_before| ())
}

impl Reservation {
    /// Ties the charge to the bytes: it is given back when the last copy of the result is dropped.
    pub(crate) fn keep_with(self, bytes: &Bytes) -> Bytes {
        Bytes::from_owner(Kept { bytes: bytes.clone(), _held: self })
    }

    /// Returns the size of the charge, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Joins two charges of the same budget.
    pub(crate) fn with(mut self, mut other: Self) -> Self {
        self.bytes += std::mem::take(&mut other.bytes);
        self.unfinished += std::mem::take(&mut other.unfinished);
        self
    }

    /// The message is whole, and `bytes` long: gives back what is more.
    pub(crate) fn whole(mut self, bytes: usize) -> Self {
        let unfinished = std::mem::take(&mut self.unfinished);
        self.shared.unfinished.fetch_sub(unfinished, Ordering::Relaxed);
        self.shrunk_to(bytes)
    }

    /// Gives back the part of the charge beyond `bytes`. A smaller charge stays as it is.
    pub fn shrunk_to(mut self, bytes: usize) -> Self {
        let surplus = self.bytes.saturating_sub(bytes);
        self.bytes -= surplus;
        self.shared.used.fetch_sub(surplus, Ordering::Relaxed);
        self.shared.freed.notify_waiters();
        self
    }
}

/// Bytes, and what was charged for keeping them.
struct Kept {
    bytes: Bytes,
    _held: Reservation,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shared.unfinished.fetch_sub(self.unfinished, Ordering::Relaxed);
        self.shared.used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.shared.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bulk_leaves_a_quarter_to_priority() {
        let budget = ByteBudget::new(100);
        let bulk = budget.try_reserve(75, Lane::Bulk);
        assert!(bulk.is_some());
        assert!(budget.try_reserve(1, Lane::Bulk).is_none());
        let priority = budget.try_reserve(25, Lane::Priority);
        assert!(priority.is_some());
        assert!(budget.try_reserve(1, Lane::Priority).is_none());
        drop((bulk, priority));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn messages_that_are_still_coming_hold_at_most_half() {
        let budget = ByteBudget::new(80);
        let coming = |bytes| budget.try_reserve_for(bytes, Lane::Priority, Stage::Unfinished);
        let (first, second) = (coming(30).unwrap(), coming(10).unwrap());
        assert!(coming(1).is_none());
        assert!(budget.try_reserve_for(1, Lane::Bulk, Stage::Unfinished).is_none());
        drop(second);
        let held = first.with(coming(5).unwrap()).whole(33);
        assert_eq!((held.bytes(), budget.used()), (33, 33));
        let rest = coming(40).unwrap();
        assert!(budget.try_reserve(8, Lane::Priority).is_none(), "the budget bounds it as well");
        assert!(coming(1).is_none());
        drop((held, rest));
        assert_eq!(budget.used(), 0);
        assert!(coming(40).is_some());
    }

    #[test]
    fn a_reservation_can_give_back_a_part() {
        let budget = ByteBudget::new(100);
        let held = budget.try_reserve(80, Lane::Priority).map(|held| held.shrunk_to(30));
        assert_eq!(budget.used(), 30);
        let held = held.map(|held| held.shrunk_to(50));
        assert_eq!(budget.used(), 30, "it never takes more");
        drop(held);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_caller_gets_room_when_a_reservation_is_dropped() {
        let budget = ByteBudget::new(100);
        let first = budget.reserve(100, Lane::Priority).await;
        let waiting = budget.reserve(60, Lane::Priority);
        tokio::pin!(waiting);
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        drop(first);
        let second = waiting.await;
        assert_eq!(budget.used(), 60);
        drop(second);
    }
}
