//! MS: digests of messages, and the filter that remembers which of them a peer already has.
//!
//! ```text
//!   note ──▶ [bucket 0: top] [bucket 1] [bucket 2]     a full top bucket makes its neighbour the
//!                 ◀── turns                            new top, emptied: the oldest digests go
//! ```
//!
//! # Invariants
//!
//! * A digest covers the tag and the body as the application sees it, never the compressed form.
//! * A filter never holds more than buckets × size digests, and none before the first is noted.
//! * Digests are chosen by peers, so they are hashed with a random key.

use std::{collections::HashSet, fmt, num::NonZeroUsize};

use sha2::{Digest as _, Sha512_256};

use crate::tag::Tag;

/// Length of a digest, and of the payload of an MS, in bytes.
pub const DIGEST_BYTES: usize = 32;

/// Shortest body, in bytes, that a digest is announced for. Source: wire facts 2.3.
pub const MIN_DIGEST_BODY_BYTES: usize = 5000;

/// SHA-512/256 of some bytes.
#[must_use]
pub fn hash(bytes: &[u8]) -> [u8; DIGEST_BYTES] {
    Sha512_256::digest(bytes).into()
}

/// The name of a message: SHA-512/256 of its tag and body.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; DIGEST_BYTES]);

impl Digest {
    /// The digest of a message. `body` is neither compressed nor does it contain the tag.
    #[must_use]
    pub fn of(tag: Tag, body: &[u8]) -> Self {
        Self(Sha512_256::new().chain_update(tag.0).chain_update(body).finalize().into())
    }

    /// The digest an MS carries; `None` unless the payload has exactly [`DIGEST_BYTES`].
    #[must_use]
    pub fn from_payload(payload: &[u8]) -> Option<Self> {
        payload.try_into().ok().map(Self)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The state of a digest in a filter before it was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Novelty {
    /// It was not in the filter, and is now.
    New,
    /// It was in the filter already.
    Known,
}

/// Remembers the digests noted last.
#[derive(Clone, Debug)]
pub struct DigestFilter {
    /// Empty until the first digest comes: most peers never send one.
    ring: Vec<HashSet<Digest>>,
    buckets: NonZeroUsize,
    bucket_size: NonZeroUsize,
    top: usize,
}

impl DigestFilter {
    /// A filter of `buckets` sets, each with room for `size` digests. Takes no memory yet.
    #[must_use]
    pub const fn new(buckets: NonZeroUsize, size: NonZeroUsize) -> Self {
        Self { ring: Vec::new(), buckets, bucket_size: size, top: 0 }
    }

    /// The filter kept for each peer: three buckets of 128. Source: wire facts 2.4.
    #[must_use]
    pub const fn outgoing() -> Self {
        const BUCKETS: NonZeroUsize = NonZeroUsize::new(3).unwrap();
        const SIZE: NonZeroUsize = NonZeroUsize::new(128).unwrap();
        Self::new(BUCKETS, SIZE)
    }

    /// Returns whether the digest is remembered. Changes nothing.
    #[must_use]
    pub fn contains(&self, digest: &Digest) -> bool {
        self.find(digest).is_some()
    }

    /// Remembers the digest; one that was known becomes as fresh as a new one.
    pub fn note(&mut self, digest: Digest) -> Novelty {
        match self.find(&digest) {
            None => {
                self.insert(digest);
                Novelty::New
            }
            Some(bucket) => {
                if bucket != self.top {
                    if let Some(set) = self.ring.get_mut(bucket) {
                        set.remove(&digest);
                    }
                    self.insert(digest);
                }
                Novelty::Known
            }
        }
    }

    /// Remembers the digest; one that was known keeps its age.
    pub fn note_once(&mut self, digest: Digest) -> Novelty {
        if self.contains(&digest) {
            return Novelty::Known;
        }
        self.insert(digest);
        Novelty::New
    }

    fn find(&self, digest: &Digest) -> Option<usize> {
        self.ring.iter().position(|bucket| bucket.contains(digest))
    }

    fn insert(&mut self, digest: Digest) {
        if self.ring.is_empty() {
            self.ring.resize_with(self.buckets.get(), HashSet::new);
        }
        let Some(top) = self.ring.get_mut(self.top) else { return };
        top.insert(digest);
        if top.len() >= self.bucket_size.get() {
            self.top = self.top.checked_sub(1).unwrap_or(self.buckets.get() - 1);
            if let Some(oldest) = self.ring.get_mut(self.top) {
                oldest.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(number: u16) -> Digest {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&number.to_le_bytes());
        Digest(bytes)
    }

    #[test]
    fn a_fresh_filter_holds_no_memory() {
        let filter = DigestFilter::outgoing();
        assert_eq!(filter.ring.capacity(), 0);
        assert!(!filter.contains(&digest(1)));
    }

    #[test]
    fn a_digest_is_remembered_for_two_buckets_of_others() {
        let mut filter = DigestFilter::outgoing();
        assert_eq!(filter.note(digest(0)), Novelty::New);
        for other in 1..=(2 * 128 + 126) {
            assert!(filter.contains(&digest(0)), "forgotten before {other}");
            assert_eq!(filter.note(digest(other)), Novelty::New);
        }
        assert_eq!(filter.note(digest(999)), Novelty::New);
        assert!(!filter.contains(&digest(0)));
    }

    #[test]
    fn only_a_payload_of_exactly_one_digest_is_a_digest() {
        assert_eq!(Digest::from_payload(&[7; 32]), Some(Digest([7; 32])));
        assert_eq!(Digest::from_payload(&[7; 31]), None);
        assert_eq!(Digest::from_payload(&[7; 33]), None);
    }

    proptest! {
        #[test]
        fn a_filter_never_outgrows_its_bound(numbers in prop::collection::vec(0_u16..40, 0..400)) {
            let (buckets, size) = (NonZeroUsize::new(3).unwrap(), NonZeroUsize::new(4).unwrap());
            let mut filter = DigestFilter::new(buckets, size);
            for number in numbers {
                let known = filter.contains(&digest(number));
                let novelty = filter.note(digest(number));
                prop_assert_eq!(novelty == Novelty::Known, known);
                prop_assert!(filter.ring.iter().map(HashSet::len).sum::<usize>() <= 12);
            }
        }
    }
}
