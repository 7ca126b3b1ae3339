//! The seven proposals sent last, the newest first.

use super::{
    mark::MAX_MARKED_BYTES,
    parts::{HASH_BYTES, PROPOSAL},
};

/// Number of proposals remembered. Source: wire facts 5.4.
const SIZE: usize = 7;

/// Longest proposal, in bytes: three hashes and the longest number.
const MAX_BYTES: usize = 3 * HASH_BYTES + 9;

/// A proposal: its fields in one piece, and the bits that say which they are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Proposal {
    mask: u8,
    len: usize,
    bytes: [u8; MAX_BYTES],
}

impl Proposal {
    /// The proposal whose fields `mask` lists.
    pub(super) fn new(mask: u8, fields: &[u8]) -> Self {
        let (len, mut bytes) = (fields.len().min(MAX_BYTES), [0; MAX_BYTES]);
        if let (Some(to), Some(from)) = (bytes.get_mut(..len), fields.get(..len)) {
            to.copy_from_slice(from);
        }
        Self { mask: mask & PROPOSAL, len, bytes }
    }

    /// Its fields.
    pub(super) fn fields(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// The bytes that tell it from others: fields, padding, length and mask.
    pub(super) fn distinctive(&self) -> [u8; MAX_MARKED_BYTES] {
        let mut all = [0; MAX_MARKED_BYTES];
        let (fields, tail) = all.split_at_mut(MAX_BYTES);
        fields.copy_from_slice(&self.bytes);
        if let [mask, len, ..] = tail {
            (*mask, *len) = (self.mask, u8::try_from(self.len).unwrap_or(u8::MAX));
        }
        all
    }
}

/// Memory of the proposals of an unpacker, in bytes.
pub(super) const MAX_WINDOW_BYTES: usize = (SIZE + 1) * size_of::<Proposal>();

/// The proposals, or what a packer keeps of them, in a ring.
#[derive(Clone, Debug)]
pub(super) struct Window<E> {
    ring: Vec<E>,
    /// Place of the newest, once the ring is full.
    newest: usize,
}

impl<E> Default for Window<E> {
    fn default() -> Self {
        Self { ring: Vec::new(), newest: 0 }
    }
}

impl<E> Window<E> {
    /// Takes a proposal in as the newest; the oldest of seven goes.
    pub(super) fn push(&mut self, proposal: E) {
        if self.ring.len() < SIZE {
            self.newest = self.ring.len();
            self.ring.push(proposal);
        } else {
            self.newest = (self.newest + 1) % SIZE;
            self.ring[self.newest] = proposal;
        }
    }

    /// The proposal at a place, from 1 for the newest; `None` if there are not so many.
    pub(super) fn get(&self, place: u8) -> Option<&E> {
        let back = usize::from(place).checked_sub(1).filter(|back| *back < self.ring.len())?;
        self.ring.get((self.newest + SIZE - back) % SIZE)
    }
}

impl<E: PartialEq> Window<E> {
    /// The place of a proposal. Looking changes nothing.
    pub(super) fn place_of(&self, proposal: &E) -> Option<u8> {
        (1..=7).find(|place| self.get(*place) == Some(proposal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_eighth_proposal_takes_the_place_of_the_first() {
        let mut window = Window::default();
        assert_eq!((window.get(1), window.place_of(&0)), (None, None));
        for number in 1..=7 {
            window.push(number);
            assert_eq!((window.get(1), window.get(number)), (Some(&number), Some(&1)));
            assert_eq!(window.get(number + 1), None);
        }
        window.push(8);
        assert_eq!(window.get(7), Some(&2));
        assert_eq!((window.place_of(&8), window.place_of(&1)), (Some(1), None));
    }

    #[test]
    fn proposals_with_other_fields_or_lengths_are_others() {
        let distinctive = |mask, fields: &[u8]| Proposal::new(mask, fields).distinctive();
        assert_eq!(distinctive(PROPOSAL | 1, &[8]), distinctive(PROPOSAL, &[8]));
        assert_ne!(distinctive(0, &[8]), distinctive(PROPOSAL, &[8]));
        assert_ne!(distinctive(PROPOSAL, &[8, 0]), distinctive(PROPOSAL, &[8]));
        assert_eq!(distinctive(0, &[]), [0; MAX_MARKED_BYTES]);
        assert_eq!(Proposal::new(0, &[9; 200]).fields(), [9; MAX_BYTES]);
    }
}
