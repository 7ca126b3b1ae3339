//! What the two ends of one connection's service tell each other: the stream below the HTTP library
//! and the handler above it.
//!
//! # Invariants
//!
//! * A connection is dismissed only between two requests: the first byte of a request and the dismissal
//!   are decided by one compare-and-swap.
//! * Code of a handler that runs while a connection is polled, its body's or that of what it drops, may
//!   panic: that ends the connection and nothing else.

use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use futures::{FutureExt, task::AtomicWaker};
use gossip::http::{BoxError, HttpBody};
use http::{HeaderValue, Response, StatusCode, header::CONNECTION};
use http_body::{Body, Frame, SizeHint};

use super::metrics::{Incident, ServeMetrics};

/// What a panic left behind.
pub(crate) type Panic = Box<dyn Any + Send>;

/// A request is awaited for the first time, arriving, or being answered.
const BUSY: u8 = 0;
/// Between two requests.
const IDLE: u8 = 1;
/// Closed between two requests.
const DISMISSED: u8 = 2;

/// Whether a client sent more together with its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pipelined {
    /// It waits for the answer.
    Nothing,
    /// It does not.
    Something,
}

/// Whether some of a request's body has still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyState {
    Here,
    Awaited,
}

/// What a connection does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Busy,
    Idle,
    Dismissed,
}

/// The state of one connection, shared by its [`HeadGuard`](super::HeadGuard), its requests and its seat.
#[derive(Debug)]
pub struct ConnState {
    phase: AtomicU8,
    /// Whether the screen holds something back until the answer is out.
    holds_back: AtomicBool,
    /// Whether the client sent more behind the last head.
    behind: AtomicBool,
    /// Whether some of the last request's body has still to come.
    rest: AtomicBool,
    /// Whether somebody may still read that body.
    read: AtomicBool,
    /// Whether the connection is to end when it is between two requests.
    wanted: AtomicBool,
    waker: AtomicWaker,
    /// Where what happens to the connection is counted.
    metrics: Arc<ServeMetrics>,
}

impl Default for ConnState {
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

impl ConnState {
    /// The line of a connection of which nothing has been read.
    pub(crate) fn new(metrics: Arc<ServeMetrics>) -> Self {
        Self {
            phase: AtomicU8::new(BUSY),
            holds_back: AtomicBool::new(false),
            behind: AtomicBool::new(false),
            rest: AtomicBool::new(false),
            read: AtomicBool::new(false),
            wanted: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            metrics,
        }
    }

    pub(crate) fn metrics(&self) -> &ServeMetrics {
        &self.metrics
    }

