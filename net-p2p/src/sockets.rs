//! The TCP and in-memory sockets below libp2p.
//!
//! ```text
//!   dial    ─▶ Environment (names, racing addresses, TCP or memory) ─┐
//!   listen  ─▶ libp2p's TCP, which watches interfaces ───────────────┼─▶ Socket
//!           └▶ Environment, in memory ───────────────────────────────┘
//! ```
//!
//! # Invariants
//!
//! * Every dial goes through the environment, which looks names up and races the addresses under one deadline.
//!   It always uses a new port: with the listening port, two nodes that dial each other at the same moment
//!   would get one TCP connection that each believes to have dialled.

use std::{
    collections::VecDeque,
    error::Error,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Ready, ready},
};
use libp2p::{
    Multiaddr, Transport,
    core::transport::{DialOpts, ListenerId, TransportError, TransportEvent},
    multiaddr::Protocol,
    tcp,
};
use runtime::{DialError, Environment, Listener, Stream};
use tokio::{io::ReadBuf, time::Instant};

use crate::listening::is_free;

/// A socket with the I/O traits that libp2p uses.
#[derive(Debug)]
pub(crate) struct Socket(Stream);

impl Socket {
    /// The TCP socket; `None` if the socket is in memory.
    pub(crate) fn tcp(&self) -> Option<&tokio::net::TcpStream> {
        self.0.tcp()
    }
}

impl futures::AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut into = ReadBuf::new(into);
        let read = tokio::io::AsyncRead::poll_read(Pin::new(&mut self.0), context, &mut into);
        read.map_ok(|()| into.filled().len())
    }
}

impl futures::AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        tokio::io::AsyncWrite::poll_write(Pin::new(&mut self.0), context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        tokio::io::AsyncWrite::poll_write_vectored(Pin::new(&mut self.0), context, parts)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        tokio::io::AsyncWrite::poll_flush(Pin::new(&mut self.0), context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        tokio::io::AsyncWrite::poll_shutdown(Pin::new(&mut self.0), context)
    }
}

/// Dials and listens for libp2p.
pub(crate) struct Sockets {
    environment: Environment,
    /// Longest time for a dial, from the name look-up on.
    limit: Duration,
    tcp: tcp::tokio::Transport,
    memory: Vec<InMemory>,
    /// Events for the swarm.
    events: VecDeque<Event>,
}

type Event = TransportEvent<Ready<io::Result<Socket>>, io::Error>;

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
    pub(crate) fn new(environment: Environment, limit: Duration) -> Self {
        let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
        Self { environment, limit, tcp, memory: Vec::new(), events: VecDeque::new() }
    }

    fn poll_memory(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        let mut failed = None;
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
                            let listen_addr = multiaddr(address);
                            self.events.push_back(Event::NewAddress { listener_id, listen_addr });
                        }
                        listening.state = State::Bound(listener);
                    }
                }
            }
            let State::Bound(listener) = &listening.state else { continue };
            if let Poll::Ready(Ok((stream, from))) = listener.poll_accept(context) {
                let local = stream.local_addr().unwrap_or_else(|_| listener.local_addr());
                self.events.push_back(Event::Incoming {
                    listener_id,
                    upgrade: ready(Ok(Socket(stream))),
                    local_addr: multiaddr(local),
                    send_back_addr: multiaddr(from),
                });
            }
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
    type ListenerUpgrade = Ready<io::Result<Socket>>;
    type Dial = BoxFuture<'static, io::Result<Socket>>;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        if !self.environment.is_in_memory() {
            is_free(&address).map_err(not_bound).map_err(TransportError::Other)?;
            return self.tcp.listen_on(id, address).map_err(|error| error.map(not_bound));
        }
        let Some(Place { host, port, family: _ }) = Place::of(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        let environment = self.environment.clone();
        let binding = async move { environment.bind(&format!("{host}:{port}")).await }.boxed();
        self.memory.push(InMemory { id, state: State::Binding(binding) });
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        let before = self.memory.len();
        self.memory.retain(|listening| listening.id != id);
        self.memory.len() < before || self.tcp.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        _options: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        let Some(place) = Place::of(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        let (environment, limit) = (self.environment.clone(), self.limit);
        Ok(async move {
            let dialled = place.dial(&environment, Instant::now() + limit).await;
            let stream = dialled.map_err(|error| io::Error::other(NotReached(error)))?;
            if let Some(Err(error)) = stream.tcp().map(|stream| stream.set_nodelay(true)) {
                tracing::debug!(%error, "a socket option is not available");
            }
            Ok(Socket(stream))
        }
        .boxed())
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Event> {
        if self.environment.is_in_memory() {
            return self.poll_memory(context);
        }
        let event = Pin::new(&mut self.tcp).poll(context);
        event.map(|event| {
            let accepted = |upgrade: Ready<io::Result<tcp::tokio::TcpStream>>| {
                ready(upgrade.into_inner().map(|stream| Socket(stream.0.into())))
            };
            event.map_upgrade(accepted)
        })
    }
}

/// The address families that a name may resolve to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
    Any,
}

