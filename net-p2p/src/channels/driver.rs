//! The task of one connection: it opens and accepts streams, counts what the connection keeps, and ends it.
//!
//! # Invariants
//!
//! * A stream that finds its queue full is reset without a wait.
//! * An orderly close waits until the peer has everything that was written, at most [`CLOSE_LIMIT`].
//! * The task ends at once when the backlog evicts its connection.
//! * The muxer receives the error that ended the connection.
//! * Every stream of the connection ends when the task ends or starts to close the connection.

use std::{io, sync::Arc, time::Duration};

use runtime::{CancelWatch, time};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use yamux::ConnectionError;

use super::{
    Ended,
    shared::{Session, Shared},
    stream::ChannelStream,
    streams::Key,
};
use crate::{
    backlog::{Backlog, ConnectionBacklog, CountedStream},
    carrier::Carrier,
    connections::ConnectionTasks,
    metrics::{P2pEvent, P2pMetrics},
    muxer::{CLOSE_LIMIT, DriverEnds, Muxer, Order, Waiting},
};

/// Longest time until the number of open connections is looked at again, so the longest turn of a pump.
pub(crate) const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// Moves what one connection sends and receives.
pub(crate) trait Pump: Send + 'static {
    type Session: Session;

    /// The connection.
    fn shared(&self) -> &Arc<Shared<Self::Session>>;

    /// Sends what there is to send, waits until something happens, [`MEASURE_EVERY`] at most, and handles it.
    ///
    /// # Errors
    ///
    /// The connection has ended.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost that a network would not lose.
    fn turn(&mut self) -> impl Future<Output = Result<(), Ended>> + Send;

    /// Ends the session, and tells the peer.
    fn say_goodbye(&mut self) -> impl Future<Output = ()> + Send;

    /// The same at once, as far as that is possible without a wait.
    fn hang_up(&mut self);
}

/// A connection whose handshake is over.
pub(crate) struct Made<P> {
    pub(crate) pump: P,
    /// The name of its task.
    pub(crate) name: &'static str,
}

impl<P: Pump> Made<P> {
    /// Drives the connection in a task of `tasks`, and counts its bytes in `backlog`.
    pub(crate) fn drive(self, tasks: &ConnectionTasks, backlog: &Backlog) -> Muxer {
        let account = backlog.open();
        let metrics = backlog.metrics().clone();
        let (muxer, ends) = Muxer::new(account.end().clone(), metrics.clone());
        let (mut driver, over) = Driver::new(self.pump, account, metrics, ends);
        tasks.start(self.name, Box::pin(async move { driver.run(over).await }));
        muxer
    }
}

/// The reason why a connection is no longer driven.
enum End {
    Asked(oneshot::Sender<Result<(), ConnectionError>>),
    Failed(Ended),
    TooMuch,
    Forgotten,
}

/// Stands between the swarm and one connection.
struct Driver<P: Pump> {
    pump: P,
    backlog: ConnectionBacklog,
    too_much: CancelWatch,
    metrics: P2pMetrics,
    inbound: mpsc::Sender<Waiting>,
    orders: mpsc::Receiver<Order>,
    streams: CancellationToken,
    /// Receives the stream that is opened next.
    asked: Option<oneshot::Sender<CountedStream>>,
    /// Bytes counted in the backlog.
    counted: usize,
    /// Number of streams so far.
    next: u32,
}

impl<P: Pump> Driver<P> {
    /// The driver of a connection whose handshake is over. The error of the connection goes to the returned receiver.
    fn new(
        pump: P,
        backlog: ConnectionBacklog,
        metrics: P2pMetrics,
        ends: DriverEnds,
    ) -> (Self, oneshot::Sender<ConnectionError>) {
        let driver = Self {
            pump,
            too_much: CancelWatch::new(backlog.end()),
            backlog,
            metrics,
            inbound: ends.inbound,
            orders: ends.orders,
            streams: ends.streams,
            asked: None,
            counted: 0,
            next: 0,
        };
        (driver, ends.over)
    }

