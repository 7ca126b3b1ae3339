//! The runs of processes: this node's own, and the numbers by which it tells those of peers apart.
//!
//! # Invariants
//!
//! * A node announces one text per run over every transport, so that two links of one process can be told from those of
//!   two processes with one key.
//! * The numbers mean nothing outside this process.

use std::hash::BuildHasher;

use rand::Rng;
use runtime::{Environment, KeyedHasher};

/// The run of this process, and numbers for those of others.
#[derive(Debug)]
pub(crate) struct Runs {
    pub(crate) own: [u8; 10],
    hasher: KeyedHasher,
}

impl Runs {
    pub(crate) fn new(environment: &Environment) -> Self {
        Self { own: environment.random().random(), hasher: environment.hasher() }
    }

    /// The number of the run that announces `text`.
    pub(crate) fn number(&self, text: &str) -> u64 {
        self.hasher.hash_one(text)
    }
}
