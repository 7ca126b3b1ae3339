//! Fingerprints and what is known of each, in the order in which they came, in few bytes.
//!
//! ```text
//!   index: a place for each fingerprint, half of them empty ──▶ entries: oldest … newest
//! ```
//!
//! # Invariants
//!
//! * An entry and its places in the index take [`ENTRY_BYTES`], and nothing of an entry lies elsewhere.
//! * A lost message leaves the index at once; its entry goes with the others of its time.
//! * The index is at most half full, so that a look-up ends soon. Fingerprints are keyed, so nobody can
//!   choose where they lie.

use std::{collections::VecDeque, time::Duration};

use gossip::Validation;
use runtime::time::Instant;

use super::{Before, Fingerprint};

/// Memory of one message in the filter, in bytes: an entry, and two places of the index.
pub(crate) const ENTRY_BYTES: usize = size_of::<Entry>() + 2 * size_of::<u32>();

/// Marks a place that is taken; the rest of it is the number of an entry.
const TAKEN: u32 = 1 << 31;

/// Places of an index that was never used.
const LEAST_PLACES: usize = 8;

/// A message, when it was heard, and what became of it.
#[derive(Clone, Copy, Debug)]
struct Entry {
    message: Fingerprint,
    /// Nanoseconds since the memory was made.
    at: u64,
    state: Packed,
}

/// A [`Before`], or that the message was lost, in eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Packed(u64);

impl Packed {
    const LOST: Self = Self(0);
    const PENDING: Self = Self(1);
    const OWED: Self = Self(2);
    const ACCEPTED: Self = Self(3);
    const IGNORED: Self = Self(4);
    const REJECTED: Self = Self(5);
    /// The generation is in the bits above.
    const PASSED: u64 = 6;
    const BITS: u32 = 3;

    fn of(state: Before) -> Self {
        match state {
            Before::Pending => Self::PENDING,
            Before::Owed => Self::OWED,
            Before::Judged(Validation::Accept) => Self::ACCEPTED,
            Before::Judged(Validation::Ignore) => Self::IGNORED,
            Before::Judged(Validation::Reject) => Self::REJECTED,
            // There are fewer links in the life of a node.
            Before::Passed { generation } => Self(generation << Self::BITS | Self::PASSED),
        }
    }

    fn state(self) -> Option<Before> {
        Some(match self {
            Self::LOST => return None,
            Self::PENDING => Before::Pending,
            Self::OWED => Before::Owed,
            Self::ACCEPTED => Before::Judged(Validation::Accept),
            Self::IGNORED => Before::Judged(Validation::Ignore),
            Self::REJECTED => Before::Judged(Validation::Reject),
            Self(passed) => Before::Passed { generation: passed >> Self::BITS },
        })
    }
}

/// The messages heard within one window.
#[derive(Debug)]
pub(super) struct Remembered {
    began: Instant,
    length: Duration,
    capacity: usize,
    entries: VecDeque<Entry>,
    /// The number of the oldest entry. The others follow.
    oldest: u64,
    /// Numbers of entries; each lies at the place its fingerprint names, or behind it without a gap.
    places: Vec<u32>,
    /// Entries that have a place.
    placed: usize,
}

impl Remembered {
    /// Remembers for `length`, in at most `bytes`, of which less than half stay free.
    pub(super) fn new(length: Duration, bytes: usize, now: Instant) -> Self {
        Self {
            began: now,
            length,
            // Both parts double, so that only powers of two take what they should.
            capacity: 1 << (bytes / ENTRY_BYTES).clamp(1, TAKEN as usize / 4).ilog2(),
            entries: VecDeque::new(),
            oldest: 0,
            places: vec![0; LEAST_PLACES],
            placed: 0,
        }
    }

    /// Returns the record of a message.
    pub(super) fn get(&self, message: Fingerprint) -> Option<Before> {
        self.entry(self.find(message)?)?.state.state()
    }

    /// Changes what is known of a message, if anything is.
    pub(super) fn set(&mut self, message: Fingerprint, state: Before) -> bool {
        let entry = self.find(message).and_then(|place| self.entry_mut(place));
        entry.map(|entry| entry.state = Packed::of(state)).is_some()
    }

