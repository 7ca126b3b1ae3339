//! The stream muxer of a connection: Yamux in a task of its own, with a bound on the memory that a peer can
//! make this node hold.
//!
//! ```text
//!   swarm's task ── Muxer ──▶ orders: open, close ──▶ Driver ── Yamux ── FlushCoalescer ── Noise ── TCP
//!                         ◀── inbound streams, end ◀──   ▲
//!                                                        └── frames of streams, from the tasks that use them
//! ```
//!
//! The library's own wrapper lets the windows of one connection grow to 1 GiB in total, which cannot be
//! configured. It also moves the bytes in the swarm's task for the connection, which asks every behaviour for
//! its protocols on each wake-up, and so for each frame. Here that task wakes only for a new stream and for the
//! end.
//!
//! # Invariants
//!
//! * At most [`MAX_STREAMS`] streams of a connection are open. Their received and unread bytes are at most
//!   256 KiB per stream plus [`MAX_WINDOW_GROWTH`] for all of them together. The total of all connections has a
//!   bound of its own (`backlog.rs`).
//! * At most [`MAX_BUFFERED`] inbound streams wait for negotiation. Further ones are reset and counted, and so are those that
//!   waited for [`MAX_WAIT`] while the places for negotiation were taken. A stream that waited because the swarm was late to
//!   ask is served.
//! * A poll of the swarm's task in which handlers moved bytes is followed by another poll (`substream.rs`).
//! * Closing the muxer waits until all written bytes are sent and the socket is closed, at most
//!   [`CLOSE_LIMIT`]. Dropping it ends the connection at once.
//! * The streams of a connection end as soon as the connection starts to close.

mod driver;
mod meter;
mod purpose;
mod substream;
mod topic_stream;

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use broadcaster::EndedFor;
use futures::{AsyncRead, AsyncWrite};
use gossip::DisconnectReason;
use libp2p::{
    PeerId,
    core::muxing::{StreamMuxer, StreamMuxerEvent},
};
use runtime::{CancelWatch, time::Instant};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use yamux::{Config, Connection, ConnectionError, DEFAULT_CREDIT, Mode};

pub(crate) use self::driver::Order;
use self::{
    driver::Driver,
    meter::Meter,
    substream::{Activity, Opener, Substream, Why},
    topic_stream::TopicStream,
};
use crate::{
    backlog::{Backlog, CountedStream},
    connections::ConnectionTasks,
    flush_coalescer::FlushCoalescer,
    metrics::{P2pEvent, P2pMetrics},
    own_topics::Stamp,
    rounds::ReadShare,
    topic_debts::TopicDebts,
};

/// The name of Yamux in the negotiation. Source: libp2p specifications, `yamux/README.md`.
pub(crate) const YAMUX: &str = "/yamux/1.0.0";

/// Largest number of open streams per connection, both directions together. Another stream ends the whole
/// connection, so streams must be refused one by one before this bound is reached.
///
/// Chosen: 384 in negotiation (256 of them here), 256 accepted from the peer, 256 of this node's own, and
/// the rest for streams that are just ending.
pub(crate) const MAX_STREAMS: usize = 1_024;

/// Total by which the windows of a connection's streams may exceed their initial sizes, in bytes. Windows grow
/// while a stream is read as fast as its peer sends. Chosen: 80 MB/s for one stream over a path of 200 ms.
const MAX_WINDOW_GROWTH: usize = 16 * 1024 * 1024;

/// Number of connections that may grow to their bound before the bound of the whole node is reached. Chosen.
const GROWING_CONNECTIONS: usize = 8;

/// Largest number of inbound streams that wait for negotiation.
///
/// Chosen: rust-libp2p peers open as many without an acknowledgement.
const MAX_BUFFERED: usize = 256;

