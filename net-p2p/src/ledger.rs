//! The part that each origin had of something bounded, within a window of time.
//!
//! # Invariants
//!
//! * All origins together have no more than the bound, one entry apart.
//! * An origin that takes all that it can get leaves room for others.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use runtime::time::Instant;

use crate::origin::Origin;

/// The factor by which the part of one peer may exceed what is free. Chosen: a single peer gets eight ninths, two get
/// eight seventeenths each, and there is always some left for one more.
const PEER_FACTOR: usize = 8;

/// Time within which entries are counted as one. Chosen: exact enough, and small.
const GRAIN: Duration = Duration::from_secs(1);

/// Amounts by origin, forgotten after a window of time.
#[derive(Debug)]
pub(crate) struct Ledger {
    window: Duration,
    bound: usize,
    entries: VecDeque<(Instant, HashMap<Origin, usize>)>,
    total: usize,
    of: HashMap<Origin, usize>,
}

impl Ledger {
    /// An empty ledger. Amounts are forgotten after `window`, or up to a second later.
    pub(crate) fn new(bound: usize, window: Duration) -> Self {
        Self { window, bound, entries: VecDeque::new(), total: 0, of: HashMap::new() }
    }

    /// Returns `true` if an origin may have `amount` more.
    pub(crate) fn has_room(&mut self, origin: Origin, amount: usize, now: Instant) -> bool {
        self.forget(now);
        let own = self.of.get(&origin).copied().unwrap_or(0);
        leaves_room(origin, own, amount, self.bound.saturating_sub(self.total))
    }

    /// Notes what an origin had.
    pub(crate) fn note(&mut self, origin: Origin, amount: usize, now: Instant) {
        self.total += amount;
        *self.of.entry(origin).or_default() += amount;
        let until = now + self.window;
        if self.entries.back().is_none_or(|(last, _)| until >= *last) {
            self.entries.push_back((until + GRAIN, HashMap::new()));
        }
        if let Some((_, amounts)) = self.entries.back_mut() {
            *amounts.entry(origin).or_default() += amount;
        }
    }

    fn forget(&mut self, now: Instant) {
        while self.entries.front().is_some_and(|(until, _)| *until <= now) {
            let forgotten = self.entries.pop_front().map(|(_, amounts)| amounts);
            for (origin, amount) in forgotten.into_iter().flatten() {
                self.total -= amount;
                if let Some(of_origin) = self.of.get_mut(&origin) {
                    *of_origin -= amount;
                    if *of_origin == 0 {
                        self.of.remove(&origin);
                    }
                }
            }
        }
    }

    /// The amounts of all origins.
    #[cfg(test)]
    pub(crate) const fn total(&self) -> usize {
        self.total
    }
}

/// Returns `true` if an origin that holds `own` of something may take `amount` of the `free` rest.
pub(crate) fn leaves_room(origin: Origin, own: usize, amount: usize, free: usize) -> bool {
    let most = free.saturating_mul(PEER_FACTOR);
    amount <= free && (origin == Origin::Own || own.saturating_add(amount) <= most)
}

#[cfg(test)]
mod tests {
    use gossip::LinkId;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    fn origin(link: u64) -> Origin {
        Origin::Link(LinkId(link))
    }

    /// Notes as much as an origin may have, one by one.
    fn fill(ledger: &mut Ledger, origin: Origin, now: Instant) -> usize {
        let mut taken = 0;
        while ledger.has_room(origin, 1, now) {
            ledger.note(origin, 1, now);
            taken += 1;
        }
        taken
    }

    #[test]
    fn an_amount_is_forgotten_after_the_window_and_not_before() {
        let (mut ledger, now) = (Ledger::new(900, WINDOW), Instant::now());
        let late = now + Duration::from_millis(900);
        ledger.note(Origin::Own, 100, now);
        ledger.note(Origin::Own, 800, late);
        assert!(!ledger.has_room(Origin::Own, 1, late + WINDOW));
        assert!(ledger.has_room(Origin::Own, 900, now + WINDOW + GRAIN));
        assert!(ledger.entries.is_empty() && ledger.of.is_empty());
    }

    // Issue 8, 24: the next node had room for less of this one than this one passed to it, whoever had sent it, so
    // beside a flood it dropped messages of honest peers as well.
    #[test]
    fn the_messages_of_all_origins_have_room_as_those_of_one_peer_at_the_next_node() {
        let now = Instant::now();
        let (mut passed, mut next) = (Ledger::new(900 / 6 * 5, WINDOW), Ledger::new(900, WINDOW));
        let passed = (0..100).map(|link| fill(&mut passed, origin(link), now)).sum::<usize>();
        assert!(passed <= fill(&mut next, origin(0), now), "{passed}");
    }
}
