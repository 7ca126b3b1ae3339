//! The choice of the messages whose way is kept.
//!
//! # Invariants
//!
//! * It depends on the message and the rate alone, so that all nodes choose alike.
//! * It reads [`WORDS`] words of a message at most, however long that is.

use std::sync::atomic::{AtomicU64, Ordering};

use gossip::Tag;

/// Words of a body that are looked at, spread over it. Chosen: they meet the signature of a vote and of a transaction
/// wherever it stands, in 25 ns.
pub(crate) const WORDS: usize = 16;

/// Bytes of a word.
const WORD: usize = 8;

/// An odd number with no pattern. Source: 2^64 divided by the golden ratio, as in Knuth, 6.4.
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

/// A rate of messages, which can be changed while it is used.
#[derive(Debug)]
pub(crate) struct Sample {
    /// The largest hash that is in the sample; zero if none is.
    largest: AtomicU64,
    one_in: AtomicU64,
}

impl Sample {
    /// One message in so many; none for zero.
    pub(crate) const fn one_in(one_in: u64) -> Self {
        Self { largest: AtomicU64::new(largest(one_in)), one_in: AtomicU64::new(one_in) }
    }

    /// Changes the rate.
    pub(crate) fn set(&self, one_in: u64) {
        self.one_in.store(one_in, Ordering::Relaxed);
        self.largest.store(largest(one_in), Ordering::Relaxed);
    }

    /// The rate: one in so many.
    pub(crate) fn rate(&self) -> u64 {
        self.one_in.load(Ordering::Relaxed)
    }

    /// Returns whether any message is in the sample.
    pub(crate) fn is_on(&self) -> bool {
        self.largest.load(Ordering::Relaxed) > 0
    }

    /// Returns whether a message is in the sample.
    #[inline]
    pub(crate) fn picks(&self, tag: Tag, body: &[u8]) -> bool {
        let largest = self.largest.load(Ordering::Relaxed);
        largest > 0 && hash(tag, body) <= largest
    }
}

const fn largest(one_in: u64) -> u64 {
    match u64::MAX.checked_div(one_in) {
        Some(largest) => largest,
        None => 0,
    }
}

/// Mixes a word into a hash.
const fn mix(hash: u64, word: u64) -> u64 {
    (hash ^ word).wrapping_mul(MULTIPLIER).rotate_left(29)
}

/// A hash of a message that spreads well, and that anybody can steer.
fn hash(tag: Tag, body: &[u8]) -> u64 {
    let [first, second] = tag.0;
    let seed = u64::from(first) << 8 | u64::from(second);
    let (words, rest) = body.as_chunks::<WORD>();
    let step = words.len().div_ceil(WORDS).max(1);
    let hash = words
        .iter()
        .step_by(step)
        .fold(mix(seed, body.len() as u64), |hash, word| mix(hash, u64::from_le_bytes(*word)));
    // The end, where short messages have nothing else and long ones often differ.
    let hash = match body.last_chunk::<WORD>() {
        Some(last) => mix(hash, u64::from_le_bytes(*last)),
        None => rest.iter().fold(hash, |hash, byte| mix(hash, u64::from(*byte))),
    };
    // The upper bits decide, and depend on all words from here on.
    let hash = (hash ^ hash >> 32).wrapping_mul(MULTIPLIER);
    hash ^ hash >> 29
}

#[cfg(test)]
mod tests {
    use super::*;

    // Issue 12, 3.
    #[test]
    fn a_sample_has_as_many_messages_as_it_says() {
        for (one_in, bytes) in [(1_000, 200), (100, 9), (1_000, 5_000)] {
            let sample = Sample::one_in(one_in);
            let count = 200_000_u64;
            let mut body = vec![7; bytes];
            let picked = (0..count).filter(|number| {
                // Only the last bytes differ, as in messages with a counter.
                let at = bytes - 8;
                body[at..].copy_from_slice(&number.to_be_bytes());
                sample.picks(Tag::TX, &body)
            });
            let (picked, expected) = (picked.count() as u64, count / one_in);
            assert!(picked.abs_diff(expected) < expected / 4, "{picked} of {expected}, {bytes} B");
        }
    }

    #[test]
    fn a_sample_can_have_all_or_none() {
        for body in [&b""[..], b"a", b"12345678", &[0; 1_000]] {
            assert!(Sample::one_in(1).picks(Tag::AV, body));
            assert!(!Sample::one_in(0).picks(Tag::AV, body));
        }
        let sample = Sample::one_in(0);
        assert!(!sample.is_on());
        sample.set(1);
        assert!((sample.is_on(), sample.rate()) == (true, 1) && sample.picks(Tag::AV, b""));
    }
}