/// Longest wait of an inbound stream for a place in the negotiation, of which the swarm has 128.
///
/// Chosen: half of the time that a negotiation may take. A peer that lets 128 of them time out has lost those behind them by
/// then, and its next stream is served as soon as there is a place.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// Longest time for the orderly end of a connection. A dead peer, or one that does not read, would delay it
/// until the kernel gives the socket up. Chosen: the limit of every other orderly close.
pub(crate) const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// Capacity of the channel to the task: one stream at a time, and one end.
const MAX_ORDERS: usize = 2;

/// The byte stream below Yamux, movable into a task.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<C: AsyncRead + AsyncWrite + Unpin + Send + 'static> Wire for C {}

/// The total by which the windows of a connection may exceed their initial sizes, in bytes, with this backlog.
pub(crate) fn max_window_growth(backlog: &Backlog) -> usize {
    MAX_WINDOW_GROWTH.min(backlog.bound() / GROWING_CONNECTIONS)
}

/// Creates the muxer of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Upgrade {
    config: Config,
    tasks: ConnectionTasks,
    backlog: Backlog,
}

impl Upgrade {
    /// Drives the connections in tasks of `tasks`, and counts their bytes in `backlog`.
    pub(crate) fn new(tasks: ConnectionTasks, backlog: Backlog) -> Self {
        let mut config = Config::default();
        config.set_max_num_streams(MAX_STREAMS);
        let windows = MAX_STREAMS * DEFAULT_CREDIT as usize + max_window_growth(&backlog);
        config.set_max_connection_receive_window(Some(windows));
        Self { config, tasks, backlog }
    }

    /// The counters of the node.
    pub(crate) fn metrics(&self) -> &P2pMetrics {
        self.backlog.metrics()
    }

    /// The muxer over `io`, at the end of the connection that `mode` says.
    pub(crate) fn muxer(self, io: impl Wire, mode: Mode) -> Muxer {
        let backlog = self.backlog.open();
        let (muxer, ends) = Muxer::new(backlog.end().clone(), self.backlog.metrics().clone());
        let socket = Meter::new(FlushCoalescer::new(io), backlog.clone());
        let mut driver = Driver {
            connection: Connection::new(socket, self.config, mode),
            too_much: CancelWatch::new(backlog.end()),
            backlog,
            inbound: ends.inbound,
            orders: ends.orders,
            asked: None,
            streams: ends.streams,
            metrics: self.backlog.metrics().clone(),
        };
        let over = ends.over;
        self.tasks.start("muxer", Box::pin(async move { driver.run(over).await }));
        muxer
    }
}

/// An inbound stream that waits for its negotiation.
#[derive(Debug)]
pub(crate) struct Waiting {
    stream: CountedStream,
    since: Instant,
}

impl Waiting {
    /// A stream that begins to wait.
    pub(crate) fn new(stream: CountedStream) -> Self {
        Self { stream, since: Instant::now() }
    }
}

/// The swarm's places for streams in negotiation, as this end sees them: the swarm asks for a stream while one is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NegotiationPlaces {
    /// The swarm waits for a stream, or has not begun to.
    Free,
    /// The swarm has taken a stream, and has not asked for another since.
    Taken,
}

/// The swarm's handle to one connection.
#[derive(Debug)]
pub(crate) struct Muxer {
    /// Inbound streams, from the task.
    inbound: mpsc::Receiver<Waiting>,
    places: NegotiationPlaces,
    metrics: P2pMetrics,
    /// Orders for the task.
    orders: mpsc::Sender<Order>,
    /// The outbound stream that was ordered, until it arrives.
    outbound: Option<oneshot::Receiver<CountedStream>>,
    /// The result of the close that was ordered.
    closing: Option<oneshot::Receiver<Result<(), ConnectionError>>>,
    /// The error that ended the connection, until it has been returned.
    ended: Option<oneshot::Receiver<ConnectionError>>,
    /// Tells whether the handlers of the connection must be polled again.
    activity: Activity,
    /// GossipSub's stream.
    topics: TopicStream,
    /// Cancelled when the streams must end.
    streams: CancellationToken,
    why: Why,
    /// Cancelled when the connection must end at once.
    evict: CancellationToken,
}

