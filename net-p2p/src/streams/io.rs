//! Adapts a libp2p stream to the I/O traits of tokio.
//!
//! # Invariants
//!
//! * A stream that was reset, or lost with its connection, reads as an error and not as an end while this end's
//!   half is open. Yamux reports both as an end of the bytes.
//! * A read clears [`LEAST_READ_BYTES`] of its buffer, and more only while reads find more.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{AsyncRead as _, AsyncWrite as _};
use libp2p::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::OwnedSemaphorePermit,
};

use super::{InboundStream, OutboundStream, Usage};

/// Least number of bytes that a read asks for. Chosen: the head of a small request or response.
const LEAST_READ_BYTES: usize = 512;

/// Largest number of bytes that a read asks for. Chosen: four Yamux frames.
const MOST_READ_BYTES: usize = 64 * 1024;

/// The bytes of a stream. Shutdown closes this end's half; dropping it without a shutdown resets the stream.
#[derive(Debug)]
pub(crate) struct StreamIo {
    stream: Stream,
    end: End,
    /// Number of bytes that the next read asks for. The memory of a read must be cleared before it, and clearing all of
    /// a reader's buffer would cost more than the rest of a small read.
    ask: usize,
    // Fields are dropped in order: the place must be given back after the stream is gone.
    _place: Option<OwnedSemaphorePermit>,
    _usage: Usage,
}

/// The meaning of an end of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Not known yet. If writing is still possible, the peer closed its half; otherwise the stream was lost.
    Unknown,
    /// The peer closed its half, or this end's half is closed too, which makes the cases indistinguishable.
    Orderly,
}

impl StreamIo {
    const fn new(stream: Stream, place: Option<OwnedSemaphorePermit>, usage: Usage) -> Self {
        let (end, ask) = (End::Unknown, LEAST_READ_BYTES);
        Self { stream, end, ask, _place: place, _usage: usage }
    }
}

/// The number of bytes to ask for after a read that asked for `asked` and found `found`.
fn next_ask(asked: usize, found: usize) -> usize {
    if found == asked {
        (asked * 2).min(MOST_READ_BYTES)
    } else if found < asked / 4 {
        (asked / 2).max(LEAST_READ_BYTES)
    } else {
        asked
    }
}

impl From<InboundStream> for StreamIo {
    fn from(InboundStream { about, stream, .. }: InboundStream) -> Self {
        Self::new(stream, None, about.usage)
    }
}

impl From<OutboundStream> for StreamIo {
    fn from(OutboundStream { about, stream, place, .. }: OutboundStream) -> Self {
        Self::new(stream, place, about.usage)
    }
}

impl AsyncRead for StreamIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let room = into.remaining().min(this.ask);
        let space = into.initialize_unfilled_to(room);
        let found = ready!(Pin::new(&mut this.stream).poll_read(context, space))?;
        into.advance(found);
        this.ask = next_ask(this.ask, found);
        if room > 0 && found == 0 && this.end == End::Unknown {
            // An empty write fails on a stream that was reset or lost. A pending one shows that the stream is
            // alive.
            if let Poll::Ready(Err(error)) = Pin::new(&mut this.stream).poll_write(context, &[]) {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, error)));
            }
            this.end = End::Orderly;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for StreamIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end = End::Orderly;
        Pin::new(&mut self.stream).poll_close(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_asks_for_about_as_much_as_comes() {
        let mut ask = LEAST_READ_BYTES;
        for _ in 0..20 {
            ask = next_ask(ask, ask);
        }
        assert_eq!(ask, MOST_READ_BYTES);
        assert_eq!(next_ask(ask, ask / 2), ask);
        for _ in 0..20 {
            ask = next_ask(ask, 200);
        }
        assert_eq!(ask, LEAST_READ_BYTES);
        assert_eq!(next_ask(ask, 0), LEAST_READ_BYTES);
    }
}