    /// Remembers a message that is not known, and gives it a number.
    pub(super) fn insert(&mut self, message: Fingerprint, state: Before, now: Instant) -> u64 {
        if self.entries.len() >= self.capacity {
            self.forget_oldest();
        }
        let number = self.oldest + self.entries.len() as u64;
        let entry = Entry { message, at: self.since(now), state: Packed::of(state) };
        self.entries.push_back(entry);
        if self.placed * 2 >= self.places.len() {
            self.grow();
        } else {
            self.place(message, number);
        }
        number
    }

    /// Forgets the message of a number, if it was not judged.
    pub(super) fn lose(&mut self, message: Fingerprint, number: u64) {
        let Some(place) = self.find(message) else { return };
        // If the filter was full, this message was forgotten, and another copy may have come since.
        let is_it = self.number_at(place) == Some(number);
        let Some(entry) = self.entry_mut(place).filter(|_| is_it) else { return };
        if entry.state == Packed::PENDING {
            entry.state = Packed::LOST;
            self.clear(place);
        }
    }

    /// Forgets what was heard before the window.
    pub(super) fn forget_until(&mut self, now: Instant) {
        let now = Duration::from_nanos(self.since(now));
        let is_old = |entry: &Entry| now.saturating_sub(Duration::from_nanos(entry.at));
        while self.entries.front().is_some_and(|entry| is_old(entry) >= self.length) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some(entry) = self.entries.front().copied() else { return };
        // A later copy of what was lost has a place of its own.
        if let Some(place) = self.find(entry.message).filter(|_| entry.state != Packed::LOST) {
            self.clear(place);
        }
        self.entries.pop_front();
        self.oldest += 1;
    }

