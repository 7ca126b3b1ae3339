//! One stream of a QUIC connection.
//!
//! # Invariants
//!
//! * A stream that is dropped before it was closed is reset, so that the peer never takes half a message for a whole
//!   one. Once the connection closes, dropped streams are finished, so that what was written arrives.
//! * The connection knows at any moment how many of its streams hold bytes that were not read.
//! * Gossip goes ahead of everything else on the connection, by the priority of its streams.
//! * The memory of bytes that were lent is at most twice the bytes: what a full window takes a part of stays whole, so as much as was
//!   not taken is copied afterwards.

use std::{
    fmt,
    io::{self, IoSlice},
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use bytes::Bytes;
use futures::{future::BoxFuture, task::AtomicWaker};
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};

use crate::lent;

/// The code of a reset stream, and of an orderly close. Source: libp2p specifications, `quic/README.md`.
pub(super) const NO_CODE: VarInt = VarInt::from_u32(0);

/// The priority of gossip. Every other stream has zero, which is quinn's default.
const GOSSIP_PRIORITY: i32 = 1;

/// Bytes at the beginning of a stream in which its protocol is named. Chosen: the header, and a few names.
const NAMING_BYTES: usize = 512;

/// A finished stream whose bytes were not all acknowledged yet. It resolves when they are, or when they never will be.
pub(super) type Finished = BoxFuture<'static, ()>;

/// The state of a connection that its streams share.
pub(super) struct Shared {
    /// The protocols that go first.
    pub(super) first: Arc<[String]>,
    pub(super) unread_streams: AtomicUsize,
    pub(super) was_empty: AtomicBool,
    pub(super) was_blocked: AtomicBool,
    pub(super) written: AtomicU64,
    /// `true` once the connection closes in an orderly way.
    pub(super) is_closing: AtomicBool,
    pub(super) finished: Mutex<Vec<Finished>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("unread_streams", &self.unread_streams)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(first: Arc<[String]>) -> Self {
        Self {
            first,
            unread_streams: AtomicUsize::new(0),
            was_empty: AtomicBool::new(true),
            was_blocked: AtomicBool::new(false),
            written: AtomicU64::new(0),
            is_closing: AtomicBool::new(false),
            finished: Mutex::default(),
        }
    }

    fn finish(&self, send: &mut SendStream) {
        if send.finish().is_ok() {
            let stopped = send.stopped();
            let finished = Box::pin(async move {
                // Acknowledged, refused by the peer, or lost with the connection: it is over.
                let _ = stopped.await;
            });
            self.finished.lock().unwrap_or_else(PoisonError::into_inner).push(finished);
        }
    }

    /// Takes the streams that were finished and not wholly acknowledged.
    pub(super) fn take_finished(&self) -> Vec<Finished> {
        std::mem::take(&mut *self.finished.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Forgets the finished streams whose bytes have all arrived.
    pub(super) fn forget_arrived(&self) {
        let mut context = Context::from_waker(Waker::noop());
        let mut finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
        finished.retain_mut(|stream| stream.as_mut().poll(&mut context).is_pending());
    }
}

/// The arrival of bytes at a stream.
struct Arrival {
    shared: Arc<Shared>,
    is_unread: AtomicBool,
    reader: AtomicWaker,
}

impl Arrival {
    fn mark(&self) {
        if !self.is_unread.swap(true, Ordering::Relaxed) {
            self.shared.unread_streams.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn clear(&self) {
        if self.is_unread.swap(false, Ordering::Relaxed)
            && self.shared.unread_streams.fetch_sub(1, Ordering::Relaxed) == 1
        {
            self.shared.was_empty.store(true, Ordering::Relaxed);
        }
    }
}

impl Wake for Arrival {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.mark();
        self.reader.wake();
    }
}

/// The protocol of a stream, as far as it was named.
#[derive(Debug)]
enum Naming {
    /// These bytes were written.
    Open(Vec<u8>),
    Done,
}

/// A stream in both directions.
pub(crate) struct QuicStream {
    send: SendStream,
    receive: RecvStream,
    arrival: Arc<Arrival>,
    waker: Waker,
    naming: Naming,
    /// Bytes to copy before lent ones are kept again.
    to_copy: usize,
    is_finished: bool,
}

impl fmt::Debug for QuicStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicStream").field("id", &self.send.id()).finish_non_exhaustive()
    }
}

fn read_error(error: ReadError) -> io::Error {
    let kind = match &error {
        ReadError::Reset(_) => io::ErrorKind::ConnectionReset,
        ReadError::ConnectionLost(_) => io::ErrorKind::ConnectionAborted,
        _ => io::ErrorKind::NotConnected,
    };
    io::Error::new(kind, error)
}

fn write_error(error: WriteError) -> io::Error {
    let kind = match &error {
        WriteError::Stopped(_) => io::ErrorKind::ConnectionReset,
        WriteError::ConnectionLost(_) => io::ErrorKind::ConnectionAborted,
        _ => io::ErrorKind::BrokenPipe,
    };
    io::Error::new(kind, error)
}

impl QuicStream {
    pub(super) fn new(shared: Arc<Shared>, (send, receive): (SendStream, RecvStream)) -> Self {
        let arrival = Arc::new(Arrival {
            shared,
            is_unread: AtomicBool::new(false),
            reader: AtomicWaker::new(),
        });
        arrival.mark();
        let waker = Arc::clone(&arrival).into();
        let naming = Naming::Open(Vec::new());
        Self { send, receive, arrival, waker, naming, to_copy: 0, is_finished: false }
    }

