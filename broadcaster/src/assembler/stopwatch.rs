//! A stopwatch that can be paused.

use std::time::Duration;

use runtime::time::Instant;

/// Adds up the times in which it runs.
#[derive(Debug, Default)]
pub(super) struct Stopwatch {
    before: Duration,
    since: Option<Instant>,
}

impl Stopwatch {
    /// Lets it run, and says when it will have run for `limit`.
    pub(super) fn run(&mut self, now: Instant, limit: Duration) -> Instant {
        *self.since.get_or_insert(now) + limit.saturating_sub(self.before)
    }

    /// Halts it; what it has run for stays.
    pub(super) fn stop(&mut self, now: Instant) {
        if let Some(since) = self.since.take() {
            self.before += now.saturating_duration_since(since);
        }
    }

    /// Halts it, and forgets what it has run for.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}
