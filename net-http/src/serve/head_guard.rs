//! A stream of bytes under the HTTP library: judges every request head, and does not stand still for ever.
//!
//! ```text
//!   io ─▶ held ─▶ judge ─▶ head ─▶ HTTP library
//!    └──────────▶ body  ─────────▶
//! ```
//!
//! # Invariants
//!
//! * The HTTP library is given whole heads that passed, and bodies of the length that was judged.
//! * At most [`MAX_HEAD_BYTES`] and one byte are held, whatever is sent.
//! * A refused head ends the reading; the words of the refusal follow what was answered before.
//! * While a request is being answered an end of the input waits, so that a client may close its half.
//! * Every wait for the other side has a deadline, all of them kept by one timer.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BufMut, BytesMut};
use gossip::StreamUse;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};
use tokio_util::io::poll_read_buf;

use super::{
    chunks::Chunks,
    conn_state::{BodyState, ConnState, Phase, Pipelined},
    head::{self, Judged, Length},
    limits::{MAX_HEAD_BYTES, Terms},
    metrics::Incident,
    refusal::Refusal,
};

/// How long to wait for a client that is being refused. Source: wire facts 1.6, rows 2 and 3.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often the rest of a refused client's bytes is read before others have their turn.
const READS_AT_ONCE: u32 = 16;

/// What the stream brings next.
#[derive(Debug)]
enum Expected {
    /// The head of a request, of which something has come, or which is the first. One that comes all at
    /// once, as nearly every one does, needs no look at the clock.
    Head { since: Option<Instant> },
    /// Nothing before the answer is out, and then a head.
    Gap { idle_since: Option<Instant> },
    /// So much of a body.
    Body(u64),
    /// A body in chunks.
    Chunks(Chunks),
    /// Nothing that is read.
    End,
}

/// How far the closing of the writing half has come.
#[derive(Clone, Copy, Debug)]
enum Closing {
    Not,
    Refusing { said: usize, until: Instant },
    Shutting { until: Instant },
    Lingering { until: Instant },
    Done,
}

/// A stream of bytes under the HTTP library.
#[derive(Debug)]
pub struct HeadGuard<Io> {
    io: Io,
    line: Arc<ConnState>,
    terms: Terms,
    /// What was read and not passed on.
    held: BytesMut,
    /// How much of `held` is a head that passed.
    passed: usize,
    expected: Expected,
    input: Input,
    requests: u64,
    timer: Pin<Box<Sleep>>,
    /// Whether what is held may be judged otherwise than before.
    news: BufferChange,
    /// Whether the last answer has been written.
    out: AnswerState,
    /// Since when a body is waited for.
    starved: Option<Instant>,
    /// Since when nothing could be written.
    blocked: Option<Instant>,
    refusal: Option<Refusal>,
    closing: Closing,
}

/// Whether the other side may send more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Open,
    Over,
}

/// Whether what is held may be judged otherwise than before. Heads that trickle in are not judged byte
/// by byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BufferChange {
    None,
    Some,
}

/// Whether the last answer has been written. Its body is given up as soon as the HTTP library has all of
/// it, which is before that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AnswerState {
    No,
    /// It has not, and the reader waits for it.
    Awaited,
    Yes,
}

impl<Io> HeadGuard<Io> {
    /// Puts a screen in front of a stream. The time for the first head runs from now.
    pub fn new(io: Io, line: Arc<ConnState>, terms: Terms) -> Self {
        let now = Instant::now();
        Self {
            io,
            line,
            terms,
            held: BytesMut::new(),
            passed: 0,
            expected: Expected::Head { since: Some(now) },
            input: Input::Open,
            requests: 0,
            timer: Box::pin(sleep_until(now + terms.head_time)),
            news: BufferChange::None,
            out: AnswerState::No,
            starved: None,
            blocked: None,
            refusal: None,
            closing: Closing::Not,
        }
    }

    /// The stream, and what was read from it and not passed on.
    pub fn into_parts(self) -> (BytesMut, Io) {
        (self.held, self.io)
    }

