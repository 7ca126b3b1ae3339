//! The waits of a connection for the other side, in both directions, under one timer.
//!
//! # Invariants
//!
//! * A connection waits to read one thing at a time: a head, a body, or the next request.
//! * The timer fires no later than any deadline, and is moved to a later one only when it fires, so that a
//!   read which is soon over touches no timer.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// Since when a connection waits, and the timer that wakes it.
#[derive(Debug)]
pub(super) struct Deadlines {
    timer: Pin<Box<Sleep>>,
    /// Since when a read waits for what it waits for.
    reading: Option<Instant>,
    /// Since when nothing could be written.
    writing: Option<Instant>,
}

impl Deadlines {
    /// The read begins to wait now, and has `limit` for it.
    pub(super) fn reading(limit: Duration) -> Self {
        let now = Instant::now();
        Self { timer: Box::pin(sleep_until(now + limit)), reading: Some(now), writing: None }
    }

    /// A read waits.
    pub(super) const fn read_waits(&self) -> bool {
        self.reading.is_some()
    }

    /// The awaited bytes came. The next wait begins when a read is pending.
    pub(super) const fn read_went_on(&mut self) {
        self.reading = None;
    }

    /// A read is pending: `true` if it has waited for `limit`. If not, the task is woken then, or earlier.
    pub(super) fn read_is_overdue(&mut self, context: &mut Context<'_>, limit: Duration) -> bool {
        let since = *self.reading.get_or_insert_with(Instant::now);
        self.is_past(context, since + limit)
    }

    /// A write went through.
    pub(super) const fn write_went_on(&mut self) {
        self.writing = None;
    }

    /// A write is pending: `true` if it has waited for `limit`. If not, the task is woken then, or earlier.
    pub(super) fn write_is_overdue(&mut self, context: &mut Context<'_>, limit: Duration) -> bool {
        let since = *self.writing.get_or_insert_with(Instant::now);
        self.is_past(context, since + limit)
    }

    /// `true` if `due` has passed. If not, the task is woken then, or earlier.
    pub(super) fn is_past(&mut self, context: &mut Context<'_>, due: Instant) -> bool {
        loop {
            if self.timer.deadline() > due {
                self.timer.as_mut().reset(due);
            }
            if self.timer.as_mut().poll(context) == Poll::Pending {
                return false;
            }
            if Instant::now() >= due {
                return true;
            }
            self.timer.as_mut().reset(due);
        }
    }
}
