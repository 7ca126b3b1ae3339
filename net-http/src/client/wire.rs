//! State shared by the driver of a connection and the caller of an exchange on it.
//!
//! ```text
//!   caller ── begin, head, abandon ──▶ Wire ◀── moved, blocked, sent ── Counted (bytes)
//!                                       │   ◀── ended, failed ───────── Outgoing (request body)
//!                                       └── overdue? ─▶ driver
//! ```
//!
//! # Invariants
//!
//! * A request counts as sent once hyper has dropped its body and a flush has succeeded: hyper flushes only
//!   when it holds nothing back. With [`HalfClose::AfterRequest`] the write side is closed then, and not
//!   before.
//! * hyper learns of a broken connection from the read side only, after it has read all the peer's bytes.
//! * `OVER` is never cleared: an abandoned connection carries nothing more.
//! * The write side is closed in an orderly way only between exchanges. A libp2p stream that is closed and then
//!   dropped is not reset, so its peer would continue a response that is never read until its window is full,
//!   and then wait.

use std::{
    any::Any,
    io::{self, IoSlice},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::task::AtomicWaker;
use gossip::http::{BoxError, HttpBody};
use http_body::{Body, Frame, SizeHint};
use runtime::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{ClientLimits, Io, readiness::Readiness};

/// hyper has dropped the body of the request.
const ENDED: u8 = 1;
/// The last byte of the request was flushed.
const SENT: u8 = 2;
/// The head of the response has arrived.
const HEAD: u8 = 4;
/// The exchange was abandoned, and with it the connection.
const OVER: u8 = 8;

/// Stands for an exchange without a deadline.
const NO_DEADLINE: u64 = u64::MAX;

/// The reason why the driver cut a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Cut {
    /// The deadline of the exchange passed, or that of the head of the response.
    Deadline = 1,
    /// The peer neither read nor wrote for too long.
    StoodStill = 2,
}

/// The state of one connection and of the exchange on it.
#[derive(Debug)]
pub(super) struct Wire {
    born: Instant,
    stage: AtomicU8,
    /// Number of the exchange. Incremented after `stage` was reset, so that a reader of the new number never
    /// sees a stage of the old exchange.
    exchange: AtomicU32,
    /// Deadline of the whole exchange, in milliseconds since `born`.
    until_ms: AtomicU64,
    cut: AtomicU8,
    /// Set when bytes moved, or when a wait for bytes began; cleared by the driver.
    moved: AtomicBool,
    /// `true` while a read is pending.
    read_blocked: AtomicBool,
    /// `true` while a write is pending.
    write_blocked: AtomicBool,
    /// The error of the request's body.
    failed: Mutex<Option<BoxError>>,
    driver: AtomicWaker,
}

