//! The TCP and in-memory sockets below libp2p.
//!
//! ```text
//!   dial    ─▶ Environment (names, racing addresses, TCP or memory) ─┐
//!   listen  ─▶ libp2p's TCP, which watches interfaces ───────────────┼─▶ Rise: WebSocket, private network ─▶ Socket
//!           ├▶ Environment, in memory ───────────────────────────────┤
//!           └▶ the WebSocket port, handed over ──────────────────────┘
//! ```
//!
//! # Invariants
//!
//! * Every dial goes through the environment, which looks names up and races the addresses under one deadline.
//!   It always uses a new port: with the listening port, two nodes that dial each other at the same moment
//!   would get one TCP connection that each believes to have dialled. The two exceptions are dials that mean just that,
//!   of two peers who have agreed who is who (`reach/punch.rs`), and dials of relays, who dial nobody from that port.
//! * The door is asked about an accepted socket before anything is read from it: what stands above TCP is a part of the
//!   upgrade that the door lets begin.

mod event;
mod free;
#[cfg(feature = "websocket")]
mod handed;
#[cfg(feature = "private-network")]
mod private;
mod rise;
mod socket;
mod tune;
#[cfg(feature = "websocket")]
mod web;

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Ready},
};
use libp2p::{
    Multiaddr, Transport,
    core::transport::{DialOpts, ListenerId, TransportError, TransportEvent},
    multiaddr::Protocol,
    tcp,
};
use mesh::LearntHosts;
use runtime::{DialError, Environment, Listener, Stream};
use tokio::time::Instant;

#[cfg(feature = "websocket")]
use self::handed::Handed;
use self::{
    event::{Event, Rising, multiaddr},
    free::is_free,
    rise::Rise,
    socket::Socket,
};
#[cfg(feature = "reachability")]
use crate::route::Host;
use crate::{
    admission::PassSlot,
    config::P2pConfig,
    dial_hosts::{DialHosts, NotPublic},
    metrics::P2pMetrics,
    route::{End, Route, Via},
};

/// Longest time from the name look-up to a connected socket. Chosen: it leaves 2 s for the handshake, so that
/// the error of an unreachable address names that address.
const DIAL_TIMEOUT: Duration = Duration::from_secs(8);

/// Dials and listens for libp2p.
pub(crate) struct Sockets {
    environment: Environment,
    hosts: DialHosts,
    /// Does what stands above TCP.
    rise: Rise,
    tcp: tcp::tokio::Transport,
    memory: Vec<InMemory>,
    /// The part above TCP of the address of each listener.
    above: HashMap<ListenerId, Above>,
    /// Sockets of the WebSocket port.
    #[cfg(feature = "websocket")]
    handed: Option<Handed>,
    /// Places at the door of sockets that were accepted on another port.
    passes: PassSlot,
    /// Events for the swarm.
    events: VecDeque<Event>,
}

/// The part of an address above TCP.
#[derive(Clone, Debug)]
struct Above {
    via: Via,
    parts: Multiaddr,
}

impl Above {
    /// Takes an address to listen on apart: the part up to TCP, and the rest.
    fn split(address: &Multiaddr) -> Option<(Multiaddr, Self)> {
        let via = Route::of(address, End::Listener)?.via;
        let parts: Vec<_> = address.iter().collect();
        let (below, above) = parts.split_at_checked(2)?;
        let join = |parts: &[Protocol<'_>]| parts.iter().cloned().collect();
        Some((join(below), Self { via, parts: join(above) }))
    }

    /// The whole address whose part up to TCP is `below`.
    fn over(&self, below: Multiaddr) -> Multiaddr {
        self.parts.iter().fold(below, Multiaddr::with)
    }
}

/// A listener on an in-memory address.
struct InMemory {
    id: ListenerId,
    state: State,
}

enum State {
    Binding(BoxFuture<'static, io::Result<Listener>>),
    Bound(Listener),
}

impl Sockets {
    /// The source of the sockets.
    #[cfg(all(feature = "quic", feature = "webrtc"))]
    pub(crate) const fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The sockets of `environment`, whose dials lead to `hosts`, with what `config` says of those that stand above TCP.
    pub(crate) fn new(
        (environment, hosts): (Environment, DialHosts),
        config: &P2pConfig,
        metrics: &P2pMetrics,
    ) -> Self {
        Self {
            rise: Rise::new(&environment, config, metrics),
            environment,
            hosts,
            tcp: tcp::tokio::Transport::new(tcp::Config::default().nodelay(true)),
            memory: Vec::new(),
            above: HashMap::new(),
            #[cfg(feature = "websocket")]
            handed: config.web.port.clone().map(Handed::new),
            passes: PassSlot::default(),
            events: VecDeque::new(),
        }
    }

