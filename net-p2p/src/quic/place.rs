//! Addresses of QUIC: `/ip4/1.2.3.4/udp/PORT/quic-v1`, and names in the place of the IP address.

use std::net::{IpAddr, SocketAddr};

use libp2p::{Multiaddr, multiaddr::Protocol};

/// Host and port of an address to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Host and port in one text, an IPv6 address in brackets.
    pub(super) name: String,
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
    /// Returns `None` if the address is none of QUIC v1.
    pub(super) fn of(address: &Multiaddr) -> Option<Self> {
        let mut parts = address.iter();
        let (host, family) = match parts.next()? {
            Protocol::Ip4(ip) => (ip.to_string(), Family::V4),
            Protocol::Ip6(ip) => (format!("[{ip}]"), Family::V6),
            Protocol::Dns4(name) => (name.into_owned(), Family::V4),
            Protocol::Dns6(name) => (name.into_owned(), Family::V6),
            Protocol::Dns(name) => (name.into_owned(), Family::Any),
            _ => return None,
        };
        let Protocol::Udp(port) = parts.next()? else { return None };
        let Protocol::QuicV1 = parts.next()? else { return None };
        let is_bare = parts.all(|part| matches!(part, Protocol::P2p(_)));
        is_bare.then(|| Self { name: format!("{host}:{port}"), family })
    }

    /// Returns `true` for an IP address of the wanted kind.
    pub(super) fn includes(&self, ip: IpAddr) -> bool {
        match self.family {
            Family::V4 => ip.is_ipv4(),
            Family::V6 => ip.is_ipv6(),
            Family::Any => true,
        }
    }
}

/// Returns `true` for an address that QUIC dials, whether or not a peer ID follows.
pub(crate) fn dials(address: &Multiaddr) -> bool {
    Place::of(address).is_some() && !address.iter().any(|part| matches!(part, Protocol::Udp(0)))
}

/// Returns `true` for an IP address, a UDP port, and QUIC v1 without a peer ID.
pub(crate) fn listens_on(address: &Multiaddr) -> bool {
    socket_address(address).is_some_and(|socket| multiaddr(socket) == *address)
}

/// The socket address to listen on; `None` if the address is none of QUIC v1, or has a name.
pub(super) fn socket_address(address: &Multiaddr) -> Option<SocketAddr> {
    let place = Place::of(address)?;
    place.name.parse().ok()
}

/// The address of QUIC v1 at a socket address.
pub(super) fn multiaddr(address: SocketAddr) -> Multiaddr {
    Multiaddr::from(address.ip().to_canonical())
        .with(Protocol::Udp(address.port()))
        .with(Protocol::QuicV1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_an_address_of_quic_and_nothing_else() {
        for (text, name) in [
            ("/ip4/127.0.0.1/udp/80/quic-v1", "127.0.0.1:80"),
            ("/ip6/::1/udp/80/quic-v1", "[::1]:80"),
            ("/dns4/localhost/udp/80/quic-v1", "localhost:80"),
        ] {
            let address = text.parse().unwrap();
            assert_eq!(Place::of(&address).unwrap().name, name);
            if let Some(socket) = socket_address(&address) {
                assert_eq!(multiaddr(socket).to_string(), text);
            }
        }
        for other in ["/ip4/1.2.3.4/udp/80", "/ip4/1.2.3.4/udp/80/quic", "/ip4/1.2.3.4/tcp/80"] {
            assert_eq!(Place::of(&other.parse().unwrap()), None, "{other}");
        }
    }
}
