//! A client of relays: it makes a reservation, keeps it, and tells the swarm task the addresses that lead through the relay.
//!
//! ```text
//!   reserve ─▶ told: Reserved ─▶ ping every CHECK, renew in time ─▶ lost: told, and again after a wait
//! ```
//!
//! # Invariants
//!
//! * The addresses through a relay are told while the reservation there holds, and no longer.
//! * A relay that does not answer within [`CHECK`] and [`ANSWER_TIME`] is given up: 7 s.
//! * The connection of a reservation is kept, whatever else uses it.

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use gossip::LinkPath;
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol, swarm::ConnectionId};
use mesh::LearntHosts;
use runtime::{
    WallClock,
    time::{self, Instant},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::{
    HOP, MAX_TOLD, ReachNotice,
    wire::{self, HopMessage, hop, status},
};
use crate::{
    address::{PeerAddress, ip_literal, path_of},
    command::{Notice, Senders, ToSwarm, open_stream},
    levels::{Counted, Levels, P2pLevel},
    link::PING,
    streams::{About, OpenError, StreamIo, StreamTarget, Turn},
};

/// Longest time for a reservation. Chosen: a dial and two round trips on the longest path.
const RESERVE_TIME: Duration = Duration::from_secs(10);

/// Time between two signs of life of a relay. Chosen: with [`ANSWER_TIME`] a silent relay is found after 7 s, which leaves
/// 3 s of the ten in which another one has to take over.
const CHECK: Duration = Duration::from_secs(4);

/// Longest time for the answer. Chosen: ten round trips on the longest path.
const ANSWER_TIME: Duration = Duration::from_secs(3);

/// Shortest wait after a reservation that failed or was lost; doubles up to [`LONGEST_WAIT`]. Chosen: a relay that starts
/// again is there within it.
const WAIT: Duration = Duration::from_secs(1);

/// Longest of these waits. Chosen: a request a minute costs a relay nothing.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Longest time for which a reservation is believed to hold. Source: go-libp2p, `ReservationTTL`; a relay may say less.
const LONGEST: Duration = Duration::from_secs(3_600);

/// Shortest such time. Chosen: a relay that says less is asked every 1.5 s, which is about as often as it is pinged.
const SHORTEST: Duration = Duration::from_secs(2);

/// The reason why there is no reservation.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReserveError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the relay is itself behind another relay")]
    Nested,
    #[error("the relay has no place")]
    Full,
    #[error("the relay refused, with status {0}")]
    Refused(i32),
    #[error("the relay gave no answer that can be read")]
    Io(#[from] io::Error),
}

/// The reservations that hold. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reservations {
    held: Arc<Mutex<HashMap<PeerId, ConnectionId>>>,
    /// The relays that are being asked.
    asked: Arc<Mutex<HashSet<PeerId>>>,
}

impl Reservations {
    pub(super) fn has(&self, relay: &PeerId) -> bool {
        self.held().contains_key(relay)
    }

    /// Returns `true` if a relay is being asked for a place.
    #[cfg(feature = "reachability")]
    pub(crate) fn asks(&self, relay: &PeerId) -> bool {
        self.asked().contains(relay)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<PeerId, ConnectionId>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked(&self) -> MutexGuard<'_, HashSet<PeerId>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The note that a relay is being asked. Dropping it takes it out.
struct Asked<'a>(&'a Reservations, PeerId);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.asked().remove(&self.1);
    }
}

/// A reservation that holds.
#[derive(Debug)]
pub(super) struct Reserved {
    /// Keeps the connection.
    about: About,
    until: Instant,
    addresses: Vec<Multiaddr>,
    _held: Held,
}

/// The entry of a reservation. Dropping it takes it out.
#[derive(Debug)]
struct Held {
    reservations: Reservations,
    relay: PeerId,
    _counted: Counted,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.reservations.held().remove(&self.relay);
    }
}

