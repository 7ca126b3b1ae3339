//! The task of one connection: it moves the bytes while no caller does, and enforces deadlines.
//!
//! # Invariants
//!
//! * The task ends with its connection: when hyper has finished it, when it was idle for too long, when a
//!   deadline passed, or when the caller dropped its exchange.
//! * The clock is read on a timer, not for every request. A connection is never idle for longer than allowed.
//!   The deadlines for a stall and for the head of a response fire up to a sixteenth too late, never too
//!   early.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use runtime::time::{self, Instant, Sleep};

use super::{
    ClientLimits,
    conn::Conn,
    pool::{Entry, Use},
    wire::Seen,
};

/// Shortest interval between two reads of the clock. Chosen: limits of zero must not make the task spin.
const LEAST_TICK: Duration = Duration::from_millis(10);

pub(super) struct Driver {
    conn: Arc<Conn>,
    entry: Entry,
    seen: Seen,
    tick_every: Duration,
    tick: Pin<Box<Sleep>>,
    /// The waker that `tick` and the caller's side hold. A task keeps its waker, so most polls need not
    /// register it again.
    known: Option<Waker>,
}

impl Driver {
    pub(super) fn new(conn: Arc<Conn>, entry: Entry, limits: ClientLimits, idle: Duration) -> Self {
        // At most the idle time, so that a connection that becomes idle is checked before it must be closed.
        let tick_every = idle.min(limits.still / 16).min(limits.response / 16).max(LEAST_TICK);
        let tick = Box::pin(time::sleep(tick_every));
        let seen = Seen::new(limits, Instant::now());
        Self { conn, entry, seen, tick_every, tick, known: None }
    }

    /// Checks the deadlines. Returns the time of the next check; `None` if the connection was cut.
    fn look(&mut self, now: Instant) -> Option<Instant> {
        let next = now + self.tick_every;
        if let Use::Idle(until) = self.entry.expire(now) {
            return Some(until.min(next));
        }
        let wire = self.entry.wire();
        match wire.due(&mut self.seen, now) {
            Some((due, cut)) if due <= now => {
                wire.set_cut(cut);
                None
            }
            Some((due, _cut)) => Some(due.min(next)),
            None => Some(next),
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Before `entry` is dropped, so that a connection parked afterwards is seen as closed.
        self.conn.end();
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let known = this.known.as_ref().is_some_and(|waker| waker.will_wake(context.waker()));
        if !known {
            this.entry.wire().watch(context);
            this.known = Some(context.waker().clone());
        }
        if this.entry.wire().is_abandoned() {
            return Poll::Ready(());
        }
        if this.conn.poll_of_task(context).is_ready() {
            return Poll::Ready(());
        }
        // A browser's timer may fire a little before its moment, and is to be asked again then.
        let is_told = cfg!(not(target_family = "wasm"));
        if is_told && known && !this.tick.is_elapsed() {
            return Poll::Pending;
        }
        while this.tick.as_mut().poll(context).is_ready() {
            match this.look(Instant::now()) {
                Some(next) => this.tick.as_mut().reset(next),
                None => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }
}
