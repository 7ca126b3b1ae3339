//! A table of values sent lately, in which both ends of a connection put the same values in the same order.
//!
//! # Invariants
//!
//! * A value has two slots to be in. A new value takes the place of the one that was used less lately.
//! * A slot that was never written holds a value of zeros.
//! * Values take memory once they come.

/// Smallest number of slots. Source: wire facts 5.4.
const MIN_SLOTS: usize = 16;
/// Largest number of slots that a reference of two bytes tells apart.
const MAX_SLOTS: usize = 1 << 16;

/// Two slots.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// Place of the value of each slot among the values, counted from 1; 0 for one never written.
    places: [u32; 2],
    /// The slot used last.
    recent: u8,
}

/// A table of values of `N` bytes.
#[derive(Clone, Debug)]
pub(super) struct Table<const N: usize> {
    /// Number of buckets, a power of two.
    size: usize,
    /// Empty until the first value comes.
    buckets: Vec<Bucket>,
    values: Vec<[u8; N]>,
    hash: fn(&[u8; N]) -> u64,
}

/// Returns whether a table may have so many slots: a power of two from 16 to 65,536.
pub(super) const fn is_size(slots: usize) -> bool {
    slots.is_power_of_two() && MIN_SLOTS <= slots && slots <= MAX_SLOTS
}

/// Memory of a table of so many slots for values of so many bytes, once it is full.
pub(super) const fn max_bytes(slots: usize, value_bytes: usize) -> usize {
    (slots / 2 * size_of::<Bucket>()).saturating_add(slots.saturating_mul(value_bytes))
}

impl<const N: usize> Table<N> {
    /// An empty table of so many slots, in which `hash` says where a value belongs. `None` unless the number is a
    /// power of two from 16 to 65,536.
    pub(super) fn new(slots: usize, hash: fn(&[u8; N]) -> u64) -> Option<Self> {
        is_size(slots).then(|| Self {
            size: slots / 2,
            buckets: Vec::new(),
            values: Vec::new(),
            hash,
        })
    }

    /// Puts `value` in the slot of its bucket that was used less lately.
    pub(super) fn insert(&mut self, value: &[u8; N]) {
        self.grow();
        let index = self.index(value);
        let Some(bucket) = self.buckets.get_mut(index) else { return };
        let slot = usize::from(bucket.recent == 0);
        bucket.recent = u8::from(slot == 1);
        let place = &mut bucket.places[slot];
        if let Some(old) = (*place as usize).checked_sub(1).and_then(|at| self.values.get_mut(at)) {
            *old = *value;
        } else {
            self.values.push(*value);
            // There are no more values than slots.
            *place = u32::try_from(self.values.len()).unwrap_or(0);
        }
    }

    /// The value that `reference` leads to, which counts as used then.
    pub(super) fn fetch(&mut self, reference: u16) -> Option<&[u8; N]> {
        let (index, slot) = (usize::from(reference >> 1), usize::from(reference & 1));
        if index >= self.size {
            return None;
        }
        self.used(index, slot);
        let bucket = self.buckets.get(index).copied().unwrap_or_default();
        Some(self.value(bucket.places[slot]))
    }

    fn index(&self, value: &[u8; N]) -> usize {
        let mask = self.size as u64 - 1;
        // Below the number of buckets.
        ((self.hash)(value) & mask) as usize
    }

    fn value(&self, place: u32) -> &[u8; N] {
        let at = (place as usize).checked_sub(1);
        at.and_then(|at| self.values.get(at)).unwrap_or(&[0; N])
    }

    fn used(&mut self, index: usize, slot: usize) {
        self.grow();
        if let Some(bucket) = self.buckets.get_mut(index) {
            bucket.recent = u8::from(slot == 1);
        }
    }

    fn grow(&mut self) {
        if self.buckets.is_empty() {
            self.buckets = vec![Bucket::default(); self.size];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table<8> {
        Table::new(16, |value| u64::from_le_bytes(*value)).unwrap()
    }

    /// A value of the bucket with this number.
    fn value(bucket: u8, number: u8) -> [u8; 8] {
        [bucket, number, 0, 0, 0, 0, 0, 0]
    }

    #[test]
    fn a_value_used_last_outlives_the_next_one() {
        let mut table = table();
        let [a, b, c] = [1, 2, 3].map(|number| value(5, number));
        table.insert(&a);
        assert_eq!(table.fetch(11), Some(&a), "the first one is in the second slot");
        table.insert(&b);
        assert_eq!(table.fetch(10), Some(&b));
        assert_eq!(table.fetch(11), Some(&a));
        table.insert(&c);
        assert_eq!(table.fetch(10), Some(&c));
        assert_eq!(table.fetch(11), Some(&a));
    }

    #[test]
    fn zeros_are_known_from_the_start_and_take_no_slot() {
        let mut table = table();
        assert_eq!(table.fetch(0), Some(&[0; 8]));
        assert_eq!(table.fetch(15), Some(&[0; 8]));
        assert_eq!(table.fetch(16), None);
        assert!(table.values.is_empty());
    }

    #[test]
    fn memory_is_that_of_the_values_that_came() {
        let mut table = Table::<8>::new(2_048, |value| u64::from_le_bytes(*value)).unwrap();
        assert_eq!(table.buckets.capacity(), 0);
        for number in 0..100_000_u64 {
            table.insert(&number.to_le_bytes());
        }
        assert_eq!(table.values.len(), 2_048);
    }
}
