//! Counts of an attack so far, and of the node's reactions.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Shared by everything that one attack does. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Tally(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    began: OnceLock<Instant>,
    first_cut: OnceLock<Duration>,
    opened: AtomicU64,
    refused: AtomicU64,
    cut: AtomicU64,
    sent: AtomicU64,
}

/// A tally at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that were made.
    pub opened: u64,
    /// Connections that could not be made.
    pub refused: u64,
    /// Connections that the node ended.
    pub cut: u64,
    /// Messages that the system took.
    pub sent: u64,
    /// When the first connection ended, counted from when the first was made.
    pub first_cut: Option<Duration>,
}

impl Tally {
    pub(super) fn opened(&self) {
        // The first one counts.
        let _ = self.0.began.set(Instant::now());
        self.0.opened.fetch_add(1, Relaxed);
    }

    pub(super) fn refused(&self) {
        self.0.refused.fetch_add(1, Relaxed);
    }

    pub(super) fn cut(&self) {
        self.0.cut.fetch_add(1, Relaxed);
        if let Some(began) = self.0.began.get() {
            let _ = self.0.first_cut.set(began.elapsed());
        }
    }

    /// Counts messages, and gives the number of the first of them.
    pub(super) fn sending(&self, messages: u64) -> u64 {
        self.0.sent.fetch_add(messages, Relaxed)
    }

    /// The counts so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let counters = &self.0;
        Counts {
            opened: counters.opened.load(Relaxed),
            refused: counters.refused.load(Relaxed),
            cut: counters.cut.load(Relaxed),
            sent: counters.sent.load(Relaxed),
            first_cut: counters.first_cut.get().copied(),
        }
    }
}