    /// Ends the reading with words of refusal, which are written when the stream is shut down.
    pub(crate) fn refuse(&mut self, refusal: Refusal) {
        if let Some(incident) = refusal.incident() {
            self.line.metrics().note(incident);
        }
        self.refusal = Some(refusal);
        self.expected = Expected::End;
    }

    /// Whether `due` has passed. If not, the task is woken then, or earlier.
    fn is_past(&mut self, context: &mut Context<'_>, due: Instant) -> bool {
        loop {
            if self.timer.deadline() > due {
                self.timer.as_mut().reset(due);
            }
            if self.timer.as_mut().poll(context).is_pending() {
                return false;
            }
            if Instant::now() >= due {
                return true;
            }
            self.timer.as_mut().reset(due);
        }
    }

    /// Begins the time between two requests once an answer is out. The HTTP library, which has been told
    /// to wait for more, does not ask again by itself.
    fn rest(&mut self, context: &mut Context<'_>) {
        if self.line.phase() == Phase::Busy {
            return;
        }
        if std::mem::replace(&mut self.out, AnswerState::Yes) == AnswerState::Awaited {
            context.waker().wake_by_ref();
        }
        let is_new = matches!(self.expected, Expected::Gap { idle_since: None });
        if !is_new || self.line.phase() == Phase::Busy {
            return;
        }
        let now = Instant::now();
        self.expected = Expected::Gap { idle_since: Some(now) };
        self.line.watch(context.waker());
        if self.line.phase() == Phase::Dismissed || self.is_past(context, now + self.terms.idle) {
            context.waker().wake_by_ref();
        }
    }

