//! A libp2p stream in the terms of everybody else.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use libp2p::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::OwnedSemaphorePermit,
};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};

use crate::streams::{InboundStream, OutboundStream, Usage};

/// The bytes of a stream. Shutting it down closes this end's half of it; dropping it before resets it.
#[derive(Debug)]
pub(crate) struct StreamIo {
    stream: Compat<Stream>,
    /// These two are given up after the stream, which is why they come after it.
    _place: Option<OwnedSemaphorePermit>,
    _usage: Usage,
}

impl From<InboundStream> for StreamIo {
    fn from(InboundStream { about, stream, .. }: InboundStream) -> Self {
        Self { stream: stream.compat(), _place: None, _usage: about.usage }
    }
}

impl From<OutboundStream> for StreamIo {
    fn from(OutboundStream { about, stream, place, .. }: OutboundStream) -> Self {
        Self { stream: stream.compat(), _place: place, _usage: about.usage }
    }
}

impl AsyncRead for StreamIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
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
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
