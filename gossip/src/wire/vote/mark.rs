//! Marks of values: a packer keeps them in place of the values, and a vote has its marks for the packers of all links.
//!
//! # Invariants
//!
//! * Two different values of one length have the same mark with a probability of 2^-62, for whoever does not know the
//!   key, and nobody does: key and marks never leave the node. Source: multiply-shift for vectors, M. Thorup, "High
//!   Speed Hashing for Integers and Strings", 3.3, without the last bit.
//! * The mark of zeros is 0.

use std::fmt;

/// A mark. Its lowest bit is 0.
pub(super) type Mark = u64;

/// Length of the longest value with a mark, in bytes.
pub(super) const MAX_MARKED_BYTES: usize = MarkKey::WORDS * 8;

/// The secret key of the marks of a node.
#[derive(Clone)]
pub struct MarkKey([u128; Self::WORDS]);

impl MarkKey {
    /// Number of words of a key: enough for a proposal.
    pub const WORDS: usize = 14;

    /// A key of random words. With words that are not, different values have the same mark, and votes come out of an
    /// unpacker as others.
    #[must_use]
    pub const fn new(words: [u128; Self::WORDS]) -> Self {
        Self(words)
    }

    /// The mark of a value of whole words, [`MAX_MARKED_BYTES`] at most.
    pub(super) fn mark(&self, value: &[u8]) -> Mark {
        let words = value.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word));
        let products = words.zip(&self.0).map(|(word, key)| key.wrapping_mul(word.into()));
        let sum = products.fold(0, u128::wrapping_add);
        (sum >> 64) as u64 & !1
    }
}

impl fmt::Debug for MarkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MarkKey").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_mark_depends_on_every_byte_and_on_the_key() {
        let key = MarkKey::new(std::array::from_fn(|at| {
            0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835_u128.wrapping_pow(at as u32 + 1)
        }));
        let mut marks = HashSet::new();
        for at in 0..MAX_MARKED_BYTES {
            let mut value = [0; MAX_MARKED_BYTES];
            value[at] = 1;
            assert!(marks.insert(key.mark(&value)));
        }
        assert!(!marks.contains(&0));
        let other = MarkKey::new([7; MarkKey::WORDS]);
        assert_ne!(key.mark(&[3; 96]), other.mark(&[3; 96]));
        assert_eq!((key.mark(&[0; 96]), key.mark(&[0; 32])), (0, 0));
    }
}
