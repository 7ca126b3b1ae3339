//! The events of sockets, and their addresses.

use std::{io, net::SocketAddr};

use futures::future::BoxFuture;
use libp2p::{Multiaddr, core::transport::TransportEvent, multiaddr::Protocol};

use super::socket::Socket;

/// An accepted socket on its way up.
pub(super) type Rising = BoxFuture<'static, io::Result<Socket>>;

pub(super) type Event = TransportEvent<Rising, io::Error>;

/// The address of a TCP socket.
pub(super) fn multiaddr(address: SocketAddr) -> Multiaddr {
    Multiaddr::from(address.ip()).with(Protocol::Tcp(address.port()))
}