    /// The slot for places that sockets got at another port of the node.
    pub(crate) fn passes(&self) -> PassSlot {
        self.passes.clone()
    }

    /// The event for an accepted socket.
    fn incoming(
        &self,
        listener_id: ListenerId,
        stream: Stream,
        ends: (SocketAddr, SocketAddr),
    ) -> Event {
        let (local, from) = (multiaddr(ends.0), multiaddr(ends.1));
        let Some(above) = self.above.get(&listener_id) else {
            let error = io::ErrorKind::NotConnected.into();
            return Event::ListenerError { listener_id, error };
        };
        Event::Incoming {
            listener_id,
            upgrade: self.rise.clone().accepted(stream, above.via.clone()).boxed(),
            local_addr: above.over(local),
            send_back_addr: above.over(from),
        }
    }

    /// An event of the TCP transport, with the whole address of its listener.
    fn risen(
        &self,
        event: TransportEvent<Ready<io::Result<tcp::tokio::TcpStream>>, io::Error>,
    ) -> Event {
        let whole = |id: ListenerId, address: Multiaddr| match self.above.get(&id) {
            Some(above) => above.over(address),
            None => address,
        };
        match event {
            TransportEvent::NewAddress { listener_id, listen_addr } => {
                Event::NewAddress { listener_id, listen_addr: whole(listener_id, listen_addr) }
            }
            TransportEvent::AddressExpired { listener_id, listen_addr } => {
                Event::AddressExpired { listener_id, listen_addr: whole(listener_id, listen_addr) }
            }
            TransportEvent::Incoming { listener_id, upgrade, local_addr, send_back_addr } => {
                let via = self.above.get(&listener_id).map_or(Via::Tcp, |above| above.via.clone());
                let rise = self.rise.clone();
                Event::Incoming {
                    listener_id,
                    upgrade: async move { rise.accepted(upgrade.await?.0.into(), via).await }
                        .boxed(),
                    local_addr: whole(listener_id, local_addr),
                    send_back_addr: whole(listener_id, send_back_addr),
                }
            }
            TransportEvent::ListenerClosed { listener_id, reason } => {
                Event::ListenerClosed { listener_id, reason }
            }
            TransportEvent::ListenerError { listener_id, error } => {
                Event::ListenerError { listener_id, error }
            }
        }
    }