    /// Runs a connection with the client at `from` to its end, and notes how it ended.
    ///
    /// # Cancel safety
    ///
    /// As that of `connection`.
    pub async fn run<F>(&self, connection: F, from: &(dyn fmt::Display + Sync))
    where
        F: Future<Output = hyper::Result<()>>,
    {
        match AssertUnwindSafe(connection).catch_unwind().await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, %from, "HTTP connection failed"),
            Err(_panic) => self.note_panic(),
        }
    }

    pub(crate) fn note_panic(&self) {
        tracing::error!("an HTTP handler panicked");
        self.metrics.note(Incident::Panicked);
    }

    /// Whether the client had sent more than its request when the request was passed on.
    pub fn behind(&self) -> Pipelined {
        if self.behind.load(Ordering::Relaxed) { Pipelined::Something } else { Pipelined::Nothing }
    }

    /// Marks the body of an answer, so that its end is known here. Who is answered while its own body has
    /// not come and nobody will read it is told that the connection ends: the HTTP library closes it then,
    /// and another request would be lost.
    #[must_use]
    pub fn answer(self: &Arc<Self>, mut response: Response<HttpBody>) -> Response<Answer> {
        let is_left = self.rest.load(Ordering::Relaxed) && !self.read.load(Ordering::Relaxed);
        if is_left && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response.map(|body| Answer { body, sent: Sent(Arc::clone(self)) })
    }

    pub(crate) fn set_rest(&self, rest: BodyState) {
        self.rest.store(rest == BodyState::Awaited, Ordering::Relaxed);
    }

    /// Somebody may read the body of the request.
    pub(crate) fn body_taken(&self) {
        self.read.store(true, Ordering::Relaxed);
    }

    /// Nobody reads the body of the request any more.
    pub(crate) fn body_given_up(&self) {
        self.read.store(false, Ordering::Relaxed);
    }

    pub(crate) fn set_behind(&self, behind: Pipelined) {
        self.behind.store(behind == Pipelined::Something, Ordering::Relaxed);
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            IDLE => Phase::Idle,
            DISMISSED => Phase::Dismissed,
            _ => Phase::Busy,
        }
    }

    /// A request begins. The answer is whether it may: not after a dismissal.
    pub(crate) fn begin(&self) -> Phase {
        let idle = self.phase.compare_exchange(IDLE, BUSY, Ordering::AcqRel, Ordering::Acquire);
        match idle {
            Err(DISMISSED) => Phase::Dismissed,
            Ok(_) | Err(_) => Phase::Busy,
        }
    }

    /// Closes the connection if it is between two requests.
    pub(crate) fn dismiss(&self) -> Result<(), StillBusy> {
        self.phase
            .compare_exchange(IDLE, DISMISSED, Ordering::SeqCst, Ordering::SeqCst)
            .map_err(|_| StillBusy)?;
        self.waker.wake();
        Ok(())
    }

    /// Closes the connection between this request and the next. The answer is whether nobody else has
    /// asked for that.
    pub(crate) fn dismiss_later(&self) -> bool {
        if self.wanted.swap(true, Ordering::SeqCst) {
            return false;
        }
        // The answer may have gone out before this was noted; if not, its end looks here.
        let _ = self.dismiss();
        true
    }

    /// Remembers whom to wake when the phase changes.
    pub(crate) fn watch(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// The screen has something for after the answer.
    pub(crate) fn hold_back(&self) {
        self.holds_back.store(true, Ordering::Release);
    }

    fn answered(&self) {
        let busy = self.phase.compare_exchange(BUSY, IDLE, Ordering::SeqCst, Ordering::SeqCst);
        if busy.is_err() {
            return;
        }
        if self.wanted.load(Ordering::SeqCst) {
            // A request that has begun already is the last but one to be answered.
            let _ = self.dismiss();
        } else if self.holds_back.swap(false, Ordering::AcqRel) {
            self.waker.wake();
        }
    }
}

/// A connection that cannot be dismissed now.
#[derive(Debug)]
pub(crate) struct StillBusy;

/// The body of an answer.
#[derive(Debug)]
pub struct Answer {
    body: HttpBody,
    sent: Sent,
}

/// Says that an answer is out, or will never be.
#[derive(Debug)]
struct Sent(Arc<ConnState>);

/// The body of an answer panicked.
#[derive(Debug, thiserror::Error)]
#[error("the body of the answer panicked")]
struct BodyPanicked;

impl Drop for Sent {
    fn drop(&mut self) {
        self.0.answered();
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let body = Pin::new(&mut self.body);
        match catch_unwind(AssertUnwindSafe(|| body.poll_frame(context))) {
            Ok(polled) => polled,
            Err(_panic) => {
                self.sent.0.note_panic();
                Poll::Ready(Some(Err(BodyPanicked.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_idle_connection_is_dismissed() {
        let line = Arc::new(ConnState::default());
        assert!(line.dismiss().is_err());
        drop(line.answer(Response::new(HttpBody::empty())));
        assert_eq!(line.phase(), Phase::Idle);
        assert_eq!(line.begin(), Phase::Busy);
        assert!(line.dismiss().is_err());
        drop(line.answer(Response::new(HttpBody::empty())));
        line.dismiss().unwrap();
        assert_eq!(line.begin(), Phase::Dismissed);
    }

    #[test]
    fn a_busy_connection_may_be_dismissed_for_later_once() {
        let line = Arc::new(ConnState::default());
        assert!(line.dismiss_later());
        assert!(!line.dismiss_later());
        assert_eq!(line.phase(), Phase::Busy);
        drop(line.answer(Response::new(HttpBody::empty())));
        assert_eq!(line.begin(), Phase::Dismissed);
    }
}
