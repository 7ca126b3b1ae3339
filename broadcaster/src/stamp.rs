//! A time in one number, for what is noted of every message to every peer.
//!
//! # Invariants
//!
//! * The difference of two stamps is that of their instants, to a microsecond, as long as both are later than a day
//!   before the program's first stamp.

use std::{sync::LazyLock, time::Duration};

use runtime::time::{self, Instant, StdInstant};

/// The time before the first stamp that has a stamp, too: clocks of tests can be paused, and stand behind.
const BEFORE: Duration = Duration::from_secs(24 * 60 * 60);

static EPOCH: LazyLock<StdInstant> = LazyLock::new(|| {
    let now = StdInstant::now();
    now.checked_sub(BEFORE).unwrap_or(now)
});

/// A moment, in microseconds since a time of this process. Comparing and subtracting two costs an instruction each, where two
/// instants cost forty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp(u64);

impl Stamp {
    /// The stamp of an instant.
    pub(crate) fn of(at: Instant) -> Self {
        let since = time::into_std(at).saturating_duration_since(*EPOCH);
        // Without the division of 128 bits that `as_micros` makes.
        Self(since.as_secs() * 1_000_000 + u64::from(since.subsec_micros()))
    }

    /// The microseconds from `earlier` to this; zero if it is not earlier.
    pub(crate) const fn micros_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The time from `earlier` to this; zero if it is not earlier.
    pub(crate) const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.micros_since(earlier))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Issue 12: a subtraction of instants for every delivery was a twelfth of its instructions.
    #[test]
    fn stamps_are_as_far_apart_as_their_instants() {
        let now = Instant::now();
        let hour = Duration::from_secs(3_600);
        for us in [0, 1, 999, 1_000_000, 86_400_000_000] {
            let time = Duration::from_micros(us);
            assert_eq!(Stamp::of(now + time).since(Stamp::of(now)), time);
            assert_eq!(Stamp::of(now).since(Stamp::of(now + time)), Duration::ZERO);
        }
        // A paused clock may stand behind the first stamp.
        let before =
            now.checked_sub(hour).expect("the machine is up for an hour, or has signed times");
        assert_eq!(Stamp::of(now).since(Stamp::of(before)), hour);
    }
}
