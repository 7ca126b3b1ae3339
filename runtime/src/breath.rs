//! Cooperative yielding: a loop that always has work lets others run by time.

use std::time::Duration;

use tokio::{task, time::Instant};

/// Longest time that a loop runs without yielding. Chosen: tried under a flood of messages that are
/// expensive to process; with this nothing else was lost.
const LONGEST: Duration = Duration::from_micros(200);

/// The time since which a loop has had a thread of the runtime for itself.
#[derive(Debug)]
pub struct Breath {
    since: Instant,
}

impl Breath {
    /// Starts with the full time of a turn, 200 µs.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a default would hide that the clock is read")]
    pub fn new() -> Self {
        Self { since: Instant::now() }
    }

    /// Lets other tasks run if the loop has run for long enough.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn take(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.since) >= LONGEST {
            task::yield_now().await;
            self.since = Instant::now();
        }
    }
}
