//! The pauses of an accept loop while the system refuses to accept.
//!
//! # Invariants
//!
//! * A loop never spins: it waits between 20 ms and 1 s after a refusal, twice as long after
//!   each in a row.
//! * A lasting refusal, such as too many open files, is logged once and then rarely.
//! * A client that went away before it was accepted is no refusal: the next one is accepted at once.

use std::{io, time::Duration};

use crate::{rarely::Rarely, time};

/// First pause. Chosen: one descriptor may come free within it.
const SHORTEST: Duration = Duration::from_millis(20);

/// Longest pause. Chosen: whoever waits in the backlog notices no more than that once there is room.
const LONGEST: Duration = Duration::from_secs(1);

/// The pauses of one accept loop.
#[derive(Debug)]
pub struct AcceptPause {
    what: &'static str,
    next: Duration,
    lines: Rarely,
}

impl AcceptPause {
    /// For a loop that accepts `what`, as its lines name it.
    #[must_use]
    pub const fn new(what: &'static str) -> Self {
        Self { what, next: SHORTEST, lines: Rarely::new() }
    }

    /// A connection was accepted.
    pub const fn accepted(&mut self) {
        self.next = SHORTEST;
    }

    /// Accepting failed: waits for as long as is good.
    ///
    /// # Cancel safety
    ///
    /// Safe: a wait that is dropped is shorter, and nothing else.
    pub async fn refused(&mut self, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
        if let ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted = error.kind()
        {
            return;
        }
        if let Some(left_out) = self.lines.due() {
            tracing::warn!(%error, left_out, "cannot accept {}", self.what);
        }
        let pause = self.next;
        self.next = (2 * pause).min(LONGEST);
        time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    // Issue 8, 4: 20 warnings a second, and accept loops that come back at once.
    #[tokio::test(start_paused = true)]
    async fn refusals_in_a_row_are_waited_out_longer_and_longer() {
        let (mut pause, began) = (AcceptPause::new("a connection"), Instant::now());
        let full = io::Error::from_raw_os_error(24);
        for _ in 0..12 {
            pause.refused(&full).await;
        }
        // 20, 40, 80, 160, 320 and 640 ms, and six times a second.
        assert_eq!(began.elapsed(), Duration::from_millis(1_260 + 6_000));
        pause.accepted();
        let again = Instant::now();
        pause.refused(&full).await;
        assert_eq!(again.elapsed(), SHORTEST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_went_away_is_not_waited_for() {
        let (mut pause, began) = (AcceptPause::new("a connection"), Instant::now());
        pause.refused(&io::ErrorKind::ConnectionAborted.into()).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
