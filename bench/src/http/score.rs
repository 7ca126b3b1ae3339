//! The counts of the callers in one measurement.
//!
//! # Invariants
//!
//! * A request is counted once: as answered after its whole response was checked, or as failed.
//! * A lock is shared by few callers, so that counting costs little.

use std::{
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::stats::Latencies;

/// Number of locks.
const SHARDS: usize = 16;

/// The counts of one measurement, shared by all callers.
#[derive(Debug)]
pub(super) struct Score {
    shards: [Mutex<Latencies>; SHARDS],
    failed: AtomicU64,
    first_failure: OnceLock<String>,
    /// Number of requests that may still be sent.
    left: AtomicU64,
    /// Set when no more requests are to be sent.
    over: AtomicBool,
    /// Number of callers that are still running.
    calling: AtomicUsize,
}

impl Score {
    /// Creates the counts for `callers` callers that send `requests` requests.
    pub(super) fn new(callers: usize, requests: u64) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::new(Latencies::new())),
            failed: AtomicU64::new(0),
            first_failure: OnceLock::new(),
            left: AtomicU64::new(requests),
            over: AtomicBool::new(false),
            calling: AtomicUsize::new(callers),
        }
    }

    fn shards(&self) -> impl Iterator<Item = MutexGuard<'_, Latencies>> {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns `true` if the caller must send another request. Called once per request.
    pub(super) fn next(&self) -> bool {
        let one_less = |left: u64| left.checked_sub(1);
        !self.over.load(Ordering::Relaxed)
            && self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }

    /// Counts a request with the right response.
    pub(super) fn answered(&self, caller: usize, latency: Duration) {
        let shard = &self.shards[caller % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner).note(latency);
    }

    /// Counts failed requests.
    pub(super) fn failed(&self, requests: u64, reason: impl FnOnce() -> String) {
        if requests > 0 {
            self.first_failure.get_or_init(reason);
            self.failed.fetch_add(requests, Ordering::Relaxed);
        }
    }

    /// Records that a caller has ended.
    pub(super) fn ended(&self) {
        self.calling.fetch_sub(1, Ordering::Relaxed);
    }

    /// Number of callers that are still running.
    pub(super) fn calling(&self) -> usize {
        self.calling.load(Ordering::Relaxed)
    }

    /// Number of requests answered or failed.
    pub(super) fn total(&self) -> u64 {
        self.shards().map(|shard| shard.len()).sum::<u64>() + self.failures()
    }

    /// Number of failed requests.
    pub(super) fn failures(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// The error of the first failed request.
    pub(super) fn first_failure(&self) -> Option<&str> {
        self.first_failure.get().map(String::as_str)
    }

    /// Starts the measurement: resets the counts of answered requests.
    pub(super) fn begin(&self) {
        self.shards().for_each(|mut shard| shard.clear());
    }

    /// The latencies since the start of the measurement.
    pub(super) fn latencies(&self) -> Latencies {
        let mut all = Latencies::new();
        self.shards().for_each(|shard| all.add(&shard));
        all
    }

    /// Makes the callers stop.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_requested_number_of_requests_is_sent() {
        let score = Score::new(1, 3);
        assert_eq!((0..10).filter(|_| score.next()).count(), 3);
    }

    #[test]
    fn failures_always_count_and_answers_count_from_the_start() {
        let score = Score::new(2, u64::MAX);
        score.answered(0, Duration::from_millis(1));
        score.failed(1, || "first".to_owned());
        score.begin();
        score.answered(1, Duration::from_millis(1));
        score.failed(2, || "second".to_owned());
        assert_eq!((score.latencies().len(), score.failures(), score.total()), (1, 3, 4));
        assert_eq!(score.first_failure(), Some("first"));
        score.end();
        assert!(!score.next());
    }
}
