//! The common parts of the transports over UDP: hosts and ports in addresses, and the addresses of this machine.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    task::{Context, Poll},
};

use if_watch::{IfEvent, tokio::IfWatcher};
use libp2p::{
    Multiaddr,
    multiaddr::{Iter, Protocol},
};
use runtime::DialError;

/// Host and UDP port of an address to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Host and port in one text, an IPv6 address in brackets.
    pub(crate) name: String,
    family: Family,
}

/// The kinds of IP address that a name may stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
    Any,
}

impl Place {
    /// Takes host and UDP port off an address; `None` if it does not begin with them.
    pub(crate) fn take(parts: &mut Iter<'_>) -> Option<Self> {
        let (host, family) = match parts.next()? {
            Protocol::Ip4(ip) => (ip.to_string(), Family::V4),
            Protocol::Ip6(ip) => (format!("[{ip}]"), Family::V6),
            Protocol::Dns4(name) => (name.into_owned(), Family::V4),
            Protocol::Dns6(name) => (name.into_owned(), Family::V6),
            Protocol::Dns(name) => (name.into_owned(), Family::Any),
            _ => return None,
        };
        let Protocol::Udp(port) = parts.next()? else { return None };
        Some(Self { name: format!("{host}:{port}"), family })
    }

    /// Returns `true` for an IP address of the wanted kind.
    pub(crate) fn includes(&self, ip: IpAddr) -> bool {
        match self.family {
            Family::V4 => ip.is_ipv4(),
            Family::V6 => ip.is_ipv6(),
            Family::Any => true,
        }
    }

    /// The error for a name that has no address of the wanted kind.
    pub(crate) fn unresolved(&self) -> DialError {
        let source = io::Error::new(io::ErrorKind::NotFound, "no address of the wanted kind");
        DialError::Unresolved { name: self.name.clone(), source }
    }
}

/// The address of a UDP socket.
pub(crate) fn multiaddr(address: SocketAddr) -> Multiaddr {
    Multiaddr::from(address.ip().to_canonical()).with(Protocol::Udp(address.port()))
}

/// A datagram of a peer.
#[cfg(feature = "webrtc")]
pub(crate) struct Datagram {
    pub(crate) from: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

/// Address and length, for the debug output of tests.
#[cfg(feature = "webrtc")]
impl std::fmt::Debug for Datagram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Datagram").field(&self.from).field(&self.bytes.len()).finish()
    }
}

/// A change of the addresses at which a socket of this machine is reached.
pub(crate) enum Reached {
    At(SocketAddr),
    NoMoreAt(SocketAddr),
}

/// The addresses at which a socket is reached: its own, or all of the machine.
pub(crate) enum Interfaces {
    One(Option<SocketAddr>),
    All(Box<IfWatcher>, SocketAddr),
}

impl Interfaces {
    /// Those of a socket that is bound to `local`.
    ///
    /// # Errors
    ///
    /// The error of the system.
    pub(crate) fn of(local: SocketAddr) -> io::Result<Self> {
        if local.ip().is_unspecified() {
            return Ok(Self::All(Box::new(IfWatcher::new()?), local));
        }
        Ok(Self::One(Some(local)))
    }

    /// The next change.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Reached> {
        let (watcher, local) = match self {
            Self::One(at) => {
                return at.take().map_or(Poll::Pending, |at| Poll::Ready(Reached::At(at)));
            }
            Self::All(watcher, local) => (watcher, *local),
        };
        while let Poll::Ready(Ok(event)) = watcher.poll_if_event(context) {
            let (IfEvent::Up(net) | IfEvent::Down(net)) = &event;
            let at = SocketAddr::new(net.addr(), local.port());
            if at.is_ipv4() != local.is_ipv4() {
                continue;
            }
            return Poll::Ready(match event {
                IfEvent::Up(_) => Reached::At(at),
                IfEvent::Down(_) => Reached::NoMoreAt(at),
            });
        }
        Poll::Pending
    }
}
