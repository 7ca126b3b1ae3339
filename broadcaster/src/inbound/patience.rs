//! Waiting of a message for what it needs to enter, and reasons to refuse it.
//!
//! # Invariants
//!
//! * Every wait has a deadline.
//! * A message that is lost while it waits is counted once, also when the waiting is cancelled.

use futures::FutureExt;
use gossip::{DisconnectReason, Lane};
use runtime::time;

use crate::{
    context::Context,
    metrics::{DropReason, Metrics},
};

/// The way in which the bringer of a message meets a full queue: a connection waits, a topic cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Wait, at most [`Limits::inbound_wait`](crate::Limits::inbound_wait) for each thing.
    Waits,
    /// Do not wait.
    Hurries,
}

/// Why a message was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There was no room for it; it was counted.
    NoRoom,
    /// Its sender is to be disconnected.
    End(DisconnectReason),
}

impl Patience {
    /// Waits for what a message needs to go on. If it gets nothing, or the future is dropped, the message
    /// is counted as lost.
    pub(crate) async fn wait<T>(
        self,
        context: &Context,
        lane: Lane,
        lost: DropReason,
        wait: impl Future<Output = T>,
    ) -> Result<T, Refusal> {
        let mut lost = Lost { metrics: &context.metrics, lane, reason: Some(lost) };
        let got = match self {
            Self::Hurries => wait.now_or_never().ok_or(Refusal::NoRoom)?,
            Self::Waits => time::timeout(context.limits.inbound_wait, wait)
                .await
                .map_err(|_elapsed| Refusal::End(DisconnectReason::Stalled))?,
        };
        lost.reason = None;
        Ok(got)
    }
}

/// Counts a message that is lost while it waits.
struct Lost<'a> {
    metrics: &'a Metrics,
    lane: Lane,
    reason: Option<DropReason>,
}

impl Drop for Lost<'_> {
    fn drop(&mut self) {
        if let Some(reason) = self.reason {
            self.metrics.dropped(reason, self.lane);
        }
    }
}
