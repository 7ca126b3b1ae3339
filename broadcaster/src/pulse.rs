//! How long this node itself stood still: because a handler kept the threads, the machine was busy, or
//! the process was stopped.
//!
//! # Invariants
//!
//! * A task beats ten times a second. What it is late by is time in which no peer could show that it
//!   reads, and is held against nobody.
//! * What is remembered is bounded in number; the oldest goes first.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::shared::Shared;

/// How often the node shows that it runs.
const BEAT: Duration = Duration::from_millis(100);
/// How late a beat may be without its being a stall. Chosen: what a loaded machine takes to get round to
/// a task.
const TOLERANCE: Duration = Duration::from_millis(100);
/// Stalls that are remembered. Chosen: no limit of this node looks back further.
const MAX_REMEMBERED: usize = 256;

/// What is known of the node's stalls.
#[derive(Debug)]
pub(crate) struct Pulse(Mutex<Beats>);

#[derive(Debug)]
struct Beats {
    last: Instant,
    /// Each stall, by when it ended and how long it was.
    stalls: VecDeque<(Instant, Duration)>,
}

impl Pulse {
    pub(crate) fn new(now: Instant) -> Self {
        Self(Mutex::new(Beats { last: now, stalls: VecDeque::new() }))
    }

    fn beats(&self) -> MutexGuard<'_, Beats> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the node runs, and says for how long it did not.
    fn beat(&self, now: Instant) -> Duration {
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

    /// How much of the `time` before `now` the node stood still. The clock is that of the machine: a
    /// paused clock of a test does not stand still for anybody.
    pub(crate) fn stalled(&self, time: Duration, now: Instant) -> Duration {
        let beats = self.beats();
        let ended = beats.stalls.iter().rev().map_while(|&(end, stall)| {
            let left = time.checked_sub(now.saturating_duration_since(end))?;
            Some(stall.min(left))
        });
        ended.sum::<Duration>() + beats.late_by(now).min(time)
    }
}

impl Beats {
    fn late_by(&self, now: Instant) -> Duration {
        let late = now.saturating_duration_since(self.last).saturating_sub(BEAT);
        if late > TOLERANCE { late } else { Duration::ZERO }
    }
}

/// Beats until cancelled.
pub(crate) async fn run(shared: Arc<Shared>, cancel: CancellationToken) {
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            () = time::sleep(BEAT) => {
                shared.metrics.stood_still(shared.pulse.beat(Instant::now()));
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

    // Issue 8, 25.
    #[test]
    fn a_beat_that_is_late_was_a_stall_and_one_in_time_was_none() {
        let start = Instant::now();
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
        let start = Instant::now();
        let pulse = Pulse::new(start);
        assert_eq!(pulse.stalled(ms(60_000), start + ms(100_100)), ms(60_000));
        assert_eq!(pulse.stalled(ms(60_000), start + ms(10_100)), ms(10_000));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let start = Instant::now();
        let pulse = Pulse::new(start);
        for number in 1..2_000 {
            pulse.beat(start + ms(1_000 * number));
        }
        assert_eq!(pulse.beats().stalls.len(), MAX_REMEMBERED);
    }
}
