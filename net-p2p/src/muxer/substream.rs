//! One stream of a connection: it reports bytes that move in the connection's task, and it ends with the
//! connection.
//!
//! rust-libp2p assumes that a connection's bytes and its handlers share a task: whenever a handler reads or
//! writes, the connection is polled again, and with it every handler. Some handlers rely on that.
//! `libp2p-ping` answers a ping, stores the future of the next one, and returns without polling it. With the
//! bytes in a task of their own, nothing would wake that future. So a poll in which bytes moved is followed by
//! another one, until no bytes move.
//!
//! Yamux wakes the tasks that wait on a stream when the connection breaks, but not when it is closed, so a
//! stream also waits for the end of its connection.
//!
//! # Invariants
//!
//! * A handler that moved bytes of any stream of its connection is polled again.
//! * Streams used in other tasks, such as those of gossip and HTTP, wake no handler.
//! * No task waits on a stream of a connection that has ended or is being closed. Bytes received before can
//!   still be read.
//! * Only bytes count. A repeated end or error does not cause another poll.
//! * GossipSub's stream takes every message, and never makes its writer wait (`topic_stream.rs`).
//! * Read bytes are given back to the backlog of the connection, and written bytes are added to it. A stream
//!   that the backlog has evicted ends with an error.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use broadcaster::EndedFor;
use futures::{AsyncRead, AsyncWrite, Stream as _};
use runtime::CancelWatch;
use tokio::task;
use tokio_util::sync::CancellationToken;

use super::{purpose::Purpose, topic_stream::TopicStream};
use crate::{
    backlog::{CountedStream, FRAME_BYTES, Kept, StreamHandle, taken_away},
    carrier::Carrier,
};

/// Records whether bytes moved in the task that polls a connection. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Activity(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The task that polls the muxer; empty until its first poll.
    task: OnceLock<Option<task::Id>>,
    moved: AtomicBool,
}

impl Activity {
    /// Wakes the calling task if bytes moved in it since the last call. Only the task that polls the
    /// handlers of a connection may call this.
    pub(super) fn poll_again(&self, context: &Context<'_>) {
        self.0.task.get_or_init(task::try_id);
        if self.0.moved.swap(false, Ordering::Relaxed) {
            context.waker().wake_by_ref();
        }
    }

    fn note(&self, moved: &Poll<io::Result<usize>>) {
        if matches!(moved, Poll::Ready(Ok(1..))) && self.0.task.get() == Some(&task::try_id()) {
            self.0.moved.store(true, Ordering::Relaxed);
        }
    }
}

/// Why this node ended a connection, if it did; whoever uses a stream of it hears it. Clones share it.
pub(super) type Why = Arc<OnceLock<EndedFor>>;

/// A stream that reports activity, is counted in the backlog, and ends with its connection.
#[derive(Debug)]
pub(crate) struct Substream {
    stream: CountedStream,
    activity: Activity,
    /// Each resolves when the connection has ended or starts to close, for the task that reads and for the one that
    /// writes: a stream that was split has two.
    reader_ended: CancelWatch,
    writer_ended: CancelWatch,
    /// Why it did, if this node knows.
    why: Why,
    /// GossipSub's stream of the connection, which may be this one.
    topics: TopicStream,
    purpose: Purpose,
    opener: Opener,
}

/// The end that opened a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opener {
    Own,
    Peer,
}

/// Passes `polled` on, or returns an error if it is pending and the connection is gone.
fn unless_ended<T>(
    ended: &mut CancelWatch,
    why: &Why,
    polled: Poll<io::Result<T>>,
    context: &mut Context<'_>,
) -> Poll<io::Result<T>> {
    if polled.is_pending() && Pin::new(ended).poll(context).is_ready() {
        let why = why.get().copied();
        return Poll::Ready(Err(
            why.map_or_else(|| io::ErrorKind::ConnectionAborted.into(), EndedFor::into)
        ));
    }
    polled
}

impl Substream {
    /// Wraps a stream of the connection that cancels `ended` at its end, when `why` is settled.
    pub(super) fn new(
        stream: CountedStream,
        activity: Activity,
        (ended, why): (CancellationToken, Why),
        topics: TopicStream,
        opener: Opener,
    ) -> Self {
        let [reader_ended, writer_ended] = [(); 2].map(|()| CancelWatch::new(&ended));
        let purpose = Purpose::default();
        Self { stream, activity, reader_ended, writer_ended, why, topics, purpose, opener }
    }

