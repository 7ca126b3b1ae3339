//! A bounded table that drops the entries that were not used for the longest time.
//!
//! # Invariants
//!
//! * It holds at most `bound` entries, rounded up to an even number.
//! * A used entry stays until at least `bound / 2` other entries have been used.

use std::{collections::HashMap, hash::Hash};

/// Two generations of entries. A used entry moves to the young generation; when that is full, the old one is
/// dropped.
#[derive(Debug)]
pub(super) struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    half: usize,
}

impl<K: Hash + Eq, V> Generations<K, V> {
    pub(super) fn new(bound: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), half: bound.div_ceil(2).max(1) }
    }

    /// The entry of `key`, created with `fresh` if there is none.
    pub(super) fn entry(&mut self, key: K, fresh: impl FnOnce() -> V) -> &mut V {
        let known = self.old.remove(&key);
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.entry(key).or_insert_with(|| known.unwrap_or_else(fresh))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn used_entries_stay_and_unused_ones_are_dropped() {
        let mut table = Generations::new(4);
        *table.entry(0, || 0) = 7;
        for other in 1..100 {
            table.entry(other, || 0);
            assert_eq!(*table.entry(0, || 0), 7, "forgotten after {other}");
        }
        assert_eq!(*table.entry(1, || 9), 9);
    }

    proptest! {
        #[test]
        fn the_table_never_grows_beyond_its_bound(
            keys in proptest::collection::vec(0..50_u8, 0..500),
            bound in 1..20_usize,
        ) {
            let mut table = Generations::new(bound);
            for key in keys {
                table.entry(key, || ());
                prop_assert!(table.len() <= bound.next_multiple_of(2));
            }
        }
    }
}
