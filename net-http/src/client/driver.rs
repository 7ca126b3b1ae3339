//! The task of one connection: it moves the bytes, and looks at the clock now and then.
//!
//! # Invariants
//!
//! * The task ends with its connection: when hyper is done with it, when it was idle for long enough, when
//!   a deadline passed, or when the caller gave up its exchange.
//! * The clock is looked at once in a while, and exactly at the next deadline that is known then. No
//!   deadline is shorter than that while, so none is missed.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use hyper::client::conn::http1::Connection;
use hyper_util::rt::TokioIo;
use tokio::time::{self, Instant, Sleep};

use super::{
    ClientLimits,
    pool::{Entry, Use},
    wire::{Counted, Outgoing},
};

/// The least time between two looks at the clock. Chosen: limits may be set to nothing.
const LEAST_TICK: Duration = Duration::from_millis(10);

pub(super) struct Driver {
    /// Dropped before `entry`: what is parked after that sees that it is closed.
    connection: Connection<TokioIo<Counted>, Outgoing>,
    entry: Entry,
    limits: ClientLimits,
    tick_every: Duration,
    tick: Pin<Box<Sleep>>,
    /// When bytes last moved, or were first waited for.
    moved: Instant,
}

impl Driver {
    pub(super) fn new(
        connection: Connection<TokioIo<Counted>, Outgoing>,
        entry: Entry,
        limits: ClientLimits,
        idle: Duration,
    ) -> Self {
        let tick_every = idle.min(limits.still).min(limits.response).max(LEAST_TICK);
        let tick = Box::pin(time::sleep(tick_every));
        Self { connection, entry, limits, tick_every, tick, moved: Instant::now() }
    }

    /// When to look at the clock again; `None` if the connection was cut.
    fn look(&self, now: Instant) -> Option<Instant> {
        let next = now + self.tick_every;
        if let Use::Idle(until) = self.entry.expire(now) {
            return Some(until.min(next));
        }
        let wire = self.entry.wire();
        match wire.due(self.moved, &self.limits) {
            Some((due, cut)) if due <= now => {
                wire.set_cut(cut);
                None
            }
            Some((due, _cut)) => Some(due.min(next)),
            None => Some(next),
        }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.entry.wire().watch(context);
        if this.entry.wire().is_abandoned() {
            return Poll::Ready(());
        }
        if let Poll::Ready(ended) = Pin::new(&mut this.connection).poll(context) {
            if let Err(error) = ended {
                tracing::debug!(%error, "an HTTP connection broke");
            }
            return Poll::Ready(());
        }
        if this.entry.wire().take_moved() {
            this.moved = Instant::now();
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