    fn since(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX)
    }

    /// The place that a fingerprint names.
    fn home(&self, message: Fingerprint) -> usize {
        let [a, b, c, d, ..] = message.0;
        u32::from_le_bytes([a, b, c, d]) as usize & (self.places.len() - 1)
    }

    fn next(&self, place: usize) -> usize {
        (place + 1) & (self.places.len() - 1)
    }

    /// The place of a message.
    fn find(&self, message: Fingerprint) -> Option<usize> {
        let mut place = self.home(message);
        loop {
            if self.entry(place)?.message == message {
                return Some(place);
            }
            place = self.next(place);
        }
    }

    /// The number of the entry at a place; `None` if the place is empty.
    fn number_at(&self, place: usize) -> Option<u64> {
        let taken = *self.places.get(place)?;
        if taken & TAKEN == 0 {
            return None;
        }
        // There are fewer entries than numbers that fit a place.
        let low = u32::try_from(self.oldest & u64::from(TAKEN - 1)).unwrap_or_default();
        let ahead = (taken & (TAKEN - 1)).wrapping_sub(low) & (TAKEN - 1);
        Some(self.oldest + u64::from(ahead))
    }

    fn entry(&self, place: usize) -> Option<&Entry> {
        let ahead = self.number_at(place)? - self.oldest;
        self.entries.get(usize::try_from(ahead).ok()?)
    }

    fn entry_mut(&mut self, place: usize) -> Option<&mut Entry> {
        let ahead = self.number_at(place)? - self.oldest;
        self.entries.get_mut(usize::try_from(ahead).ok()?)
    }

    fn place(&mut self, message: Fingerprint, number: u64) {
        let mut place = self.home(message);
        while self.number_at(place).is_some() {
            place = self.next(place);
        }
        let low = u32::try_from(number & u64::from(TAKEN - 1)).unwrap_or_default();
        if let Some(empty) = self.places.get_mut(place) {
            *empty = TAKEN | low;
            self.placed += 1;
        }
    }

    /// Empties a place, and moves up what lies behind it and would not be found any more.
    fn clear(&mut self, place: usize) {
        let (mut gap, mut next) = (place, self.next(place));
        let mask = self.places.len() - 1;
        let span = |from: usize, to: usize| to.wrapping_sub(from) & mask;
        while let Some(entry) = self.entry(next) {
            // It may lie at the gap if that is not before the place it names.
            if span(self.home(entry.message), next) >= span(gap, next) {
                self.places.copy_within(next..=next, gap);
                gap = next;
            }
            next = self.next(next);
        }
        if let Some(empty) = self.places.get_mut(gap) {
            *empty = 0;
            self.placed -= 1;
        }
    }

    /// Doubles the index, and gives every entry its place.
    fn grow(&mut self) {
        self.places = vec![0; self.places.len() * 2];
        self.placed = 0;
        for ahead in 0..self.entries.len() {
            let Some(entry) = self.entries.get(ahead).copied() else { return };
            if entry.state != Packed::LOST {
                self.place(entry.message, self.oldest + ahead as u64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn message(number: u8) -> Fingerprint {
        let mut message = [0; 16];
        // Few places, so that they are fought over.
        (message[0], message[15]) = (number % 5, number);
        Fingerprint(message)
    }

    #[test]
    fn an_entry_takes_forty_bytes() {
        assert_eq!(ENTRY_BYTES, 40);
    }

    #[test]
    fn entries_survive_their_packing() {
        for state in [
            Before::Pending,
            Before::Owed,
            Before::Judged(Validation::Accept),
            Before::Judged(Validation::Ignore),
            Before::Judged(Validation::Reject),
            Before::Passed { generation: 0 },
            Before::Passed { generation: 1 << 60 },
        ] {
            assert_eq!(Packed::of(state).state(), Some(state));
        }
    }

    // Issue 8, 23: 500,000 messages of each lane took 50 to 100 MiB.
    #[test]
    fn entries_take_no_more_memory_than_the_bound() {
        const BYTES: usize = 1 << 20;
        let now = Instant::now();
        let mut remembered = Remembered::new(Duration::from_secs(10), BYTES, now);
        for number in 0..100_000_u64 {
            let mut name = [0; 16];
            name[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
            remembered.insert(Fingerprint(name), Before::Pending, now);
        }
        assert_eq!(remembered.entries.len(), 16_384);
        let places = remembered.places.capacity() * size_of::<u32>();
        let entries = remembered.entries.capacity() * size_of::<Entry>();
        assert_eq!(places + entries, 16_384 * ENTRY_BYTES);
    }

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Hear(u8),
        Judge(u8),
        Lose(u8),
        Wait(u64),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => any::<u8>().prop_map(Event::Hear),
            1 => any::<u8>().prop_map(Event::Judge),
            2 => any::<u8>().prop_map(Event::Lose),
            1 => (0..3_u64).prop_map(Event::Wait),
        ]
    }

    proptest! {
        #[test]
        fn it_remembers_what_a_map_would(events in prop::collection::vec(event(), 0..600)) {
            const LENGTH: u64 = 10;
            let mut now = Instant::now();
            let mut remembered = Remembered::new(Duration::from_secs(LENGTH), 1 << 20, now);
            let mut model: HashMap<u8, (Instant, Before, u64)> = HashMap::new();
            for event in events {
                match event {
                    Event::Hear(number) => {
                        remembered.forget_until(now);
                        model.retain(|_, (at, ..)| now - *at < Duration::from_secs(LENGTH));
                        let known = remembered.get(message(number));
                        prop_assert_eq!(known, model.get(&number).map(|(_, state, _)| *state));
                        if known.is_none() {
                            let id = remembered.insert(message(number), Before::Pending, now);
                            model.insert(number, (now, Before::Pending, id));
                        }
                    }
                    Event::Judge(number) => {
                        let known = remembered.set(message(number), Before::Owed);
                        prop_assert_eq!(known, model.contains_key(&number));
                        model.entry(number).and_modify(|(_, state, _)| *state = Before::Owed);
                    }
                    Event::Lose(number) => {
                        if let Some(&(_, state, id)) = model.get(&number) {
                            remembered.lose(message(number), id + 1);
                            remembered.lose(message(number), id);
                            if state == Before::Pending {
                                model.remove(&number);
                            }
                        }
                    }
                    Event::Wait(seconds) => now += Duration::from_secs(seconds),
                }
            }
            for number in 0..=u8::MAX {
                let known = remembered.get(message(number));
                prop_assert_eq!(known, model.get(&number).map(|(_, state, _)| *state));
            }
        }
    }
}
