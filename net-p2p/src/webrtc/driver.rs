//! The task of one connection: it moves datagrams between the socket and the session, opens and accepts streams, counts
//! what the connection keeps, and ends it.
//!
//! # Invariants
//!
//! * A stream that finds its queue full is reset without a wait.
//! * An orderly close waits until the peer has acknowledged everything that was written, at most [`CLOSE_LIMIT`].
//! * The task ends at once when the backlog evicts its connection.
//! * The muxer receives the error that ended the connection.
//! * Every stream of the connection ends when the task ends or starts to close the connection.

use std::{io, sync::Arc, time::Duration};

use runtime::CancelWatch;
use tokio::{
    net::UdpSocket,
    sync::{mpsc, oneshot},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;
use yamux::ConnectionError;

use super::{Ended, channels::Key, session::Shared, stream::WebRtcStream};
use crate::{
    backlog::{ConnectionBacklog, CountedStream},
    carrier::Carrier,
    metrics::{P2pEvent, P2pMetrics},
    muxer::{CLOSE_LIMIT, DriverEnds, Order, Waiting},
    udp::Datagram,
};

/// Datagrams sent in one turn, before others are received. Chosen: a batch of a socket.
const SENT_A_TURN: usize = 64;

/// Datagrams received in one turn.
const RECEIVED_A_TURN: usize = 64;

/// Longest time until the number of open connections is looked at again.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// Moves the datagrams of one connection.
#[derive(Debug)]
pub(super) struct Pump {
    pub(super) shared: Arc<Shared>,
    pub(super) socket: Arc<UdpSocket>,
    pub(super) datagrams: mpsc::Receiver<Datagram>,
    received: Vec<Datagram>,
}

impl Pump {
    pub(super) fn new(
        shared: Arc<Shared>,
        socket: Arc<UdpSocket>,
        datagrams: mpsc::Receiver<Datagram>,
    ) -> Self {
        Self { shared, socket, datagrams, received: Vec::new() }
    }

    /// Sends what there is to send, waits until something happens, and handles it.
    ///
    /// # Errors
    ///
    /// The connection has ended.
    ///
    /// # Cancel safety
    ///
    /// A datagram may be lost, as a network may lose one.
    pub(super) async fn turn(&mut self) -> Result<(), Ended> {
        let is_empty = self.send().await?;
        let until = self.shared.with(|session| session.timeout()).ok_or(Ended::Panicked)?;
        let until = Instant::from_std(until).min(Instant::now() + MEASURE_EVERY);
        self.received.clear();
        tokio::select! {
            biased;
            heard = self.datagrams.recv_many(&mut self.received, RECEIVED_A_TURN) => {
                if heard == 0 {
                    return Err(Ended::Socket);
                }
            }
            () = self.shared.changed.notified() => {}
            () = time::sleep_until(until) => {}
            () = std::future::ready(()), if !is_empty => {}
        }
        let now = Instant::now().into_std();
        let received = &self.received;
        let end = self.shared.with(|session| {
            for Datagram { from, bytes } in received {
                session.receive(bytes, *from, now);
            }
            session.tick(now);
            session.take_end()
        });
        match end {
            Some(None) => Ok(()),
            Some(Some(end)) => {
                // The last words, and answers to what came with the end.
                let _ = self.send().await;
                Err(end)
            }
            None => Err(Ended::Panicked),
        }
    }

    /// Sends what there is. Returns `false` if more is left for the next turn.
    async fn send(&self) -> Result<bool, Ended> {
        for _ in 0..SENT_A_TURN {
            let now = Instant::now().into_std();
            let next = self.shared.with(|session| session.poll_transmit(now));
            let Some((to, bytes)) = next.ok_or(Ended::Panicked)? else { return Ok(true) };
            // A datagram that cannot be sent is lost, as a network may lose one. A peer that is gone is noticed by its silence.
            let _ = self.socket.send_to(&bytes, to).await;
        }
        Ok(false)
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
pub(super) struct Driver {
    pub(super) pump: Pump,
    pub(super) backlog: ConnectionBacklog,
    pub(super) too_much: CancelWatch,
    pub(super) metrics: P2pMetrics,
    pub(super) inbound: mpsc::Sender<Waiting>,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) streams: CancellationToken,
    /// Receives the stream that is opened next.
    pub(super) asked: Option<oneshot::Sender<CountedStream>>,
    /// Bytes counted in the backlog.
    pub(super) counted: usize,
    /// Number of streams so far.
    pub(super) next: u32,
}

impl Driver {
    /// The driver of a connection whose handshake is over. The error of the connection goes to the returned receiver.
    pub(super) fn new(
        pump: Pump,
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
    pub(super) async fn run(&mut self, over: oneshot::Sender<ConnectionError>) {
        // The guard ends the streams also when this future is dropped or panics.
        let streams = self.streams.clone().drop_guard();
        let end = self.drive().await;
        if matches!(end, End::Asked(_)) {
            // Before the streams end: what they have written shall arrive.
            let _ = self.pump.shared.with(|session| session.channels().finish_all());
        }
        drop(streams);
        match end {
            End::Asked(done) => self.close(done).await,
            End::Failed(why) => {
                if matches!(why, Ended::Panicked) {
                    self.metrics.note(P2pEvent::WebRtcPanicked);
                }
                tracing::debug!(%why, "a connection over WebRTC has ended");
                self.say_goodbye().await;
                // The send fails only if the muxer was dropped, and then nobody needs the error.
                let _ = over.send(why.into());
            }
            End::TooMuch => {
                let why =
                    io::Error::new(io::ErrorKind::OutOfMemory, "the connection keeps too much");
                self.say_goodbye().await;
                let _ = over.send(ConnectionError::Io(why));
            }
            End::Forgotten => self.say_goodbye().await,
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
        let stream = WebRtcStream::new(Arc::clone(&self.pump.shared), key);
        self.backlog.count(number, Carrier::WebRtc(Box::new(stream)))
    }

    /// Opens the stream that was asked for, and passes on those of the peer.
    fn serve_streams(&mut self) {
        if self.asked.is_some() {
            let opened = self.pump.shared.with(|session| session.channels().open()).flatten();
            if let Some(id) = opened {
                let stream = self.count(id);
                if let Some(to) = self.asked.take() {
                    // The send fails only if the muxer was dropped, and then the connection ends next.
                    let _ = to.send(stream);
                }
            }
        }
        while let Some(id) = self.pump.shared.with(|session| session.channels().accept()).flatten()
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
        let counts = self.pump.shared.with(|session| {
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
            while pump.shared.with(|session| session.channels().is_sent()) == Some(false) {
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
        self.say_goodbye().await;
        // The send fails only if the caller has stopped waiting.
        let _ = done.send(Ok(()));
    }

    /// Ends the session, and tells the peer. Without it, the peer notices by the silence.
    async fn say_goodbye(&self) {
        let now = Instant::now().into_std();
        let _ = self.pump.shared.with(|session| session.close(now));
        let _ = self.pump.send().await;
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.backlog.take(self.counted);
        let now = Instant::now().into_std();
        let _ = self.pump.shared.with(|session| session.close(now));
        while let Some(Some((to, bytes))) =
            self.pump.shared.with(|session| session.poll_transmit(now))
        {
            // A socket that is full at this moment says nothing; the peer notices by the silence.
            let _ = self.pump.socket.try_send_to(&bytes, to);
        }
    }
}

impl From<Ended> for ConnectionError {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::ByPeer | Ended::Here => Self::Closed,
            Ended::Silent => Self::Io(io::Error::new(
                io::ErrorKind::TimedOut,
                "the peer was silent for too long",
            )),
            other => Self::Io(io::Error::other(other)),
        }
    }
}