impl Wire {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            born: Instant::now(),
            stage: AtomicU8::new(0),
            exchange: AtomicU32::new(0),
            until_ms: AtomicU64::new(NO_DEADLINE),
            cut: AtomicU8::new(0),
            moved: AtomicBool::new(true),
            read_blocked: AtomicBool::new(false),
            write_blocked: AtomicBool::new(false),
            failed: Mutex::default(),
            driver: AtomicWaker::new(),
        })
    }

    fn since_born(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.born).as_millis()).unwrap_or(NO_DEADLINE)
    }

    /// Starts an exchange. `until` replaces the deadlines for the head and for a stall.
    pub(super) fn begin(&self, until: Option<Instant>) {
        self.until_ms.store(until.map_or(NO_DEADLINE, |at| self.since_born(at)), Relaxed);
        self.moved.store(true, Relaxed);
        self.stage.fetch_and(OVER, SeqCst);
        self.exchange.fetch_add(1, SeqCst);
    }

    /// Records that the head of the response has arrived.
    pub(super) fn head(&self) {
        self.moved.store(true, Relaxed);
        self.stage.fetch_or(HEAD, SeqCst);
    }

    /// Abandons the connection: its driver cuts it at once.
    pub(super) fn abandon(&self) {
        self.stage.fetch_or(OVER, SeqCst);
        self.driver.wake();
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.stage.load(SeqCst) & OVER != 0
    }

    /// Returns `true` if the connection ends in the middle of an exchange.
    fn is_cut_short(&self) -> bool {
        let has_begun = self.exchange.load(SeqCst) > 0;
        let stage = self.stage.load(SeqCst);
        has_begun && (stage & HEAD == 0 || stage & OVER != 0)
    }

    /// Returns `true` if the request was sent to its last byte, so that another one may follow it.
    pub(super) fn was_sent(&self) -> bool {
        self.stage.load(SeqCst) & (SENT | OVER) == SENT
    }

    /// Registers the driver's waker for [`Wire::abandon`].
    pub(super) fn watch(&self, context: &Context<'_>) {
        self.driver.register(context.waker());
    }

    /// Returns `true` if bytes moved since the last call.
    fn take_moved(&self) -> bool {
        self.moved.load(Relaxed) && self.moved.swap(false, Relaxed)
    }

    /// The next deadline of the exchange and its meaning; `None` while the connection waits only for the
    /// caller.
    pub(super) fn due(&self, seen: &mut Seen, now: Instant) -> Option<(Instant, Cut)> {
        let Seen { limits, moved, sent } = seen;
        if self.take_moved() {
            *moved = now;
        }
        let until = self.until_ms.load(Relaxed);
        if until != NO_DEADLINE {
            return Some((self.born + Duration::from_millis(until), Cut::Deadline));
        }
        let exchange = self.exchange.load(SeqCst);
        let stage = self.stage.load(SeqCst);
        if stage & SENT == 0 {
            return self
                .write_blocked
                .load(Relaxed)
                .then(|| (*moved + limits.still, Cut::StoodStill));
        }
        if stage & HEAD == 0 {
            if sent.0 != exchange {
                *sent = (exchange, now);
            }
            return Some((sent.1 + limits.response, Cut::Deadline));
        }
        self.read_blocked.load(Relaxed).then(|| (*moved + limits.still, Cut::StoodStill))
    }

    pub(super) fn set_cut(&self, cut: Cut) {
        self.cut.store(cut as u8, SeqCst);
    }

    pub(super) fn cut(&self) -> Option<Cut> {
        match self.cut.load(SeqCst) {
            1 => Some(Cut::Deadline),
            2 => Some(Cut::StoodStill),
            _ => None,
        }
    }

    /// Takes the error of the request's body, if it failed.
    pub(super) fn take_failure(&self) -> Option<BoxError> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn fail(&self, error: BoxError) {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    fn note<T>(&self, blocked: &AtomicBool, poll: &Poll<T>) {
        if poll.is_ready() {
            blocked.store(false, Relaxed);
            self.moved.store(true, Relaxed);
        } else if !blocked.load(Relaxed) {
            blocked.store(true, Relaxed);
            self.moved.store(true, Relaxed);
        }
    }
}

/// The state of a connection that the driver has last seen.
#[derive(Debug)]
pub(super) struct Seen {
    limits: ClientLimits,
    /// Time at which the driver saw that bytes moved, or that a wait for bytes began.
    moved: Instant,
    /// Number of the exchange whose request was sent, and the time at which the driver saw it.
    sent: (u32, Instant),
}

impl Seen {
    pub(super) fn new(limits: ClientLimits, now: Instant) -> Self {
        Self { limits, moved: now, sent: (0, now) }
    }
}

/// The closing of a connection's write side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HalfClose {
    /// The write side stays open for the next request.
    Never,
    /// The write side is closed after the request.
    AfterRequest,
    /// The write side is closed.
    Done,
}

/// The byte stream of a connection; reports reads and writes to its [`Wire`]. It wakes the task that its [`Readiness`] names,
/// whatever context hyper polls it with.
pub(super) struct Counted {
    io: Box<dyn Io>,
    wire: Arc<Wire>,
    readiness: Readiness,
    half_close: HalfClose,
    writes: Writes,
}

/// State of the write side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writes {
    /// Writes succeed, as far as is known.
    Taken,
    /// A write has failed.
    Refused,
}

impl Counted {
    pub(super) fn new(
        io: Box<dyn Io>,
        wire: Arc<Wire>,
        readiness: Readiness,
        half_close: HalfClose,
    ) -> Self {
        Self { io, wire, readiness, half_close, writes: Writes::Taken }
    }

