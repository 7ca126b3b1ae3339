//! QUIC v1 as a transport of libp2p, over quinn.
//!
//! ```text
//!   listen ─▶ Environment (UDP) ─▶ Endpoint ─▶ Incoming ─ too many at once, and not validated? ─▶ retry
//!                                                 └──▶ door (Guarded) ─▶ handshake ─▶ Driver ◀─▶ Muxer
//!   dial ───▶ names ─▶ Endpoint, a port of its own for each family ────▶ handshake ─▶ Driver ◀─▶ Muxer
//! ```
//!
//! The library's own transport closes a connection without waiting for what was written, lets an unread stream take
//! 10 MB, and hides priorities and statistics (`docs/architecture.md`).
//!
//! # Invariants
//!
//! * The door is asked before a handshake costs anything: no key is computed for a datagram of a stranger until then.
//! * While more than [`RETRY_FROM`] handshakes are under way, only addresses that have proven to be real come to the
//!   door.
//! * A listening address that is in use is an error. Sockets come from the environment.
//! * An address that nobody named leads to no host that learnt addresses may not lead to, whatever name it has.

mod counting;
mod driver;
mod gauge;
pub(crate) mod place;
mod send_queue;
mod setup;
#[cfg(feature = "webrtc")]
mod shared;
mod stream;

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures::{
    FutureExt as _,
    future::{self, BoxFuture},
};
use gossip::Direction;
use libp2p::{
    Multiaddr, PeerId, Transport, TransportError,
    core::transport::{DialOpts, ListenerId, TransportEvent},
    identity::Keypair,
};
#[cfg(feature = "webrtc")]
use quinn::Runtime as _;
use quinn::{Connection, Endpoint, EndpointConfig, Incoming};
use runtime::{CancelWatch, DialError, Environment};
use tokio::time::Instant;
use tokio_rustls::rustls::pki_types::CertificateDer;

use self::{
    counting::PathCounts,
    driver::Driver,
    gauge::Gauge,
    place::{multiaddr, place_of, socket_address},
    setup::{Configs, Tasks},
    stream::Shared,
};
pub(crate) use self::{setup::QuicSetupError, stream::QuicStream};
use crate::{
    backlog::Backlog,
    connections::ConnectionTasks,
    dial_hosts::DialHosts,
    gauges::Gauges,
    muxer::Muxer,
    security::{certificate::CertificateError, tls::peer_of},
    udp::{Interfaces, Place, Reached},
};

/// Longest time for the look-up of a name. Chosen: it leaves 2 s for the handshake.
const DIAL_TIMEOUT: Duration = Duration::from_secs(8);

/// Handshakes under way from which on addresses have to prove that they are real. Chosen: more than an honest network
/// has at once, and far fewer than the door admits.
const RETRY_FROM: usize = 32;

/// Connections taken in one poll of a listener. Chosen: few, so that a flood does not keep the swarm from its turn.
const TAKEN_A_TURN: usize = 64;