    /// Reads into `into`; 0 bytes at the end.
    pub(crate) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.arrival.reader.register(context.waker());
        // The waker marks the stream for all that comes from here on.
        self.arrival.clear();
        let mut marking = Context::from_waker(&self.waker);
        match self.receive.poll_read(&mut marking, into) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(bytes)) => {
                if bytes > 0 {
                    self.arrival.mark();
                }
                Poll::Ready(Ok(bytes))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(read_error(error))),
        }
    }

    /// Looks for the name of a protocol that goes first in what this node writes first.
    fn name(&mut self, bytes: &[u8]) {
        let Naming::Open(begun) = &mut self.naming else { return };
        begun.extend_from_slice(bytes.get(..NAMING_BYTES.min(bytes.len())).unwrap_or_default());
        let is_named = |name: &String| {
            let line = [name.as_bytes(), b"\n"].concat();
            begun.windows(line.len()).any(|part| part == line)
        };
        if self.arrival.shared.first.iter().any(is_named) {
            // A stream that is closed already needs no priority.
            let _ = self.send.set_priority(GOSSIP_PRIORITY);
            self.naming = Naming::Done;
        } else if begun.len() >= NAMING_BYTES {
            self.naming = Naming::Done;
        }
    }

    /// Writes as much as the peer and the window of the connection allow.
    pub(crate) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = pin!(self.send.write(bytes)).poll(context);
        let written = self.note(polled);
        if let Poll::Ready(Ok(taken)) = written {
            self.to_copy = self.to_copy.saturating_sub(taken);
            self.name(bytes.get(..taken).unwrap_or_default());
        }
        written
    }

    /// Writes as much of `parts`, and keeps them if they are lent; otherwise of the first one that is not empty.
    pub(crate) fn poll_write_parts(
        &mut self,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let may_keep = self.to_copy == 0 && matches!(self.naming, Naming::Done);
        let Some(mut chunks) = may_keep.then(|| lent::take(parts)).flatten() else {
            let first = parts.iter().find(|part| !part.is_empty());
            return self.poll_write(context, first.map_or(&[], |part| part));
        };
        let offered: usize = chunks.iter().map(Bytes::len).sum();
        let polled = pin!(self.send.write_chunks(&mut chunks)).poll(context);
        let written = self.note(polled.map_ok(|written| written.bytes));
        if let Poll::Ready(Ok(taken)) = written {
            self.to_copy = offered.saturating_sub(taken);
        }
        written
    }

    /// Notes the result of a write.
    fn note(&self, polled: Poll<Result<usize, WriteError>>) -> Poll<io::Result<usize>> {
        let shared = &self.arrival.shared;
        match polled {
            Poll::Pending => {
                shared.was_blocked.store(true, Ordering::Relaxed);
                Poll::Pending
            }
            Poll::Ready(Ok(taken)) => {
                shared.written.fetch_add(taken as u64, Ordering::Relaxed);
                Poll::Ready(Ok(taken))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(write_error(error))),
        }
    }

    /// Ends the direction to the peer: all that was written still arrives.
    pub(crate) fn finish(&mut self) {
        if !std::mem::replace(&mut self.is_finished, true) {
            self.arrival.shared.finish(&mut self.send);
        }
    }
}

impl Drop for QuicStream {
    fn drop(&mut self) {
        self.arrival.clear();
        if self.is_finished {
            return;
        }
        if self.arrival.shared.is_closing.load(Ordering::Acquire) {
            self.finish();
        } else {
            // It fails only if the stream was reset or stopped already.
            let _ = self.send.reset(NO_CODE);
        }
    }
}