/// The ends that a muxer leaves to the task that drives its connection.
#[derive(Debug)]
pub(crate) struct DriverEnds {
    /// Takes inbound streams to the muxer.
    pub(crate) inbound: mpsc::Sender<Waiting>,
    pub(crate) orders: mpsc::Receiver<Order>,
    /// Takes the error that ends the connection without an order.
    pub(crate) over: oneshot::Sender<ConnectionError>,
    /// To be cancelled when the streams must end.
    pub(crate) streams: CancellationToken,
}

impl Muxer {
    /// A muxer, and the ends for the task that drives its connection. `evict` is cancelled when the connection must end
    /// at once.
    pub(crate) fn new(evict: CancellationToken, metrics: P2pMetrics) -> (Self, DriverEnds) {
        let (to_muxer, inbound) = mpsc::channel(MAX_BUFFERED);
        let (orders, wanted) = mpsc::channel(MAX_ORDERS);
        let (over, ended) = oneshot::channel();
        let streams = CancellationToken::new();
        let ends = DriverEnds { inbound: to_muxer, orders: wanted, over, streams: streams.clone() };
        let muxer = Self {
            inbound,
            places: NegotiationPlaces::Free,
            metrics,
            orders,
            outbound: None,
            closing: None,
            ended: Some(ended),
            activity: Activity::default(),
            topics: TopicStream::default(),
            streams,
            why: Why::default(),
            evict,
        };
        (muxer, ends)
    }

    fn substream(&self, stream: CountedStream, opener: Opener) -> Substream {
        let end = (self.streams.clone(), self.why.clone());
        Substream::new(stream, self.activity.clone(), end, self.topics.clone(), opener)
    }

    /// Pays the debt of `peer` as what was published to it reaches this connection.
    pub(crate) fn with_debt(self, debts: &TopicDebts, peer: PeerId) -> Self {
        self.topics.pays(debts.open(peer, self.evict.clone()));
        self
    }

    /// Changes this node's own messages on topics by `stamp`.
    pub(crate) fn with_stamp(self, stamp: Stamp) -> Self {
        self.topics.stamps(stamp);
        self
    }

    /// Has the peer's own streams of GossipSub read in shares.
    pub(crate) fn with_share(self, share: ReadShare) -> Self {
        self.topics.shares(share);
        self
    }

    /// Ends all streams at once, for a reason that the links on them take over. The connection itself is
    /// then to be closed.
    pub(crate) fn end_streams(&self, why: DisconnectReason) {
        // The first reason stays.
        let _ = self.why.set(EndedFor(why));
        self.streams.cancel();
    }

    /// Resolves when the connection ends without an order to close.
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
        let waited_for_place = self.places == NegotiationPlaces::Taken;
        self.places = NegotiationPlaces::Free;
        loop {
            match ready!(self.inbound.poll_recv(context)) {
                Some(late) if waited_for_place && late.since.elapsed() > MAX_WAIT => {
                    self.metrics.note(P2pEvent::MuxerFull);
                }
                Some(Waiting { stream, .. }) => {
                    self.places = NegotiationPlaces::Taken;
                    return Poll::Ready(Ok(self.substream(stream, Opener::Peer)));
                }
                None => return self.poll_ended(context).map(Err),
            }
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
            // swarm 0.48 panics if the first poll of a stream is ready (rust-libp2p#6427), as a fast task could make it.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Some(stream) = &mut self.outbound else { return Poll::Pending };
        let stream = ready!(Pin::new(stream).poll(context));
        self.outbound = None;
        match stream {
            Ok(stream) => Poll::Ready(Ok(self.substream(stream, Opener::Own))),
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
        // The task has ended and so has dropped the connection, which is a close too.
        Poll::Ready(closed.unwrap_or(Ok(())))
    }

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<StreamMuxerEvent, ConnectionError>> {
        self.activity.poll_again(context);
        self.topics.poll(context);
        self.poll_ended(context).map(Err)
    }
}

#[cfg(test)]
mod tests;
