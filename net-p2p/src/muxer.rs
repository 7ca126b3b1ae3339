//! Streams over one connection: Yamux, with a bound on what a peer may make this node keep.
//!
//! The library's own wrapper lets the windows of one connection grow to 1 GiB together, and that cannot
//! be set. This one is the same but for the bounds, and for counting what it drops.
//!
//! # Invariants
//!
//! * At most [`MAX_STREAMS`] streams of a connection are open, and what all of them have received and
//!   nobody has read is at most 256 KiB for each and [`MAX_WINDOW_GROWTH`] for all.
//! * At most [`MAX_BUFFERED`] streams wait to be negotiated. One more is reset and counted.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future, iter,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::{
    muxing::{StreamMuxer, StreamMuxerEvent},
    upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo},
};
use yamux::{Config, Connection, ConnectionError, DEFAULT_CREDIT, Mode, Stream};

use crate::metrics::{P2pEvent, P2pMetrics};

/// Streams open at one time on one connection, both directions together. One more ends the connection,
/// so everything that refuses streams without harm has to refuse them earlier.
///
/// Chosen: 384 that are not yet negotiated (256 of them here), 256 that were taken from the peer, 256 of
/// our own, and a rest for those that end just now.
pub(crate) const MAX_STREAMS: usize = 1_024;

/// By how much the windows of a connection's streams may exceed what each starts with, in bytes, all
/// together. They grow while a stream is read as fast as its peer sends. Chosen: 80 MB/s for one stream
/// over a path of 200 ms.
const MAX_WINDOW_GROWTH: usize = 16 * 1024 * 1024;

/// Streams that wait to be negotiated.
///
/// Chosen: as many as peers of this kind open without an acknowledgement.
const MAX_BUFFERED: usize = 256;

/// Makes a muxer of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Upgrade {
    config: Config,
    metrics: P2pMetrics,
}

impl Upgrade {
    pub(crate) fn new(metrics: P2pMetrics) -> Self {
        let mut config = Config::default();
        config.set_max_num_streams(MAX_STREAMS);
        let windows = MAX_STREAMS * DEFAULT_CREDIT as usize + MAX_WINDOW_GROWTH;
        config.set_max_connection_receive_window(Some(windows));
        Self { config, metrics }
    }

    fn muxer<C: AsyncRead + AsyncWrite + Unpin>(self, io: C, mode: Mode) -> Muxer<C> {
        let connection = Connection::new(io, self.config, mode);
        Muxer { connection, inbound: VecDeque::new(), acceptor: None, metrics: self.metrics }
    }
}

impl UpgradeInfo for Upgrade {
    type Info = &'static str;
    type InfoIter = iter::Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        iter::once("/yamux/1.0.0")
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> InboundConnectionUpgrade<C> for Upgrade {
    type Output = Muxer<C>;
    type Error = Infallible;
    type Future = future::Ready<Result<Muxer<C>, Infallible>>;

    fn upgrade_inbound(self, io: C, _protocol: &'static str) -> Self::Future {
        future::ready(Ok(self.muxer(io, Mode::Server)))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> OutboundConnectionUpgrade<C> for Upgrade {
    type Output = Muxer<C>;
    type Error = Infallible;
    type Future = future::Ready<Result<Muxer<C>, Infallible>>;

    fn upgrade_outbound(self, io: C, _protocol: &'static str) -> Self::Future {
        future::ready(Ok(self.muxer(io, Mode::Client)))
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Muxer<C> {
    connection: Connection<C>,
    /// Came while the connection was driven and nobody asked for a stream.
    inbound: VecDeque<Stream>,
    /// Who asked for a stream when there was none.
    acceptor: Option<Waker>,
    metrics: P2pMetrics,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Muxer<C> {
    /// Drives the connection until a stream comes.
    fn poll_stream(&mut self, context: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        let next = ready!(self.connection.poll_next_inbound(context));
        Poll::Ready(next.unwrap_or(Err(ConnectionError::Closed)))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> StreamMuxer for Muxer<C> {
    type Substream = Stream;
    type Error = ConnectionError;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Stream, ConnectionError>> {
        if let Some(stream) = self.inbound.pop_front() {
            return Poll::Ready(Ok(stream));
        }
        let next = self.poll_stream(context);
        if next.is_pending() {
            self.acceptor = Some(context.waker().clone());
        }
        next
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Stream, ConnectionError>> {
        self.connection.poll_new_outbound(context)
    }

    fn poll_close(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), ConnectionError>> {
        self.connection.poll_close(context)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<StreamMuxerEvent, ConnectionError>> {
        let stream = ready!(self.poll_stream(context))?;
        if self.inbound.len() < MAX_BUFFERED {
            self.inbound.push_back(stream);
            if let Some(acceptor) = self.acceptor.take() {
                acceptor.wake();
            }
        } else {
            self.metrics.note(P2pEvent::MuxerFull);
        }
        // There may be more, and others shall have their turn.
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{io::AsyncWriteExt, time};
    use tokio_util::compat::TokioAsyncReadCompatExt;

    use super::*;

    #[tokio::test]
    async fn streams_that_find_no_place_are_reset_and_counted() {
        let (mut peer, ours) = tokio::io::duplex(1 << 20);
        let metrics = P2pMetrics::default();
        let mut muxer = Upgrade::new(metrics.clone()).muxer(ours.compat(), Mode::Server);
        for number in 0..=MAX_BUFFERED as u32 + 2 {
            // An update of a window that opens the stream.
            let mut frame = [0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
            frame[4..8].copy_from_slice(&(2 * number + 1).to_be_bytes());
            peer.write_all(&frame).await.unwrap();
        }
        let dropped = future::poll_fn(|context| {
            assert!(Pin::new(&mut muxer).poll(context).is_pending());
            if metrics.count(P2pEvent::MuxerFull) < 3 { Poll::Pending } else { Poll::Ready(()) }
        });
        time::timeout(Duration::from_secs(20), dropped).await.unwrap();
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..MAX_BUFFERED {
            assert!(Pin::new(&mut muxer).poll_inbound(&mut context).is_ready());
        }
        assert!(Pin::new(&mut muxer).poll_inbound(&mut context).is_pending());
        assert_eq!(metrics.count(P2pEvent::MuxerFull), 3);
    }
}
