//! The stream below the HTTP library: it checks every request head before the library reads it, and gives every
//! wait for the client a deadline.
//!
//! ```text
//!   io ─▶ Incoming (heads and bodies) ─▶ HTTP library
//!    ◀── Closing (refusal, orderly end) ◀── HTTP library
//!         both under Deadlines (one timer)
//! ```
//!
//! # Invariants
//!
//! * The HTTP library gets whole heads that have passed, and bodies of the checked length.
//! * After a refused head nothing more is read. The refusal is written after all earlier answers.
//! * While a request is in progress, the end of the input is withheld from the HTTP library, so that a client
//!   may close its half after its request.

mod byte_set;
mod chunks;
mod closing;
mod deadlines;
mod direct;
#[cfg(fuzzing)]
pub mod fuzzing;
mod head;
mod host;
mod incoming;
mod plain;
mod refusal;

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use gossip::StreamUse;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use self::{
    closing::{Closing, Unread},
    deadlines::Deadlines,
    incoming::{Incoming, Next, Verdict},
};
use super::{
    conn_state::{BodyState, ConnState, Phase},
    limits::Terms,
    metrics::Incident,
};

pub(super) use chunks::Chunks;
pub(super) use direct::Found;
pub(super) use head::{Length, MAX_HEADERS};
pub(super) use refusal::Refusal;

/// The state of the last answer. The HTTP library drops an answer's body as soon as it has buffered it, which
/// is before it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AnswerState {
    Unwritten,
    /// The answer is not written, and a read waits for that.
    Awaited,
    Written,
}

/// The item that the HTTP library reads next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readable {
    Head,
    Body,
    Nothing,
}

/// The reader above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    /// The HTTP library, which reads whenever it is polled.
    Library,
    /// The loop over plain heads, which waits for the next one as soon as it has flushed an answer.
    Loop,
}

/// The stream below the HTTP library.
#[derive(Debug)]
pub(super) struct HeadGuard<Io> {
    io: Io,
    reader: Reader,
    conn: Arc<ConnState>,
    terms: Terms,
    incoming: Incoming,
    answer: AnswerState,
    deadlines: Deadlines,
    closing: Closing,
}

impl<Io> HeadGuard<Io> {
    /// Guards a stream. The deadline for the first head starts now.
    pub(super) fn new(io: Io, conn: Arc<ConnState>, terms: Terms) -> Self {
        Self {
            io,
            reader: Reader::Library,
            conn,
            terms,
            incoming: Incoming::new(terms.upgrade),
            answer: AnswerState::Unwritten,
            deadlines: Deadlines::reading(terms.head_time),
            closing: Closing::new(),
        }
    }

    /// Returns the stream, and the bytes that were read and not passed on.
    pub(super) fn into_parts(self) -> (BytesMut, Io) {
        (self.incoming.into_held(), self.io)
    }

    /// Stops reading. The refusal is written when the stream is shut down.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        if let Some(incident) = refusal.incident() {
            self.conn.metrics().note(incident);
        }
        self.closing.refuse(refusal);
        self.incoming.end();
    }

    /// Starts the deadline for the next request once an answer is written. The HTTP library is reading by then,
    /// and does not poll again by itself.
    fn note_flush(&mut self, context: &mut Context<'_>) {
        if self.conn.phase() == Phase::Busy {
            return;
        }
        if std::mem::replace(&mut self.answer, AnswerState::Written) == AnswerState::Awaited {
            context.waker().wake_by_ref();
        }
        let polls_again = self.reader == Reader::Loop;
        if polls_again || !matches!(self.incoming.next(), Next::Gap) || self.deadlines.read_waits()
        {
            return;
        }
        self.conn.watch(context.waker());
        let is_overdue = self.deadlines.read_is_overdue(context, self.terms.idle);
        if is_overdue || self.conn.phase() == Phase::Dismissed {
            context.waker().wake_by_ref();
        }
    }

    /// Records that a write succeeded, or fails if none has for [`Terms::stall`].
    fn watch_write<T>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.deadlines.write_went_on();
        } else if self.deadlines.write_is_overdue(context, self.terms.stall) {
            self.conn.metrics().note(Incident::Stalled);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        outcome
    }
}

