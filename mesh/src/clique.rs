//! The suspicion that all outgoing peers know only each other.
//!
//! # Invariants
//!
//! * Nobody is suspected before consensus was said to make progress once: an application that never says so has
//!   nothing that could stand still.
//! * Between two suspicions lies the whole patience.

use std::time::Duration;

use gossip::Instant;

/// Tells from the progress of consensus whether one of the outgoing peers is to be replaced by a stranger.
/// Source: wire facts 11.4.
#[derive(Clone, Copy, Debug)]
pub struct CliqueCheck {
    patience: Duration,
    /// Time of the last progress, or of the last suspicion since.
    moved: Option<Instant>,
}

impl CliqueCheck {
    /// A check that suspects a clique after so long without progress.
    #[must_use]
    pub const fn new(patience: Duration) -> Self {
        Self { patience, moved: None }
    }

    /// Consensus made progress. Returns `true` if this is the first time.
    pub const fn advanced(&mut self, now: Instant) -> bool {
        let is_first = self.moved.is_none();
        self.moved = Some(now);
        is_first
    }

    /// Returns `true` if a peer is to be replaced now, and waits the whole patience again.
    pub fn suspects(&mut self, now: Instant) -> bool {
        let is_over = self.next().is_some_and(|at| at <= now);
        if is_over {
            self.moved = Some(now);
        }
        is_over
    }

    /// The time of the next suspicion, unless there is progress before; `None` if there will be none.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.moved?.checked_add(self.patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(300);

    #[test]
    fn a_clique_is_suspected_after_five_minutes_without_progress_and_then_every_five() {
        let (mut check, start) = (CliqueCheck::new(PATIENCE), Instant::now());
        assert!(check.advanced(start) && !check.advanced(start));
        let mut suspicions = Vec::new();
        for second in 0..1_000 {
            if check.suspects(start + Duration::from_secs(second)) {
                suspicions.push(second);
            }
        }
        assert_eq!(suspicions, [300, 600, 900]);
    }

    #[test]
    fn progress_puts_a_suspicion_off() {
        let (mut check, start) = (CliqueCheck::new(PATIENCE), Instant::now());
        for minute in 0..60 {
            let now = start + Duration::from_secs(60 * minute);
            assert!(!check.suspects(now));
            check.advanced(now);
        }
        assert_eq!(check.next(), Some(start + Duration::from_secs(60 * 59) + PATIENCE));
    }

    #[test]
    fn a_node_whose_application_never_tells_of_progress_suspects_nobody() {
        let mut check = CliqueCheck::new(PATIENCE);
        assert_eq!(check.next(), None);
        assert!(!check.suspects(Instant::now() + 10 * PATIENCE));
    }
}
