//! One UDP socket: it brings each datagram to its connection, and notices strangers.
//!
//! ```text
//!   socket ──▶ of a known address? ─────────────────────────────▶ its connection
//!          ──▶ a check with the name of a connection that moved ▶ its connection
//!          ──▶ a check of a stranger: answered, remembered ─┐
//!          ──▶ DTLS of a stranger whose check was answered ─┴───▶ a new connection, for the door to judge
//!          ──▶ everything else is dropped and counted
//! ```
//!
//! # Invariants
//!
//! * A stranger costs one hash until its first datagram of DTLS, and a place among [`MAX_STRANGERS`]; the oldest makes room.
//! * No answer to a stranger is longer than its question.
//! * A connection that does not take its datagrams loses them, and delays nobody.
//! * A connection has one address at a time, so what is remembered follows from the number of connections.
//! * The task ends once nobody listens and no connection is left.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use runtime::KeyedHasher;
use tokio::{
    net::UdpSocket,
    sync::mpsc,
    time::{self, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{
    credentials::Credentials,
    path::{Check, is_client_hello, is_stun},
};
use crate::{
    metrics::{P2pEvent, P2pMetrics},
    udp::Datagram,
};

/// Largest datagram, in bytes; longer ones are cut off and then refused. Source: larger than any MTU on the Internet.
const MAX_DATAGRAM_BYTES: usize = 2_048;

/// Datagrams that wait for a connection. Chosen: a flight over a path of 100 ms at 5 MB/s.
pub(super) const MAX_WAITING: usize = 512;

/// Strangers whose check was answered. Chosen: some seconds of a busy node.
const MAX_STRANGERS: usize = 1_024;

/// New connections that wait for the swarm's task. Chosen: as many as it takes in one turn.
const MAX_ARRIVALS: usize = 64;

/// Interval at which connections that have ended are forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// A new connection, with its first datagram of DTLS.
pub(super) struct Arrival {
    pub(super) from: SocketAddr,
    pub(super) credentials: Credentials,
    pub(super) datagrams: mpsc::Receiver<Datagram>,
}

type ToConnection = mpsc::Sender<Datagram>;

/// A connection of a peer that dialled, and the address at which it is now.
struct Known {
    to: ToConnection,
    at: SocketAddr,
}

/// The connections of a socket.
struct Routes {
    by_address: HashMap<SocketAddr, ToConnection, KeyedHasher>,
    by_name: HashMap<Credentials, Known, KeyedHasher>,
    strangers: HashMap<SocketAddr, Credentials, KeyedHasher>,
    /// In the order in which they came.
    oldest: VecDeque<SocketAddr>,
}

/// A socket. Its task ends with `listening`, once no connection is left.
#[derive(Clone)]
pub(super) struct Port {
    pub(super) socket: Arc<UdpSocket>,
    routes: Arc<Mutex<Routes>>,
}

/// The way in which datagrams come.
pub(super) enum Source {
    /// This port reads its socket.
    Own,
    /// QUIC has the socket too, and what is not for QUIC comes here.
    #[cfg_attr(not(feature = "quic"), allow(dead_code, reason = "a port is shared with QUIC only"))]
    Shared(mpsc::Receiver<Datagram>),
}

impl Source {
    /// Receives the next datagram; `None` for an error of an earlier one, of which the system tells here.
    ///
    /// # Cancel safety
    ///
    /// No datagram is lost.
    async fn next(&mut self, socket: &UdpSocket, buffer: &mut [u8]) -> Option<Datagram> {
        match self {
            Self::Own => {
                let (length, from) = socket.recv_from(buffer).await.ok()?;
                Some(Datagram { from, bytes: buffer.get(..length).unwrap_or_default().to_vec() })
            }
            Self::Shared(datagrams) => match datagrams.recv().await {
                None => std::future::pending().await,
                datagram => datagram,
            },
        }
    }
}

/// The end of a socket's task.
pub(super) struct PortTask {
    port: Port,
    source: Source,
    arrivals: mpsc::Sender<Arrival>,
    listening: CancellationToken,
    metrics: P2pMetrics,
}

impl Routes {
    fn new(hasher: impl Fn() -> KeyedHasher) -> Self {
        Self {
            by_address: HashMap::with_hasher(hasher()),
            by_name: HashMap::with_hasher(hasher()),
            strangers: HashMap::with_hasher(hasher()),
            oldest: VecDeque::new(),
        }
    }

    fn to_known(&self, datagram: Datagram) -> Result<Result<(), Dropped>, Datagram> {
        let Some(to) = self.by_address.get(&datagram.from) else { return Err(datagram) };
        match to.try_send(datagram) {
            Ok(()) => Ok(Ok(())),
            Err(mpsc::error::TrySendError::Full(_)) => Ok(Err(Dropped::QueueFull)),
            Err(mpsc::error::TrySendError::Closed(datagram)) => Err(datagram),
        }
    }

    fn remember(&mut self, from: SocketAddr, credentials: Credentials) {
        if self.strangers.insert(from, credentials).is_none() {
            self.oldest.push_back(from);
        }
        while self.oldest.len() > MAX_STRANGERS {
            if let Some(oldest) = self.oldest.pop_front() {
                self.strangers.remove(&oldest);
            }
        }
    }

    fn forget_stranger(&mut self, from: SocketAddr) -> Option<Credentials> {
        let credentials = self.strangers.remove(&from)?;
        self.oldest.retain(|other| *other != from);
        Some(credentials)
    }

    fn sweep(&mut self) {
        self.by_address.retain(|_, to| !to.is_closed());
        self.by_name.retain(|_, known| !known.to.is_closed());
    }
}

/// The reason why a datagram was dropped.
enum Dropped {
    /// It belongs to no connection and begins none.
    Stray,
    /// Its connection does not take its datagrams.
    QueueFull,
}

/// The answer to a datagram that went to no connection.
enum Routed {
    Done,
    Answer(Vec<u8>),
    Arrived(Arrival),
    Dropped(Dropped),
}

impl Port {
    /// A port over `socket`, and its task. New connections go to the returned receiver until `listening` is cancelled.
    ///
    /// # Errors
    ///
    /// The error of the system.
    pub(super) fn new(
        (socket, source): (std::net::UdpSocket, Source),
        hasher: impl Fn() -> KeyedHasher,
        listening: CancellationToken,
        metrics: P2pMetrics,
    ) -> io::Result<(Self, PortTask, mpsc::Receiver<Arrival>)> {
        let socket = Arc::new(UdpSocket::from_std(socket)?);
        let port = Self { socket, routes: Arc::new(Mutex::new(Routes::new(hasher))) };
        let (arrivals, arrived) = mpsc::channel(MAX_ARRIVALS);
        let task = PortTask { port: port.clone(), source, arrivals, listening, metrics };
        Ok((port, task, arrived))
    }

    fn with<T>(&self, with: impl FnOnce(&mut Routes) -> T) -> T {
        with(&mut self.routes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Brings the datagrams of `remote` to the returned receiver.
    pub(super) fn dial(&self, remote: SocketAddr) -> mpsc::Receiver<Datagram> {
        let (to, datagrams) = mpsc::channel(MAX_WAITING);
        self.with(|routes| routes.by_address.insert(remote, to));
        datagrams
    }
}

impl PortTask {
    /// Receives datagrams until nobody listens and no connection is left.
    pub(super) async fn run(mut self) {
        let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
        let mut sweep = time::interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                received = self.source.next(&self.port.socket, &mut buffer) => {
                    let Some(datagram) = received else { continue };
                    self.take(datagram);
                }
                _ = sweep.tick() => {
                    let is_empty = self.port.with(|routes| {
                        routes.sweep();
                        routes.by_address.is_empty()
                    });
                    if is_empty && self.listening.is_cancelled() {
                        return;
                    }
                }
            }
        }
    }

    fn take(&self, datagram: Datagram) {
        let from = datagram.from;
        match self.route(datagram) {
            Routed::Done => {}
            Routed::Answer(bytes) => {
                // A socket that is full at this moment says nothing, and the stranger asks again.
                let _ = self.port.socket.try_send_to(&bytes, from);
            }
            Routed::Arrived(arrival) => {
                if let Err(mpsc::error::TrySendError::Full(arrival)) =
                    self.arrivals.try_send(arrival)
                {
                    self.metrics.note(P2pEvent::WebRtcDropped);
                    // Its next datagram, which it sends again, is another chance.
                    self.port.with(|routes| routes.remember(arrival.from, arrival.credentials));
                }
            }
            Routed::Dropped(Dropped::Stray) => self.metrics.note(P2pEvent::WebRtcStray),
            Routed::Dropped(Dropped::QueueFull) => self.metrics.note(P2pEvent::WebRtcDropped),
        }
    }

    fn route(&self, datagram: Datagram) -> Routed {
        self.port.with(|routes| {
            let datagram = match routes.to_known(datagram) {
                Ok(Ok(())) => return Routed::Done,
                Ok(Err(dropped)) => return Routed::Dropped(dropped),
                Err(datagram) => datagram,
            };
            if self.listening.is_cancelled() {
                return Routed::Dropped(Dropped::Stray);
            }
            if is_stun(&datagram.bytes) {
                return Self::checked(routes, datagram);
            }
            if is_client_hello(&datagram.bytes)
                && let Some(credentials) = routes.forget_stranger(datagram.from)
            {
                return Routed::Arrived(Self::arrive(routes, datagram, credentials));
            }
            Routed::Dropped(Dropped::Stray)
        })
    }

    fn checked(routes: &mut Routes, datagram: Datagram) -> Routed {
        let Some(check) = Check::read(&datagram.bytes, datagram.from) else {
            return Routed::Dropped(Dropped::Stray);
        };
        let known = routes.by_name.get_mut(&check.credentials);
        if let Some(known) = known.filter(|known| !known.to.is_closed()) {
            let from = datagram.from;
            if known.to.try_send(datagram).is_err() {
                return Routed::Dropped(Dropped::QueueFull);
            }
            routes.by_address.remove(&std::mem::replace(&mut known.at, from));
            routes.by_address.insert(from, known.to.clone());
            return Routed::Done;
        }
        routes.remember(datagram.from, check.credentials);
        Routed::Answer(check.answer)
    }

    fn arrive(routes: &mut Routes, datagram: Datagram, credentials: Credentials) -> Arrival {
        let (to, datagrams) = mpsc::channel(MAX_WAITING);
        let from = datagram.from;
        // The queue is new, so it has room.
        let _ = to.try_send(datagram);
        routes.by_address.insert(from, to.clone());
        routes.by_name.insert(credentials.clone(), Known { to, at: from });
        Arrival { from, credentials, datagrams }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rand::{SeedableRng, rngs::StdRng};
    use runtime::Random;

    use super::{
        super::{credentials::WebRtcVersion, path::Path},
        *,
    };

    // A peer may send checks of its own connection from as many addresses as it can write on a datagram.
    #[test]
    fn a_connection_has_one_address_however_often_it_moves() {
        let random = &mut StdRng::seed_from_u64(1);
        let credentials = Credentials::draw(WebRtcVersion::V1, random);
        let address = |number: u16| SocketAddr::from(([192, 0, 2, 1], 1_024 + number));
        let mut dialer = Path::dialer(credentials.clone(), address(0), Instant::now());
        let bytes = dialer.poll_check(Instant::now()).unwrap();
        let mut routes = Routes::new(|| KeyedHasher::new(&mut Random::system()));
        let first = Datagram { from: address(0), bytes: bytes.clone() };
        let mut arrival = PortTask::arrive(&mut routes, first, credentials);
        for number in 1..1_000 {
            let check = Datagram { from: address(number), bytes: bytes.clone() };
            assert!(matches!(PortTask::checked(&mut routes, check), Routed::Done));
            assert!(arrival.datagrams.try_recv().is_ok());
        }
        assert_eq!(routes.by_address.len(), 1);
        assert!(routes.by_address.contains_key(&address(999)));
    }
}
