//! Cooperative yielding: a loop that always has work lets others run by time.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;

use crate::time::{self, Instant};

/// Longest time that a loop runs without yielding. Chosen: tried under a flood of messages that are
/// expensive to process; with this nothing else was lost.
#[cfg(not(target_family = "wasm"))]
const LONGEST: Duration = Duration::from_micros(200);

/// Longest time that a loop runs without yielding. Chosen: a page shows sixty pictures a second, and a turn of its events
/// takes a millisecond at least.
#[cfg(target_family = "wasm")]
const LONGEST: Duration = Duration::from_millis(8);

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
    pub const fn during<F: Future>(&mut self, part: F) -> During<'_, F> {
        During { part, breath: self, has_waited: false }
    }

    /// Lets other tasks run if the loop has run for long enough.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn take(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.since) >= self.longest {
            time::give_way().await;
            self.since = Instant::now();
        }
    }
}

pin_project! {
    /// A part of a loop, as [`Breath::during`] runs it. It holds its part once; an async function would hold it as an
    /// argument, too.
    #[derive(Debug)]
    #[must_use = "a future does nothing unless it is polled"]
    pub struct During<'a, F> {
        #[pin]
        part: F,
        breath: &'a mut Breath,
        has_waited: bool,
    }
}

impl<F: Future> Future for During<'_, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if *this.has_waited {
            this.breath.since = Instant::now();
        }
        let polled = this.part.poll(context);
        *this.has_waited = polled.is_pending();
        polled
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

    // Issue 10, "Shown by": it was kept twice.
    #[tokio::test(start_paused = true)]
    async fn a_part_is_kept_once() {
        let (large, mut breath) = ([0_u8; 4_096], Breath::new());
        let part = async move {
            sleep(LONGEST).await;
            large
        };
        let alone = size_of_val(&part);
        assert!(size_of_val(&breath.during(part)) < alone + 64);
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