    /// Reads frame by frame, so that each frame is given back as soon as it was read.
    fn poll_frames(&self, context: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let handle = self.stream.handle();
        let mut kept = handle.lock();
        let Kept { stream: Some(stream), frame, .. } = &mut *kept else { return taken_away() };
        #[cfg_attr(
            not(any(feature = "quic", feature = "data-channels")),
            expect(clippy::infallible_destructuring_match, reason = "there are two with QUIC")
        )]
        let stream = match stream {
            Carrier::Yamux(stream) => stream,
            #[cfg(feature = "quic")]
            Carrier::Quic(stream) => return stream.poll_read(context, into),
            #[cfg(feature = "data-channels")]
            Carrier::Channel(stream) => return stream.poll_read(context, into),
        };
        let mut filled = 0;
        while filled < into.len() {
            if let Some((packet, offset)) = frame {
                let (from, into) = (&packet.as_ref()[*offset..], &mut into[filled..]);
                let bytes = from.len().min(into.len());
                into[..bytes].copy_from_slice(&from[..bytes]);
                (*offset, filled) = (*offset + bytes, filled + bytes);
                if *offset == packet.as_ref().len() {
                    handle.give_back(*offset + FRAME_BYTES);
                    *frame = None;
                }
                continue;
            }
            match Pin::new(&mut *stream).poll_next(context) {
                Poll::Ready(Some(Ok(packet))) => *frame = Some((packet, 0)),
                // Bytes were read, so the caller polls again, and gets the error then.
                _ if filled > 0 => break,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(filled))
    }

    /// Reads the peer's own stream of GossipSub.
    fn poll_topics(&self, context: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        ready!(self.topics.poll_open(context));
        self.topics.poll_read(context, into.len(), |context, bytes| {
            self.poll_frames(context, into.get_mut(..bytes).unwrap_or_default())
        })
    }

    /// Writes by `write`, unless the stream was evicted.
    fn poll_carrier(
        &self,
        write: impl FnOnce(&StreamHandle, &mut Carrier) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let handle = self.stream.handle();
        let written = {
            let mut kept = handle.lock();
            let Some(stream) = &mut kept.stream else { return taken_away() };
            write(handle, stream)
        };
        handle.connection().settle();
        written
    }

    /// Notes the result of a write.
    fn wrote(
        &mut self,
        written: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.activity.note(&written);
        unless_ended(&mut self.writer_ended, &self.why, written, context)
    }
}

impl AsyncRead for Substream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = if self.opener == Opener::Peer && self.purpose.is_named() {
            self.poll_topics(context, into)
        } else {
            self.poll_frames(context, into)
        };
        self.activity.note(&read);
        let this = &mut *self;
        unless_ended(&mut this.reader_ended, &this.why, read, context)
    }
}

impl AsyncWrite for Substream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let is_rpc = self.purpose.is_rpc(bytes);
        let written = if is_rpc {
            self.topics.poll_write(self.stream.handle(), context, bytes)
        } else {
            self.poll_carrier(|handle, stream| handle.poll_write_frame(stream, context, bytes))
        };
        match written {
            Poll::Ready(Ok(1..)) if is_rpc => self.purpose.wrote_rpc(),
            Poll::Ready(Ok(taken)) => {
                self.purpose.wrote(bytes.get(..taken).unwrap_or_default());
            }
            _ => {}
        }
        self.wrote(written, context)
    }

    /// Gathers the parts only once the stream is known to be none of GossipSub's.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.purpose != Purpose::Other {
            let first = parts.iter().find(|part| !part.is_empty());
            return self.poll_write(context, first.map_or(&[], |part| part));
        }
        let written =
            self.poll_carrier(|handle, stream| handle.poll_write_parts(stream, context, parts));
        self.wrote(written, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = match &mut self.stream.handle().lock().stream {
            // GossipSub has no need to wait: its messages are sent as the connection takes them.
            Some(_) if self.purpose == Purpose::Topics => Poll::Ready(Ok(())),
            Some(stream) => stream.poll_flush(context),
            None => taken_away(),
        };
        let this = &mut *self;
        unless_ended(&mut this.writer_ended, &this.why, flushed, context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = match &mut self.stream.handle().lock().stream {
            Some(stream) => stream.poll_close(context),
            None => taken_away(),
        };
        let this = &mut *self;
        unless_ended(&mut this.writer_ended, &this.why, closed, context)
    }
}
