//! One connection in memory.
//!
//! # Invariants
//!
//! * A reader waits for the delay of the path, and for as long as the path is cut.
//! * A writer waits while the pipe is full. What is written to a reader that has gone is an error.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::path::Path;
use crate::time::{self, Instant, Sleep};

/// Bytes that are on their way in one direction of a connection, at most. Chosen: what a system's socket
/// holds on a path of some tens of milliseconds.
pub const PIPE_BYTES: usize = 256 * 1024;

/// One direction of a connection.
#[derive(Debug, Default)]
struct Pipe {
    /// Bytes that were sent, and the times at which they arrive.
    sent: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    writer: End,
    reader: End,
    /// Time at which the end of the stream arrives, once it was sent.
    ends: Option<Instant>,
}

/// One end of a pipe.
#[derive(Debug, Default)]
struct End {
    gone: bool,
    waker: Option<Waker>,
}

impl End {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

type Shared = Arc<Mutex<Pipe>>;

fn lock(pipe: &Shared) -> MutexGuard<'_, Pipe> {
    pipe.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The end of a pipe that is read.
#[derive(Debug)]
pub(crate) struct PipeReader {
    pipe: Shared,
    path: Path,
    /// Until the next bytes arrive.
    arrival: Mutex<Option<Pin<Box<Sleep>>>>,
}

/// The end of a pipe that is written.
#[derive(Debug)]
pub(crate) struct PipeWriter {
    pipe: Shared,
    delay: Duration,
}

/// A connection: one pipe in each direction.
#[derive(Debug)]
pub(crate) struct PipeStream {
    read: PipeReader,
    write: PipeWriter,
    local: SocketAddr,
    peer: SocketAddr,
}

/// The two ends of a connection from `dialler` to `listener`.
pub(super) fn connect(
    path: &Path,
    dialler: SocketAddr,
    listener: SocketAddr,
) -> (PipeStream, PipeStream) {
    let (there, back) = (Shared::default(), Shared::default());
    let end = |from: &Shared, to: &Shared, local, peer| PipeStream {
        read: PipeReader { pipe: Arc::clone(from), path: path.clone(), arrival: Mutex::default() },
        write: PipeWriter { pipe: Arc::clone(to), delay: path.delay() },
        local,
        peer,
    };
    (end(&back, &there, dialler, listener), end(&there, &back, listener, dialler))
}

impl PipeReader {
    /// Waits until something has arrived, and looks at it; `None` at the end of the stream.
    fn poll_arrived<T>(
        &self,
        context: &mut Context<'_>,
        take: impl FnOnce(&mut Pipe) -> T,
    ) -> Poll<Option<T>> {
        if self.path.is_cut(context) {
            return Poll::Pending;
        }
        let mut pipe = lock(&self.pipe);
        let due = pipe.sent.front().map(|(at, _)| *at).or(pipe.ends);
        let now = Instant::now();
        match due {
            Some(at) if at <= now && !pipe.sent.is_empty() => {
                let taken = take(&mut pipe);
                pipe.writer.wake();
                Poll::Ready(Some(taken))
            }
            Some(at) if at <= now => Poll::Ready(None),
            due => {
                pipe.reader.waker = Some(context.waker().clone());
                drop(pipe);
                let mut arrival = self.arrival.lock().unwrap_or_else(PoisonError::into_inner);
                *arrival = due.map(|at| Box::pin(time::sleep_until(at)));
                if let Some(arrival) = arrival.as_mut()
                    && arrival.as_mut().poll(context).is_ready()
                {
                    context.waker().wake_by_ref();
                }
                Poll::Pending
            }
        }
    }
}

impl AsyncRead for PipeReader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let taken = self.poll_arrived(context, |pipe| {
            let Some((_, first)) = pipe.sent.front_mut() else { return };
            let count = first.len().min(into.remaining());
            into.put_slice(&first[..count]);
            first.advance(count);
            if first.is_empty() {
                pipe.sent.pop_front();
            }
            pipe.bytes -= count;
        });
        taken.map(|_| Ok(()))
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        let mut pipe = lock(&self.pipe);
        pipe.reader.gone = true;
        pipe.writer.wake();
    }
}

impl PipeWriter {
    fn end(&self) {
        let mut pipe = lock(&self.pipe);
        if pipe.ends.is_none() {
            pipe.ends = Some(Instant::now() + self.delay);
            pipe.reader.wake();
        }
    }
}

impl AsyncWrite for PipeWriter {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut pipe = lock(&self.pipe);
        if pipe.reader.gone || pipe.ends.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = PIPE_BYTES.saturating_sub(pipe.bytes);
        if room == 0 {
            pipe.writer.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        let count = room.min(bytes.len());
        if count > 0 {
            let arrives = Instant::now() + self.delay;
            pipe.sent.push_back((arrives, Bytes::copy_from_slice(&bytes[..count])));
            pipe.bytes += count;
            pipe.reader.wake();
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end();
        Poll::Ready(Ok(()))
    }
}

impl Drop for PipeWriter {
    fn drop(&mut self) {
        self.end();
    }
}

impl PipeStream {
    pub(crate) fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    pub(crate) async fn peek(&self, into: &mut [u8]) -> io::Result<usize> {
        let seen = poll_fn(|context| {
            self.read.poll_arrived(context, |pipe| {
                let first = pipe.sent.front().map(|(_, first)| first.clone()).unwrap_or_default();
                let count = first.len().min(into.len());
                into[..count].copy_from_slice(&first[..count]);
                count
            })
        });
        Ok(seen.await.unwrap_or(0))
    }

    pub(crate) fn into_split(self) -> (PipeReader, PipeWriter) {
        (self.read, self.write)
    }
}

impl AsyncRead for PipeStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(context, into)
    }
}

impl AsyncWrite for PipeStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.write).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_shutdown(context)
    }
}