    fn poll_io<T>(
        &mut self,
        poll: impl FnOnce(Pin<&mut Box<dyn Io>>, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let Self { io, readiness, .. } = self;
        readiness.poll(|context| poll(Pin::new(io), context))
    }

    /// Records the result of a write. A failed write stays pending, so that hyper gets the error from the read
    /// side: the answer of a peer that answers early and closes is read first.
    fn written<T>(&mut self, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let poll = match poll {
            Poll::Ready(Err(error)) => {
                tracing::debug!(%error, "a peer takes no more of a request");
                self.writes = Writes::Refused;
                Poll::Pending
            }
            poll => poll,
        };
        self.wire.note(&self.wire.write_blocked, &poll);
        poll
    }

    /// Records that the request was sent, if this flush was its last.
    fn poll_sent(&mut self) -> Poll<()> {
        if self.wire.stage.load(SeqCst) & (ENDED | SENT) != ENDED {
            return Poll::Ready(());
        }
        if self.half_close == HalfClose::AfterRequest {
            // An error is left to the read side: if the peer has answered and closed, its answer can still be
            // read, and the end of the request no longer matters.
            let _closed = ready!(self.poll_io(AsyncWrite::poll_shutdown));
            self.half_close = HalfClose::Done;
        }
        self.wire.stage.fetch_or(SENT, SeqCst);
        Poll::Ready(())
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { io, readiness, .. } = &mut *self;
        let read = |context: &mut Context<'_>| Pin::new(io).poll_read(context, buffer);
        let poll = readiness.poll_read(read);
        self.wire.note(&self.wire.read_blocked, &poll);
        poll
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.writes == Writes::Refused {
            return Poll::Pending;
        }
        let poll = self.poll_io(|io, context| io.poll_write(context, bytes));
        self.written(poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.writes == Writes::Refused {
            return Poll::Pending;
        }
        let poll = self.poll_io(|io, context| io.poll_write_vectored(context, slices));
        self.written(poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.writes == Writes::Refused {
            return Poll::Pending;
        }
        let mut poll = self.poll_io(AsyncWrite::poll_flush);
        if matches!(poll, Poll::Ready(Ok(()))) {
            poll = self.poll_sent().map(Ok);
            // hyper flushes in every turn, so a flush that had nothing to do does not count as progress.
            if poll.is_ready() && !self.wire.write_blocked.load(Relaxed) {
                return poll;
            }
        }
        self.written(poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_closed = self.half_close == HalfClose::Done || self.writes == Writes::Refused;
        if is_closed || self.wire.is_cut_short() {
            return Poll::Ready(Ok(()));
        }
        let poll = self.poll_io(AsyncWrite::poll_shutdown);
        self.wire.note(&self.wire.write_blocked, &poll);
        poll
    }
}

/// The request's body failed; its error is kept in the [`Wire`].
#[derive(Debug, thiserror::Error)]
#[error("the body of the request failed")]
struct BodyFailed;

/// The request's body panicked.
#[derive(Debug, thiserror::Error)]
#[error("the body of the request panicked: {message}")]
struct BodyPanicked {
    message: String,
}

impl BodyPanicked {
    fn new(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Self { message: text.unwrap_or("no text").to_owned() }
    }
}

/// The request's body is longer than declared.
#[derive(Debug, thiserror::Error)]
#[error("the body of the request is longer than its content-length")]
struct BodyTooLong;

/// The body of a request while it is sent. It is small, because hyper moves a request a dozen times.
pub(super) struct Outgoing {
    /// `None` for a body without bytes.
    body: Option<Box<Declared>>,
    wire: Arc<Wire>,
}

/// A body, and what its request declares of it.
struct Declared {
    body: HttpBody,
    /// Remaining bytes of the declared length. Without this check hyper would silently drop further bytes.
    left: Option<u64>,
}

impl Outgoing {
    /// Wraps a body whose request declares a length, or none.
    pub(super) fn new(body: HttpBody, declared: Option<u64>, wire: &Arc<Wire>) -> Self {
        let declared = |body| Box::new(Declared { body, left: declared });
        let body = Some(body).filter(|body| !body.is_end_stream()).map(declared);
        Self { body, wire: Arc::clone(wire) }
    }

    /// Returns the body if it was not sent.
    pub(super) fn into_body(mut self) -> HttpBody {
        self.body.take().map_or_else(HttpBody::empty, |declared| declared.body)
    }
}

impl Declared {
    /// Subtracts a frame from the declared length.
    fn count(&mut self, frame: &Frame<Bytes>) -> Result<(), BodyTooLong> {
        if let (Some(left), Some(data)) = (&mut self.left, frame.data_ref()) {
            *left = left.checked_sub(data.len() as u64).ok_or(BodyTooLong)?;
        }
        Ok(())
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.wire.stage.fetch_or(ENDED, SeqCst);
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(declared) = &mut self.body else { return Poll::Ready(None) };
        // A panic of the caller's body must not reach the connection's task, where it would stop every client
        // of the node.
        let body = Pin::new(&mut declared.body);
        let error = match catch_unwind(AssertUnwindSafe(|| body.poll_frame(context))) {
            Ok(Poll::Ready(Some(Ok(frame)))) => match declared.count(&frame) {
                Ok(()) => return Poll::Ready(Some(Ok(frame))),
                Err(error) => error.into(),
            },
            Ok(Poll::Ready(Some(Err(error)))) => error,
            Ok(poll) => return poll,
            Err(panic) => BodyPanicked::new(panic.as_ref()).into(),
        };
        self.wire.fail(error);
        Poll::Ready(Some(Err(BodyFailed.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(|declared| declared.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let empty = || SizeHint::with_exact(0);
        self.body.as_deref().map_or_else(empty, |declared| declared.body.size_hint())
    }
}
