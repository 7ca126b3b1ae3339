//! Lines that strangers, or a lasting state, would otherwise write over and over.
//!
//! # Invariants
//!
//! * One line at most comes in a period; the next one says how many were left out.
//! * The first occurrence after a quiet period is told at once.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::time::Instant;

/// Lets one occurrence in a period through, and counts the others.
///
/// ```
/// # use tandem_runtime::Rarely;
/// let complaints = Rarely::new();
/// if let Some(left_out) = complaints.due() {
///     tracing::warn!(left_out, "a handshake failed");
/// }
/// assert_eq!(complaints.due(), None);
/// ```
#[derive(Debug)]
pub struct Rarely {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    told: Option<Instant>,
    left_out: u64,
}

impl Rarely {
    /// At most one line in so long. Chosen: a day of it fills a screen or two, and who looks at the log
    /// of the last minutes finds it.
    pub const PERIOD: Duration = Duration::from_secs(60);

    /// Nothing was told yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { state: Mutex::new(State { told: None, left_out: 0 }) }
    }

    /// Says whether to tell this occurrence: `Some` with the number of those that were left out since the
    /// last one that was told.
    pub fn due(&self) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.told.is_some_and(|told| told.elapsed() < Self::PERIOD) {
            state.left_out = state.left_out.saturating_add(1);
            return None;
        }
        state.told = Some(Instant::now());
        Some(std::mem::take(&mut state.left_out))
    }
}

impl Default for Rarely {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time;

    use super::*;

    // Issue 8, 29: 1,018 lines in 3 s.
    #[tokio::test(start_paused = true)]
    async fn of_many_occurrences_one_in_a_period_is_told_and_the_others_are_counted() {
        let lines = Rarely::new();
        assert_eq!(lines.due(), Some(0));
        for _ in 0..1_000 {
            assert_eq!(lines.due(), None);
        }
        time::advance(Rarely::PERIOD).await;
        assert_eq!(lines.due(), Some(1_000));
        assert_eq!(lines.due(), None);
        time::advance(10 * Rarely::PERIOD).await;
        assert_eq!(lines.due(), Some(1));
    }
}
