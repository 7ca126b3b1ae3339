//! Random numbers.
//!
//! # Invariants
//!
//! * Those of the system are fit for keys; those from a seed are for simulations alone.

use std::sync::{Arc, Mutex, PoisonError};

use rand::{RngCore, SeedableRng, rngs::StdRng};

/// A source of random numbers. A cheap handle; clones draw from the same source.
#[derive(Clone, Debug)]
pub struct Random(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Seeded(Arc<Mutex<StdRng>>),
}

impl Random {
    /// The system's, through a generator of each thread.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// The same numbers for the same seed, in the order in which they are drawn.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(Source::Seeded(Arc::new(Mutex::new(StdRng::seed_from_u64(seed)))))
    }

    #[expect(clippy::disallowed_methods, reason = "this is where the system is asked")]
    fn with<T>(&self, draw: impl FnOnce(&mut dyn RngCore) -> T) -> T {
        match &self.0 {
            Source::System => draw(&mut rand::rng()),
            Source::Seeded(rng) => draw(&mut *rng.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }
}

impl RngCore for Random {
    fn next_u32(&mut self) -> u32 {
        self.with(|rng| rng.next_u32())
    }

    fn next_u64(&mut self) -> u64 {
        self.with(|rng| rng.next_u64())
    }

    fn fill_bytes(&mut self, into: &mut [u8]) {
        self.with(|rng| rng.fill_bytes(into));
    }
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_again_and_clones_share_them() {
        let draw = |seed| {
            let mut one = Random::seeded(seed);
            let mut other = one.clone();
            [one.random::<u64>(), other.random(), one.random()]
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert_ne!(draw(1)[0], draw(1)[1]);
    }
}
