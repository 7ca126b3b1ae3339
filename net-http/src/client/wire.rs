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
//! * A request counts as sent once hyper has let go of its body and a flush of the bytes has succeeded:
//!   hyper flushes only when it holds nothing back. With [`HalfClose::AfterRequest`] the write side is
//!   closed then, and not before.
//! * hyper learns of a broken connection from its read side only, after whatever the peer said before.
//! * `OVER` is never taken back: an abandoned connection carries nothing more.
//! * The write side is closed in an orderly way only between exchanges. A stream of libp2p that is closed
//!   and then dropped is not reset, and its peer would go on with a response that nobody reads until its
//!   window is used up, and then wait.

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
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::{ClientLimits, Io};

/// hyper has let go of the body of the request.
const ENDED: u8 = 1;
/// The last byte of the request was flushed.
const SENT: u8 = 2;
/// The head of the response has come.
const HEAD: u8 = 4;
/// The exchange was given up, and the connection with it.
const OVER: u8 = 8;

/// No deadline for the whole exchange.
const NO_DEADLINE: u64 = u64::MAX;

/// Why the driver cut a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Cut {
    /// The deadline of the exchange passed, or that of the head of the response.
    Deadline = 1,
    /// The peer stood still.
    StoodStill = 2,
}

/// The state of one connection and of the exchange on it.
#[derive(Debug)]
pub(super) struct Wire {
    born: Instant,
    stage: AtomicU8,
    /// Number of the exchange. Counted after `stage` was set back: a reader of the new number finds no
    /// stage of the old one.
    exchange: AtomicU32,
    /// End of the time for the whole exchange, in milliseconds since `born`.
    until_ms: AtomicU64,
    cut: AtomicU8,
    /// Bytes moved, or began to be waited for, since the driver last asked.
    moved: AtomicBool,
    /// The peer has sent nothing that could be read.
    read_blocked: AtomicBool,
    /// The peer has not taken what was to be written.
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

    /// An exchange begins. A deadline takes the place of those for the head and for standing still.
    pub(super) fn begin(&self, until: Option<Instant>) {
        self.until_ms.store(until.map_or(NO_DEADLINE, |at| self.since_born(at)), Relaxed);
        self.moved.store(true, Relaxed);
        self.stage.fetch_and(OVER, SeqCst);
        self.exchange.fetch_add(1, SeqCst);
    }

    /// The head of the response has come.
    pub(super) fn head(&self) {
        self.moved.store(true, Relaxed);
        self.stage.fetch_or(HEAD, SeqCst);
    }

    /// Ends the connection at once.
    pub(super) fn abandon(&self) {
        self.stage.fetch_or(OVER, SeqCst);
        self.driver.wake();
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.stage.load(SeqCst) & OVER != 0
    }

    /// The connection ends in the middle of an exchange: its caller gave up, or has no response yet.
    fn is_cut_short(&self) -> bool {
        let has_begun = self.exchange.load(SeqCst) > 0;
        let stage = self.stage.load(SeqCst);
        has_begun && (stage & HEAD == 0 || stage & OVER != 0)
    }

    /// The request was sent to its last byte, so that the next one may follow it.
    pub(super) fn was_sent(&self) -> bool {
        self.stage.load(SeqCst) & (SENT | OVER) == SENT
    }

    /// Lets the driver be woken by [`Wire::abandon`].
    pub(super) fn watch(&self, context: &Context<'_>) {
        self.driver.register(context.waker());
    }

    /// Bytes moved since the last call.
    fn take_moved(&self) -> bool {
        self.moved.load(Relaxed) && self.moved.swap(false, Relaxed)
    }

    /// The next deadline of the exchange, and what it means; `None` while only the caller is waited
    /// for.
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

    /// The error of the request's body, if it failed.
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

/// State of a connection as its driver saw it last.
#[derive(Debug)]
pub(super) struct Seen {
    limits: ClientLimits,
    /// Time at which it learned that bytes moved, or began to be waited for.
    moved: Instant,
    /// Time at which it learned that a request was sent, and the number of its exchange.
    sent: (u32, Instant),
}

impl Seen {
    pub(super) fn new(limits: ClientLimits, now: Instant) -> Self {
        Self { limits, moved: now, sent: (0, now) }
    }
}

/// The rule for the write side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HalfClose {
    /// It stays open for the next request.
    Never,
    /// It is closed after the request.
    AfterRequest,
    /// It is closed.
    Done,
}

