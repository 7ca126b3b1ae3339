//! The connections to one target, and the queue of callers that wait for one.
//!
//! ```text
//!   caller ─▶ admit: [window] ─▶ Slot: [slots] ─▶ take ─▶ Lease ─▶ exchange ─▶ park ─▶ idle connections
//!                                                                    └ cut short: the connection ends
//! ```
//!
//! # Invariants
//!
//! * A connection is either idle here or held together with a slot. It is parked before its slot is freed, and
//!   opened only by a caller that found none idle, so connections never outnumber slots.
//! * Callers are admitted in the order of their arrival: tokio's semaphore is fair, and the first caller in the
//!   window's queue holds it until the window opens.
//! * A connection whose task has ended is not kept.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use gossip::http::HttpError;
use hyper::client::conn::http1::SendRequest;
use runtime::time::{self, Instant};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{
    ClientLimits,
    conn::{Conn, Rest},
    replay::Replay,
    window::Window,
    wire::{Outgoing, Wire},
};

/// A connection that can carry a request.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) sender: SendRequest<Outgoing>,
    pub(super) conn: Arc<Conn>,
    pub(super) wire: Arc<Wire>,
    /// The copy of the request that is under way, if it may be sent again.
    pub(super) replay: Box<Replay>,
}

#[derive(Debug)]
struct Parked {
    live: Live,
    until: Instant,
}

#[derive(Debug, Default)]
struct Idle {
    /// `true` after the pool was closed: no connection is kept any more.
    closed: bool,
    /// Idle connections; the one used last is at the end.
    parked: Vec<Parked>,
}

/// The connections to one target, and its limits.
#[derive(Debug)]
pub(super) struct Pool {
    slots: Semaphore,
    /// A single permit, held by the first caller in the window's queue.
    first: Semaphore,
    window: Option<Mutex<Window>>,
    waiting: AtomicUsize,
    idle: Mutex<Idle>,
}

/// The remaining time of a waiting caller.
#[derive(Debug)]
pub(super) struct Patience<'a> {
    limits: &'a ClientLimits,
    stopped: &'a CancellationToken,
    until: Option<Instant>,
}

impl<'a> Patience<'a> {
    pub(super) const fn new(limits: &'a ClientLimits, stopped: &'a CancellationToken) -> Self {
        Self { limits, stopped, until: None }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    pub(super) fn new(limits: &ClientLimits) -> Arc<Self> {
        Arc::new(Self {
            slots: Semaphore::new(limits.connections.get().min(Semaphore::MAX_PERMITS)),
            first: Semaphore::new(1),
            window: limits.window.map(|window| Mutex::new(Window::new(window))),
            waiting: AtomicUsize::new(0),
            idle: Mutex::default(),
        })
    }

    /// Waits until the window admits another request.
    pub(super) async fn admit(&self, patience: &mut Patience<'_>) -> Result<(), HttpError> {
        let Some(window) = &self.window else { return Ok(()) };
        let admit = || lock(window).admit(time::into_std(Instant::now()));
        if let Ok(_first) = self.first.try_acquire()
            && admit().is_ok()
        {
            return Ok(());
        }
        let admitted = async {
            // Acquiring fails only if the semaphore is closed, which never happens.
            let _first = self.first.acquire().await;
            while let Err(opens) = admit() {
                time::sleep_until(time::from_std(opens)).await;
            }
        };
        Box::pin(self.wait(admitted, patience)).await
    }

    /// Waits for a slot, which allows one connection.
    pub(super) async fn slot(
        self: &Arc<Self>,
        patience: &mut Patience<'_>,
    ) -> Result<Slot, HttpError> {
        let permit = match self.slots.try_acquire() {
            Ok(permit) => Some(permit),
            Err(_busy) => Box::pin(self.wait(self.slots.acquire(), patience)).await?.ok(),
        };
        // The semaphore is never closed. If it were, the caller would see a stopped node.
        let permit = permit.ok_or(HttpError::Stopped)?;
        permit.forget();
        Ok(Slot { pool: Arc::clone(self) })
    }

    async fn wait<T>(
        &self,
        waited: impl Future<Output = T>,
        patience: &mut Patience<'_>,
    ) -> Result<T, HttpError> {
        let Patience { limits, stopped, until } = patience;
        let _place = Place::take(&self.waiting, limits.waiting)?;
        let until = *until.get_or_insert_with(|| Instant::now() + limits.queue);
        tokio::select! {
            biased;
            () = stopped.cancelled() => Err(HttpError::Stopped),
            output = waited => Ok(output),
            () = time::sleep_until(until) => Err(HttpError::QueueTimeout { waited: limits.queue }),
        }
    }

    /// Takes the idle connection that was used last.
    fn take(&self) -> Option<Live> {
        let mut idle = lock(&self.idle);
        // Each connection's task closes it when it has been idle for too long, so its age is not checked here.
        while let Some(Parked { live, .. }) = idle.parked.pop() {
            if !live.sender.is_closed() {
                return Some(live);
            }
        }
        None
    }

    fn park(&self, live: Live, idle_for: Duration) {
        let until = Instant::now() + idle_for;
        let mut idle = lock(&self.idle);
        if !idle.closed && !live.sender.is_closed() {
            idle.parked.push(Parked { live, until });
        }
    }

    /// Closes the idle connections. From now on each connection in use is closed after its exchange.
    pub(super) fn close(&self) {
        let mut idle = lock(&self.idle);
        idle.closed = true;
        let parked = std::mem::take(&mut idle.parked);
        drop(idle);
        drop(parked);
    }

    /// Number of idle connections.
    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        lock(&self.idle).parked.len()
    }

