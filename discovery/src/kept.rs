//! The list that a source has found, and the time at which to look for it again.
//!
//! # Invariants
//!
//! * An answer without addresses never empties a list. Source: wire facts 10.4.
//! * An answer that is incomplete adds to a list, and takes nothing away.
//! * A list that no answer confirms is forgotten after a while.

use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

use crate::limits::DnsLimits;

/// The addresses of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found<A> {
    /// All there are.
    Whole(Vec<A>),
    /// Some of them: a part of the question has no answer.
    Part(Vec<A>),
}

/// A list between two looks.
#[derive(Clone, Debug)]
pub(crate) struct Kept<A> {
    addresses: Vec<A>,
    confirmed: Option<Instant>,
}

impl<A> Default for Kept<A> {
    fn default() -> Self {
        Self { addresses: Vec::new(), confirmed: None }
    }
}

impl<A: Clone> Kept<A> {
    /// Takes an answer. Of addresses with the same key one is kept, the known one first.
    pub(crate) fn answered<K: Ord>(
        &mut self,
        found: Found<A>,
        key: impl Fn(&A) -> K,
        limits: DnsLimits,
        now: Instant,
    ) {
        match found {
            Found::Whole(list) if list.is_empty() => {}
            Found::Whole(list) => (self.addresses, self.confirmed) = (list, Some(now)),
            Found::Part(list) => {
                // A list of parts alone has an age as well.
                self.confirmed = self.confirmed.or((!list.is_empty()).then_some(now));
                self.addresses.extend(list);
                let mut keys = std::collections::BTreeSet::new();
                self.addresses.retain(|address| keys.insert(key(address)));
            }
        }
        self.addresses.truncate(limits.addresses.get());
        let is_old = |at: Instant| now.saturating_duration_since(at) >= limits.oldest;
        if self.confirmed.is_some_and(is_old) {
            *self = Self::default();
        }
    }

    /// The list as it is now.
    pub(crate) fn addresses(&self) -> &[A] {
        &self.addresses
    }
}

/// Decides on the time of the next look.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    /// Looks without any address, in a row.
    empty: u32,
}

impl Pace {
    /// The pause after a look whose records are good for `ttl`; `None` if there were none.
    pub(crate) fn pause(
        &mut self,
        ttl: Option<Duration>,
        limits: DnsLimits,
        rng: &mut impl Rng,
    ) -> Duration {
        if let Some(ttl) = ttl {
            self.empty = 0;
            return ttl.min(limits.latest).max(limits.soonest);
        }
        let longest = (limits.retry / 16).saturating_mul(1 << self.empty.min(4)).min(limits.retry);
        self.empty = self.empty.saturating_add(1);
        longest.mul_f64(rng.random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn kept(list: &mut Kept<u8>, found: Found<u8>, now: Instant) -> Vec<u8> {
        list.answered(found, |address| *address, DnsLimits::default(), now);
        list.addresses().to_vec()
    }

    // Issue 10, 2: an empty answer keeps the old list.
    #[test]
    fn a_list_is_replaced_by_a_whole_answer_alone() {
        let (mut list, now) = (Kept::default(), Instant::now());
        assert_eq!(kept(&mut list, Found::Part(vec![1, 2]), now), [1, 2]);
        assert_eq!(kept(&mut list, Found::Whole(vec![2, 3]), now), [2, 3]);
        assert_eq!(kept(&mut list, Found::Whole(vec![]), now), [2, 3]);
        assert_eq!(kept(&mut list, Found::Part(vec![]), now), [2, 3]);
        assert_eq!(kept(&mut list, Found::Part(vec![3, 4]), now), [2, 3, 4]);
        assert_eq!(kept(&mut list, Found::Whole(vec![9]), now), [9]);
    }

    #[test]
    fn a_list_that_nothing_confirms_is_forgotten_after_a_day() {
        let (mut list, start) = (Kept::default(), Instant::now());
        let limits = DnsLimits::default();
        kept(&mut list, Found::Whole(vec![1]), start);
        let before = start + limits.oldest - SECOND;
        assert_eq!(kept(&mut list, Found::Part(vec![2]), before), [1, 2]);
        assert_eq!(kept(&mut list, Found::Whole(vec![]), start + limits.oldest), [] as [u8; 0]);
        assert_eq!(kept(&mut list, Found::Part(vec![3]), start + 2 * limits.oldest), [3]);
        assert_eq!(kept(&mut list, Found::Part(vec![4]), start + 3 * limits.oldest), [] as [u8; 0]);
    }

    #[test]
    fn a_list_has_a_bound() {
        let (mut list, now) = (Kept::default(), Instant::now());
        let most = DnsLimits::default().addresses.get();
        let many: Vec<u16> = (0..2_000).collect();
        for found in [Found::Whole(many.clone()), Found::Part(many)] {
            list.answered(found, |address| *address, DnsLimits::default(), now);
            assert_eq!(list.addresses().len(), most);
        }
    }

    #[test]
    fn records_decide_on_the_next_look_within_bounds() {
        let (mut pace, mut rng) = (Pace::default(), StdRng::seed_from_u64(1));
        let limits = DnsLimits::default();
        for (ttl, pause) in [(0, 60), (59, 60), (61, 61), (3_600, 3_600), (u64::MAX, 3_600)] {
            let ttl = Some(Duration::from_secs(ttl));
            assert_eq!(pace.pause(ttl, limits, &mut rng), Duration::from_secs(pause));
        }
    }

    #[test]
    fn looks_that_find_nothing_come_soon_and_then_once_a_minute() {
        let (mut pace, mut rng) = (Pace::default(), StdRng::seed_from_u64(1));
        let limits = DnsLimits::default();
        let mut longest = limits.retry / 16;
        for _ in 0..100 {
            let pause = pace.pause(None, limits, &mut rng);
            assert!(pause >= longest / 2 && pause <= longest, "{pause:?} of {longest:?}");
            longest = (2 * longest).min(limits.retry);
        }
        assert_eq!(longest, limits.retry);
        pace.pause(Some(SECOND), limits, &mut rng);
        assert!(pace.pause(None, limits, &mut rng) < limits.retry / 8);
    }
}
