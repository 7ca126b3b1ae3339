//! Stalls of this node itself: a handler kept the threads, the machine was busy, or
//! the process was stopped.
//!
//! # Invariants
//!
//! * A task beats ten times a second. What it is late by is time in which no peer could show that it
//!   reads, and is held against nobody.
//! * Only what passes on the clock of the runtime and on that of the machine is a stall: a clock that a
//!   test moves, or stops, stands still for nobody.
//! * The number of remembered stalls is bounded; the oldest goes first.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use runtime::time::{self, StdInstant};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Interval of the beats by which the node shows that it runs. Chosen: shorter stalls matter to no deadline.
const BEAT: Duration = Duration::from_millis(100);
/// Lateness up to which a beat is no stall. Chosen: what a loaded machine takes to get round to
/// a task.
const TOLERANCE: Duration = Duration::from_millis(100);
/// Stalls that are remembered. Chosen: no limit of this node looks back further.
const MAX_REMEMBERED: usize = 256;

/// A moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    runtime: time::Instant,
    machine: StdInstant,
}

impl Moment {
    pub(crate) fn now() -> Self {
        Self { runtime: time::Instant::now(), machine: StdInstant::now() }
    }

    fn since(self, before: Self) -> Duration {
        let runtime = self.runtime.saturating_duration_since(before.runtime);
        runtime.min(self.machine.saturating_duration_since(before.machine))
    }
}

/// The stalls of the node of late.
#[derive(Debug)]
pub(crate) struct Pulse(Mutex<Beats>);

#[derive(Debug)]
struct Beats {
    last: Moment,
    /// Each stall, by when it ended and how long it was.
    stalls: VecDeque<(Moment, Duration)>,
}

impl Pulse {
    pub(crate) fn new(now: Moment) -> Self {
        Self(Mutex::new(Beats { last: now, stalls: VecDeque::new() }))
    }

    fn beats(&self) -> MutexGuard<'_, Beats> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the node runs, and says for how long it did not.
    fn beat(&self, now: Moment) -> Duration {
        let mut beats = self.beats();
        let stall = beats.late_by(now);
        beats.last = now;
        if !stall.is_zero() {
            beats.stalls.push_back((now, stall));
            if beats.stalls.len() > MAX_REMEMBERED {
                beats.stalls.pop_front();
            }
        }
        stall
    }

    /// Resolves when `limit` has passed from now on, not counting the time in which the node stands still.
    ///
    /// # Cancel safety
    ///
    /// Safe: the time starts anew with the next call.
    pub(crate) async fn passes(&self, limit: Duration) {
        let began = time::Instant::now();
        let mut excused = Duration::ZERO;
        loop {
            time::sleep_until(began + limit + excused).await;
            let stalled = self.stalled(began.elapsed(), Moment::now());
            if stalled <= excused {
                return;
            }
            excused = stalled;
        }
    }

    /// The part of the `time` before `now` in which the node stood still.
    pub(crate) fn stalled(&self, time: Duration, now: Moment) -> Duration {
        let beats = self.beats();
        let ended = beats.stalls.iter().rev().map_while(|&(end, stall)| {
            let left = time.checked_sub(now.runtime.saturating_duration_since(end.runtime))?;
            Some(stall.min(left))
        });
        ended.sum::<Duration>() + beats.late_by(now).min(time)
    }
}

impl Beats {
    fn late_by(&self, now: Moment) -> Duration {
        let late = now.since(self.last).saturating_sub(BEAT);
        if late > TOLERANCE { late } else { Duration::ZERO }
    }
}

/// Beats until cancelled.
pub(crate) async fn run(pulse: Arc<Pulse>, metrics: Metrics, cancel: CancellationToken) {
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            () = time::sleep(BEAT) => {
                metrics.stood_still(pulse.beat(Moment::now()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    impl std::ops::Add<Duration> for Moment {
        type Output = Self;

        fn add(self, time: Duration) -> Self {
            Self { runtime: self.runtime + time, machine: self.machine + time }
        }
    }

    #[test]
    fn a_clock_that_a_test_moves_stands_still_for_nobody() {
        let start = Moment::now();
        let pulse = Pulse::new(start);
        let moved = Moment { runtime: start.runtime + ms(60_000), ..start };
        assert_eq!(pulse.stalled(ms(60_000), moved), ms(0));
        let paused = Moment { machine: start.machine + ms(60_000), ..start };
        assert_eq!(pulse.stalled(ms(60_000), paused), ms(0));
    }

    // Issue 8, 25.
    #[test]
    fn a_beat_that_is_late_was_a_stall_and_one_in_time_was_none() {
        let start = Moment::now();
        let pulse = Pulse::new(start);
        assert_eq!(pulse.beat(start + ms(150)), ms(0));
        assert_eq!(pulse.beat(start + ms(5_250)), ms(5_000));
        let now = start + ms(6_000);
        assert_eq!(pulse.beat(start + ms(5_950)), ms(600), "and another");
        assert_eq!(pulse.stalled(ms(60_000), now), ms(5_600));
        assert_eq!(pulse.stalled(ms(2_000), now), ms(600) + ms(1_250), "only that part of it");
        assert_eq!(pulse.stalled(ms(10), now), ms(0), "that was before");
    }

    // Issue 8, 25.
    #[test]
    fn a_stall_counts_before_the_beat_that_ends_it() {
        let start = Moment::now();
        let pulse = Pulse::new(start);
        assert_eq!(pulse.stalled(ms(60_000), start + ms(100_100)), ms(60_000));
        assert_eq!(pulse.stalled(ms(60_000), start + ms(10_100)), ms(10_000));
    }

    #[test]
    fn remembered_stalls_are_bounded() {
        let start = Moment::now();
        let pulse = Pulse::new(start);
        for number in 1..2_000 {
            pulse.beat(start + ms(1_000 * number));
        }
        assert_eq!(pulse.beats().stalls.len(), MAX_REMEMBERED);
    }
}
