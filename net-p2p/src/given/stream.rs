//! A byte stream of an embedder, with the I/O traits that libp2p uses, and the events that bring one.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use libp2p::core::transport::TransportEvent;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::ByteStream;

/// A connection on its way to a byte stream.
pub(super) type Opening = BoxFuture<'static, io::Result<GivenStream>>;

pub(super) type Event = TransportEvent<Opening, io::Error>;

/// The stream.
pub(crate) struct GivenStream(pub(super) ByteStream);

impl futures::AsyncRead for GivenStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut into = ReadBuf::new(into);
        Pin::new(&mut self.0).poll_read(context, &mut into).map_ok(|()| into.filled().len())
    }
}

impl futures::AsyncWrite for GivenStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