    /// Drives the connection to its end. `over` receives an error that no order to close caused.
    async fn run(&mut self, over: oneshot::Sender<ConnectionError>) {
        // The guard ends the streams also when this future is dropped or panics.
        let streams = self.streams.clone().drop_guard();
        let end = self.drive().await;
        if matches!(end, End::Asked(_)) {
            // Before the streams end: what they have written shall arrive.
            let _ = self.pump.shared().with(|session| session.channels().finish_all());
        }
        drop(streams);
        match end {
            End::Asked(done) => self.close(done).await,
            End::Failed(why) => {
                if matches!(why, Ended::Panicked) {
                    self.metrics.note(P2pEvent::WebRtcPanicked);
                }
                tracing::debug!(%why, "a connection over WebRTC has ended");
                self.pump.say_goodbye().await;
                // The send fails only if the muxer was dropped, and then nobody needs the error.
                let _ = over.send(why.into());
            }
            End::TooMuch => {
                let why =
                    io::Error::new(io::ErrorKind::OutOfMemory, "the connection keeps too much");
                self.pump.say_goodbye().await;
                let _ = over.send(ConnectionError::Io(why));
            }
            End::Forgotten => self.pump.say_goodbye().await,
        }
    }

    async fn drive(&mut self) -> End {
        loop {
            self.measure();
            self.serve_streams();
            tokio::select! {
                biased;
                () = &mut self.too_much => return End::TooMuch,
                order = self.orders.recv() => match order {
                    Some(Order::Open(to)) => self.asked = Some(to),
                    Some(Order::Close(done)) => return End::Asked(done),
                    None => return End::Forgotten,
                },
                turned = self.pump.turn() => {
                    if let Err(why) = turned {
                        return End::Failed(why);
                    }
                }
            }
        }
    }

    fn count(&mut self, key: Key) -> CountedStream {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let stream = ChannelStream::new(Arc::clone(self.pump.shared()) as _, key);
        self.backlog.count(number, Carrier::Channel(Box::new(stream)))
    }

    /// Opens the stream that was asked for, and passes on those of the peer.
    fn serve_streams(&mut self) {
        if self.asked.is_some() {
            let opened = self.pump.shared().with(|session| session.channels().open()).flatten();
            if let Some(id) = opened {
                let stream = self.count(id);
                if let Some(to) = self.asked.take() {
                    // The send fails only if the muxer was dropped, and then the connection ends next.
                    let _ = to.send(stream);
                }
            }
        }
        while let Some(id) =
            self.pump.shared().with(|session| session.channels().accept()).flatten()
        {
            let stream = Waiting::new(self.count(id));
            if let Err(mpsc::error::TrySendError::Full(_)) = self.inbound.try_send(stream) {
                self.metrics.note(P2pEvent::MuxerFull);
            }
        }
    }

    /// Counts what the connection keeps, and fits its share of written bytes to the number of connections.
    fn measure(&mut self) {
        let share = self.backlog.send_share();
        let counts = self.pump.shared().with(|session| {
            let channels = session.channels();
            channels.set_max_unsent(share);
            (channels.held(), channels.take_refused(), channels.take_unread_resets())
        });
        let (bytes, refused, unread) = counts.unwrap_or_default();
        for _ in 0..unread {
            self.metrics.note(P2pEvent::WebRtcUnread);
        }
        for _ in 0..refused {
            self.metrics.note(P2pEvent::MuxerFull);
        }
        self.backlog.recount(&mut self.counted, bytes);
    }

    /// Closes the connection once everything has arrived, for as long as the caller waits for the result.
    async fn close(&mut self, mut done: oneshot::Sender<Result<(), ConnectionError>>) {
        let pump = &mut self.pump;
        let arrived = async {
            // An error ends the wait as well: nothing more arrives then.
            while pump.shared().with(|session| session.channels().is_sent()) == Some(false) {
                if pump.turn().await.is_err() {
                    break;
                }
            }
        };
        tokio::select! {
            biased;
            () = done.closed() => {}
            // At the deadline the connection is closed all the same.
            _ = time::timeout(CLOSE_LIMIT, arrived) => {}
        }
        self.pump.say_goodbye().await;
        // The send fails only if the caller has stopped waiting.
        let _ = done.send(Ok(()));
    }
}

impl<P: Pump> Drop for Driver<P> {
    fn drop(&mut self) {
        self.backlog.take(self.counted);
        self.pump.hang_up();
    }
}

impl From<Ended> for ConnectionError {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Here => Self::Closed,
            #[cfg(feature = "webrtc")]
            Ended::ByPeer => Self::Closed,
            #[cfg(feature = "webrtc")]
            Ended::Silent => Self::Io(io::Error::new(
                io::ErrorKind::TimedOut,
                "the peer was silent for too long",
            )),
            other => Self::Io(io::Error::other(other)),
        }
    }
}
