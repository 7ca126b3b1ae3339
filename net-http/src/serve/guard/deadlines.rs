//! The deadlines of a connection's reads and writes, on one timer.
//!
//! # Invariants
//!
//! * A connection waits to read one item at a time: a head, a body, or the next request.
//! * The timer fires no later than any deadline, and is moved to a later one only when it fires, so that a
//!   short read does not touch the timer.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use runtime::time::{Instant, Sleep, sleep_until};

/// The start times of the current waits, and the timer.
#[derive(Debug)]
pub(super) struct Deadlines {
    timer: Pin<Box<Sleep>>,
    /// The waker that the timer holds. A task keeps its waker, so that most waits find the timer set.
    known: Option<Waker>,
    /// The time since which a read waits; `None` if none does.
    reading: Option<Instant>,
    /// The time since which a write waits; `None` if none does.
    writing: Option<Instant>,
}

impl Deadlines {
    /// Starts a wait to read now, with the deadline `limit`.
    pub(super) fn reading(limit: Duration) -> Self {
        let now = Instant::now();
        let timer = Box::pin(sleep_until(now + limit));
        Self { timer, known: None, reading: Some(now), writing: None }
    }

    /// Returns `true` if a read waits.
    pub(super) const fn read_waits(&self) -> bool {
        self.reading.is_some()
    }

    /// Records that the awaited bytes arrived. The next wait starts when a read is pending.
    pub(super) const fn read_went_on(&mut self) {
        self.reading = None;
    }

    /// Checks a pending read. Returns `true` if it has waited for `limit`; otherwise the task is woken by then.
    pub(super) fn read_is_overdue(&mut self, context: &mut Context<'_>, limit: Duration) -> bool {
        let since = *self.reading.get_or_insert_with(Instant::now);
        self.is_past(context, since + limit)
    }

    /// Records that a write succeeded.
    pub(super) const fn write_went_on(&mut self) {
        self.writing = None;
    }

    /// Checks a pending write. Returns `true` if it has waited for `limit`; otherwise the task is woken by
    /// then.
    pub(super) fn write_is_overdue(&mut self, context: &mut Context<'_>, limit: Duration) -> bool {
        let since = *self.writing.get_or_insert_with(Instant::now);
        self.is_past(context, since + limit)
    }

    /// Returns `true` if `due` has passed; otherwise the task is woken by then.
    pub(super) fn is_past(&mut self, context: &mut Context<'_>, due: Instant) -> bool {
        // A browser's timer may fire a little before its moment, and is to be asked again then.
        let is_set = !cfg!(target_family = "wasm")
            && self.known.as_ref().is_some_and(|waker| waker.will_wake(context.waker()));
        if is_set && self.timer.deadline() <= due && !self.timer.is_elapsed() {
            return false;
        }
        loop {
            if self.timer.deadline() > due {
                self.timer.as_mut().reset(due);
            }
            if self.timer.as_mut().poll(context) == Poll::Pending {
                if !is_set {
                    self.known = Some(context.waker().clone());
                }
                return false;
            }
            if Instant::now() >= due {
                return true;
            }
            self.timer.as_mut().reset(due);
        }
    }
}
