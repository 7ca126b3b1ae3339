//! The packer's side of a [`Table`](super::table::Table): the same slots, with marks in place of the values.
//!
//! # Invariants
//!
//! * It has a value in a slot when the table of the unpacker at the other end has it there.
//! * A slot that was never written has the mark of zeros.
//! * A look-up touches one cache line of marks: a relay packs every vote for each of its links, and their tables
//!   together are larger than the caches.

use super::mark::Mark;

/// The bit of a bucket's first mark that says that its second slot was used last.
const RECENT: Mark = 1;

/// Marks of the values of a table.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// Number of buckets, a power of two.
    size: usize,
    /// Two slots for each bucket; the lowest bit of the first one says which was used last. Empty until the first value
    /// comes.
    buckets: Vec<[Mark; 2]>,
}

/// Memory of the marks of a table of so many slots.
pub(super) const fn max_bytes(slots: usize) -> usize {
    (slots / 2).saturating_mul(size_of::<[Mark; 2]>())
}

/// A value, for a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marked {
    /// Says in which bucket it belongs.
    pub(super) hash: u64,
    pub(super) mark: Mark,
}

impl Known {
    /// No values, for a table of so many slots.
    pub(super) const fn new(slots: usize) -> Self {
        Self { size: slots / 2, buckets: Vec::new() }
    }

    /// The bits of the slots of a value, of which nothing follows: the read brings them into the caches.
    pub(super) fn peek(&self, value: Marked) -> Mark {
        self.buckets.get(self.index(value)).map_or(0, |[first, second]| first ^ second)
    }

    /// The bucket of a value.
    const fn index(&self, value: Marked) -> usize {
        // Below the number of buckets.
        (value.hash & (self.size as u64 - 1)) as usize
    }

    /// The reference to a value, which counts as used then. A value that is in neither of its slots takes the place of
    /// the one that was used less lately, and there is no reference to it yet.
    pub(super) fn refer(&mut self, value: Marked) -> Option<u16> {
        if self.buckets.is_empty() {
            self.buckets = vec![[0; 2]; self.size];
        }
        let index = self.index(value);
        let [first, second] = self.buckets.get_mut(index)?;
        let slot = if *first & !RECENT == value.mark {
            0
        } else if *second == value.mark {
            1
        } else if *first & RECENT == 0 {
            *first |= RECENT;
            *second = value.mark;
            return None;
        } else {
            *first = value.mark;
            return None;
        };
        let now = *first & !RECENT | slot;
        // A line that is not written to need not be written back.
        if now != *first {
            *first = now;
        }
        u16::try_from(index << 1 | slot as usize).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(bucket: u64, mark: Mark) -> Marked {
        Marked { hash: bucket, mark }
    }

    #[test]
    fn a_value_used_last_outlives_the_next_one() {
        let mut known = Known::new(16);
        let [a, b, c] = [2, 4, 6].map(|mark| value(5, mark));
        let referred = [a, a, b, b, a, c, a, b].map(|value| known.refer(value));
        assert_eq!(
            referred,
            [None, Some(11), None, Some(10), Some(11), None, Some(11), None],
            "the first one is in the second slot, and the second one made room for the third"
        );
    }

    #[test]
    fn zeros_are_known_from_the_start_and_take_no_slot() {
        assert_eq!(Known::new(16).refer(value(0, 0)), Some(0));
        assert_eq!(Known::new(16).refer(value(7, 0)), Some(14));
    }

    #[test]
    fn memory_comes_with_the_first_value_and_stays_within_its_bound() {
        let mut known = Known::new(2_048);
        assert_eq!(known.buckets.capacity(), 0);
        for number in 0..10_000 {
            known.refer(value(number, 2 * number));
        }
        let bytes = size_of_val(&known.buckets[..]);
        assert_eq!(bytes, max_bytes(2_048));
    }
}
