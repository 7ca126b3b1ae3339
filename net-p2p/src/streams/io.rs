//! Adapts a libp2p stream to the I/O traits of tokio.
//!
//! # Invariants
//!
//! * A stream that was reset, or lost with its connection, reads as an error and not as an end while this end's
//!   half is open. Yamux reports both as an end of the bytes.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use libp2p::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::OwnedSemaphorePermit,
};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};

use super::{InboundStream, OutboundStream, Usage};

/// The bytes of a stream. Shutdown closes this end's half; dropping it without a shutdown resets the stream.
#[derive(Debug)]
pub(crate) struct StreamIo {
    stream: Compat<Stream>,
    end: End,
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

impl From<InboundStream> for StreamIo {
    fn from(InboundStream { about, stream, .. }: InboundStream) -> Self {
        Self { stream: stream.compat(), end: End::Unknown, _place: None, _usage: about.usage }
    }
}

impl From<OutboundStream> for StreamIo {
    fn from(OutboundStream { about, stream, place, .. }: OutboundStream) -> Self {
        Self { stream: stream.compat(), end: End::Unknown, _place: place, _usage: about.usage }
    }
}

impl AsyncRead for StreamIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let (before, room) = (into.filled().len(), into.remaining());
        ready!(Pin::new(&mut this.stream).poll_read(context, into))?;
        if room > 0 && into.filled().len() == before && this.end == End::Unknown {
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
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
