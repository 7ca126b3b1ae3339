//! Circuits as a transport: dialled through a relay, and accepted from relays at which this node has a reservation.
//!
//! ```text
//!   dial /…/p2p/RELAY/p2p-circuit/p2p/ID ─▶ a stream to the relay, hop: connect ─▶ byte stream
//!   a relay opens a stream, stop: connect ─▶ Stops ──▶ [accepted] ──▶ byte stream, from the relay's address
//! ```
//!
//! # Invariants
//!
//! * A circuit stands on a direct connection to its relay, never on another circuit.
//! * A circuit that a relay hands over is taken only while this node has a reservation there.
//! * The address of an accepted circuit begins with that of its relay, so the door counts it against the relay's host.
//! * At most [`MAX_ACCEPTED`] accepted circuits wait for the swarm; further ones are refused and counted.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Ready, ready},
};
use gossip::LinkPath;
use libp2p::{
    Multiaddr, PeerId, Transport,
    core::transport::{DialOpts, ListenerId, TransportError, TransportEvent},
    multiaddr::Protocol,
};
use mesh::LearntHosts;
use runtime::{
    TaskSet,
    time::{self, Instant},
};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::{
    compat::{Compat, TokioAsyncReadCompatExt},
    sync::CancellationToken,
};

use super::{
    HOP,
    client::Reservations,
    wire::{self, HopMessage, Peer, StopMessage, hop, status, stop},
};
use crate::{
    address::{PeerAddress, circuit_of, ip_literal, path_of},
    command::ToSwarm,
    dial_hosts::DialHosts,
    metrics::{P2pEvent, P2pMetrics},
    streams::{AcceptQueue, Bounds, InboundStream, OpenError, StreamIo, StreamTarget},
};

/// The byte stream of a circuit.
pub(crate) type CircuitStream = Compat<StreamIo>;

/// Bounds on streams of relays that wait. Chosen: those of two relays, and some.
pub(super) const WAITING: Bounds = Bounds { per_connection: 16, in_all: 64 };

/// Accepted circuits that wait for the swarm, at most. Chosen: the swarm takes them within milliseconds.
const MAX_ACCEPTED: usize = 16;

/// Requests of relays in progress, at most. Chosen: those that may wait for the swarm, and as many.
const MAX_STOPS: usize = 32;

/// Longest time for a relay to say what it wants. Chosen: it has said so when it opens the stream.
const STOP_TIME: Duration = Duration::from_secs(10);

/// Longest time from a dial to the relay's answer. Chosen: it leaves 1 s for the handshake through the relay.
const DIAL_TIME: Duration = Duration::from_secs(9);

/// A circuit that a relay has handed over.
#[derive(Debug)]
pub(super) struct Accepted {
    stream: StreamIo,
    /// The address of the relay, with `/p2p-circuit` at its end.
    through: Multiaddr,
    /// The peer at the other end, as the relay says; its handshake proves it.
    from: PeerId,
}

