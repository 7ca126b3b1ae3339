//! Sockets of the system, and pipes in memory in their place.

use std::{
    io,
    net::SocketAddr,
    task::{Context, Poll},
};

use crate::{
    memory::{Host, PipeListener},
    stream::Stream,
    system::{self, TcpListener},
};

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
    pub(crate) async fn connect(&self, address: SocketAddr) -> io::Result<Stream> {
        match self {
            Self::System => system::connect(address).await.map(Stream::from),
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
                system::listen_v6_only(address).map(ListeningSocket::Tcp)
            }
            (Self::System, _) => system::listen(address).await.map(ListeningSocket::Tcp),
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
        system::bind_udp(address)
    }
}
