//! Counting by host and by subnet: what is open now, and what came in the present window.
//!
//! # Invariants
//!
//! * A [`Tally`] remembers only keys of which something is open.
//! * A [`RateTable`] remembers at most the number of keys it was made for.

use std::{collections::HashMap, hash::Hash, time::Duration};

use gossip::Instant;

/// A count in all and of each key. Keys with a count of zero take no memory.
#[derive(Debug)]
pub(super) struct Tally<K> {
    total: usize,
    by_key: HashMap<K, usize>,
}

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self { total: 0, by_key: HashMap::new() }
    }
}

impl<K: Copy + Eq + Hash> Tally<K> {
    pub(super) const fn total(&self) -> usize {
        self.total
    }

    pub(super) fn of(&self, key: K) -> usize {
        self.by_key.get(&key).copied().unwrap_or(0)
    }

    pub(super) fn add(&mut self, key: K) {
        self.total += 1;
        *self.by_key.entry(key).or_default() += 1;
    }

    pub(super) fn remove(&mut self, key: K) {
        let Some(count) = self.by_key.get_mut(&key) else { return };
        self.total -= 1;
        *count -= 1;
        if *count == 0 {
            self.by_key.remove(&key);
        }
    }
}

impl<K: Copy + Eq + Hash> FromIterator<K> for Tally<K> {
    fn from_iter<I: IntoIterator<Item = K>>(keys: I) -> Self {
        let mut tally = Self::default();
        keys.into_iter().for_each(|key| tally.add(key));
        tally
    }
}

/// The events of one key in its present window.
#[derive(Clone, Copy, Debug)]
struct Window {
    began: Instant,
    count: u32,
}

/// Windows by key, in two generations: keys heard of since the last turn, and those before.
///
/// A turn drops the older generation. It comes after a window's length, when everything in the older
/// generation has passed, or when the newer one is full. So every call is constant time on average.
#[derive(Debug)]
pub(super) struct RateTable<K> {
    recent: HashMap<K, Window>,
    older: HashMap<K, Window>,
    turned: Option<Instant>,
    per_generation: usize,
}

impl<K: Copy + Eq + Hash> RateTable<K> {
    pub(super) fn new(max_keys: usize) -> Self {
        let (recent, older) = (HashMap::new(), HashMap::new());
        Self { recent, older, turned: None, per_generation: (max_keys / 2).max(1) }
    }

    /// Counts one event of `key`, and says how many its window has.
    pub(super) fn count(&mut self, key: K, now: Instant, length: Duration) -> u32 {
        let is_over = |began: Instant| now.saturating_duration_since(began) >= length;
        if self.turned.is_none_or(is_over) || self.recent.len() >= self.per_generation {
            self.older = std::mem::take(&mut self.recent);
            self.turned = Some(now);
        }
        let known = self.recent.get(&key).copied().or_else(|| self.older.remove(&key));
        let mut window = known
            .filter(|window| !is_over(window.began))
            .unwrap_or(Window { began: now, count: 0 });
        window.count = window.count.saturating_add(1);
        self.recent.insert(key, window);
        window.count
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_tally_forgets_what_is_gone() {
        let mut tally: Tally<u32> = [1, 1, 2].into_iter().collect();
        assert_eq!((tally.total(), tally.of(1), tally.of(2), tally.of(3)), (3, 2, 1, 0));
        [1, 1, 2, 3].into_iter().for_each(|key| tally.remove(key));
        assert_eq!(tally.total(), 0);
        assert!(tally.by_key.is_empty());
    }

    #[test]
    fn a_flood_from_ever_new_hosts_takes_bounded_memory() {
        let (mut table, now) = (RateTable::new(64), Instant::now());
        for number in 0..10_000_u32 {
            assert_eq!(table.count(number, now, SECOND), 1);
            assert!(table.recent.len() + table.older.len() <= 64);
        }
    }

    #[test]
    fn windows_that_have_passed_are_forgotten() {
        let (mut table, now) = (RateTable::new(64), Instant::now());
        for number in 0..20_u32 {
            table.count(number, now, SECOND);
        }
        for seconds in 1..=2 {
            table.count(99, now + SECOND * seconds, SECOND);
        }
        assert_eq!(table.recent.len() + table.older.len(), 1);
    }

    proptest! {
        #[test]
        fn the_table_counts_like_one_window_per_host_that_starts_with_its_first_event(
            events in proptest::collection::vec((0_u32..6, 0_u64..400), 0..200),
        ) {
            let (mut table, mut now) = (RateTable::new(64), Instant::now());
            let mut windows: HashMap<u32, (Instant, u32)> = HashMap::new();
            for (host, later_ms) in events {
                now += Duration::from_millis(later_ms);
                let window = windows.entry(host).or_insert((now, 0));
                if now - window.0 >= SECOND {
                    *window = (now, 0);
                }
                window.1 += 1;
                let counted = table.count(host, now, SECOND);
                prop_assert_eq!(counted, window.1);
            }
        }
    }
}