impl Reserved {
    pub(super) const fn relay(&self) -> PeerId {
        self.about.peer
    }
}

/// The means of all keepers. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(super) swarm: ToSwarm,
    pub(super) senders: Senders,
    pub(super) reservations: Reservations,
    pub(super) levels: Levels,
    pub(super) clock: WallClock,
}

impl Client {
    /// Keeps a reservation at one relay until cancelled.
    pub(super) async fn keep(self, relay: PeerAddress, cancel: CancellationToken) {
        let mut wait = WAIT;
        loop {
            let kept = async {
                match self.reserve(StreamTarget::At(relay.clone())).await {
                    Ok(reserved) => {
                        let began = Instant::now();
                        self.hold(reserved, &cancel).await;
                        if began.elapsed() >= LONGEST_WAIT {
                            wait = WAIT;
                        }
                    }
                    Err(error) => {
                        tracing::info!(relay = %relay.address, %error, ?wait, "no reservation at a relay");
                    }
                }
                time::sleep(wait).await;
            };
            if cancel.run_until_cancelled(kept).await.is_none() {
                return;
            }
            wait = (2 * wait).min(LONGEST_WAIT);
        }
    }

    /// Makes a reservation.
    ///
    /// # Cancel safety
    ///
    /// Safe: what the relay gave ends with the connection, which nothing keeps then.
    pub(super) async fn reserve(&self, relay: StreamTarget) -> Result<Reserved, ReserveError> {
        let dialled = match &relay {
            StreamTarget::At(relay) => Some(relay.address.clone()),
            StreamTarget::Connected(_) => None,
        };
        let deadline = Instant::now() + RESERVE_TIME;
        self.reservations.asked().insert(*relay.peer());
        let _asked = Asked(&self.reservations, *relay.peer());
        let opened = self.swarm.open_to(relay, vec![HOP], deadline).await?;
        let about = opened.about.clone();
        if path_of(&about.address) == LinkPath::Relayed {
            return Err(ReserveError::Nested);
        }
        let (time, told) = self.ask(opened.into(), deadline).await?;
        let relay = about.peer;
        // A relay that listens everywhere tells its private addresses too, which lead others nowhere.
        let is_public = |address: &Multiaddr| {
            ip_literal(address).is_none_or(|ip| LearntHosts::Public.allow(ip))
        };
        let all = !is_public(&about.address);
        let ways = dialled.into_iter().chain(told.into_iter().filter_map(|address| {
            let whole = PeerAddress::new(address).ok()?;
            let is_its = whole.peer == relay && path_of(&whole.address) == LinkPath::Direct;
            (is_its && (all || is_public(&whole.address))).then_some(whole.address)
        }));
        let mut addresses = Vec::new();
        for way in ways.take(MAX_TOLD) {
            let through = way.with(Protocol::P2pCircuit);
            if !addresses.contains(&through) {
                addresses.push(through);
            }
        }
        let (reservations, until) = (self.reservations.clone(), Instant::now() + time);
        reservations.held().insert(relay, about.connection);
        let _counted = self.levels.count(P2pLevel::ReservationsHeld);
        let _held = Held { reservations, relay, _counted };
        tracing::info!(%relay, ?time, "reserved a place at a relay");
        Ok(Reserved { about, until, addresses, _held })
    }

