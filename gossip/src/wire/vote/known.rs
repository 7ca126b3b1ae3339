//! The packers' side of [`Table`](super::table::Table)s: the same slots, with marks in place of the values, for the
//! connections of a group at once.
//!
//! ```text
//!   bucket, a cache line:  five values ─┬─ mark
//!                                       ├─ connections that have it in their first slot, a bit each
//!                                       └─ connections that have it in their second slot
//!                          connections that used their second slot last
//! ```
//!
//! # Invariants
//!
//! * A connection has a value in a slot when the table of the unpacker at its other end has it there.
//! * A slot that was never written, or that zeros were written to, has no value here: the mark of zeros is free.
//! * A value without a connection is free. A bucket has two values of each connection at most.
//! * A connection changes its own bits only. A new one has none.
//! * A look-up touches one cache line, the same one for all connections: a relay packs every vote for each of its links,
//!   and tables of their own would be larger than the caches.

use std::collections::HashMap;

use super::mark::Mark;

/// Connections, a bit each.
pub(super) type Lanes = u16;

/// Number of values that lie in a bucket. Connections that were sent the same votes have two, and a third while some of
/// them have come to it and others have not.
const INLINE: usize = 5;

/// Two slots of every connection.
#[derive(Clone, Debug, Default)]
#[repr(align(64))]
struct Bucket {
    /// 0 where there is no value.
    marks: [Mark; INLINE],
    slots: [[Lanes; INLINE]; 2],
    /// The connections whose second slot was used last.
    recent: Lanes,
    has_more: bool,
}

const _ONE_LINE: () = assert!(size_of::<Bucket>() == 64);

/// A value for which its bucket has no room.
#[derive(Clone, Debug)]
struct Further {
    mark: Mark,
    slots: [Lanes; 2],
}

/// Marks of the values of a table of each connection.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// Number of buckets, a power of two.
    size: usize,
    /// Empty until the first value comes.
    buckets: Vec<Bucket>,
    /// The values that buckets have no room for, by the place of the bucket.
    more: HashMap<usize, Vec<Further>>,
}

/// Memory of the marks of a table of so many slots at most, for each connection of a group, in bytes: a bucket alone is
/// more than the two values of the map that each connection adds.
pub(super) const fn max_bytes(slots: usize) -> usize {
    (slots / 2).saturating_mul(size_of::<Bucket>())
}

/// A value, for a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marked {
    /// Says in which bucket it belongs.
    pub(super) hash: u64,
    pub(super) mark: Mark,
}

impl Bucket {
    /// The place of a value, or of a free one for zeros.
    #[inline]
    fn place_of(&self, mark: Mark) -> Option<usize> {
        self.marks.iter().position(|other| *other == mark)
    }

    /// The slot in which a connection has the value at a place.
    #[inline]
    fn slot_at(&self, at: usize, lane: Lanes) -> Option<usize> {
        self.slots.iter().position(|slots| slots[at] & lane != 0)
    }

    /// Takes the value in a slot of a connection away.
    #[inline]
    fn clear(&mut self, slot: usize, lane: Lanes) {
        if let Some(at) = self.slots[slot].iter().position(|lanes| lanes & lane != 0) {
            self.slots[slot][at] &= !lane;
            if self.slots[0][at] | self.slots[1][at] == 0 {
                self.marks[at] = 0;
            }
        }
    }

    /// Puts a value in a slot of a connection, which has none; `false` if there is no room.
    #[inline]
    fn put(&mut self, slot: usize, lane: Lanes, mark: Mark) -> bool {
        let Some(at) = self.place_of(mark).or_else(|| self.place_of(0)) else { return false };
        self.marks[at] = mark;
        self.slots[slot][at] |= lane;
        true
    }

    /// The slot in which a connection has zeros.
    fn slot_of_zeros(&self, lane: Lanes, more: &[Further]) -> Option<usize> {
        (0..2).find(|&slot| {
            let is_used = self.slots[slot].iter().any(|lanes| lanes & lane != 0);
            !is_used && more.iter().all(|value| value.slots[slot] & lane == 0)
        })
    }
}

/// Takes the value in a slot of a connection away.
fn clear(more: &mut Vec<Further>, slot: usize, lane: Lanes) {
    more.retain_mut(|value| {
        value.slots[slot] &= !lane;
        value.slots != [0; 2]
    });
}

impl Known {
    /// No values, for tables of so many slots.
    pub(super) fn new(slots: usize) -> Self {
        Self { size: slots / 2, buckets: Vec::new(), more: HashMap::new() }
    }

    /// The bits of the bucket of a value, of which nothing follows: the read brings it into the caches.
    pub(super) fn peek(&self, value: Marked) -> Mark {
        self.buckets.get(self.index(value)).map_or(0, |bucket| bucket.marks[0])
    }

    /// The bucket of a value.
    const fn index(&self, value: Marked) -> usize {
        // Below the number of buckets.
        (value.hash & (self.size as u64 - 1)) as usize
    }

    /// The reference of a connection to a value, which counts as used then. A value that is in neither of its slots
    /// takes the place of the one that was used less lately, and there is no reference to it yet.
    pub(super) fn refer(&mut self, lane: Lanes, value: Marked) -> Option<u16> {
        if self.buckets.is_empty() {
            self.buckets = vec![Bucket::default(); self.size];
        }
        let index = self.index(value);
        let bucket = self.buckets.get_mut(index)?;
        let at = bucket.place_of(value.mark);
        let slot = at.and_then(|at| bucket.slot_at(at, lane)).or_else(|| {
            // Both are rare.
            let more = if bucket.has_more { self.more.get(&index)?.as_slice() } else { &[] };
            if value.mark == 0 {
                return bucket.slot_of_zeros(lane, more);
            }
            let value = more.iter().find(|further| further.mark == value.mark)?;
            value.slots.iter().position(|lanes| lanes & lane != 0)
        });
        let Some(slot) = slot else {
            self.insert(index, lane, value.mark);
            return None;
        };
        let now = if slot == 0 { bucket.recent & !lane } else { bucket.recent | lane };
        // A line that is not written to need not be written back.
        if now != bucket.recent {
            bucket.recent = now;
        }
        u16::try_from(index << 1 | slot).ok()
    }

