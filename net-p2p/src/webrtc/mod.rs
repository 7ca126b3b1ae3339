//! WebRTC Direct as a transport of libp2p: browsers reach a node by it without a certificate that they trust.
//!
//! ```text
//!   listen ─▶ Environment (UDP) ─▶ Port ─▶ Arrival ─▶ door (Guarded) ─▶ handshake ─▶ Driver ◀─▶ Muxer
//!   dial ───▶ names ─▶ Port, one for each connection ─────────────────▶ handshake ─▶ Driver ◀─▶ Muxer
//!
//!   Session, shared by the driver and the streams:   Secured: Path (STUN), DTLS ◀─▶ Channels: SCTP, messages, streams
//! ```
//!
//! The layers are those of `str0m`, each a crate of its own: messages of STUN (`is`), DTLS (`dimpl`), SCTP (`sctp-proto`).
//! `str0m` itself hands out all data as it comes, so SCTP's window never closes and a stream that nobody reads grows without a
//! bound. Here bytes stay in SCTP until there is room for them.
//!
//! # Invariants
//!
//! * The door is asked before a connection costs anything but its first datagram of DTLS.
//! * A peer is who the Noise handshake says. It covers the certificates of both ends, so nobody stands between them.
//! * A panic of a library ends one connection, and is counted.
//! * An address that nobody named leads to no host that learnt addresses may not lead to, whatever name it has.

mod association;
mod certificate;
mod credentials;
mod dcep;
mod handshake;
mod path;
pub(crate) mod place;
mod port;
mod pump;
mod secured;
mod session;
#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may use the system directly")]
mod tests;
mod window;

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures::{FutureExt as _, future::BoxFuture};
use libp2p::{
    Multiaddr, PeerId, Transport, TransportError,
    core::transport::{DialOpts, ListenerId, TransportEvent},
    noise,
};
use runtime::{DialError, Environment};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) use self::handshake::{Handshakes, WebRtcSetupError};
#[cfg(test)]
pub(crate) use self::{association::Sctp, window::chunks};
pub use self::{
    certificate::{WebRtcCertificate, WebRtcCertificateError},
    credentials::WebRtcVersion,
};
use self::{
    handshake::Way,
    place::{Target, announced, multiaddr, socket_address},
    port::{Arrival, Port, Source},
};
use crate::{
    channels::Ended,
    dial_hosts::DialHosts,
    muxer::Muxer,
    udp::{Interfaces, Reached},
};

/// Longest time for the look-up of a name. Chosen: as with QUIC.
const DIAL_TIMEOUT: Duration = Duration::from_secs(8);

/// Connections taken in one poll of a listener. Chosen: as with QUIC.
const TAKEN_A_TURN: usize = 64;

