//! The task that moves the bytes of one connection.
//!
//! # Invariants
//!
//! * The task waits for orders and for the connection only. A stream that finds its queue full is reset
//!   without a wait.
//! * The task ends when the connection ends, when it has closed the connection, or when the muxer was dropped.
//! * The task ends at once when the backlog evicts its connection.
//! * The muxer receives the error that ended the connection.
//! * Every stream of the connection ends when the task ends or starts to close the connection.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use futures::{AsyncRead, AsyncWrite};
use runtime::{CancelWatch, time};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use yamux::{Connection, ConnectionError, Stream};

use super::{CLOSE_LIMIT, Waiting, meter::Meter};
use crate::{
    backlog::{ConnectionBacklog, CountedStream},
    carrier::Carrier,
    flush_coalescer::FlushCoalescer,
    metrics::{P2pEvent, P2pMetrics},
};

/// Inbound streams taken in one turn, before outbound streams get theirs. Chosen.
const STREAMS_A_TURN: usize = 32;

/// An order of the muxer to its task.
#[derive(Debug)]
pub(crate) enum Order {
    /// Opens an outbound stream. At most one is ordered at a time.
    Open(oneshot::Sender<CountedStream>),
    /// Closes the connection in an orderly way, and reports the result.
    Close(oneshot::Sender<Result<(), ConnectionError>>),
}

/// The reason why a connection is no longer driven.
enum End {
    Asked(oneshot::Sender<Result<(), ConnectionError>>),
    Failed(ConnectionError),
    Forgotten,
}

/// Drives one connection.
#[derive(Debug)]
pub(super) struct Driver<C> {
    pub(super) connection: Connection<Meter<FlushCoalescer<C>>>,
    /// The account of the connection in the backlog.
    pub(super) backlog: ConnectionBacklog,
    /// Resolves when the backlog evicts the connection.
    pub(super) too_much: CancelWatch,
    /// Inbound streams, on their way to the negotiation.
    pub(super) inbound: mpsc::Sender<Waiting>,
    pub(super) orders: mpsc::Receiver<Order>,
    /// Receiver of the outbound stream that is being opened.
    pub(super) asked: Option<oneshot::Sender<CountedStream>>,
    /// Cancelled when the streams must end.
    pub(super) streams: CancellationToken,
    pub(super) metrics: P2pMetrics,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Driver<C> {
    /// Drives the connection to its end. `ended` receives an error that no order to close caused.
    pub(super) async fn run(&mut self, ended: oneshot::Sender<ConnectionError>) {
        // The guard ends the streams also when this future is dropped or panics.
        let streams = self.streams.clone().drop_guard();
        let end = poll_fn(|context| self.poll_end(context)).await;
        drop(streams);
        match end {
            End::Asked(done) => self.close(done).await,
            End::Failed(error) => {
                // The send fails only if the muxer was dropped, and then nobody needs the error.
                let _ = ended.send(error);
            }
            End::Forgotten => {}
        }
    }

    /// Closes the connection for as long as the caller waits for the result.
    async fn close(&mut self, mut done: oneshot::Sender<Result<(), ConnectionError>>) {
        let close = poll_fn(|context| self.connection.poll_close(context));
        let closed = tokio::select! {
            biased;
            () = done.closed() => return,
            closed = time::timeout(CLOSE_LIMIT, close) => closed,
        };
        // At the deadline the connection is dropped, which counts as a close too.
        let closed = closed.unwrap_or(Ok(()));
        // The send fails only if the caller has stopped waiting.
        let _ = done.send(closed);
    }

    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<End> {
        if Pin::new(&mut self.too_much).poll(context).is_ready() {
            let why = io::Error::new(io::ErrorKind::OutOfMemory, "the connection keeps too much");
            return Poll::Ready(End::Failed(ConnectionError::Io(why)));
        }
        while let Poll::Ready(order) = self.orders.poll_recv(context) {
            match order {
                Some(Order::Open(to)) => self.asked = Some(to),
                Some(Order::Close(done)) => return Poll::Ready(End::Asked(done)),
                None => return Poll::Ready(End::Forgotten),
            }
        }
        if let Some(to) = self.asked.take() {
            match self.connection.poll_new_outbound(context) {
                Poll::Ready(Ok(stream)) => {
                    // The send fails only if the muxer was dropped, and then the connection ends next.
                    let _ = to.send(self.count(stream));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(End::Failed(error)),
                Poll::Pending => self.asked = Some(to),
            }
        }
        for _ in 0..STREAMS_A_TURN {
            match self.connection.poll_next_inbound(context) {
                Poll::Ready(Some(Ok(stream))) => self.offer(stream),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(End::Failed(error)),
                Poll::Ready(None) => return Poll::Ready(End::Failed(ConnectionError::Closed)),
                Poll::Pending => return Poll::Pending,
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn count(&self, stream: Stream) -> CountedStream {
        self.backlog.count(stream.id().val(), Carrier::Yamux(stream))
    }

    fn offer(&self, stream: Stream) {
        let stream = Waiting::new(self.count(stream));
        if let Err(mpsc::error::TrySendError::Full(_)) = self.inbound.try_send(stream) {
            self.metrics.note(P2pEvent::MuxerFull);
        }
    }
}
