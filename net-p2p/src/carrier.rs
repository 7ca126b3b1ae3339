//! The stream of a library below a stream of this crate: Yamux's, QUIC's, or a data channel.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use futures::AsyncWrite as _;

/// A stream of one of the libraries.
#[derive(Debug)]
pub(crate) enum Carrier {
    Yamux(yamux::Stream),
    #[cfg(feature = "quic")]
    Quic(Box<crate::quic::QuicStream>),
    #[cfg(feature = "data-channels")]
    Channel(Box<crate::channels::ChannelStream>),
}

impl Carrier {
    pub(crate) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Yamux(stream) => Pin::new(stream).poll_write(context, bytes),
            #[cfg(feature = "quic")]
            Self::Quic(stream) => stream.poll_write(context, bytes),
            #[cfg(feature = "data-channels")]
            Self::Channel(stream) => stream.poll_write(context, bytes),
        }
    }

    /// The streams of QUIC and WebRTC need no flush: what was written is sent as the path allows.
    pub(crate) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Yamux(stream) => Pin::new(stream).poll_flush(context),
            #[cfg(feature = "quic")]
            Self::Quic(_) => Poll::Ready(Ok(())),
            #[cfg(feature = "data-channels")]
            Self::Channel(_) => Poll::Ready(Ok(())),
        }
    }

    pub(crate) fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Yamux(stream) => Pin::new(stream).poll_close(context),
            #[cfg(feature = "quic")]
            Self::Quic(stream) => {
                stream.finish();
                Poll::Ready(Ok(()))
            }
            #[cfg(feature = "data-channels")]
            Self::Channel(stream) => {
                stream.finish();
                Poll::Ready(Ok(()))
            }
        }
    }
}
