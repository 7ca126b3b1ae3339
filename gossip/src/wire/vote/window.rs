//! The seven proposals sent last, the newest first.

use super::parts::{HASH_BYTES, PROPOSAL};

/// Number of proposals remembered. Source: wire facts 5.4.
const SIZE: usize = 7;

/// Longest proposal, in bytes: three hashes and the longest number.
const MAX_BYTES: usize = 3 * HASH_BYTES + 9;

/// A proposal: its fields in one piece, and the bits that say which they are.
#[derive(Clone, Copy, Debug)]
struct Entry {
    mask: u8,
    len: usize,
    bytes: [u8; MAX_BYTES],
}

/// Memory of a window, in bytes.
pub(super) const MAX_WINDOW_BYTES: usize = (SIZE + 1) * size_of::<Entry>();

impl Entry {
    fn proposal(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// The proposals, with those that went before in a ring.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    ring: Vec<Entry>,
    /// Place of the newest, once the ring is full.
    newest: usize,
}

impl Window {
    /// The place of a proposal, from 1 for the newest. Looking changes nothing.
    pub(super) fn refer(&self, mask: u8, proposal: &[u8]) -> Option<u8> {
        let is_it = |place: &u8| {
            let entry = self.entry(*place);
            entry.is_some_and(|entry| entry.mask == mask & PROPOSAL && entry.proposal() == proposal)
        };
        (1..=7).find(is_it)
    }

    /// Takes a proposal in as the newest; the oldest of seven goes.
    pub(super) fn push(&mut self, mask: u8, proposal: &[u8]) {
        let mut entry = Entry { mask: mask & PROPOSAL, len: 0, bytes: [0; MAX_BYTES] };
        for (place, byte) in entry.bytes.iter_mut().zip(proposal) {
            *place = *byte;
        }
        entry.len = proposal.len().min(MAX_BYTES);
        if self.ring.len() < SIZE {
            self.newest = self.ring.len();
            self.ring.push(entry);
        } else {
            self.newest = (self.newest + 1) % SIZE;
            self.ring[self.newest] = entry;
        }
    }

    /// The proposal at a place; `None` if there are not so many.
    pub(super) fn get(&self, place: u8) -> Option<&[u8]> {
        self.entry(place).map(Entry::proposal)
    }

    fn entry(&self, place: u8) -> Option<&Entry> {
        let back = usize::from(place).checked_sub(1).filter(|back| *back < self.ring.len())?;
        self.ring.get((self.newest + SIZE - back) % SIZE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_eighth_proposal_takes_the_place_of_the_first() {
        let mut window = Window::default();
        assert_eq!((window.get(1), window.refer(0, b"")), (None, None));
        for number in 1..=7_u8 {
            window.push(PROPOSAL, &[number]);
            assert_eq!(window.get(1), Some(&[number][..]));
            assert_eq!(window.get(number), Some(&[1][..]));
            assert_eq!(window.get(number + 1), None);
        }
        window.push(PROPOSAL, &[8]);
        assert_eq!(window.get(7), Some(&[2][..]));
        assert_eq!(window.refer(PROPOSAL, &[8]), Some(1));
        assert_eq!(window.refer(PROPOSAL, &[1]), None);
        assert_eq!(window.refer(0, &[8]), None, "its fields are others");
    }
}