/// The reason why a relay made no circuit.
#[derive(Debug, thiserror::Error)]
pub(super) enum CircuitError {
    #[error("the relay cannot be reached")]
    Relay(#[source] OpenError),
    #[error("the relay is itself behind another relay")]
    Nested,
    #[error("the relay has no reservation of the peer")]
    NoReservation,
    #[error("the relay has no place for another circuit")]
    Full,
    #[error("the relay refused the circuit, with status {0}")]
    Refused(i32),
    #[error("the relay gave no answer that can be read")]
    Io(#[from] io::Error),
    #[error("the relay is no host of the public Internet")]
    NotPublic,
}

/// Dials and accepts circuits.
#[derive(Debug)]
pub(crate) struct Circuits {
    swarm: ToSwarm,
    hosts: DialHosts,
    listener: ListenerId,
    accepted: mpsc::Receiver<Accepted>,
}

/// The end of [`Circuits`] that takes circuits from relays.
#[derive(Debug)]
pub(crate) struct Stops {
    accepted: mpsc::Sender<Accepted>,
    reservations: Reservations,
    metrics: P2pMetrics,
}

impl Circuits {
    /// A transport that opens its streams with `swarm`, to relays among `hosts`, and the end that takes circuits from
    /// relays of `reservations`.
    pub(super) fn new(
        swarm: ToSwarm,
        hosts: DialHosts,
        (reservations, metrics): (Reservations, P2pMetrics),
    ) -> (Self, Stops) {
        let (to_swarm, accepted) = mpsc::channel(MAX_ACCEPTED);
        let circuits = Self { swarm, hosts, listener: ListenerId::next(), accepted };
        (circuits, Stops { accepted: to_swarm, reservations, metrics })
    }
}

#[cfg(any(test, feature = "reachability"))]
impl Circuits {
    /// A transport without circuits.
    pub(crate) fn none() -> Self {
        let nothing = (Reservations::default(), P2pMetrics::default());
        Self::new(ToSwarm::default(), DialHosts::default(), nothing).0
    }
}

/// Asks a relay for a circuit.
async fn connect(
    swarm: ToSwarm,
    relay: PeerAddress,
    to: PeerId,
) -> Result<CircuitStream, CircuitError> {
    let deadline = Instant::now() + DIAL_TIME;
    let opened = swarm.open_to(StreamTarget::At(relay), vec![HOP], deadline).await;
    let opened = opened.map_err(CircuitError::Relay)?;
    if path_of(opened.address()) == LinkPath::Relayed {
        return Err(CircuitError::Nested);
    }
    let mut io = StreamIo::from(opened);
    let peer = Some(Peer { id: to.to_bytes(), addrs: Vec::new() });
    let answered = async {
        wire::write(&mut io, &HopMessage { peer, ..HopMessage::of(hop::CONNECT) }).await?;
        wire::read::<HopMessage>(&mut io).await
    };
    let answer = time::timeout_at(deadline, answered).await.map_err(io::Error::from)??;
    match (answer.kind, answer.status) {
        (hop::STATUS, Some(status::OK)) => Ok(io.compat()),
        (hop::STATUS, Some(status::NO_RESERVATION)) => Err(CircuitError::NoReservation),
        (hop::STATUS, Some(status::RESOURCE_LIMIT_EXCEEDED)) => Err(CircuitError::Full),
        (_, other) => Err(CircuitError::Refused(other.unwrap_or(0))),
    }
}

impl Transport for Circuits {
    type Output = CircuitStream;
    type Error = io::Error;
    type ListenerUpgrade = Ready<io::Result<CircuitStream>>;
    type Dial = BoxFuture<'static, io::Result<CircuitStream>>;

    /// Reservations are made by the keepers of relays (`client.rs`), not by the swarm.
    fn listen_on(
        &mut self,
        _id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        Err(TransportError::MultiaddrNotSupported(address))
    }

    fn remove_listener(&mut self, _id: ListenerId) -> bool {
        false
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        let Some((relay, to)) = circuit_of(&address).filter(|_| options.role.is_dialer()) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        let hosts = self.hosts.now();
        // Otherwise a stranger who told the address could have this node connect to its own network.
        let is_allowed = hosts == LearntHosts::Any
            || ip_literal(&relay.address).is_some_and(|ip| hosts.allow(ip));
        if !is_allowed {
            return Err(TransportError::Other(io::Error::other(CircuitError::NotPublic)));
        }
        let swarm = self.swarm.clone();
        Ok(async move { connect(swarm, relay, to).await.map_err(io::Error::other) }.boxed())
    }

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        let listener_id = self.listener;
        // `None` while the swarm ends.
        let Some(Accepted { stream, through, from }) =
            std::task::ready!(self.accepted.poll_recv(context))
        else {
            return Poll::Pending;
        };
        Poll::Ready(TransportEvent::Incoming {
            listener_id,
            upgrade: ready(Ok(stream.compat())),
            send_back_addr: through.clone().with(Protocol::P2p(from)),
            local_addr: through,
        })
    }
}

impl Stops {
    /// Takes circuits until cancelled.
    pub(super) async fn run(
        self,
        mut accept: AcceptQueue,
        tasks: TaskSet,
        cancel: CancellationToken,
    ) {
        let (stops, places) = (Arc::new(self), Arc::new(Semaphore::new(MAX_STOPS)));
        while let Some(Some(stream)) = cancel.run_until_cancelled(accept.next()).await {
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                stops.metrics.note(P2pEvent::CircuitRefused);
                continue;
            };
            let stops = Arc::clone(&stops);
            tasks.spawn("circuit", |cancel| async move {
                let taken = time::timeout(STOP_TIME, stops.take(stream));
                if let Some(Ok(Err(error))) = cancel.run_until_cancelled(taken).await {
                    tracing::debug!(%error, "a circuit was not taken");
                }
                drop(place);
            });
        }
    }

    async fn take(&self, stream: InboundStream) -> io::Result<()> {
        let about = stream.about.clone();
        let mut io = StreamIo::from(stream);
        let request: StopMessage = wire::read(&mut io).await?;
        let from = request.peer.and_then(|peer| PeerId::from_bytes(&peer.id).ok());
        let Some(from) = from.filter(|_| request.kind == stop::CONNECT) else {
            return self.refuse(&mut io, status::MALFORMED_MESSAGE).await;
        };
        let is_direct = path_of(&about.address) == LinkPath::Direct;
        if !is_direct || !self.reservations.has(&about.peer) {
            return self.refuse(&mut io, status::PERMISSION_DENIED).await;
        }
        let Ok(place) = self.accepted.try_reserve() else {
            return self.refuse(&mut io, status::RESOURCE_LIMIT_EXCEEDED).await;
        };
        wire::write(&mut io, &StopMessage::answer(status::OK)).await?;
        let bare = about.address.iter().filter(|part| !matches!(part, Protocol::P2p(_)));
        let through =
            bare.collect::<Multiaddr>().with(Protocol::P2p(about.peer)).with(Protocol::P2pCircuit);
        place.send(Accepted { stream: io, through, from });
        Ok(())
    }

    async fn refuse(&self, io: &mut StreamIo, status: i32) -> io::Result<()> {
        self.metrics.note(P2pEvent::CircuitRefused);
        wire::write(io, &StopMessage::answer(status)).await?;
        tokio::io::AsyncWriteExt::shutdown(io).await
    }
}