    /// Number of free slots.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.slots.available_permits()
    }
}

/// A place among the waiting callers, counted while it exists.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize, most: usize) -> Result<Self, HttpError> {
        let before = waiting.fetch_add(1, Relaxed);
        let place = Self(waiting);
        if before < most { Ok(place) } else { Err(HttpError::QueueFull { waiting: most }) }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// The permission to use one connection.
#[derive(Debug)]
pub(super) struct Slot {
    pool: Arc<Pool>,
}

impl Slot {
    /// Takes an idle connection that is ready for a request.
    pub(super) async fn idle(&self) -> Option<Live> {
        loop {
            let mut live = self.pool.take()?;
            // hyper may still have to finish the last response, which never waits for the peer.
            if live.conn.ready(&mut live.sender).await {
                return Some(live);
            }
        }
    }

    pub(super) fn entry(&self, wire: &Arc<Wire>) -> Entry {
        Entry { pool: Arc::downgrade(&self.pool), wire: Arc::clone(wire) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.pool.slots.add_permits(1);
    }
}

/// A connection in use. Dropping it ends the connection, and then frees the slot.
#[derive(Debug)]
pub(super) struct Lease {
    fuse: Fuse,
    live: Live,
    slot: Slot,
}

/// Ends a connection when dropped.
#[derive(Debug)]
struct Fuse(Option<Arc<Wire>>);

impl Drop for Fuse {
    fn drop(&mut self) {
        if let Some(wire) = &self.0 {
            wire.abandon();
        }
    }
}

impl Lease {
    pub(super) fn new(live: Live, slot: Slot) -> Self {
        Self { fuse: Fuse(Some(Arc::clone(&live.wire))), live, slot }
    }

    pub(super) const fn live(&mut self) -> &mut Live {
        &mut self.live
    }

    pub(super) fn wire(&self) -> &Wire {
        &self.live.wire
    }

    /// Ends the exchange. The connection is parked if it can carry another one and `idle_for` allows it.
    pub(super) fn finish(self, idle_for: Option<Duration>) {
        let Self { mut fuse, live, slot } = self;
        live.conn.give_back(Rest::Nothing);
        if live.wire.was_sent() {
            // The connection is parked, or closes in an orderly way, so it must not be cut.
            fuse.0 = None;
            if let Some(idle_for) = idle_for {
                slot.pool.park(live, idle_for);
            }
        }
        drop(fuse);
        drop(slot);
    }

    /// Ends the connection, and keeps the slot for another one.
    pub(super) fn give_up(self) -> Slot {
        self.slot
    }
}

/// The connection's entry in its pool, held by its task. Dropping it removes the connection.
#[derive(Debug)]
pub(super) struct Entry {
    pool: Weak<Pool>,
    wire: Arc<Wire>,
}

/// The state of a connection in its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// In use, or ended.
    Busy,
    /// Idle, and to be closed at that time.
    Idle(Instant),
}

impl Entry {
    pub(super) fn wire(&self) -> &Wire {
        &self.wire
    }

    /// Removes the connection from the pool if its idle time is over at `now`, so that it closes.
    pub(super) fn expire(&self, now: Instant) -> Use {
        let Some(pool) = self.pool.upgrade() else { return Use::Busy };
        let mut idle = lock(&pool.idle);
        let Some(at) = self.position(&idle) else { return Use::Busy };
        match idle.parked.get(at).map(|parked| parked.until) {
            Some(until) if now < until => Use::Idle(until),
            _ => {
                drop(idle.parked.remove(at));
                Use::Busy
            }
        }
    }

    fn position(&self, idle: &Idle) -> Option<usize> {
        idle.parked.iter().position(|parked| Arc::ptr_eq(&parked.live.wire, &self.wire))
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            let mut idle = lock(&pool.idle);
            if let Some(at) = self.position(&idle) {
                idle.parked.remove(at);
            }
        }
    }
}
