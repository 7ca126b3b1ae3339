//! The byte stream below the handshake of libp2p, with the I/O traits that libp2p uses.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use runtime::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[cfg(feature = "websocket")]
use super::web::WebSocket;

/// A byte stream to a peer that has proved nothing yet.
#[derive(Debug)]
pub(crate) enum Socket {
    /// TCP, or a pipe in memory.
    Plain(Stream),
    /// A WebSocket, over TLS or not.
    #[cfg(feature = "websocket")]
    Web(Box<WebSocket>),
    /// One of them, in a private network.
    #[cfg(feature = "private-network")]
    Private(Box<super::private::Private<Self>>),
}

/// Does the same with a stream of any kind, as tokio's traits have it.
macro_rules! each {
    ($self:expr, $stream:ident => $does:expr, $private:ident => $does_in_private:expr) => {
        match $self.get_mut() {
            Self::Plain($stream) => $does,
            #[cfg(feature = "websocket")]
            Self::Web($stream) => $does,
            #[cfg(feature = "private-network")]
            Self::Private($private) => $does_in_private,
        }
    };
}

impl futures::AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => {
            let mut into = ReadBuf::new(into);
            let read = Pin::new(stream).poll_read(context, &mut into);
            read.map_ok(|()| into.filled().len())
        }, private => futures::AsyncRead::poll_read(Pin::new(&mut **private), context, into))
    }
}

impl futures::AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(context, bytes),
            private => futures::AsyncWrite::poll_write(Pin::new(&mut **private), context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write_vectored(context, parts),
        private => {
            futures::AsyncWrite::poll_write_vectored(Pin::new(&mut **private), context, parts)
        })
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(context),
            private => futures::AsyncWrite::poll_flush(Pin::new(&mut **private), context))
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(context),
            private => futures::AsyncWrite::poll_close(Pin::new(&mut **private), context))
    }
}
