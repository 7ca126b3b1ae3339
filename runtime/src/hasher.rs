//! Hashes that nobody outside can foresee.
//!
//! # Invariants
//!
//! * Two hashers of one seed agree; two of the system's random numbers do not.

use std::hash::{BuildHasher, DefaultHasher, Hasher};

use rand::Rng;

use crate::random::Random;

/// Hashes under a key, as the standard library's random state does, but with a key from the environment.
#[derive(Clone, Copy, Debug)]
pub struct KeyedHasher {
    key: [u64; 2],
}

impl KeyedHasher {
    /// A hasher with a key of its own.
    #[must_use]
    pub fn new(random: &mut Random) -> Self {
        Self { key: random.random() }
    }
}

impl BuildHasher for KeyedHasher {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        self.key.iter().for_each(|&half| hasher.write_u64(half));
        hasher
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_decides() {
        let hash = |seed| KeyedHasher::new(&mut Random::seeded(seed)).hash_one("name");
        assert_eq!(hash(1), hash(1));
        assert_ne!(hash(1), hash(2));
    }
}
