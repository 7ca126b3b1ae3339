//! Sockets of the system, and pipes in memory in their place.

use std::{
    io,
    net::{SocketAddr, SocketAddrV6},
    task::{Context, Poll},
};

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::{
    memory::{Host, PipeListener},
    stream::Stream,
};

/// Connections that the system keeps until they are accepted. Source: tokio's own default.
const BACKLOG: i32 = 1_024;

/// The source and the destination of connections.
#[derive(Clone, Debug)]
pub(crate) enum Sockets {
    /// The system's TCP.
    System,
    /// One host of a network in memory.
    Memory(Host),
}

/// A socket that takes callers.
#[derive(Debug)]
pub(crate) enum ListeningSocket {
    Tcp(TcpListener),
    Memory(PipeListener),
}

impl ListeningSocket {
    pub(crate) fn poll_accept(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(Stream, SocketAddr)>> {
        match self {
            Self::Tcp(listener) => {
                listener.poll_accept(context).map_ok(|(stream, from)| (stream.into(), from))
            }
            Self::Memory(listener) => {
                listener.poll_accept(context).map(|(stream, from)| Ok((stream.into(), from)))
            }
        }
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr(),
            Self::Memory(listener) => Ok(listener.local_addr()),
        }
    }
}

/// Which callers an IPv6 socket takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// As the system has it: `[::]` may take IPv4 too.
    AsTheSystem,
    /// IPv6 only, since IPv4 has a socket of its own.
    Own,
}

impl Sockets {
    /// Connects to one address.
    #[expect(clippy::disallowed_methods, reason = "this is where the system is asked")]
    pub(crate) async fn connect(&self, address: SocketAddr) -> io::Result<Stream> {
        match self {
            Self::System => TcpStream::connect(address).await.map(Stream::from),
            Self::Memory(host) => host.connect(address).await.map(Stream::from),
        }
    }

    /// Listens on one address.
    pub(crate) async fn listen(
        &self,
        address: SocketAddr,
        family: Family,
    ) -> io::Result<ListeningSocket> {
        match (self, address) {
            (Self::Memory(host), _) => host.listen(address).map(ListeningSocket::Memory),
            (Self::System, SocketAddr::V6(address)) if family == Family::Own => {
                v6_only(address).map(ListeningSocket::Tcp)
            }
            (Self::System, _) => {
                #[expect(clippy::disallowed_methods, reason = "this is where the system is asked")]
                let listener = TcpListener::bind(address).await?;
                Ok(ListeningSocket::Tcp(listener))
            }
        }
    }
}

impl Sockets {
    /// A socket for datagrams.
    pub(crate) fn bind_udp(&self, address: SocketAddr) -> io::Result<std::net::UdpSocket> {
        if let Self::Memory(_) = self {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "a network in memory has no datagrams",
            ));
        }
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        Ok(socket.into())
    }
}

fn v6_only(address: SocketAddrV6) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
    socket.set_only_v6(true)?;
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::V6(address).into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