impl Family {
    fn includes(self, ip: IpAddr) -> bool {
        match self {
            Self::V4 => ip.is_ipv4(),
            Self::V6 => ip.is_ipv6(),
            Self::Any => true,
        }
    }
}

/// Host and port of an address; the host is an IP address or a name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    host: String,
    port: u16,
    family: Family,
}

impl Place {
    /// Returns `None` if the address has another form.
    fn of(address: &Multiaddr) -> Option<Self> {
        let mut parts = address.iter();
        let (host, family) = match parts.next()? {
            Protocol::Ip4(ip) => (ip.to_string(), Family::V4),
            Protocol::Ip6(ip) => (format!("[{ip}]"), Family::V6),
            Protocol::Dns4(name) => (name.into_owned(), Family::V4),
            Protocol::Dns6(name) => (name.into_owned(), Family::V6),
            Protocol::Dns(name) => (name.into_owned(), Family::Any),
            _ => return None,
        };
        let Protocol::Tcp(port) = parts.next()? else { return None };
        let rest_is_bare = parts.all(|part| matches!(part, Protocol::P2p(_)));
        rest_is_bare.then_some(Self { host, port, family })
    }

    async fn dial(
        &self,
        environment: &Environment,
        deadline: Instant,
    ) -> Result<Stream, DialError> {
        let name = format!("{}:{}", self.host, self.port);
        let found = tokio::time::timeout_at(deadline, environment.resolve(&name)).await;
        let found = match found {
            Ok(Ok(found)) => found,
            Ok(Err(source)) => return Err(DialError::Unresolved { name, source }),
            Err(_elapsed) => return Err(DialError::LookUpTimedOut { name }),
        };
        let found: Vec<_> =
            found.into_iter().filter(|address| self.family.includes(address.ip())).collect();
        if found.is_empty() {
            let source = io::Error::new(io::ErrorKind::NotFound, "no address of the wanted kind");
            return Err(DialError::Unresolved { name, source });
        }
        environment.dial_addresses(found, deadline).await
    }
}

fn multiaddr(address: SocketAddr) -> Multiaddr {
    Multiaddr::from(address.ip()).with(Protocol::Tcp(address.port()))
}

/// A failed dial. The library keeps the text of an error and of its source, and drops the error itself, so the
/// cause is the source of this type.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotReached(#[source] DialError);

/// A failed listener, with its cause as the source for the same reason.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotBound(#[source] io::Error);

fn not_bound(error: io::Error) -> io::Error {
    io::Error::other(NotBound(error))
}

/// Returns `true` if a dial failed because a name has no address.
pub(crate) fn is_unresolved(error: &libp2p::swarm::DialError) -> bool {
    let libp2p::swarm::DialError::Transport(failures) = error else { return false };
    failures.iter().any(|(_, failure)| match failure {
        TransportError::Other(error) => is_look_up(error),
        TransportError::MultiaddrNotSupported(_) => false,
    })
}

fn is_look_up(error: &io::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<DialError>() {
            return matches!(
                error,
                DialError::Unresolved { .. } | DialError::LookUpTimedOut { .. }
            );
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_host_and_a_port_and_nothing_else() {
        let place = |text: &str| Place::of(&text.parse().unwrap());
        let of = |host: &str, family| Some(Place { host: host.to_owned(), port: 80, family });
        assert_eq!(place("/dns4/localhost/tcp/80"), of("localhost", Family::V4));
        assert_eq!(place("/dns6/localhost/tcp/80"), of("localhost", Family::V6));
        assert_eq!(place("/dns/localhost/tcp/80"), of("localhost", Family::Any));
        assert_eq!(place("/ip4/127.0.0.1/tcp/80"), of("127.0.0.1", Family::V4));
        assert_eq!(place("/ip6/::1/tcp/80"), of("[::1]", Family::V6));
        for other in ["/dns4/localhost/udp/80", "/ip4/127.0.0.1/tcp/80/ws", "/memory/1"] {
            assert_eq!(place(other), None, "{other}");
        }
    }
}