    /// Notes that a write went through, or fails if none has for too long.
    fn watch_write<T>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.blocked = None;
            return outcome;
        }
        let since = *self.blocked.get_or_insert_with(Instant::now);
        if self.is_past(context, since + self.terms.stall) {
            self.line.metrics().note(Incident::Stalled);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

impl<Io: AsyncRead + Unpin> HeadGuard<Io> {
    /// Reads what fits into `held`.
    fn fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let room = (MAX_HEAD_BYTES + 1).saturating_sub(self.held.len());
        if self.held.capacity() - self.held.len() < room.min(512) {
            self.held.reserve(1024);
        }
        let mut held = (&mut self.held).limit(room);
        let count = ready!(poll_read_buf(Pin::new(&mut self.io), context, &mut held))?;
        if count == 0 && room > 0 {
            self.input = Input::Over;
        }
        let before = self.held.len().saturating_sub(count);
        let is_first = before == 0;
        let is_long = self.held.len() > MAX_HEAD_BYTES;
        if is_first || is_long || self.held.get(before..).is_some_and(|new| new.contains(&b'\n')) {
            self.news = BufferChange::Some;
        }
        Poll::Ready(Ok(count))
    }

    /// Waits for the next head and judges it. `true` once there is one to pass on, `false` at the end.
    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            match self.expected {
                Expected::Head { since } => {
                    if std::mem::replace(&mut self.news, BufferChange::None) == BufferChange::Some {
                        match head::judge(&self.held, self.terms.upgrade) {
                            Judged::Partial => {}
                            Judged::Refused(refusal) => {
                                self.refuse(refusal);
                                return Poll::Ready(Ok(false));
                            }
                            Judged::Complete { len, body, version_at } => {
                                self.pass_head(len, body, version_at);
                                return Poll::Ready(Ok(true));
                            }
                        }
                    }
                    if self.input == Input::Over {
                        self.expected = Expected::End;
                        return Poll::Ready(Ok(false));
                    }
                    let filled = self.fill(context)?;
                    if filled.is_pending() {
                        let since = since.unwrap_or_else(Instant::now);
                        self.expected = Expected::Head { since: Some(since) };
                        if self.is_past(context, since + self.terms.head_time) {
                            self.line.metrics().note(Incident::HeadTimeout);
                            self.expected = Expected::End;
                            return Poll::Ready(Ok(false));
                        }
                        return Poll::Pending;
                    }
                }
                Expected::Gap { .. } => match self.line.phase() {
                    Phase::Busy => ready!(self.poll_answer(context))?,
                    // An end of the input now would make the HTTP library forget what it still holds.
                    Phase::Idle | Phase::Dismissed if self.out != AnswerState::Yes => {
                        self.out = AnswerState::Awaited;
                        return Poll::Pending;
                    }
                    Phase::Idle => ready!(self.poll_gap(context))?,
                    Phase::Dismissed => self.expected = Expected::End,
                },
                Expected::End => return Poll::Ready(Ok(false)),
                Expected::Body(_) | Expected::Chunks(_) => return Poll::Ready(Ok(true)),
            }
        }
    }

    fn pass_head(&mut self, len: usize, body: Length, version_at: Option<usize>) {
        if let Some(version) = version_at.and_then(|at| self.held.get_mut(at)) {
            *version = b'1';
        }
        self.passed = len;
        self.out = AnswerState::No;
        self.requests += 1;
        let more = self.held.len().saturating_sub(len) as u64;
        self.line.set_behind(if more > 0 { Pipelined::Something } else { Pipelined::Nothing });
        // What is here already the HTTP library reads to the end by itself, if it is in one piece.
        let is_here = matches!(body, Length::Known(len) if len <= more);
        self.line.set_rest(if is_here { BodyState::Here } else { BodyState::Awaited });
        self.expected = match body {
            Length::Known(0) => Expected::Gap { idle_since: None },
            Length::Known(len) => Expected::Body(len),
            Length::Chunked => Expected::Chunks(Chunks::new()),
        };
    }

    /// A request is being answered: reads a little ahead, to learn of a client that is gone.
    fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_full = self.held.len() > MAX_HEAD_BYTES;
        if self.input == Input::Open && !is_full && self.fill(context)?.is_ready() {
            return Poll::Ready(Ok(()));
        }
        if self.input == Input::Open && self.held.is_empty() {
            return Poll::Pending;
        }
        self.line.watch(context.waker());
        self.line.hold_back();
        // The answer may have gone out before this was noted.
        if self.line.phase() == Phase::Busy { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    /// The last request has been answered: waits for the next.
    fn poll_gap(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_last = self.terms.streams == StreamUse::OneRequest;
        if is_last || (self.held.is_empty() && self.input == Input::Over) {
            self.expected = Expected::End;
            return Poll::Ready(Ok(()));
        }
        if self.held.is_empty() && self.fill(context)?.is_pending() {
            self.line.watch(context.waker());
            if self.line.phase() == Phase::Dismissed {
                return Poll::Ready(Ok(()));
            }
            let since = match &mut self.expected {
                Expected::Gap { idle_since } => *idle_since.get_or_insert_with(Instant::now),
                _ => Instant::now(),
            };
            if !self.is_past(context, since + self.terms.idle) {
                return Poll::Pending;
            }
            self.expected = Expected::End;
        } else if !self.held.is_empty() {
            self.expected = match self.line.begin() {
                Phase::Dismissed => Expected::End,
                Phase::Busy | Phase::Idle => {
                    self.news = BufferChange::Some;
                    Expected::Head { since: None }
                }
            };
        }
        Poll::Ready(Ok(()))
    }

    /// Reads a body into `into`, and takes back what lies behind it.
    fn poll_body(
        &mut self,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        if self.held.is_empty() {
            if self.input == Input::Over {
                return Poll::Ready(Ok(()));
            }
            if Pin::new(&mut self.io).poll_read(context, into)?.is_pending() {
                let since = *self.starved.get_or_insert_with(Instant::now);
                if self.is_past(context, since + self.terms.stall) {
                    self.line.metrics().note(Incident::Stalled);
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                return Poll::Pending;
            }
        } else {
            let count = self.held.len().min(into.remaining());
            into.put_slice(self.held.get(..count).unwrap_or_default());
            self.held.advance(count);
        }
        let read = into.filled().get(before..).unwrap_or_default();
        if read.is_empty() {
            self.input = Input::Over;
            return Poll::Ready(Ok(()));
        }
        self.starved = None;
        let len = match &mut self.expected {
            Expected::Body(left) => {
                let len = usize::try_from(*left).unwrap_or(usize::MAX).min(read.len());
                *left -= len as u64;
                len
            }
            Expected::Chunks(chunks) => {
                chunks.pass(read).map_err(|bad| io::Error::new(io::ErrorKind::InvalidData, bad))?
            }
            Expected::Head { .. } | Expected::Gap { .. } | Expected::End => 0,
        };
        let is_over = match &self.expected {
            Expected::Body(left) => *left == 0,
            Expected::Chunks(chunks) => chunks.is_over(),
            Expected::Head { .. } | Expected::Gap { .. } | Expected::End => true,
        };
        if let Some(surplus) = read.get(len..).filter(|surplus| !surplus.is_empty()) {
            // What is still held lies behind it.
            let rest = std::mem::take(&mut self.held);
            self.held.extend_from_slice(surplus);
            self.held.extend_from_slice(&rest);
            into.set_filled(before + len);
        }
        if is_over {
            self.line.set_rest(BodyState::Here);
            self.expected = Expected::Gap { idle_since: None };
        }
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for HeadGuard<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.passed == 0 && !ready!(this.poll_head(context))? {
            return Poll::Ready(Ok(()));
        }
        if this.passed > 0 {
            let count = this.passed.min(into.remaining());
            into.put_slice(this.held.get(..count).unwrap_or_default());
            this.held.advance(count);
            this.passed -= count;
            return Poll::Ready(Ok(()));
        }
        this.poll_body(context, into)
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> HeadGuard<Io> {
    /// Whether something of the client would be lost, and with it what it was told, by closing at once.
    fn has_unread(&self) -> bool {
        self.input == Input::Open
            && (self.refusal.is_some()
                || !self.held.is_empty()
                || matches!(self.expected, Expected::Body(_) | Expected::Chunks(_))
                || self.terms.streams == StreamUse::OneRequest)
    }

    fn poll_refuse(&mut self, context: &mut Context<'_>, said: &mut usize) -> Poll<io::Result<()>> {
        let words = self.refusal.map_or(&b""[..], Refusal::bytes);
        while let Some(rest) = words.get(*said..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.io).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => *said += count,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads what the client still sends, and forgets it.
    fn poll_discard(&mut self, context: &mut Context<'_>) -> Poll<()> {
        for _ in 0..READS_AT_ONCE {
            self.held.clear();
            match ready!(self.fill(context)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(()),
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncWrite for HeadGuard<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(context, bytes);
        self.watch_write(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(context, parts);
        self.watch_write(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let flushed = Pin::new(&mut this.io).poll_flush(context);
        let flushed = this.watch_write(context, flushed);
        if flushed.is_ready() {
            this.rest(context);
        }
        flushed
    }

    /// Says a refusal, closes the writing half, and waits a moment for the client where closing at once
    /// would take back what it was told.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            this.closing = match this.closing {
                Closing::Not => Closing::Refusing { said: 0, until: Instant::now() + PATIENCE },
                Closing::Refusing { mut said, until } => {
                    let refused = this.poll_refuse(context, &mut said)?;
                    this.closing = Closing::Refusing { said, until };
                    if refused.is_ready() {
                        let patience = this.refusal.map_or(this.terms.stall, |_| PATIENCE);
                        Closing::Shutting { until: Instant::now() + patience }
                    } else if this.is_past(context, until) {
                        Closing::Done
                    } else {
                        return Poll::Pending;
                    }
                }
                Closing::Shutting { until } => {
                    if Pin::new(&mut this.io).poll_shutdown(context)?.is_ready() {
                        match this.has_unread() {
                            true => Closing::Lingering { until: Instant::now() + PATIENCE },
                            false => Closing::Done,
                        }
                    } else if this.is_past(context, until) {
                        Closing::Done
                    } else {
                        return Poll::Pending;
                    }
                }
                Closing::Lingering { until } => {
                    if this.poll_discard(context).is_pending() && !this.is_past(context, until) {
                        return Poll::Pending;
                    }
                    Closing::Done
                }
                Closing::Done => return Poll::Ready(Ok(())),
            };
        }
    }
}
