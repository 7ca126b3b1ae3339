//! The interface of futures-timer over tokio's clock. The original uses a thread, which does not follow a
//! paused clock.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep};

/// A future that resolves after a time.
#[derive(Debug)]
pub struct Delay {
    /// Created on the first poll, because a delay may be created outside a runtime.
    sleep: Option<Pin<Box<Sleep>>>,
    after: Duration,
}

impl Delay {
    /// Resolves `after` the first poll.
    pub fn new(after: Duration) -> Self {
        Self { sleep: None, after }
    }

    /// Resolves `after` now.
    pub fn reset(&mut self, after: Duration) {
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(Instant::now() + after),
            None => self.after = after,
        }
    }
}

impl Future for Delay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let after = self.after;
        self.sleep.get_or_insert_with(|| Box::pin(sleep(after))).as_mut().poll(context)
    }
}