    fn poll_memory(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        let (mut failed, mut accepted) = (None, Vec::new());
        for (at, listening) in self.memory.iter_mut().enumerate() {
            let listener_id = listening.id;
            if let State::Binding(binding) = &mut listening.state {
                match binding.poll_unpin(context) {
                    Poll::Pending => continue,
                    Poll::Ready(Err(error)) => {
                        failed = Some((at, listener_id, error));
                        break;
                    }
                    Poll::Ready(Ok(listener)) => {
                        for &address in listener.local_addrs() {
                            let listen_addr = match self.above.get(&listener_id) {
                                Some(above) => above.over(multiaddr(address)),
                                None => multiaddr(address),
                            };
                            self.events.push_back(Event::NewAddress { listener_id, listen_addr });
                        }
                        listening.state = State::Bound(listener);
                    }
                }
            }
            let State::Bound(listener) = &listening.state else { continue };
            if let Poll::Ready(Ok((stream, from))) = listener.poll_accept(context) {
                let local = stream.local_addr().unwrap_or_else(|_| listener.local_addr());
                accepted.push((listener_id, stream, (local, from)));
            }
        }
        for (listener_id, stream, ends) in accepted {
            let event = self.incoming(listener_id, stream, ends);
            self.events.push_back(event);
        }
        if let Some((at, listener_id, error)) = failed {
            self.memory.remove(at);
            return Poll::Ready(Event::ListenerClosed { listener_id, reason: Err(error) });
        }
        self.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

impl Transport for Sockets {
    type Output = Socket;
    type Error = io::Error;
    type ListenerUpgrade = Rising;
    type Dial = BoxFuture<'static, io::Result<Socket>>;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        let Some((below, above)) = Above::split(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        self.rise.check_listener(&above.via).map_err(TransportError::Other)?;
        if self.environment.is_in_memory() {
            let Some(route) = Route::of(&below, End::Listener) else {
                return Err(TransportError::MultiaddrNotSupported(address));
            };
            let environment = self.environment.clone();
            let binding = async move { environment.bind(&route.host_port()).await }.boxed();
            self.memory.push(InMemory { id, state: State::Binding(binding) });
        } else {
            is_free(&below).map_err(not_bound).map_err(TransportError::Other)?;
            self.tcp.listen_on(id, below).map_err(|error| error.map(not_bound))?;
        }
        self.above.insert(id, above);
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.above.remove(&id);
        let before = self.memory.len();
        self.memory.retain(|listening| listening.id != id);
        self.memory.len() < before || self.tcp.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        let Some(route) = Route::of(&address, End::Dialler) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        #[cfg(feature = "reachability")]
        if let (true, Host::Ip(ip)) = (self.hosts.is_from_listening_port(), &route.host)
            && self.hosts.now().allow(*ip)
            && !self.environment.is_in_memory()
        {
            let below = multiaddr((*ip, route.port).into());
            let dialling = self.tcp.dial(below, options)?;
            let rise = self.rise.clone();
            return Ok(async move {
                let stream = tokio::time::timeout(DIAL_TIMEOUT, dialling).await??;
                rise.dialled(stream.0.into(), &route).await
            }
            .boxed());
        }
        #[cfg(not(feature = "reachability"))]
        let _ = options;
        let (environment, rise, hosts) =
            (self.environment.clone(), self.rise.clone(), self.hosts.now());
        Ok(async move {
            let dialled =
                connect(&route, (&environment, hosts), Instant::now() + DIAL_TIMEOUT).await;
            let stream = dialled.map_err(io::Error::other)?;
            if let Some(Err(error)) = stream.tcp().map(|stream| stream.set_nodelay(true)) {
                tracing::debug!(%error, "a socket option is not available");
            }
            rise.dialled(stream, &route).await
        }
        .boxed())
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Event> {
        #[cfg(feature = "websocket")]
        {
            let Self { handed, rise, passes, .. } = &mut *self;
            if let Some(handed) = handed
                && let Poll::Ready(event) = handed.poll(context, (rise, passes))
            {
                return Poll::Ready(event);
            }
        }
        if self.environment.is_in_memory() {
            return self.poll_memory(context);
        }
        let event = std::task::ready!(Pin::new(&mut self.tcp).poll(context));
        #[cfg(feature = "websocket")]
        if let (Some(handed), TransportEvent::NewAddress { listen_addr, .. }) =
            (&mut self.handed, &event)
        {
            handed.found(listen_addr);
        }
        let event = self.risen(event);
        if let Event::ListenerClosed { listener_id, .. } = &event {
            self.above.remove(listener_id);
        }
        Poll::Ready(event)
    }
}

/// Looks the host of a route up and connects to it. The addresses of a name race each other.
async fn connect(
    route: &Route,
    (environment, hosts): (&Environment, LearntHosts),
    deadline: Instant,
) -> Result<Stream, NotReached> {
    let name = route.host_port();
    let found = tokio::time::timeout_at(deadline, environment.resolve(&name)).await;
    let found = match found {
        Ok(Ok(found)) => found,
        Ok(Err(source)) => return Err(DialError::Unresolved { name, source }.into()),
        Err(_elapsed) => return Err(DialError::LookUpTimedOut { name }.into()),
    };
    let family = route.family();
    let mut found: Vec<_> =
        found.into_iter().filter(|address| family.includes(address.ip())).collect();
    if found.is_empty() {
        let source = io::Error::new(io::ErrorKind::NotFound, "no address of the wanted kind");
        return Err(DialError::Unresolved { name, source }.into());
    }
    found.retain(|address| hosts.allow(address.ip()));
    if found.is_empty() {
        return Err(NotReached::NotPublic(NotPublic));
    }
    Ok(environment.dial_addresses(found, deadline).await?)
}

/// A failed dial. The library keeps the text of an error and of its source, and drops the error itself, so the
/// cause is the source of this type.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
enum NotReached {
    Dial(#[from] DialError),
    NotPublic(#[source] NotPublic),
}

/// A failed listener, with its cause as the source for the same reason.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotBound(#[source] io::Error);

fn not_bound(error: io::Error) -> io::Error {
    io::Error::other(NotBound(error))
}
