//! Cooperative yielding: a loop that always has work lets others run by time.

use std::time::Duration;

use tokio::{task, time::Instant};

/// Longest time that a loop runs without yielding. Chosen: tried under a flood of messages that are
/// dear to look at; with this nothing else was lost.
const LONGEST: Duration = Duration::from_micros(200);

/// Since when a loop has had a thread of the runtime for itself.
#[derive(Debug)]
pub(crate) struct Breath {
    since: Instant,
}

impl Breath {
    pub(crate) fn new() -> Self {
        Self { since: Instant::now() }
    }

    /// Lets others run if the loop has run for long enough.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub(crate) async fn take(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.since) >= LONGEST {
            task::yield_now().await;
            self.since = Instant::now();
        }
    }
}