impl<Io: AsyncRead + Unpin> HeadGuard<Io> {
    /// Reads as many bytes as may be held.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut room = self.incoming.room();
        let count = ready!(poll_read_buf(Pin::new(&mut self.io), context, &mut room))?;
        self.incoming.filled(count);
        Poll::Ready(Ok(()))
    }

    /// Waits for an item to pass on.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Readable>> {
        loop {
            match self.incoming.next() {
                Next::Head => {
                    if let Some(readable) = ready!(self.poll_head(context))? {
                        return Poll::Ready(Ok(readable));
                    }
                }
                Next::Gap => match self.conn.phase() {
                    Phase::Busy => ready!(self.poll_ahead(context))?,
                    // If the HTTP library saw the end of the input now, it would discard the answer that it
                    // still buffers.
                    Phase::Idle | Phase::Dismissed if self.answer != AnswerState::Written => {
                        self.answer = AnswerState::Awaited;
                        return Poll::Pending;
                    }
                    Phase::Idle => ready!(self.poll_gap(context))?,
                    Phase::Dismissed => self.incoming.end(),
                },
                Next::End => return Poll::Ready(Ok(Readable::Nothing)),
                Next::Body(_) | Next::Chunks(_) => return Poll::Ready(Ok(Readable::Body)),
            }
        }
    }

    /// Checks the head as far as it has arrived, and reads more if necessary. `None` means: check again.
    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<Readable>>> {
        match self.incoming.judge() {
            Verdict::Passed(pipelined, body) => {
                self.conn.begin_answer(pipelined, body);
                self.answer = AnswerState::Unwritten;
                self.deadlines.read_went_on();
                return Poll::Ready(Ok(Some(Readable::Head)));
            }
            Verdict::Refused(refusal) => {
                self.refuse(refusal);
                return Poll::Ready(Ok(Some(Readable::Nothing)));
            }
            Verdict::Incomplete if self.incoming.is_over() => {
                self.incoming.end();
                return Poll::Ready(Ok(Some(Readable::Nothing)));
            }
            Verdict::Incomplete => {}
        }
        if self.poll_fill(context)?.is_ready() {
            return Poll::Ready(Ok(None));
        }
        if !self.deadlines.read_is_overdue(context, self.terms.head_time) {
            return Poll::Pending;
        }
        self.conn.metrics().note(Incident::HeadTimeout);
        self.incoming.end();
        Poll::Ready(Ok(Some(Readable::Nothing)))
    }

    /// Reads a little ahead during a request, to notice a client that has disconnected.
    fn poll_ahead(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_over = self.incoming.is_over();
        if !is_over && !self.incoming.is_full() && self.poll_fill(context)?.is_ready() {
            return Poll::Ready(Ok(()));
        }
        if !is_over && self.incoming.is_empty() {
            return Poll::Pending;
        }
        self.conn.watch(context.waker());
        self.conn.wake_when_answered();
        // The answer may have been sent before the waker was registered.
        if self.conn.phase() == Phase::Busy { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    /// Waits for the next request after the last one was answered.
    fn poll_gap(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_last = self.terms.streams == StreamUse::OneRequest;
        if is_last || (self.incoming.is_empty() && self.incoming.is_over()) {
            self.incoming.end();
            return Poll::Ready(Ok(()));
        }
        if self.incoming.is_empty() && self.poll_fill(context)?.is_pending() {
            self.conn.watch(context.waker());
            if self.conn.phase() == Phase::Dismissed {
                return Poll::Ready(Ok(()));
            }
            if !self.deadlines.read_is_overdue(context, self.terms.idle) {
                return Poll::Pending;
            }
            self.incoming.end();
        } else if !self.incoming.is_empty() {
            match self.conn.begin() {
                Phase::Dismissed => self.incoming.end(),
                Phase::Busy | Phase::Idle => {
                    self.incoming.begin_head();
                    self.deadlines.read_went_on();
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads a body into `into`, and keeps the bytes after it.
    fn poll_body(
        &mut self,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        if !self.incoming.is_empty() {
            self.incoming.take(into);
        } else if self.incoming.is_over() {
            return Poll::Ready(Ok(()));
        } else if Pin::new(&mut self.io).poll_read(context, into)?.is_pending() {
            if self.deadlines.read_is_overdue(context, self.terms.stall) {
                self.conn.metrics().note(Incident::Stalled);
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            return Poll::Pending;
        }
        let read = into.filled().get(before..).unwrap_or_default();
        if read.is_empty() {
            self.incoming.input_ended();
            return Poll::Ready(Ok(()));
        }
        self.deadlines.read_went_on();
        let belongs = self.incoming.body_read(read);
        let len = belongs.map_err(|bad| io::Error::new(io::ErrorKind::InvalidData, bad))?;
        into.set_filled(before + len);
        if matches!(self.incoming.next(), Next::Gap) {
            self.conn.set_body(BodyState::Here);
        }
        Poll::Ready(Ok(()))
    }

    /// Tells whether bytes of the client are unread. Closing at once would then discard the answer on its way.
    fn unread(&self) -> Unread {
        let is_open = !self.incoming.is_over();
        let may_lose = self.closing.is_refusal()
            || self.incoming.has_unread()
            || self.terms.streams == StreamUse::OneRequest;
        if is_open && may_lose { Unread::Something } else { Unread::Nothing }
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for HeadGuard<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.reader = Reader::Library;
        let readable = match this.incoming.has_head() {
            true => Readable::Head,
            false => ready!(this.poll_next(context))?,
        };
        match readable {
            Readable::Head => this.incoming.take(into),
            Readable::Body => return this.poll_body(context, into),
            Readable::Nothing => {}
        }
        Poll::Ready(Ok(()))
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
            this.note_flush(context);
        }
        flushed
    }

    /// Writes a refusal, shuts the write side down, and lingers if closing at once could discard an answer.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let ending = (this.terms.stall, this.unread());
        this.closing.poll(&mut this.io, context, &mut this.deadlines, ending)
    }
}
