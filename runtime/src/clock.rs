//! The time of day.
//!
//! # Invariants
//!
//! * It is shown to others, and never decides how long anything takes: it may jump by years.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use crate::time::{self, Instant};

/// The time of day. A cheap handle; clones show the same time.
#[derive(Clone, Debug)]
pub struct WallClock {
    base: Base,
    /// By how much it was set, in seconds.
    set_by: Arc<AtomicI64>,
}

#[derive(Clone, Copy, Debug)]
enum Base {
    System,
    /// It goes with tokio's clock, which stands still when that is paused.
    Virtual {
        at: SystemTime,
        started: Instant,
    },
}

impl WallClock {
    /// The system's.
    #[must_use]
    pub fn system() -> Self {
        Self::new(Base::System)
    }

    /// Shows `at` now, and goes with tokio's clock from now on.
    #[must_use]
    pub fn starting_at(at: SystemTime) -> Self {
        Self::new(Base::Virtual { at, started: Instant::now() })
    }

    fn new(base: Base) -> Self {
        Self { base, set_by: Arc::default() }
    }

    /// Returns the time that the clock shows.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        let now = match self.base {
            Base::System => time::of_day(),
            Base::Virtual { at, started } => at + started.elapsed(),
        };
        let set_by = self.set_by.load(Ordering::Relaxed);
        let by = Duration::from_secs(set_by.unsigned_abs());
        let set = if set_by < 0 { now.checked_sub(by) } else { now.checked_add(by) };
        set.unwrap_or(now)
    }

    /// Sets it forwards, or backwards, by so many seconds, for every holder.
    pub fn set_by(&self, seconds: i64) {
        self.set_by.fetch_add(seconds, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_goes_with_the_paused_clock_and_can_be_set() {
        let clock = WallClock::starting_at(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(clock.now(), SystemTime::UNIX_EPOCH + Duration::from_secs(1_005));
        clock.clone().set_by(-1_000);
        assert_eq!(clock.now(), SystemTime::UNIX_EPOCH + Duration::from_secs(5));
    }
}