/// The reason why a connection was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QuicError {
    #[error("{0}")]
    NotReached(#[source] DialError),
    #[error("the address leads to no host of the public Internet")]
    NotPublic,
    #[error("cannot use UDP")]
    Socket(#[source] io::Error),
    #[error(transparent)]
    Connect(#[from] quinn::ConnectError),
    #[error(transparent)]
    Connection(#[from] quinn::ConnectionError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// Makes the muxers of connections.
#[derive(Clone)]
struct Muxers {
    tasks: ConnectionTasks,
    backlog: Backlog,
    first: Arc<[String]>,
    gauges: Gauges,
    window: usize,
}

impl Muxers {
    /// The peer and the muxer of a connection whose handshake is over.
    fn muxer(&self, connection: Connection) -> Result<(PeerId, Muxer), QuicError> {
        let shown = connection.peer_identity();
        let shown = shown.and_then(|shown| shown.downcast::<Vec<CertificateDer<'static>>>().ok());
        let peer = peer_of(&shown.unwrap_or_default())?;
        let direction =
            if connection.side().is_client() { Direction::Outbound } else { Direction::Inbound };
        let counts = PathCounts::of(&connection);
        let measured = counts.map(|counts| self.gauges.add(peer, direction, counts));
        let backlog = self.backlog.open();
        let (muxer, ends) = Muxer::new(backlog.end().clone(), self.backlog.metrics().clone());
        let mut driver = Driver {
            connection,
            shared: Arc::new(Shared::new(Arc::clone(&self.first))),
            too_much: CancelWatch::new(backlog.end()),
            backlog,
            inbound: ends.inbound,
            orders: ends.orders,
            streams: ends.streams,
            metrics: self.backlog.metrics().clone(),
            gauge: Gauge::new(self.window, self.window),
            counted: 0,
            next: 0,
        };
        let over = ends.over;
        let driving = async move {
            // The gauge of a connection is found for as long as it lasts.
            let _measured = measured;
            driver.run(over).await;
        };
        self.tasks.start("quic muxer", Box::pin(driving));
        Ok((peer, muxer))
    }
}

/// A handshake under way.
struct Underway(Arc<AtomicUsize>);

impl Underway {
    fn begin(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The settings of the end that dials, for scripted peers.
#[cfg(test)]
pub(crate) fn client_config(key: &Keypair, backlog: &Backlog) -> quinn::ClientConfig {
    Configs::new(key, backlog).unwrap().client
}

type Upgrade = BoxFuture<'static, Result<(PeerId, Muxer), QuicError>>;
type Event = TransportEvent<Upgrade, QuicError>;

/// One listening address.
struct Listening {
    id: ListenerId,
    endpoint: Endpoint,
    local: SocketAddr,
    /// The next connection.
    next: BoxFuture<'static, Option<Incoming>>,
    interfaces: Interfaces,
}

impl Drop for Listening {
    fn drop(&mut self) {
        // Its connections go on.
        self.endpoint.set_server_config(None);
    }
}

async fn next_of(endpoint: Endpoint) -> Option<Incoming> {
    endpoint.accept().await
}

/// Dials and listens over QUIC.
pub(crate) struct Quic {
    environment: Environment,
    hosts: DialHosts,
    configs: Configs,
    muxers: Muxers,
    listeners: Vec<Listening>,
    /// The sockets for dialling over IPv4 and IPv6, once there are any.
    dialers: [Option<Endpoint>; 2],
    underway: Arc<AtomicUsize>,
    events: VecDeque<Event>,
    waker: Option<Waker>,
    #[cfg(feature = "webrtc")]
    ports: crate::udp_ports::UdpPorts,
}

/// The parts from which the transport is built.
pub(crate) struct QuicParts<'a> {
    pub(crate) environment: Environment,
    pub(crate) hosts: DialHosts,
    pub(crate) key: &'a Keypair,
    pub(crate) tasks: ConnectionTasks,
    pub(crate) backlog: Backlog,
    /// The protocols whose streams go ahead of all others.
    pub(crate) first: Vec<String>,
    pub(crate) gauges: Gauges,
    /// The ports that WebRTC has too.
    #[cfg(feature = "webrtc")]
    pub(crate) ports: crate::udp_ports::UdpPorts,
}

impl Quic {
    /// A transport that listens nowhere yet.
    ///
    /// # Errors
    ///
    /// [`QuicSetupError`]; never with an Ed25519 key.
    pub(crate) fn new(parts: QuicParts<'_>) -> Result<Self, QuicSetupError> {
        let configs = Configs::new(parts.key, &parts.backlog)?;
        let QuicParts { environment, hosts, tasks, backlog, first, gauges, .. } = parts;
        let (first, window) = (first.into(), configs.window);
        let muxers = Muxers { tasks, backlog, first, gauges, window };
        Ok(Self {
            environment,
            hosts,
            configs,
            muxers,
            listeners: Vec::new(),
            dialers: [None, None],
            underway: Arc::default(),
            events: VecDeque::new(),
            waker: None,
            #[cfg(feature = "webrtc")]
            ports: parts.ports,
        })
    }

    fn endpoint(
        &self,
        at: SocketAddr,
        server: Option<quinn::ServerConfig>,
    ) -> io::Result<Endpoint> {
        let runtime = Arc::new(Tasks(self.muxers.tasks.clone()));
        #[cfg(feature = "webrtc")]
        if let Some(shared) = self.ports.quic(at) {
            let (socket, received) = shared?;
            let socket = shared::SharedSocket::new(runtime.wrap_udp_socket(socket)?, received);
            let mut config = EndpointConfig::default();
            // Peers would send datagrams whose first byte is that of WebRTC.
            config.grease_quic_bit(false);
            return Endpoint::new_with_abstract_socket(config, server, socket, runtime);
        }
        let socket = self.environment.bind_udp(at)?;
        Endpoint::new(EndpointConfig::default(), server, socket, runtime)
    }

    fn dialer(&mut self, ip: IpAddr) -> io::Result<Endpoint> {
        let any: IpAddr = match ip {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let [v4, v6] = &self.dialers;
        let known = if ip.is_ipv4() { v4 } else { v6 };
        if let Some(endpoint) = known {
            return Ok(endpoint.clone());
        }
        let endpoint = self.endpoint(SocketAddr::new(any, 0), None)?;
        let [v4, v6] = &mut self.dialers;
        *(if ip.is_ipv4() { v4 } else { v6 }) = Some(endpoint.clone());
        Ok(endpoint)
    }

    /// Takes a connection that has come to a listener: `None` if its address has to prove itself first.
    fn take(
        &self,
        listener_id: ListenerId,
        local: SocketAddr,
        incoming: Incoming,
    ) -> Option<Event> {
        let from = incoming.remote_address();
        if !incoming.remote_address_validated()
            && incoming.may_retry()
            && self.underway.load(Ordering::Relaxed) >= RETRY_FROM
        {
            // It fails only for an address that has proven itself.
            let _ = incoming.retry();
            return None;
        }
        let local = SocketAddr::new(incoming.local_ip().unwrap_or(local.ip()), local.port());
        let (muxers, underway) = (self.muxers.clone(), Underway::begin(&self.underway));
        let upgrade = async move {
            let _underway = underway;
            let connection = incoming.accept()?.await?;
            muxers.muxer(connection)
        };
        Some(Event::Incoming {
            listener_id,
            upgrade: upgrade.boxed(),
            local_addr: multiaddr(local),
            send_back_addr: multiaddr(from),
        })
    }

    fn reached(listener_id: ListenerId, change: Reached) -> Event {
        match change {
            Reached::At(at) => Event::NewAddress { listener_id, listen_addr: multiaddr(at) },
            Reached::NoMoreAt(at) => {
                Event::AddressExpired { listener_id, listen_addr: multiaddr(at) }
            }
        }
    }
}

/// Connects to the first of `found` that answers.
async fn connect(
    found: Vec<(Endpoint, SocketAddr)>,
    client: quinn::ClientConfig,
    place: &Place,
) -> Result<Connection, QuicError> {
    let mut last = None;
    for (endpoint, address) in found {
        // An IP address as the name keeps TLS from sending one.
        let name = address.ip().to_string();
        match endpoint.connect_with(client.clone(), address, &name)?.await {
            Ok(connection) => return Ok(connection),
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or_else(|| QuicError::NotReached(place.unresolved()), QuicError::Connection))
}

impl Transport for Quic {
    type Output = (PeerId, Muxer);
    type Error = QuicError;
    type ListenerUpgrade = Upgrade;
    type Dial = Upgrade;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<QuicError>> {
        let Some(at) = socket_address(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        let socket_error = |error| TransportError::Other(QuicError::Socket(error));
        let server = self.configs.server.clone();
        let endpoint = self.endpoint(at, Some(server)).map_err(socket_error)?;
        let local = endpoint.local_addr().map_err(socket_error)?;
        let interfaces = Interfaces::of(local).map_err(socket_error)?;
        let next = next_of(endpoint.clone()).boxed();
        self.listeners.push(Listening { id, endpoint, local, next, interfaces });
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
    ) -> Result<Upgrade, TransportError<QuicError>> {
        let Some(place) = place_of(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        let socket_error = |error| TransportError::Other(QuicError::Socket(error));
        // A machine without one of the families still dials over the other.
        let v4 = self.dialer(Ipv4Addr::UNSPECIFIED.into());
        let v6 = self.dialer(Ipv6Addr::UNSPECIFIED.into());
        let (v4, v6) = match (v4, v6) {
            (Err(error), Err(_)) => return Err(socket_error(error)),
            (v4, v6) => (v4.ok(), v6.ok()),
        };
        let (environment, client) = (self.environment.clone(), self.configs.client.clone());
        let (muxers, deadline) = (self.muxers.clone(), Instant::now() + DIAL_TIMEOUT);
        let hosts = self.hosts.now();
        Ok(async move {
            let found = environment.look_up(&place.name, deadline).await;
            let found = found.map_err(QuicError::NotReached)?;
            let endpoint_for = |address: SocketAddr| {
                let endpoint = if address.is_ipv4() { &v4 } else { &v6 };
                endpoint.clone().filter(|_| place.includes(address.ip())).map(|end| (end, address))
            };
            let mut found: Vec<_> = found.into_iter().filter_map(endpoint_for).collect();
            let has_some = !found.is_empty();
            found.retain(|(_, address)| hosts.allow(address.ip()));
            if has_some && found.is_empty() {
                return Err(QuicError::NotPublic);
            }
            muxers.muxer(connect(found, client, &place).await?)
        }
        .boxed())
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Event> {
        let this = &mut *self;
        let mut turns = TAKEN_A_TURN;
        let mut listeners = std::mem::take(&mut this.listeners);
        for listening in &mut listeners {
            while let Poll::Ready(change) = listening.interfaces.poll(context) {
                this.events.push_back(Self::reached(listening.id, change));
            }
            while turns > 0
                && let Poll::Ready(next) = listening.next.poll_unpin(context)
            {
                turns -= 1;
                if let Some(incoming) = next {
                    listening.next = next_of(listening.endpoint.clone()).boxed();
                    this.events.extend(this.take(listening.id, listening.local, incoming));
                } else {
                    // The socket has failed.
                    listening.next = future::pending().boxed();
                    let reason = Err(QuicError::Socket(io::ErrorKind::NotConnected.into()));
                    this.events
                        .push_back(Event::ListenerClosed { listener_id: listening.id, reason });
                }
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

#[cfg(test)]
mod tests;
