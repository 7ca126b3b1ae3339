//! The task that stands between the swarm and one QUIC connection.
//!
//! quinn moves the bytes in a task of its own. This one opens and accepts streams, counts what the connection keeps, and
//! ends it.
//!
//! # Invariants
//!
//! * A stream that finds its queue full is reset without a wait.
//! * An orderly close waits until the peer has acknowledged everything that was written, at most [`CLOSE_LIMIT`].
//! * The task ends at once when the backlog evicts its connection.
//! * The muxer receives the error that ended the connection.
//! * Every stream of the connection ends when the task ends or starts to close the connection.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::future::{BoxFuture, OptionFuture, join_all};
use quinn::{Connection, ConnectionError as QuicEnd, RecvStream, SendStream};
use runtime::CancelWatch;
use tokio::{
    sync::{mpsc, oneshot},
    time::{self, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
use yamux::ConnectionError;

use super::{
    gauge::{Gauge, Reading},
    stream::{NO_CODE, QuicStream, Shared},
};
use crate::{
    backlog::{ConnectionBacklog, CountedStream},
    carrier::Carrier,
    metrics::{P2pEvent, P2pMetrics},
    muxer::{CLOSE_LIMIT, Order, Waiting},
};

/// Interval at which the bytes of a connection are counted. Chosen: short beside the time in which a peer fills its
/// windows on a path of this length.
const COUNT_EVERY: Duration = Duration::from_millis(250);

/// Smallest window for sent bytes, in bytes. Chosen: a batch of a write loop.
const LEAST_SEND_WINDOW: usize = 64 * 1024;

/// Longest wait until the datagram with the close was sent. Chosen: it takes one turn of quinn's task.
const LAST_DATAGRAM: Duration = Duration::from_millis(100);

/// The reason why a connection is no longer driven.
enum End {
    Asked(oneshot::Sender<Result<(), ConnectionError>>),
    Failed(ConnectionError),
    Forgotten,
}

/// An event of the connection.
type Opened = Result<(SendStream, RecvStream), QuicEnd>;

/// Stands between the swarm and one connection.
#[derive(Debug)]
pub(super) struct Driver {
    pub(super) connection: Connection,
    pub(super) shared: Arc<Shared>,
    pub(super) backlog: ConnectionBacklog,
    pub(super) too_much: CancelWatch,
    pub(super) inbound: mpsc::Sender<Waiting>,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) streams: CancellationToken,
    pub(super) metrics: P2pMetrics,
    pub(super) gauge: Gauge,
    /// Bytes counted in the backlog.
    pub(super) counted: usize,
    /// Number of streams so far.
    pub(super) next: u32,
}

/// The error as the muxers of this crate have it.
fn ended(error: &QuicEnd) -> ConnectionError {
    match error {
        QuicEnd::ApplicationClosed(_) | QuicEnd::LocallyClosed => ConnectionError::Closed,
        QuicEnd::TimedOut => ConnectionError::Io(io::Error::new(
            io::ErrorKind::TimedOut,
            "the peer was silent for too long",
        )),
        other => ConnectionError::Io(io::Error::other(other.clone())),
    }
}

impl Driver {
    /// Drives the connection to its end. `over` receives an error that no order to close caused.
    pub(super) async fn run(&mut self, over: oneshot::Sender<ConnectionError>) {
        // The guard ends the streams also when this future is dropped or panics.
        let streams = self.streams.clone().drop_guard();
        let end = self.drive().await;
        if matches!(end, End::Asked(_)) {
            // Before the streams end: what they have written shall arrive.
            self.shared.is_closing.store(true, Ordering::Release);
        }
        drop(streams);
        match end {
            End::Asked(done) => self.close(done).await,
            End::Failed(error) => {
                self.say_goodbye().await;
                // The send fails only if the muxer was dropped, and then nobody needs the error.
                let _ = over.send(error);
            }
            End::Forgotten => self.say_goodbye().await,
        }
    }

    async fn drive(&mut self) -> End {
        let mut tick = time::interval(COUNT_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut opening: Option<BoxFuture<'static, Opened>> = None;
        let mut asked = None;
        let connection = self.connection.clone();
        loop {
            let opened = OptionFuture::from(opening.as_mut());
            tokio::select! {
                biased;
                () = &mut self.too_much => {
                    let why = io::Error::new(io::ErrorKind::OutOfMemory, "the connection keeps too much");
                    return End::Failed(ConnectionError::Io(why));
                }
                order = self.orders.recv() => match order {
                    Some(Order::Open(to)) => {
                        asked = Some(to);
                        let connection = connection.clone();
                        opening = Some(Box::pin(async move { connection.open_bi().await }));
                    }
                    Some(Order::Close(done)) => return End::Asked(done),
                    None => return End::Forgotten,
                },
                Some(stream) = opened => {
                    opening = None;
                    match (stream, asked.take()) {
                        (Ok(stream), Some(to)) => {
                            // The send fails only if the muxer was dropped, and then the connection ends next.
                            let _ = to.send(self.count(stream));
                        }
                        (Ok(_), None) => {}
                        (Err(error), _) => return End::Failed(ended(&error)),
                    }
                }
                accepted = connection.accept_bi() => match accepted {
                    Ok(stream) => self.offer(stream),
                    Err(error) => return End::Failed(ended(&error)),
                },
                _ = tick.tick() => self.measure(),
            }
        }
    }

    fn count(&mut self, stream: (SendStream, RecvStream)) -> CountedStream {
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        let stream = QuicStream::new(Arc::clone(&self.shared), stream);
        self.backlog.count(id, Carrier::Quic(Box::new(stream)))
    }

    fn offer(&mut self, stream: (SendStream, RecvStream)) {
        let stream = Waiting::new(self.count(stream));
        if let Err(mpsc::error::TrySendError::Full(_)) = self.inbound.try_send(stream) {
            self.metrics.note(P2pEvent::MuxerFull);
        }
    }

    /// Counts what the connection keeps, and fits its window for sent bytes to the number of connections: a writer with
    /// much to send fills it, and so may all others at the same time.
    fn measure(&mut self) {
        self.shared.forget_arrived();
        let window = self.backlog.send_share().max(LEAST_SEND_WINDOW);
        if let Some(window) = self.gauge.resize(window) {
            self.connection.set_send_window(window as u64);
        }
        let bytes = self.gauge.measure(Reading {
            received: self.connection.stats().udp_rx.bytes,
            written: self.shared.written.load(Ordering::Relaxed),
            unread_streams: self.shared.unread_streams.load(Ordering::Relaxed),
            was_empty: self.shared.was_empty.swap(false, Ordering::Relaxed),
            was_blocked: self.shared.was_blocked.swap(false, Ordering::Relaxed),
        });
        self.backlog.recount(&mut self.counted, bytes);
    }

    /// Closes the connection once everything has arrived, for as long as the caller waits for the result.
    async fn close(&mut self, mut done: oneshot::Sender<Result<(), ConnectionError>>) {
        self.backlog.each_carrier(|carrier| {
            if let Carrier::Quic(stream) = carrier {
                stream.finish();
            }
        });
        let arrived = async {
            loop {
                let finished = self.shared.take_finished();
                if finished.is_empty() {
                    break;
                }
                join_all(finished).await;
            }
        };
        tokio::select! {
            biased;
            () = done.closed() => {}
            _error = self.connection.closed() => {}
            // At the deadline the connection is closed all the same.
            _ = time::timeout(CLOSE_LIMIT, arrived) => {}
        }
        self.say_goodbye().await;
        // The send fails only if the caller has stopped waiting.
        let _ = done.send(Ok(()));
    }

    /// Closes the connection, and waits until the peer was told.
    async fn say_goodbye(&self) {
        if self.connection.close_reason().is_some() {
            return;
        }
        self.connection.close(NO_CODE, b"");
        let told = async {
            while self.connection.stats().frame_tx.connection_close == 0 {
                time::sleep(Duration::from_millis(1)).await;
            }
        };
        // Without it, the peer notices by the silence.
        let _ = time::timeout(LAST_DATAGRAM, told).await;
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.backlog.take(self.counted);
        self.connection.close(NO_CODE, b"");
    }
}
