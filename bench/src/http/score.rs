//! What the callers of one measurement have done.
//!
//! # Invariants
//!
//! * A request is counted when its whole response has been checked, or as failed, and never twice.
//! * Callers share a lock with few others, so that the score weighs little.

use std::{
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::stats::Latencies;

/// Locks the callers share.
const SHARDS: usize = 16;

/// Shared by all callers of one measurement.
#[derive(Debug)]
pub(super) struct Score {
    shards: [Mutex<Latencies>; SHARDS],
    failed: AtomicU64,
    first_failure: OnceLock<String>,
    /// Requests that may still be sent.
    left: AtomicU64,
    /// Set when nothing more is to be asked for.
    over: AtomicBool,
    /// Callers that have not ended.
    calling: AtomicUsize,
}

impl Score {
    /// A score for so many callers and requests.
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

    /// Whether a caller shall ask again. The answer is asked for once per request.
    pub(super) fn next(&self) -> bool {
        let one_less = |left: u64| left.checked_sub(1);
        !self.over.load(Ordering::Relaxed)
            && self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }

    /// Notes a request that was answered as it must be.
    pub(super) fn answered(&self, caller: usize, latency: Duration) {
        let shard = &self.shards[caller % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner).note(latency);
    }

    /// Notes requests that were not.
    pub(super) fn failed(&self, requests: u64, reason: impl FnOnce() -> String) {
        if requests > 0 {
            self.first_failure.get_or_init(reason);
            self.failed.fetch_add(requests, Ordering::Relaxed);
        }
    }

    /// Notes that a caller asks no more.
    pub(super) fn ended(&self) {
        self.calling.fetch_sub(1, Ordering::Relaxed);
    }

    /// Callers that have not ended.
    pub(super) fn calling(&self) -> usize {
        self.calling.load(Ordering::Relaxed)
    }

    /// Requests answered or failed.
    pub(super) fn total(&self) -> u64 {
        self.shards().map(|shard| shard.len()).sum::<u64>() + self.failures()
    }

    /// Requests that failed.
    pub(super) fn failures(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// What the first failure was.
    pub(super) fn first_failure(&self) -> Option<&str> {
        self.first_failure.get().map(String::as_str)
    }

    /// The requests answered so far do not count.
    pub(super) fn begin(&self) {
        self.shards().for_each(|mut shard| shard.clear());
    }

    /// The latencies since the beginning.
    pub(super) fn latencies(&self) -> Latencies {
        let mut all = Latencies::new();
        self.shards().for_each(|shard| all.add(&shard));
        all
    }

    /// Nothing more is to be asked for.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_requests_are_sent_as_were_asked_for() {
        let score = Score::new(1, 3);
        assert_eq!((0..10).filter(|_| score.next()).count(), 3);
    }

    #[test]
    fn failures_count_whenever_they_happen_and_answers_from_the_beginning() {
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
