//! The relay: it gives reservations, and connects its clients by circuits.
//!
//! ```text
//!   A ──hop: reserve──▶ relay                       a place, for as long as A's connection lasts
//!   B ──hop: connect to A──▶ relay ──stop──▶ A      then bytes both ways, within the limits
//! ```
//!
//! # Invariants
//!
//! * At most [`MAX_REQUESTS`] requests are in progress, each for [`REQUEST_TIME`] at most.
//! * A request that came over a circuit is refused, so circuits do not add up.
//! * A circuit ends with its bytes, with its time, with either stream, or with the relay; what it held is given back.
//! * Every refusal is counted.

use std::{io, sync::Arc, time::Duration};

use gossip::LinkPath;
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use runtime::{TaskSet, WallClock};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{
    MAX_TOLD, STOP,
    places::{NoPlace, Places},
    wire::{self, HopMessage, Limit, Peer, Reservation, StopMessage, hop, status, stop},
};
use crate::{
    address::path_of,
    command::{Command, open_stream},
    listening::Bound,
    metrics::{P2pEvent, P2pMetrics},
    streams::{AcceptQueue, Bounds, InboundStream, StreamIo, Turn},
};

/// Bounds on streams that wait for the relay. Chosen: per connection the circuits that one peer may have; in all, twice
/// the requests in progress.
pub(super) const WAITING: Bounds = Bounds { per_connection: 16, in_all: 128 };

/// Requests in progress, at most. Chosen: each costs a task and 8 KiB.
const MAX_REQUESTS: usize = 64;

/// Longest time from a stream to its answer. Chosen: that of every other handshake.
const REQUEST_TIME: Duration = Duration::from_secs(10);

/// Time between two looks for reservations that were not renewed. Chosen: each keeps a connection, and 128 cost nothing to
/// look at.
const EXPIRY: Duration = Duration::from_secs(1);

/// Buffer of one direction of a circuit, in bytes. Chosen: half a frame of Yamux; two of 128 circuits are 2 MiB.
const BUFFER_BYTES: usize = 8 * 1024;

/// The relay of one swarm.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) local: PeerId,
    pub(super) places: Arc<Places>,
    pub(super) commands: mpsc::Sender<Command>,
    /// The addresses that others are told, if they are given.
    pub(super) announced: Vec<Multiaddr>,
    pub(super) bound: Bound,
    pub(super) clock: WallClock,
    pub(super) metrics: P2pMetrics,
}

/// A circuit whose ends have agreed.
struct Agreed {
    from: StreamIo,
    to: StreamIo,
}

