//! The numbers of a phonebook, for metrics.

use gossip::Instant;

use super::{
    Phonebook,
    entry::{Entry, Hold},
    source::SourceKind,
};

/// Addresses by their use and by their sources, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BookCounts {
    /// Addresses that are being dialled.
    pub dialling: usize,
    /// Addresses that have a link.
    pub linked: usize,
    /// Addresses that failed last, or asked for it, and are left alone for a while.
    pub backing_off: usize,
    /// Addresses that worked once.
    pub worked: usize,
    /// Addresses that each kind of source lists, in the order of [`SourceKind::ALL`]; one that several list counts
    /// for each.
    pub listed: [usize; SourceKind::ALL.len()],
}

impl Phonebook {
    /// Counts the addresses. It looks at all of them.
    #[must_use]
    pub fn counts(&self, now: Instant) -> BookCounts {
        let mut counts = BookCounts::default();
        for entry in self.entries.values() {
            counts.add(entry, now);
        }
        counts
    }
}

impl BookCounts {
    fn add(&mut self, entry: &Entry, now: Instant) {
        match entry.hold {
            Hold::Dialled { .. } => self.dialling += 1,
            Hold::Linked { .. } => self.linked += 1,
            Hold::Free if entry.retry_at.is_some_and(|at| at > now) => self.backing_off += 1,
            Hold::Free => {}
        }
        self.worked += usize::from(entry.has_worked());
        for (count, kind) in self.listed.iter_mut().zip(SourceKind::ALL) {
            *count += usize::from(entry.listings.iter().any(|(source, _)| source.kind() == kind));
        }
    }
}
