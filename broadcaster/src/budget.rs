//! The one byte budget of a node: what all its queues may hold together.
//!
//! A message is charged once, however many peers it waits for, because its bytes are shared; the
//! charge ends when the last queue lets go of it.
//!
//! # Invariants
//!
//! * The bytes charged never exceed the budget.
//! * Bulk may charge three quarters of it at most, so that priority messages always find room.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use gossip::Lane;
use tokio::sync::Notify;

/// How many bytes all queues of one node may hold together. Clones share the budget.
#[derive(Clone, Debug)]
pub struct ByteBudget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    total: usize,
    used: AtomicUsize,
    freed: Notify,
}

/// A share of the budget, given back when dropped.
#[derive(Debug)]
#[must_use = "dropping a reservation gives it back"]
pub struct Reservation {
    bytes: usize,
    shared: Arc<Shared>,
}

impl ByteBudget {
    /// A budget of `total` bytes.
    #[must_use]
    pub fn new(total: usize) -> Self {
        let shared = Shared { total, used: AtomicUsize::new(0), freed: Notify::new() };
        Self { shared: Arc::new(shared) }
    }

    /// Charges `bytes`, or says no because the budget, or the bulk share of it, is used up.
    #[must_use]
    pub fn try_reserve(&self, bytes: usize, lane: Lane) -> Option<Reservation> {
        let limit = match lane {
            Lane::Priority => self.shared.total,
            Lane::Bulk => self.shared.total / 4 * 3,
        };
        let charge = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= limit);
        self.shared.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, charge).ok()?;
        Some(Reservation { bytes, shared: Arc::clone(&self.shared) })
    }

    /// Charges `bytes`, waiting until there is room. More than the budget is never granted.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is charged until the future resolves.
    pub async fn reserve(&self, bytes: usize, lane: Lane) -> Reservation {
        loop {
            let freed = self.shared.freed.notified();
            tokio::pin!(freed);
            // Registered before the attempt, so that room made in between is not missed.
            freed.as_mut().enable();
            if let Some(reservation) = self.try_reserve(bytes, lane) {
                return reservation;
            }
            freed.await;
        }
    }

    /// Bytes charged now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.shared.used.load(Ordering::Relaxed)
    }

    /// The whole budget, in bytes.
    #[must_use]
    pub fn total(&self) -> usize {
        self.shared.total
    }
}

impl Reservation {
    /// The same bytes; what is charged for them is given back with the last copy of the result.
    pub(crate) fn keep_with(self, bytes: &Bytes) -> Bytes {
        Bytes::from_owner(Kept { bytes: bytes.clone(), _held: self })
    }

    /// Gives back what is more than `bytes`.
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
    async fn who_waits_for_room_gets_it_when_a_reservation_is_dropped() {
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
