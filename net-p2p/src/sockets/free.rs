//! Looks whether an address is free to listen on.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use libp2p::{Multiaddr, multiaddr::Protocol};
use socket2::{Domain, Socket, Type};

use crate::listening::port_of;

/// Checks that no socket is bound to an address.
///
/// The library shares a port with any process of the same user. A second node started by mistake would take
/// half of the first one's connections.
pub(super) fn is_free(address: &Multiaddr) -> io::Result<()> {
    let ip: Option<IpAddr> = address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    });
    let (Some(ip), Some(port @ 1..)) = (ip, port_of(address)) else { return Ok(()) };
    let place = SocketAddr::new(ip, port);
    let socket = Socket::new(Domain::for_address(place), Type::STREAM, None)?;
    if place.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // As in the library: without it, connections of an earlier run that linger in TIME_WAIT count as in use.
    socket.set_reuse_address(true)?;
    socket.bind(&place.into())
}