/// The reason why a connection was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WebRtcError {
    #[error("{0}")]
    NotReached(#[source] DialError),
    #[error("the address leads to no host of the public Internet")]
    NotPublic,
    #[error("cannot use UDP")]
    Socket(#[source] io::Error),
    #[error(transparent)]
    Ended(#[from] Ended),
    #[error(transparent)]
    Noise(#[from] noise::Error),
}

type Upgrade = BoxFuture<'static, Result<(PeerId, Muxer), WebRtcError>>;
type Event = TransportEvent<Upgrade, WebRtcError>;

/// One listening address.
struct Listening {
    id: ListenerId,
    port: Port,
    local: SocketAddr,
    arrivals: mpsc::Receiver<Arrival>,
    interfaces: Interfaces,
    /// Its connections go on.
    _listening: DropGuard,
}

/// Dials and listens over WebRTC.
pub(crate) struct WebRtc {
    environment: Environment,
    hosts: DialHosts,
    handshakes: Handshakes,
    listeners: Vec<Listening>,
    events: VecDeque<Event>,
    waker: Option<Waker>,
    #[cfg(feature = "quic")]
    ports: crate::udp_ports::UdpPorts,
}

/// A port over a socket that is bound to `at`, whose task runs.
fn open(
    (environment, handshakes): (&Environment, &Handshakes),
    at: SocketAddr,
    listening: CancellationToken,
) -> io::Result<(Port, mpsc::Receiver<Arrival>)> {
    let socket = environment.bind_udp(at)?;
    open_over((environment, handshakes), (socket, Source::Own), listening)
}

fn open_over(
    (environment, handshakes): (&Environment, &Handshakes),
    socket: (std::net::UdpSocket, Source),
    listening: CancellationToken,
) -> io::Result<(Port, mpsc::Receiver<Arrival>)> {
    let metrics = handshakes.metrics().clone();
    let (port, task, arrivals) = Port::new(socket, || environment.hasher(), listening, metrics)?;
    handshakes.tasks.start("webrtc port", Box::pin(task.run()));
    Ok((port, arrivals))
}

impl WebRtc {
    /// A transport that listens nowhere yet.
    pub(crate) fn new(
        (environment, hosts): (Environment, DialHosts),
        handshakes: Handshakes,
        #[cfg(feature = "quic")] ports: crate::udp_ports::UdpPorts,
    ) -> Self {
        let (listeners, events) = (Vec::new(), VecDeque::new());
        Self {
            environment,
            hosts,
            handshakes,
            listeners,
            events,
            waker: None,
            #[cfg(feature = "quic")]
            ports,
        }
    }

    fn open_listener(
        &self,
        at: SocketAddr,
        listening: CancellationToken,
    ) -> io::Result<(Port, mpsc::Receiver<Arrival>)> {
        let parts = (&self.environment, &self.handshakes);
        #[cfg(feature = "quic")]
        if let Some(shared) = self.ports.webrtc(at) {
            let (socket, datagrams) = shared?;
            return open_over(parts, (socket, Source::Shared(datagrams)), listening);
        }
        open(parts, at, listening)
    }

    fn take(&self, listening: &Listening, arrival: Arrival) -> Event {
        let Arrival { from, credentials, datagrams } = arrival;
        let way =
            Way { socket: listening.port.socket.clone(), remote: from, credentials, datagrams };
        Event::Incoming {
            listener_id: listening.id,
            upgrade: self.handshakes.clone().accept(way).boxed(),
            local_addr: multiaddr(listening.local),
            send_back_addr: multiaddr(from),
        }
    }

    fn reached(&self, listener_id: ListenerId, change: Reached) -> Event {
        let certificate = self.handshakes.fingerprint();
        match change {
            Reached::At(at) => {
                Event::NewAddress { listener_id, listen_addr: announced(at, certificate) }
            }
            Reached::NoMoreAt(at) => {
                Event::AddressExpired { listener_id, listen_addr: announced(at, certificate) }
            }
        }
    }
}

/// Connects to the first of `found` that answers.
async fn connect(
    (environment, handshakes): (Environment, Handshakes),
    found: Vec<SocketAddr>,
    target: &Target,
) -> Result<(PeerId, Muxer), WebRtcError> {
    let mut last = WebRtcError::NotReached(target.place.unresolved());
    for remote in found {
        let any: IpAddr = match remote {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        // The port of a dial has no listener, so its task ends with the connection.
        let nobody = CancellationToken::new();
        nobody.cancel();
        let opened = open((&environment, &handshakes), SocketAddr::new(any, 0), nobody);
        let (port, _) = opened.map_err(WebRtcError::Socket)?;
        let credentials = handshakes.draw(&mut environment.random());
        let datagrams = port.dial(remote);
        let way = Way { socket: port.socket, remote, credentials, datagrams };
        match handshakes.clone().dial(way, target.certificate).await {
            Ok(connected) => return Ok(connected),
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl Transport for WebRtc {
    type Output = (PeerId, Muxer);
    type Error = WebRtcError;
    type ListenerUpgrade = Upgrade;
    type Dial = Upgrade;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<WebRtcError>> {
        let Some(at) = socket_address(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        let socket_error = |error| TransportError::Other(WebRtcError::Socket(error));
        let listening = CancellationToken::new();
        let (port, arrivals) = self.open_listener(at, listening.clone()).map_err(socket_error)?;
        let local = port.socket.local_addr().map_err(socket_error)?;
        let interfaces = Interfaces::of(local).map_err(socket_error)?;
        let _listening = listening.drop_guard();
        self.listeners.push(Listening { id, port, local, arrivals, interfaces, _listening });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        let before = self.listeners.len();
        self.listeners.retain(|listening| listening.id != id);
        self.listeners.len() < before
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        _options: DialOpts,
    ) -> Result<Upgrade, TransportError<WebRtcError>> {
        let Some(target) = Target::of(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        let parts = (self.environment.clone(), self.handshakes.clone());
        let (hosts, deadline) = (self.hosts.now(), Instant::now() + DIAL_TIMEOUT);
        Ok(async move {
            let found = parts.0.look_up(&target.place.name, deadline).await;
            let mut found = found.map_err(WebRtcError::NotReached)?;
            found.retain(|address| target.place.includes(address.ip()));
            let has_some = !found.is_empty();
            found.retain(|address| hosts.allow(address.ip()));
            if has_some && found.is_empty() {
                return Err(WebRtcError::NotPublic);
            }
            connect(parts, found, &target).await
        }
        .boxed())
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Event> {
        let this = &mut *self;
        let mut turns = TAKEN_A_TURN;
        let mut listeners = std::mem::take(&mut this.listeners);
        for listening in &mut listeners {
            while let Poll::Ready(change) = listening.interfaces.poll(context) {
                let event = this.reached(listening.id, change);
                this.events.push_back(event);
            }
            while turns > 0
                && let Poll::Ready(Some(arrival)) = listening.arrivals.poll_recv(context)
            {
                turns -= 1;
                let event = this.take(listening, arrival);
                this.events.push_back(event);
            }
        }
        this.listeners = listeners;
        if turns == 0 {
            context.waker().wake_by_ref();
        }
        if let Some(event) = this.events.pop_front() {
            return Poll::Ready(event);
        }
        this.waker = Some(context.waker().clone());
        Poll::Pending
    }
}
