//! The rate limit on the control frames of one peer.
//!
//! # Invariants
//!
//! * A peer that stays below [`PER_SECOND`] is never held up, whatever it did before.
//! * After a pause of any length at most [`BURST`] pass at once.

use tokio::time::Instant;

/// Control frames allowed per second over time. Source: threats and goals, row 10.
pub(crate) const PER_SECOND: u32 = 20;

/// Control frames allowed at once. Source: threats and goals, row 10.
pub(crate) const BURST: u32 = 100;

/// A token bucket: one token per control frame.
#[derive(Debug)]
pub(crate) struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(now: Instant) -> Self {
        Self { tokens: f64::from(BURST), filled: now }
    }

    /// Takes one token. Returns `false` when the bucket is empty.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let gained = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + gained * f64::from(PER_SECOND)).min(f64::from(BURST));
        self.filled = now;
        let has_one = self.tokens >= 1.0;
        if has_one {
            self.tokens -= 1.0;
        }
        has_one
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_then_20_a_second() {
        let mut now = Instant::now();
        let mut bucket = Bucket::new(now);
        let taken = (0..1_000).filter(|_| bucket.take(now)).count();
        assert_eq!(taken, BURST as usize);
        now += Duration::from_millis(500);
        let taken = (0..1_000).filter(|_| bucket.take(now)).count();
        assert_eq!(taken, PER_SECOND as usize / 2);
        now += Duration::from_secs(3_600);
        let taken = (0..1_000).filter(|_| bucket.take(now)).count();
        assert_eq!(taken, BURST as usize);
    }
}
