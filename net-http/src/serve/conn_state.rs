//! The state of one connection, shared by the stream below the HTTP library, the handler above it, and the
//! table of permits.
//!
//! # Invariants
//!
//! * A connection is dismissed only between two requests: a single compare-and-swap decides between the first
//!   byte of a request and the dismissal.
//! * Handler code that runs while a connection is polled, such as a body's `poll_frame` or a `drop`, may panic:
//!   that ends the connection and nothing else.

use std::{
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

use super::metrics::ServeMetrics;

/// Waiting for the first request, reading a request, or answering one.
const BUSY: u8 = 0;
/// Between two requests.
const IDLE: u8 = 1;
/// Closed between two requests.
const DISMISSED: u8 = 2;

/// Bytes after the head of a request that arrived together with it: its body, or the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pipelined {
    /// None: the client waits for the answer.
    Nothing,
    /// At least one.
    Something,
}

/// The progress of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyState {
    /// The whole body was read.
    Here,
    /// Some of the body, or all of it, has not arrived yet.
    Awaited,
}

/// The phase of a connection: in a request, between requests, or closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Busy,
    Idle,
    Dismissed,
}

/// The state of one connection, shared by its `HeadGuard`, its requests and its permit.
#[derive(Debug)]
pub(crate) struct ConnState {
    phase: AtomicU8,
    /// Set when the guard must be woken after the answer was sent.
    wakes: AtomicBool,
    /// Set when the client sent more bytes after the last head.
    pipelined: AtomicBool,
    /// Set when some of the last request's body has not arrived yet.
    awaits_body: AtomicBool,
    /// Set while the handler, or code it gave the body to, may still read it.
    has_reader: AtomicBool,
    /// Set when the connection must end as soon as it is between two requests.
    is_wanted: AtomicBool,
    /// The task that polls the connection.
    waker: AtomicWaker,
    metrics: Arc<ServeMetrics>,
}

impl Default for ConnState {
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

impl ConnState {
    /// The state of a new connection.
    pub(crate) fn new(metrics: Arc<ServeMetrics>) -> Self {
        Self {
            phase: AtomicU8::new(BUSY),
            wakes: AtomicBool::new(false),
            pipelined: AtomicBool::new(false),
            awaits_body: AtomicBool::new(false),
            has_reader: AtomicBool::new(false),
            is_wanted: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            metrics,
        }
    }

    pub(crate) fn metrics(&self) -> &ServeMetrics {
        &self.metrics
    }

    /// Runs the connection of the client at `from` to its end, and counts how it ended.
    ///
    /// # Cancel safety
    ///
    /// The same as that of `connection`.
    pub(crate) async fn run<F, E>(&self, connection: F, from: &(dyn fmt::Display + Sync))
    where
        F: Future<Output = Result<(), E>>,
        E: fmt::Display,
    {
        match AssertUnwindSafe(connection).catch_unwind().await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, %from, "HTTP connection failed"),
            Err(_panic) => self.note_panic(),
        }
    }

    pub(crate) fn note_panic(&self) {
        self.metrics.note_panic();
    }

    /// The bytes after the head that had arrived when the request was passed on.
    pub(crate) fn pipelined(&self) -> Pipelined {
        match self.pipelined.load(Ordering::Relaxed) {
            true => Pipelined::Something,
            false => Pipelined::Nothing,
        }
    }

    /// Wraps the body of an answer, so that its end becomes known. If some of the request's body has not
    /// arrived and has no reader, adds `Connection: close`: the HTTP library closes the connection in this
    /// case, and the client's next request would be lost.
    #[must_use]
    pub(crate) fn answer(self: &Arc<Self>, mut response: Response<HttpBody>) -> Response<Answer> {
        let is_left =
            self.awaits_body.load(Ordering::Relaxed) && !self.has_reader.load(Ordering::Relaxed);
        if is_left && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response.map(|body| Answer { body, sent: Sent(Arc::clone(self)) })
    }

    /// Records that a head was passed on.
    pub(crate) fn begin_answer(&self, pipelined: Pipelined, body: BodyState) {
        self.pipelined.store(pipelined == Pipelined::Something, Ordering::Relaxed);
        self.set_body(body);
    }

    pub(crate) fn set_body(&self, body: BodyState) {
        self.awaits_body.store(body == BodyState::Awaited, Ordering::Relaxed);
    }

    /// Records that the body of the request has a reader.
    pub(crate) fn body_taken(&self) {
        self.has_reader.store(true, Ordering::Relaxed);
    }

    /// Records that the reader of the request's body was dropped.
    pub(crate) fn body_dropped(&self) {
        self.has_reader.store(false, Ordering::Relaxed);
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            IDLE => Phase::Idle,
            DISMISSED => Phase::Dismissed,
            _ => Phase::Busy,
        }
    }

    /// Starts a request. After a dismissal none starts: the phase stays `Dismissed`.
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

    /// Closes the connection after the current request. Returns `false` if that was requested before.
    pub(crate) fn dismiss_later(&self) -> bool {
        if self.is_wanted.swap(true, Ordering::SeqCst) {
            return false;
        }
        // The answer may have been sent before the flag was set. Otherwise its end checks the flag.
        let _ = self.dismiss();
        true
    }

    /// Registers the task that is woken when the phase changes.
    pub(crate) fn watch(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Asks to be woken when the answer was sent.
    pub(crate) fn wake_when_answered(&self) {
        self.wakes.store(true, Ordering::Release);
    }

    fn answered(&self) {
        let busy = self.phase.compare_exchange(BUSY, IDLE, Ordering::SeqCst, Ordering::SeqCst);
        if busy.is_err() {
            return;
        }
        if self.is_wanted.load(Ordering::SeqCst) {
            // If the next request has begun, the connection closes after it.
            let _ = self.dismiss();
        } else if self.wakes.swap(false, Ordering::AcqRel) {
            self.waker.wake();
        }
    }
}

/// A connection that cannot be dismissed now.
#[derive(Debug)]
pub(crate) struct StillBusy;

/// The body of an answer. Its end or its drop ends the exchange.
#[derive(Debug)]
pub(crate) struct Answer {
    body: HttpBody,
    sent: Sent,
}

/// Records on drop that an answer was sent, or will never be.
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
        let conn = Arc::new(ConnState::default());
        assert!(conn.dismiss().is_err());
        drop(conn.answer(Response::new(HttpBody::empty())));
        assert_eq!(conn.phase(), Phase::Idle);
        assert_eq!(conn.begin(), Phase::Busy);
        assert!(conn.dismiss().is_err());
        drop(conn.answer(Response::new(HttpBody::empty())));
        conn.dismiss().unwrap();
        assert_eq!(conn.begin(), Phase::Dismissed);
    }

    #[test]
    fn a_busy_connection_is_marked_for_dismissal_once() {
        let conn = Arc::new(ConnState::default());
        assert!(conn.dismiss_later());
        assert!(!conn.dismiss_later());
        assert_eq!(conn.phase(), Phase::Busy);
        drop(conn.answer(Response::new(HttpBody::empty())));
        assert_eq!(conn.begin(), Phase::Dismissed);
    }
}
