//! hyper's connection, which its task and the callers of exchanges poll in turn.
//!
//! ```text
//!   task ── polls ─▶ Conn ◀─ polls ── caller, from the request to the head of the response
//! ```
//!
//! A short exchange needs no switch to the connection's task and back: the caller writes its request and reads the
//! response itself.
//!
//! # Invariants
//!
//! * At any time one of them polls, and every wake goes to that one.
//! * While a caller polls, the task enforces the deadlines. It takes over when the caller has the head of the
//!   response, or is gone.
//! * The connection ends with its task. A caller that polls then is woken.

use std::{
    fmt,
    future::{self, Future},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use hyper::client::conn::http1::{Connection, SendRequest};
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;

use super::{
    readiness::Readiness,
    wire::{Counted, Outgoing},
};

/// hyper's connection.
pub(super) struct Conn {
    state: Mutex<State>,
    readiness: Readiness,
    /// The waker that hyper knows.
    waker: Waker,
}

struct State {
    /// `None` after its end.
    connection: Option<Connection<TokioIo<Counted>, Outgoing>>,
    poller: Poller,
    /// The waker of the connection's task, since the task was polled first.
    task: Option<Waker>,
}

/// The side that polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Poller {
    Task,
    Caller,
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn").finish_non_exhaustive()
    }
}

impl Conn {
    /// A connection that its task polls. `readiness` is that of its stream.
    pub(super) fn new(
        connection: Connection<TokioIo<Counted>, Outgoing>,
        readiness: Readiness,
    ) -> Arc<Self> {
        let state = State { connection: Some(connection), poller: Poller::Task, task: None };
        Arc::new(Self { state: Mutex::new(state), waker: readiness.waker(), readiness })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a caller poll from now on, which is to do so at once.
    pub(super) fn lend(&self) {
        let mut state = self.lock();
        state.poller = Poller::Caller;
        self.readiness.wake_nobody();
    }

    /// Has the task poll from now on. It is woken if there is something to do.
    pub(super) fn give_back(&self, rest: Rest) {
        let mut state = self.lock();
        state.poller = Poller::Task;
        if let Some(task) = &state.task {
            self.readiness.wake_next(task);
            // A wake that went to the caller until now is not lost.
            if rest == Rest::Something || self.readiness.is_readable() {
                task.wake_by_ref();
            }
        }
    }

    /// Polls as the connection's task, unless a caller does. Ready at the end of the connection.
    pub(super) fn poll_of_task(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.task.as_ref().is_none_or(|task| !task.will_wake(context.waker())) {
            state.task = Some(context.waker().clone());
        }
        if state.poller == Poller::Caller && state.connection.is_some() {
            return Poll::Pending;
        }
        self.poll(&mut state, context)
    }

    fn poll(&self, state: &mut State, context: &Context<'_>) -> Poll<()> {
        let Some(connection) = &mut state.connection else { return Poll::Ready(()) };
        // Before the poll: a wake in between must reach this task.
        self.readiness.wake_next(context.waker());
        let poll = Pin::new(connection).poll(&mut Context::from_waker(&self.waker));
        poll.map(|ended| {
            state.connection = None;
            if let Err(error) = ended {
                tracing::debug!(%error, "an HTTP connection broke");
            }
        })
    }

    /// Polls as the caller of an exchange.
    fn poll_of_caller(&self, context: &Context<'_>) {
        let mut state = self.lock();
        if self.poll(&mut state, context).is_ready()
            && let Some(task) = &state.task
        {
            task.wake_by_ref();
        }
    }

    /// Waits as a caller until hyper takes the next request. Returns `false` if the connection ends before.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub(super) async fn ready(&self, sender: &mut SendRequest<Outgoing>) -> bool {
        if sender.is_ready() {
            return true;
        }
        self.lend();
        let _lent = Lent(self);
        let ready = future::poll_fn(|context| {
            self.poll_of_caller(context);
            sender.poll_ready(context)
        });
        ready.await.is_ok()
    }

    /// Ends the connection.
    pub(super) fn end(&self) {
        let connection = self.lock().connection.take();
        drop(connection);
        self.readiness.wake();
    }
}

/// Gives a connection back when dropped.
struct Lent<'a>(&'a Conn);

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.0.give_back(Rest::Something);
    }
}

/// The part of an exchange that is left when its caller has the head of the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// The whole response was read.
    Nothing,
    /// The rest of the response, or of the request.
    Something,
}

pin_project! {
    /// The wait for the head of a response, in which the caller polls the connection.
    pub(super) struct Exchange<F> {
        pub(super) conn: Arc<Conn>,
        #[pin]
        pub(super) response: F,
    }
}

impl<F: Future> Future for Exchange<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        this.conn.poll_of_caller(context);
        // Only a poll of the connection, or its end, makes the response ready, and both wake this task.
        let poll = this.response.poll(&mut Context::from_waker(Waker::noop()));
        if poll.is_ready() {
            // hyper wakes its task for each piece of the body that is taken. The next poll is due anyway: the task's, or that of
            // the next exchange.
            this.conn.readiness.wake_nobody();
        }
        poll
    }
}
