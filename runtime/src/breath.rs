//! Cooperative yielding: a loop that always has work lets others run by time.

use std::{future::poll_fn, pin::pin, time::Duration};

use tokio::{task, time::Instant};

/// Longest time that a loop runs without yielding. Chosen: tried under a flood of messages that are
/// expensive to process; with this nothing else was lost.
const LONGEST: Duration = Duration::from_micros(200);

/// The time since which a loop has had a thread of the runtime for itself.
#[derive(Debug)]
pub struct Breath {
    longest: Duration,
    since: Instant,
}

impl Breath {
    /// Starts with the full time of a turn, 200 µs.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a default would hide that the clock is read")]
    pub fn new() -> Self {
        Self::of(LONGEST)
    }

    /// As [`Breath::new`], for a loop that may run for `longest` without yielding.
    #[must_use]
    pub fn of(longest: Duration) -> Self {
        Self { longest, since: Instant::now() }
    }

    /// Runs a part of the loop. Others run while it waits, so that its time begins anew after each wait.
    ///
    /// # Cancel safety
    ///
    /// The same as that of `part`.
    pub async fn during<F: Future>(&mut self, part: F) -> F::Output {
        let (mut part, mut has_waited) = (pin!(part), false);
        poll_fn(|context| {
            if has_waited {
                self.since = Instant::now();
            }
            let polled = part.as_mut().poll(context);
            has_waited = polled.is_pending();
            polled
        })
        .await
    }

    /// Lets other tasks run if the loop has run for long enough.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn take(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.since) >= self.longest {
            task::yield_now().await;
            self.since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::time::{advance, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_ran_for_long_yields() {
        let mut breath = Breath::new();
        assert!(breath.take().now_or_never().is_some());
        advance(LONGEST).await;
        assert!(breath.take().now_or_never().is_none());
    }

    // Issue 9, "Shown by": a router that had waited for its next message yielded after one round, and so its messages
    // left in more writes.
    #[tokio::test(start_paused = true)]
    async fn a_loop_that_waited_for_long_goes_on() {
        let mut breath = Breath::new();
        breath.during(sleep(10 * LONGEST)).await;
        assert!(breath.take().now_or_never().is_some());
    }
}
