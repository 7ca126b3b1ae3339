//! Progress of a demo, on the terminal.
//!
//! # Invariants
//!
//! * It is drawn on standard error, and only if that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::ledger::Ledger;

/// A line that says how far a demo is.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A line for a demo that sends for so long.
    pub(crate) fn new(seconds: u64) -> Self {
        let length = seconds.saturating_mul(1_000);
        // Draws nothing where standard error is no terminal.
        let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{spinner} {prefix} {wide_bar} {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar }
    }

    /// Says what is going on.
    pub(crate) fn phase(&self, phase: &'static str) {
        self.bar.set_prefix(phase);
    }

    /// Says how far the sending is.
    pub(crate) fn show(&self, elapsed: Duration, ledger: &Ledger) {
        self.bar.set_position(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
        self.bar.set_message(format!("{} sent, {} handled", ledger.sent(), ledger.handled()));
    }

    /// Takes the line away.
    pub(crate) fn done(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
