//! Addresses of WebRTC Direct: `/ip4/1.2.3.4/udp/PORT/webrtc-direct/certhash/HASH`, and names in the place of the IP
//! address. One to listen on has no hash. Source: libp2p specifications, `webrtc/webrtc-direct.md`.

use std::net::SocketAddr;

use libp2p::{
    Multiaddr,
    multiaddr::{Protocol, multihash::Multihash},
};

use crate::{
    channels::{Fingerprint, SHA_256},
    udp::{self, Place},
};

/// An address to dial, and the certificate that the peer has to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) place: Place,
    pub(super) certificate: Fingerprint,
}

impl Target {
    /// Returns `None` if the address is none of WebRTC Direct, or names no certificate by SHA-256.
    pub(super) fn of(address: &Multiaddr) -> Option<Self> {
        let mut parts = address.iter();
        let place = Place::take(&mut parts)?;
        let Protocol::WebRTCDirect = parts.next()? else { return None };
        let Protocol::Certhash(hash) = parts.next()? else { return None };
        let certificate = Fingerprint::try_from(hash.to_bytes()).ok()?;
        let is_bare = parts.all(|part| matches!(part, Protocol::P2p(_)));
        (is_bare && certificate.starts_with(&SHA_256)).then_some(Self { place, certificate })
    }
}

/// Returns `true` for an address that WebRTC dials, whether or not a peer ID follows.
pub(crate) fn dials(address: &Multiaddr) -> bool {
    Target::of(address).is_some() && !address.iter().any(|part| matches!(part, Protocol::Udp(0)))
}

/// Returns `true` for an IP address, a UDP port, and WebRTC Direct without a hash and a peer ID.
pub(crate) fn listens_on(address: &Multiaddr) -> bool {
    socket_address(address).is_some()
}

/// The socket address to listen on; `None` if the address is none of WebRTC Direct, or has a name.
pub(crate) fn socket_address(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let place = Place::take(&mut parts)?;
    let Protocol::WebRTCDirect = parts.next()? else { return None };
    if parts.next().is_some() {
        return None;
    }
    place.name.parse().ok()
}

/// The address of WebRTC Direct at a socket address.
pub(super) fn multiaddr(address: SocketAddr) -> Multiaddr {
    udp::multiaddr(address).with(Protocol::WebRTCDirect)
}

/// The same, with the certificate that is found there.
pub(super) fn announced(address: SocketAddr, certificate: &Fingerprint) -> Multiaddr {
    let address = multiaddr(address);
    match Multihash::from_bytes(certificate) {
        Ok(hash) => address.with(Protocol::Certhash(hash)),
        // It is the hash of a certificate, which always is one.
        Err(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webrtc::certificate::fingerprint_of;

    // As in the specification's example, with a hash of the right length.
    const HASH: &str = "uEiDDq4_xNyDorZBH3TlGazyJdOWSwvo4PUo5YHFMrvDE8g";

    #[test]
    fn an_address_to_dial_names_a_certificate() {
        for (host, name) in [
            ("/ip4/127.0.0.1", "127.0.0.1:80"),
            ("/ip6/::1", "[::1]:80"),
            ("/dns4/localhost", "localhost:80"),
        ] {
            let text = format!("{host}/udp/80/webrtc-direct/certhash/{HASH}");
            let address: Multiaddr = text.parse().unwrap();
            let target = Target::of(&address).unwrap();
            assert_eq!(target.place.name, name);
            assert!(dials(&address) && !listens_on(&address));
            if let Ok(socket) = name.parse() {
                assert_eq!(announced(socket, &target.certificate).to_string(), text);
            }
        }
        for other in [
            "/ip4/1.2.3.4/udp/80/webrtc-direct".to_owned(),
            "/ip4/1.2.3.4/udp/80/quic-v1".to_owned(),
            format!("/ip4/1.2.3.4/tcp/80/webrtc-direct/certhash/{HASH}"),
            format!("/ip4/1.2.3.4/udp/80/webrtc-direct/certhash/{HASH}/quic-v1"),
            format!("/ip4/1.2.3.4/udp/0/webrtc-direct/certhash/{HASH}"),
        ] {
            assert!(!dials(&other.parse().unwrap()), "{other}");
        }
    }

    #[test]
    fn a_node_listens_on_an_ip_address_without_a_hash() {
        let listened = |text: &str| listens_on(&text.parse().unwrap());
        assert!(listened("/ip4/0.0.0.0/udp/4002/webrtc-direct"));
        assert!(!listened("/dns4/h/udp/4002/webrtc-direct"));
        assert!(!listened("/ip4/0.0.0.0/udp/4002/webrtc"));
        let address = announced(([1, 2, 3, 4], 5).into(), &fingerprint_of(b"certificate"));
        assert!(!listens_on(&address) && dials(&address));
    }
}
