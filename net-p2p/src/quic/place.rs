//! Addresses of QUIC: `/ip4/1.2.3.4/udp/PORT/quic-v1`, and names in the place of the IP address.

use std::net::SocketAddr;

use libp2p::{Multiaddr, multiaddr::Protocol};

use crate::udp;

/// Host and port of an address to dial; `None` if the address is none of QUIC v1.
pub(super) fn place_of(address: &Multiaddr) -> Option<udp::Place> {
    let mut parts = address.iter();
    let place = udp::Place::take(&mut parts)?;
    let Protocol::QuicV1 = parts.next()? else { return None };
    parts.all(|part| matches!(part, Protocol::P2p(_))).then_some(place)
}

/// Returns `true` for an address that QUIC dials, whether or not a peer ID follows.
pub(crate) fn dials(address: &Multiaddr) -> bool {
    place_of(address).is_some() && !address.iter().any(|part| matches!(part, Protocol::Udp(0)))
}

/// Returns `true` for an IP address, a UDP port, and QUIC v1 without a peer ID.
pub(crate) fn listens_on(address: &Multiaddr) -> bool {
    socket_address(address).is_some_and(|socket| multiaddr(socket) == *address)
}

/// The socket address to listen on; `None` if the address is none of QUIC v1, or has a name.
pub(crate) fn socket_address(address: &Multiaddr) -> Option<SocketAddr> {
    let place = place_of(address)?;
    place.name.parse().ok()
}

/// The address of QUIC v1 at a socket address.
pub(super) fn multiaddr(address: SocketAddr) -> Multiaddr {
    udp::multiaddr(address).with(Protocol::QuicV1)
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
            assert_eq!(place_of(&address).unwrap().name, name);
            if let Some(socket) = socket_address(&address) {
                assert_eq!(multiaddr(socket).to_string(), text);
            }
        }
        for other in ["/ip4/1.2.3.4/udp/80", "/ip4/1.2.3.4/udp/80/quic", "/ip4/1.2.3.4/tcp/80"] {
            assert_eq!(place_of(&other.parse().unwrap()), None, "{other}");
        }
    }
}
