//! The task that moves the bytes of one connection.
//!
//! # Invariants
//!
//! * It waits for orders and for the connection, and for nothing else: a stream that finds no place is
//!   reset.
//! * It ends when the connection does, when it has closed it, or when nobody holds the muxer any more.
//! * Whoever holds the muxer hears how the connection ended.
//! * Once it ends, or begins to close the connection, every stream of it ends.

use std::{
    future::poll_fn,
    task::{Context, Poll},
};

use futures::{AsyncRead, AsyncWrite};
use tokio::{
    sync::{mpsc, oneshot},
    time,
};
use tokio_util::sync::CancellationToken;
use yamux::{Connection, ConnectionError, Stream};

use super::CLOSE_LIMIT;
use crate::{
    flush_coalescer::FlushCoalescer,
    metrics::{P2pEvent, P2pMetrics},
};

/// Inbound streams that are taken at once, before others have their turn. Chosen.
const STREAMS_A_TURN: usize = 32;

/// What a muxer wants of its task.
#[derive(Debug)]
pub(super) enum Order {
    /// A stream of our own. At most one waits.
    Open(oneshot::Sender<Stream>),
    /// An orderly end, and how it went.
    Close(oneshot::Sender<Result<(), ConnectionError>>),
}

/// Why a connection is not driven any more.
enum End {
    Asked(oneshot::Sender<Result<(), ConnectionError>>),
    Failed(ConnectionError),
    Forgotten,
}

/// Drives one connection.
#[derive(Debug)]
pub(super) struct Driver<C> {
    pub(super) connection: Connection<FlushCoalescer<C>>,
    /// Streams that peers open, until they are negotiated.
    pub(super) inbound: mpsc::Sender<Stream>,
    pub(super) orders: mpsc::Receiver<Order>,
    /// Who waits for a stream of our own.
    pub(super) asked: Option<oneshot::Sender<Stream>>,
    /// Cancelled when the streams are to end.
    pub(super) streams: CancellationToken,
    pub(super) metrics: P2pMetrics,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Driver<C> {
    /// Drives the connection to its end. `ended` hears of one that nobody asked for.
    pub(super) async fn run(mut self, ended: oneshot::Sender<ConnectionError>) {
        // Also when this future is dropped, or panics.
        let streams = self.streams.clone().drop_guard();
        let end = poll_fn(|context| self.poll_end(context)).await;
        drop(streams);
        match end {
            End::Asked(done) => self.close(done).await,
            End::Failed(error) => {
                // Who does not listen has forgotten the connection already.
                let _ = ended.send(error);
            }
            End::Forgotten => {}
        }
    }

    /// Closes the connection while somebody waits for it.
    async fn close(mut self, mut done: oneshot::Sender<Result<(), ConnectionError>>) {
        let close = poll_fn(|context| self.connection.poll_close(context));
        let closed = tokio::select! {
            biased;
            () = done.closed() => return,
            closed = time::timeout(CLOSE_LIMIT, close) => closed,
        };
        // The connection ends at once where it does not end in an orderly way.
        let closed = closed.unwrap_or(Ok(()));
        // Who waited until now may have given up.
        let _ = done.send(closed);
    }

    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<End> {
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
                    // Who has gone needs no stream, and the connection goes next.
                    let _ = to.send(stream);
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

    fn offer(&self, stream: Stream) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.inbound.try_send(stream) {
            self.metrics.note(P2pEvent::MuxerFull);
        }
    }
}