/// The bytes of a connection, watched.
pub(super) struct Counted {
    io: Box<dyn Io>,
    wire: Arc<Wire>,
    half_close: HalfClose,
    writes: Writes,
}

/// The state of the write side: the peer takes bytes, or it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writes {
    /// As far as is known.
    Taken,
    /// It does not any more.
    Refused,
}

impl Counted {
    pub(super) fn new(io: Box<dyn Io>, wire: Arc<Wire>, half_close: HalfClose) -> Self {
        Self { io, wire, half_close, writes: Writes::Taken }
    }

    /// Notes what a write came to. One that failed is left to the read side, and waits until then: a
    /// peer that answers early and hangs up has its answer read, and one that broke ends the read.
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

    /// Notes that the request was sent, if this flush was its last.
    fn poll_sent(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.wire.stage.load(SeqCst) & (ENDED | SENT) != ENDED {
            return Poll::Ready(());
        }
        if self.half_close == HalfClose::AfterRequest {
            // An error is left to the read side: a peer that has answered and gone cannot be told that
            // the request is complete, and its answer may still be there to be read.
            let _closed = ready!(Pin::new(&mut self.io).poll_shutdown(context));
            self.half_close = HalfClose::Done;
        }
        self.wire.stage.fetch_or(SENT, SeqCst);
        Poll::Ready(())
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.io).poll_read(context, buffer);
        self.wire.note(&self.wire.read_blocked, &poll);
        poll
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.writes == Writes::Refused {
            return Poll::Pending;
        }
        let poll = Pin::new(&mut self.io).poll_write(context, bytes);
        self.written(poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.writes == Writes::Refused {
            return Poll::Pending;
        }
        let poll = Pin::new(&mut self.io).poll_write_vectored(context, slices);
        self.written(poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.writes == Writes::Refused {
            return Poll::Pending;
        }
        let mut poll = Pin::new(&mut self.io).poll_flush(context);
        if matches!(poll, Poll::Ready(Ok(()))) {
            poll = self.poll_sent(context).map(Ok);
            // A flush is asked for at every turn. One that had nothing to do moves nothing.
            if poll.is_ready() && !self.wire.write_blocked.load(Relaxed) {
                return poll;
            }
        }
        self.written(poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_closed = self.half_close == HalfClose::Done || self.writes == Writes::Refused;
        if is_closed || self.wire.is_cut_short() {
            return Poll::Ready(Ok(()));
        }
        let poll = Pin::new(&mut self.io).poll_shutdown(context);
        self.wire.note(&self.wire.write_blocked, &poll);
        poll
    }
}

/// The body of a request went wrong; what it said is kept in its [`Wire`].
#[derive(Debug, thiserror::Error)]
#[error("the body of the request failed")]
struct BodyFailed;

/// The body of a request panicked.
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

/// The body of a request is longer than the request says.
#[derive(Debug, thiserror::Error)]
#[error("the body of the request is longer than its content-length")]
struct BodyTooLong;

/// The body of a request on its way.
pub(super) struct Outgoing {
    body: HttpBody,
    /// Rest of the length that the request declared. hyper would leave out bytes beyond it.
    left: Option<u64>,
    wire: Arc<Wire>,
}

impl Outgoing {
    pub(super) fn new(body: HttpBody, declared: Option<u64>, wire: &Arc<Wire>) -> Self {
        Self { body, left: declared, wire: Arc::clone(wire) }
    }

    /// Counts a frame against the declared length.
    fn count(&mut self, frame: &Frame<Bytes>) -> Result<(), BodyTooLong> {
        if let (Some(left), Some(data)) = (&mut self.left, frame.data_ref()) {
            *left = left.checked_sub(data.len() as u64).ok_or(BodyTooLong)?;
        }
        Ok(())
    }

    /// The body, if it was not sent.
    pub(super) fn into_body(mut self) -> HttpBody {
        std::mem::take(&mut self.body)
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
        // A panic of the caller's body must not become one of the connection's task: it would stop
        // every client of the node.
        let body = Pin::new(&mut self.body);
        let error = match catch_unwind(AssertUnwindSafe(|| body.poll_frame(context))) {
            Ok(Poll::Ready(Some(Ok(frame)))) => match self.count(&frame) {
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
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