    /// Asks for a reservation on an open stream. Returns its time, and the addresses of the relay.
    async fn ask(
        &self,
        mut io: StreamIo,
        deadline: Instant,
    ) -> Result<(Duration, Vec<Multiaddr>), ReserveError> {
        let answered = async {
            wire::write(&mut io, &HopMessage::of(hop::RESERVE)).await?;
            wire::read::<HopMessage>(&mut io).await
        };
        let answer = time::timeout_at(deadline, answered).await.map_err(io::Error::from)??;
        match (answer.kind, answer.status) {
            (hop::STATUS, Some(status::OK)) => {}
            (hop::STATUS, Some(status::RESERVATION_REFUSED | status::RESOURCE_LIMIT_EXCEEDED)) => {
                return Err(ReserveError::Full);
            }
            (_, other) => return Err(ReserveError::Refused(other.unwrap_or(0))),
        }
        let reservation = answer.reservation.unwrap_or_default();
        let now = self.clock.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = Duration::from_secs(reservation.expire).saturating_sub(now);
        let told = reservation.addrs.into_iter().take(MAX_TOLD);
        let told = told.filter_map(|bytes| Multiaddr::try_from(bytes).ok());
        Ok((time.clamp(SHORTEST, LONGEST), told.collect()))
    }

    /// Returns `true` if there is a place at a relay.
    #[cfg(feature = "reachability")]
    pub(super) fn has(&self, relay: &PeerId) -> bool {
        self.reservations.has(relay)
    }

    /// Keeps a reservation until it is lost or `stop` is cancelled, and tells the swarm task of both.
    ///
    /// # Cancel safety
    ///
    /// Not safe: the swarm task is not told of the end.
    pub(super) async fn hold(&self, mut reserved: Reserved, stop: &CancellationToken) {
        let relay = reserved.relay();
        self.tell(ReachNotice::Reserved { relay, addresses: reserved.addresses.clone() }).await;
        let lost = loop {
            let renewal =
                reserved.until - reserved.until.saturating_duration_since(Instant::now()) / 4;
            let failed = tokio::select! {
                biased;
                () = stop.cancelled() => break "it is not needed any more".to_owned(),
                failed = self.watch(&reserved.about) => Some(failed),
                () = time::sleep_until(renewal) => None,
            };
            if let Some(error) = failed {
                break error.to_string();
            }
            match self.reserve(StreamTarget::Connected(relay)).await {
                Ok(renewed) => {
                    // The entry of the old one would take the new one's out.
                    let old = std::mem::replace(&mut reserved, renewed);
                    reserved.addresses.clone_from(&old.addresses);
                    drop(old);
                    let on = reserved.about.connection;
                    self.reservations.held().insert(relay, on);
                }
                Err(error) => break error.to_string(),
            }
        };
        drop(reserved);
        tracing::info!(%relay, why = lost, "lost the place at a relay");
        self.tell(ReachNotice::Lost { relay }).await;
    }

    /// Pings a relay until it does not answer. A stream that ends is followed by another one, once: rust-libp2p answers
    /// on one stream of a connection, and drops it for the next, which the node's own pings open.
    async fn watch(&self, about: &About) -> io::Error {
        let mut failed = 0;
        loop {
            let mut answers = 0_usize;
            let error = match self.pings(about, &mut answers).await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            failed = if answers > 0 { 1 } else { failed + 1 };
            if failed >= 2 || error.kind() == io::ErrorKind::TimedOut {
                return error;
            }
        }
    }

    /// Pings a relay on one stream, and counts its answers.
    async fn pings(
        &self,
        about: &About,
        answers: &mut usize,
    ) -> io::Result<std::convert::Infallible> {
        let deadline = Instant::now() + ANSWER_TIME;
        let on = (about.peer, Some(about.connection));
        let opened =
            open_stream(&self.senders.commands, on, vec![PING], (deadline, Turn::Queued)).await;
        let mut io = StreamIo::from(opened.map_err(io::Error::other)?);
        loop {
            let mut bytes = [7; 32];
            let echoed = async {
                io.write_all(&bytes).await?;
                io.flush().await?;
                io.read_exact(&mut bytes).await
            };
            time::timeout(ANSWER_TIME, echoed).await.map_err(io::Error::from)??;
            *answers += 1;
            time::sleep(CHECK).await;
        }
    }

    async fn tell(&self, notice: ReachNotice) {
        // The send fails only if the swarm has ended, and its addresses with it.
        let _ = self.senders.notices.send(Notice::Reach(notice)).await;
    }
}