impl Relay {
    /// Serves requests until cancelled, each in a task of `tasks`.
    pub(super) async fn run(
        self,
        mut accept: AcceptQueue,
        tasks: TaskSet,
        cancel: CancellationToken,
    ) {
        let (relay, places) = (Arc::new(self), Arc::new(Semaphore::new(MAX_REQUESTS)));
        let mut expiry = time::interval(EXPIRY);
        loop {
            let stream = tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                _ = expiry.tick() => {
                    relay.places.expire(Instant::now());
                    continue;
                }
                stream = accept.next() => stream,
            };
            let Some(stream) = stream else { return };
            match Arc::clone(&places).try_acquire_owned() {
                Ok(place) => {
                    let relay = Arc::clone(&relay);
                    tasks.spawn("relay", |cancel| async move {
                        // A circuit ends with the node, in the middle of its bytes.
                        let _ = cancel.run_until_cancelled(relay.serve(stream, place)).await;
                    });
                }
                Err(_full) => relay.metrics.note(P2pEvent::RelayRefused),
            }
        }
    }

    async fn serve(&self, stream: InboundStream, place: OwnedSemaphorePermit) {
        let limits = *self.places.limits();
        let (peer, agreed) = (stream.about.peer, Box::pin(self.answer(stream)));
        let agreed = match time::timeout(REQUEST_TIME, agreed).await {
            Ok(Ok(Some(agreed))) => agreed,
            Ok(Ok(None)) => return,
            Ok(Err(error)) => {
                return tracing::debug!(%peer, %error, "a request for a circuit failed");
            }
            Err(_elapsed) => return self.metrics.note(P2pEvent::RelayRefused),
        };
        drop(place);
        self.metrics.note(P2pEvent::RelayCircuit);
        let (Agreed { from, to }, _circuit) = agreed;
        let carried = carry(from, to, limits.circuit_bytes);
        match time::timeout(limits.circuit_time, carried).await {
            Ok(Ok(())) => {}
            Ok(Err(Cut::Limit)) | Err(_) => self.metrics.note(P2pEvent::RelayLimit),
            Ok(Err(Cut::Io(error))) => tracing::debug!(%peer, %error, "a circuit broke"),
        }
    }

    /// Answers one request. Returns the streams of a circuit, if it led to one, and its place.
    async fn answer(
        &self,
        stream: InboundStream,
    ) -> io::Result<Option<(Agreed, super::places::CircuitPlace)>> {
        let about = stream.about.clone();
        let mut io = StreamIo::from(stream);
        let request = match wire::read::<HopMessage>(&mut io).await {
            Ok(request) => request,
            Err(error) => {
                self.refuse(&mut io, status::MALFORMED_MESSAGE).await?;
                return Err(error);
            }
        };
        if path_of(&about.address) == LinkPath::Relayed {
            self.refuse(&mut io, status::PERMISSION_DENIED).await?;
            return Ok(None);
        }
        match request.kind {
            hop::RESERVE => match self.places.reserve(about, Instant::now()) {
                Ok(()) => {
                    self.metrics.note(P2pEvent::RelayReservation);
                    wire::write(&mut io, &self.reserved()).await?;
                    io.shutdown().await?;
                }
                Err(_full) => self.refuse(&mut io, status::RESERVATION_REFUSED).await?,
            },
            hop::CONNECT => {
                let to = request.peer.and_then(|peer| PeerId::from_bytes(&peer.id).ok());
                let Some(to) = to else {
                    self.refuse(&mut io, status::MALFORMED_MESSAGE).await?;
                    return Ok(None);
                };
                let place = match self.places.connect(&about, to, Instant::now()) {
                    Ok(place) => place,
                    Err(NoPlace::Full) => {
                        self.refuse(&mut io, status::RESOURCE_LIMIT_EXCEEDED).await?;
                        return Ok(None);
                    }
                    Err(NoPlace::NoReservation) => {
                        self.refuse(&mut io, status::NO_RESERVATION).await?;
                        return Ok(None);
                    }
                };
                let Some(far) = self.stop(about.peer, to, &place).await else {
                    self.refuse(&mut io, status::CONNECTION_FAILED).await?;
                    return Ok(None);
                };
                let answer =
                    HopMessage { limit: Some(self.limit()), ..HopMessage::answer(status::OK) };
                wire::write(&mut io, &answer).await?;
                return Ok(Some((Agreed { from: io, to: far }, place)));
            }
            _ => self.refuse(&mut io, status::UNEXPECTED_MESSAGE).await?,
        }
        Ok(None)
    }

    /// Asks the peer that a circuit leads to. Returns the stream, if it agreed.
    async fn stop(
        &self,
        from: PeerId,
        to: PeerId,
        place: &super::places::CircuitPlace,
    ) -> Option<StreamIo> {
        let asked = async {
            let deadline = Instant::now() + REQUEST_TIME;
            let on = (to, Some(place.connection));
            let opened =
                open_stream(&self.commands, on, vec![STOP], (deadline, Turn::Queued)).await;
            let mut io = StreamIo::from(opened.map_err(io::Error::other)?);
            let request = StopMessage {
                peer: Some(Peer { id: from.to_bytes(), addrs: Vec::new() }),
                limit: Some(self.limit()),
                ..StopMessage::of(stop::CONNECT)
            };
            wire::write(&mut io, &request).await?;
            let answer: StopMessage = wire::read(&mut io).await?;
            let agrees = (answer.kind, answer.status) == (stop::STATUS, Some(status::OK));
            Ok::<_, io::Error>(agrees.then_some(io))
        };
        match asked.await {
            Ok(agreed) => agreed,
            Err(error) => {
                tracing::debug!(%to, %error, "the peer of a reservation did not answer");
                None
            }
        }
    }

    async fn refuse(&self, io: &mut StreamIo, status: i32) -> io::Result<()> {
        self.metrics.note(P2pEvent::RelayRefused);
        wire::write(io, &HopMessage::answer(status)).await?;
        io.shutdown().await
    }

    /// The answer to a reservation that was given.
    fn reserved(&self) -> HopMessage {
        let limits = self.places.limits();
        let until = self.clock.now() + limits.reservation_time;
        let since_1970 = until.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let addresses = match self.announced.is_empty() {
            true => self.bound.addresses(),
            false => self.announced.clone(),
        };
        let direct = addresses.into_iter().filter(|address| path_of(address) == LinkPath::Direct);
        let whole = direct.map(|address| address.with(Protocol::P2p(self.local)).to_vec());
        let reservation =
            Reservation { expire: since_1970.as_secs(), addrs: whole.take(MAX_TOLD).collect() };
        HopMessage {
            reservation: Some(reservation),
            limit: Some(self.limit()),
            ..HopMessage::answer(status::OK)
        }
    }

    fn limit(&self) -> Limit {
        let limits = self.places.limits();
        let seconds = u32::try_from(limits.circuit_time.as_secs()).unwrap_or(u32::MAX);
        Limit { duration: Some(seconds), data: Some(limits.circuit_bytes) }
    }
}

/// The reason why a circuit did not end by itself.
#[derive(Debug)]
enum Cut {
    /// It carried all that it may.
    Limit,
    Io(io::Error),
}

impl From<io::Error> for Cut {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Carries bytes both ways, at most `most` each way, until both ends have closed.
async fn carry(from: StreamIo, to: StreamIo, most: u64) -> Result<(), Cut> {
    let ((mut from_reads, mut from_writes), (mut to_reads, mut to_writes)) =
        (tokio::io::split(from), tokio::io::split(to));
    let there = one_way(&mut from_reads, &mut to_writes, most);
    let back = one_way(&mut to_reads, &mut from_writes, most);
    tokio::try_join!(there, back).map(|_both| ())
}

async fn one_way(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    most: u64,
) -> Result<(), Cut> {
    let (mut buffer, mut left) = (vec![0; BUFFER_BYTES], most);
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            to.shutdown().await?;
            return Ok(());
        }
        let bytes = u64::try_from(count).unwrap_or(u64::MAX);
        left = left.checked_sub(bytes).ok_or(Cut::Limit)?;
        to.write_all(buffer.get(..count).unwrap_or_default()).await?;
        to.flush().await?;
    }
}
