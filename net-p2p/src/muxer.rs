//! Streams over one connection: Yamux, in a task of its own, with a bound on what a peer may make this
//! node keep.
//!
//! ```text
//!   swarm's task ── Muxer ──▶ orders: open, close ──▶ Driver ── Yamux ── FlushCoalescer ── Noise ── TCP
//!                         ◀── inbound streams, end ◀──   ▲
//!                                                        └── frames of streams, wherever they are used
//! ```
//!
//! The library's own wrapper lets the windows of one connection grow to 1 GiB together, and that cannot
//! be set. It also moves the bytes in the swarm's task for that connection, which asks every behaviour
//! for its protocols whenever it wakes: for each frame. Here it wakes for a new stream and for the end.
//!
//! # Invariants
//!
//! * At most [`MAX_STREAMS`] streams of a connection are open, and what all of them have received and
//!   nobody has read is at most 256 KiB for each and [`MAX_WINDOW_GROWTH`] for all.
//! * At most [`MAX_BUFFERED`] streams wait to be negotiated. One more is reset and counted.
//! * A poll of the swarm's task in which handlers moved bytes is followed by another (`substream.rs`).
//! * Closing the muxer waits until everything written is out and the socket is closed, at most
//!   [`CLOSE_LIMIT`]. Dropping it ends the connection at once.
//! * The streams of a connection end with it, and as soon as its closing begins.

mod driver;
mod substream;

use std::{
    convert::Infallible,
    future, iter,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::{
    muxing::{StreamMuxer, StreamMuxerEvent},
    upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo},
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use yamux::{Config, Connection, ConnectionError, DEFAULT_CREDIT, Mode, Stream};

use self::{
    driver::{Driver, Order},
    substream::{Activity, Substream},
};
use crate::{connections::ConnectionTasks, flush_coalescer::FlushCoalescer, metrics::P2pMetrics};

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

/// How long the orderly end of a connection may take. A peer that is dead, or does not read, would put
/// it off until the system gives the socket up. Chosen: as every other orderly close.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// Orders that wait for the task: one stream at a time, and one end.
const MAX_ORDERS: usize = 2;

/// What there is to a connection: bytes, and a task may take them.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<C: AsyncRead + AsyncWrite + Unpin + Send + 'static> Wire for C {}

/// Makes a muxer of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Upgrade {
    config: Config,
    tasks: ConnectionTasks,
    metrics: P2pMetrics,
}

impl Upgrade {
    /// Connections are driven in `tasks`.
    pub(crate) fn new(tasks: ConnectionTasks, metrics: P2pMetrics) -> Self {
        let mut config = Config::default();
        config.set_max_num_streams(MAX_STREAMS);
        let windows = MAX_STREAMS * DEFAULT_CREDIT as usize + MAX_WINDOW_GROWTH;
        config.set_max_connection_receive_window(Some(windows));
        Self { config, tasks, metrics }
    }

    fn muxer(self, io: impl Wire, mode: Mode) -> Muxer {
        let (streams, inbound) = mpsc::channel(MAX_BUFFERED);
        let (orders, wanted) = mpsc::channel(MAX_ORDERS);
        let (end, ended) = oneshot::channel();
        let driver = Driver {
            connection: Connection::new(FlushCoalescer::new(io), self.config, mode),
            inbound: streams,
            orders: wanted,
            asked: None,
            streams: CancellationToken::new(),
            metrics: self.metrics,
        };
        let streams = driver.streams.clone();
        self.tasks.start("muxer", driver.run(end));
        Muxer {
            inbound,
            orders,
            outbound: None,
            closing: None,
            ended: Some(ended),
            activity: Activity::default(),
            streams,
        }
    }
}

impl UpgradeInfo for Upgrade {
    type Info = &'static str;
    type InfoIter = iter::Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        iter::once("/yamux/1.0.0")
    }
}

impl<C: Wire> InboundConnectionUpgrade<C> for Upgrade {
    type Output = Muxer;
    type Error = Infallible;
    type Future = future::Ready<Result<Muxer, Infallible>>;

    fn upgrade_inbound(self, io: C, _protocol: &'static str) -> Self::Future {
        future::ready(Ok(self.muxer(io, Mode::Server)))
    }
}

impl<C: Wire> OutboundConnectionUpgrade<C> for Upgrade {
    type Output = Muxer;
    type Error = Infallible;
    type Future = future::Ready<Result<Muxer, Infallible>>;

    fn upgrade_outbound(self, io: C, _protocol: &'static str) -> Self::Future {
        future::ready(Ok(self.muxer(io, Mode::Client)))
    }
}

/// One connection, as the swarm sees it.
#[derive(Debug)]
pub(crate) struct Muxer {
    /// Streams of the peer, from the task.
    inbound: mpsc::Receiver<Stream>,
    /// To the task.
    orders: mpsc::Sender<Order>,
    /// The stream that was ordered and has not come.
    outbound: Option<oneshot::Receiver<Stream>>,
    /// How the closing that was ordered goes.
    closing: Option<oneshot::Receiver<Result<(), ConnectionError>>>,
    /// Why the connection ended, until it is told.
    ended: Option<oneshot::Receiver<ConnectionError>>,
    /// Whether the handlers of the connection have to be polled again.
    activity: Activity,
    /// Cancelled when the streams are to end.
    streams: CancellationToken,
}

impl Muxer {
    fn substream(&self, stream: Stream) -> Substream {
        Substream::new(stream, self.activity.clone(), self.streams.clone())
    }

    /// Waits for an end that nobody asked for.
    fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<ConnectionError> {
        let Some(ended) = &mut self.ended else { return Poll::Ready(ConnectionError::Closed) };
        let why = ready!(Pin::new(ended).poll(context));
        self.ended = None;
        Poll::Ready(why.unwrap_or(ConnectionError::Closed))
    }
}

impl StreamMuxer for Muxer {
    type Substream = Substream;
    type Error = ConnectionError;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Substream, ConnectionError>> {
        match ready!(self.inbound.poll_recv(context)) {
            Some(stream) => Poll::Ready(Ok(self.substream(stream))),
            None => self.poll_ended(context).map(Err),
        }
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Substream, ConnectionError>> {
        if self.outbound.is_none() {
            let (to, stream) = oneshot::channel();
            if self.orders.try_send(Order::Open(to)).is_err() {
                return self.poll_ended(context).map(Err);
            }
            self.outbound = Some(stream);
        }
        let Some(stream) = &mut self.outbound else { return Poll::Pending };
        let stream = ready!(Pin::new(stream).poll(context));
        self.outbound = None;
        match stream {
            Ok(stream) => Poll::Ready(Ok(self.substream(stream))),
            Err(_gone) => self.poll_ended(context).map(Err),
        }
    }

    fn poll_close(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), ConnectionError>> {
        if self.closing.is_none() {
            let (done, closing) = oneshot::channel();
            if self.orders.try_send(Order::Close(done)).is_err() {
                return Poll::Ready(Ok(()));
            }
            self.closing = Some(closing);
        }
        let Some(closing) = &mut self.closing else { return Poll::Pending };
        let closed = ready!(Pin::new(closing).poll(context));
        self.closing = None;
        // A task that is gone has let go of the connection.
        Poll::Ready(closed.unwrap_or(Ok(())))
    }

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<StreamMuxerEvent, ConnectionError>> {
        self.activity.poll_again(context);
        self.poll_ended(context).map(Err)
    }
}

#[cfg(test)]
mod tests;
