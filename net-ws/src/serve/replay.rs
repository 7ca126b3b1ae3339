//! A stream whose first bytes have been read already, and which does not stand still for ever.
//!
//! # Invariants
//!
//! * Every byte is given once, those that were read before first.
//! * After [`MAX_STALL`] in which nothing moves in either direction, the stream fails. The HTTP library
//!   has deadlines for request heads only.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};

/// Longest time without a byte in either direction. Source: wire facts 1.6, the write limit of 60 s.
const MAX_STALL: Duration = Duration::from_secs(60);

/// A socket under the HTTP library.
#[derive(Debug)]
pub(super) struct Replay {
    before: BytesMut,
    stream: TcpStream,
    stall: Pin<Box<Sleep>>,
    moved: Instant,
}

impl Replay {
    /// A stream that gives `before` first.
    pub(super) fn new(before: BytesMut, stream: TcpStream) -> Self {
        Self { before, stream, stall: Box::pin(sleep(MAX_STALL)), moved: Instant::now() }
    }

    /// The socket, and what of `before` was not read.
    pub(super) fn into_parts(self) -> (BytesMut, TcpStream) {
        (self.before, self.stream)
    }

    /// Notes that bytes moved, or fails if none have for too long.
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.moved = Instant::now();
            return outcome;
        }
        loop {
            ready!(self.stall.as_mut().poll(context));
            let due = self.moved + MAX_STALL;
            if due <= Instant::now() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.stall.as_mut().reset(due);
        }
    }
}

impl AsyncRead for Replay {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.before.is_empty() {
            let count = self.before.len().min(into.remaining());
            into.put_slice(&self.before.split_to(count));
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(&mut self.stream).poll_read(context, into);
        self.watch(context, read)
    }
}

impl AsyncWrite for Replay {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