    /// Puts a value in the slot that the connection used less lately.
    fn insert(&mut self, index: usize, lane: Lanes, mark: Mark) {
        let Some(bucket) = self.buckets.get_mut(index) else { return };
        let slot = usize::from(bucket.recent & lane == 0);
        bucket.recent ^= lane;
        bucket.clear(slot, lane);
        if bucket.has_more {
            let more = self.more.entry(index).or_default();
            clear(more, slot, lane);
            if let Some(value) = more.iter_mut().find(|value| value.mark == mark && mark != 0) {
                value.slots[slot] |= lane;
                return;
            }
        }
        if mark != 0 && !bucket.put(slot, lane, mark) {
            let mut slots = [0; 2];
            slots[slot] = lane;
            let more = self.more.entry(index).or_default();
            more.reserve_exact(1);
            more.push(Further { mark, slots });
            bucket.has_more = true;
        } else if bucket.has_more && self.more.get(&index).is_none_or(Vec::is_empty) {
            self.more.remove(&index);
            bucket.has_more = false;
        }
    }

    /// Forgets everything about a connection.
    pub(super) fn forget(&mut self, lane: Lanes) {
        for (index, bucket) in self.buckets.iter_mut().enumerate() {
            bucket.recent &= !lane;
            (0..2).for_each(|slot| bucket.clear(slot, lane));
            if bucket.has_more
                && let Some(more) = self.more.get_mut(&index)
            {
                (0..2).for_each(|slot| clear(more, slot, lane));
                if more.is_empty() {
                    self.more.remove(&index);
                    bucket.has_more = false;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(bucket: u64, mark: Mark) -> Marked {
        Marked { hash: bucket, mark }
    }

    #[test]
    fn a_value_used_last_outlives_the_next_one() {
        let mut known = Known::new(16);
        let [a, b, c] = [2, 4, 6].map(|mark| value(5, mark));
        let referred = [a, a, b, b, a, c, a, b].map(|value| known.refer(1, value));
        assert_eq!(
            referred,
            [None, Some(11), None, Some(10), Some(11), None, Some(11), None],
            "the first one is in the second slot, and the second one made room for the third"
        );
    }

    #[test]
    fn zeros_are_known_from_the_start_and_take_no_slot() {
        assert_eq!(Known::new(16).refer(1, value(0, 0)), Some(0));
        assert_eq!(Known::new(16).refer(1, value(7, 0)), Some(14));
    }

    #[test]
    fn memory_comes_with_the_first_value_and_stays_within_its_bound() {
        let mut known = Known::new(2_048);
        assert_eq!(known.buckets.capacity(), 0);
        for number in 0..40_000 {
            // No two connections have the same values.
            for lane in 0..Lanes::BITS {
                let mark = number << 9 | u64::from(lane) << 1;
                known.refer(1 << lane, value(number, mark));
            }
        }
        let further: usize = known.more.values().map(Vec::capacity).sum();
        assert_eq!(further, 1_024 * (2 * Lanes::BITS as usize - INLINE), "all are full");
        let map = known.more.capacity() * 2 * size_of::<(usize, Vec<Further>)>();
        let bytes = size_of_val(&known.buckets[..]) + further * size_of::<Further>() + map;
        assert!(bytes <= Lanes::BITS as usize * max_bytes(2_048));
        (0..Lanes::BITS).for_each(|lane| known.forget(1 << lane));
        assert!(known.more.is_empty());
        assert!(known.buckets.iter().all(|bucket| bucket.marks == [0; INLINE] && !bucket.has_more));
    }

    /// The two slots of a bucket, as a table has them.
    #[derive(Clone, Copy, Default)]
    struct Slots {
        marks: [Mark; 2],
        recent: usize,
    }

    impl Slots {
        fn refer(&mut self, mark: Mark) -> Option<usize> {
            if let Some(slot) = self.marks.iter().position(|other| *other == mark) {
                self.recent = slot;
                return Some(slot);
            }
            self.recent ^= 1;
            self.marks[self.recent] = mark;
            None
        }
    }

    proptest! {
        // Issue 10, 7.
        #[test]
        fn connections_of_a_group_have_the_slots_that_each_would_have_alone(
            steps in prop::collection::vec((0..16_u32, 0..8_u64, 0..40_u64, 0..200_u8), 1..3_000),
        ) {
            let mut known = Known::new(16);
            let mut alone = [[Slots::default(); 8]; 16];
            for (link, bucket, mark, kind) in steps {
                let lane = 1 << link;
                if kind == 0 {
                    known.forget(lane);
                    alone[link as usize] = Default::default();
                }
                let slot = alone[link as usize][bucket as usize].refer(2 * mark);
                let expected = slot.map(|slot| u16::try_from(bucket << 1).unwrap() | slot as u16);
                prop_assert_eq!(known.refer(lane, value(bucket, 2 * mark)), expected);
            }
            (0..Lanes::BITS).for_each(|lane| known.forget(1 << lane));
            prop_assert!(known.more.is_empty());
        }
    }
}
