//! Addresses that this network dials and listens on.

use std::net::{IpAddr, Ipv4Addr};
#[cfg(all(feature = "quic", feature = "webrtc"))]
use std::{collections::BTreeSet, net::SocketAddr};

use gossip::{Identity, LinkPath, NodeAddress};
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

use crate::route::{End, Route, WHAT_IS_DIALLED, WHAT_IS_LISTENED_ON};

/// States whether a network can look up `/dnsaddr/NAME/p2p/ID`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeNames {
    /// It has a resolver for them ([`P2pConfig::resolver`](crate::P2pConfig::resolver)).
    Resolved,
    /// It has none.
    Unresolved,
}

/// Checks that a libp2p network can dial `address`.
///
/// # Errors
///
/// [`PeerAddressError`] when it is no multiaddr, lacks the peer ID, or uses a transport that this build lacks.
pub fn check_peer(address: &NodeAddress, trees: TreeNames) -> Result<(), PeerAddressError> {
    PeerAddress::parse(address)?.needs(trees)
}

/// Parses a listening address: `/ip4` or `/ip6`, then `/tcp/PORT` and what this build speaks above it.
///
/// # Errors
///
/// [`ListenAddressError`] for any other text, with the forms that this build listens on.
pub fn parse_listen_address(text: &str) -> Result<Multiaddr, ListenAddressError> {
    let refused = || ListenAddressError::NotSpoken { address: short(text) };
    let address: Multiaddr = text.parse().map_err(|_| refused())?;
    if let Some(feature) = lacking(&address) {
        return Err(ListenAddressError::NoFeature { address: short(text), feature });
    }
    #[cfg(feature = "circuits")]
    if relay_of(&address).is_some() {
        return Ok(address);
    }
    #[cfg(feature = "quic")]
    if crate::quic::place::listens_on(&address) {
        return Ok(address);
    }
    #[cfg(feature = "webrtc")]
    if crate::webrtc::place::listens_on(&address) {
        return Ok(address);
    }
    let is_bare = !address.iter().any(|part| matches!(part, Protocol::P2p(_)));
    Route::of(&address, End::Listener).filter(|_| is_bare).ok_or_else(refused)?;
    Ok(address)
}

/// The socket addresses with a port among `listen` that QUIC and WebRTC are both to listen on.
#[cfg(all(feature = "quic", feature = "webrtc"))]
pub(crate) fn shared_by(listen: &[Multiaddr]) -> BTreeSet<SocketAddr> {
    let of = |place: fn(&Multiaddr) -> Option<SocketAddr>| -> BTreeSet<SocketAddr> {
        listen.iter().filter_map(place).filter(|at| at.port() != 0).collect()
    };
    let quic = of(crate::quic::place::socket_address);
    quic.intersection(&of(crate::webrtc::place::socket_address)).copied().collect()
}

/// States if this build speaks WebRTC Direct; where every transport is the embedder's, over data channels of the host.
const HAS_WEBRTC: bool =
    cfg!(any(feature = "webrtc", all(target_family = "wasm", feature = "data-channels")));

/// The feature that an address needs and this build lacks.
fn lacking(address: &Multiaddr) -> Option<&'static str> {
    address.iter().find_map(|part| match part {
        Protocol::QuicV1 if !cfg!(feature = "quic") => Some("quic"),
        Protocol::WebRTCDirect if !HAS_WEBRTC => Some("webrtc"),
        _ => None,
    })
}

/// Parses an address that the node tells others: one that they could dial, without `/p2p/ID`, which is added.
///
/// # Errors
///
/// [`ListenAddressError`] for any other text.
pub fn parse_announced_address(text: &str) -> Result<Multiaddr, ListenAddressError> {
    let refused = || ListenAddressError::NotAnnounced { address: short(text) };
    let address: Multiaddr = text.parse().map_err(|_| refused())?;
    if let Some(feature) = lacking(&address) {
        return Err(ListenAddressError::NoFeature { address: short(text), feature });
    }
    let is_bare = !address.iter().any(|part| matches!(part, Protocol::P2p(_)));
    #[cfg(feature = "quic")]
    if is_bare && crate::quic::place::dials(&address) {
        return Ok(address);
    }
    #[cfg(feature = "webrtc")]
    if is_bare && crate::webrtc::place::dials(&address) {
        return Ok(address);
    }
    Route::of(&address, End::Dialler).filter(|_| is_bare).ok_or_else(refused)?;
    Ok(address)
}

/// The reason why a node can neither listen on an address nor announce it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListenAddressError {
    /// The node cannot listen there.
    #[error("{address:?} is no multiaddr that this build listens on: {WHAT_IS_LISTENED_ON}")]
    NotSpoken {
        /// The address as given.
        address: String,
    },
    /// This build lacks the transport of the address.
    #[error("{address:?} needs the feature `{feature}`, which this build lacks")]
    NoFeature {
        /// The address as given.
        address: String,
        /// The cargo feature.
        feature: &'static str,
    },
    /// No peer could dial the address.
    #[error(
        "{address:?} cannot be announced: write a multiaddr that others can dial, without /p2p/ID, \
         for example /dns4/node.example/tcp/4190"
    )]
    NotAnnounced {
        /// The address as given.
        address: String,
    },
}

/// The reason why an address cannot be dialled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerAddressError {
    /// The address is a WebSocket address, not a multiaddr.
    #[error("{address} is no multiaddr")]
    NotMultiaddr {
        /// The address as given.
        address: String,
    },
    /// The address is not a valid multiaddr.
    #[error("{address:?} cannot be read as a multiaddr")]
    Malformed {
        /// The address as given.
        address: String,
    },
    /// The address lacks `/p2p/ID`, so nothing would prove that the right node was reached.
    #[error(
        "{address} does not end with /p2p/ID, so the identity of the peer could not be checked"
    )]
    NoPeerId {
        /// The address as given.
        address: String,
    },
    /// The address uses a protocol that this build does not support.
    #[error("{address} cannot be dialled because of {part}: {WHAT_IS_DIALLED}")]
    NotSpoken {
        /// The address as given.
        address: String,
        /// The unsupported part of the address.
        part: String,
    },
    /// This build lacks the transport of the address.
    #[error("{address} cannot be dialled: this build lacks the feature `{feature}`")]
    NoFeature {
        /// The address as given.
        address: String,
        /// The cargo feature.
        feature: &'static str,
    },
    /// The address is a name for DNS, and nothing in this node asks DNS for such names.
    #[error("{address} cannot be looked up: this build lacks the feature `discovery`")]
    NoResolver {
        /// The address as given.
        address: String,
    },
    /// The text after `/p2p/` is not the peer ID of a key of a supported kind.
    #[error("{address} ends with a peer ID that no key has")]
    BadPeerId {
        /// The address as given.
        address: String,
    },
}

/// An address to dial, and the peer that must be reached there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PeerAddress {
    /// The whole address, with `/p2p/ID` at its end.
    pub(crate) address: Multiaddr,
    pub(crate) peer: PeerId,
    pub(crate) identity: Identity,
}

impl PeerAddress {
    /// Parses an address as an operator writes it.
    pub(crate) fn parse(address: &NodeAddress) -> Result<Self, PeerAddressError> {
        let NodeAddress::Multiaddr(text) = address else {
            return Err(PeerAddressError::NotMultiaddr { address: address.to_string() });
        };
        let multiaddr: Multiaddr =
            text.parse().map_err(|_| PeerAddressError::Malformed { address: short(text) })?;
        Self::new(multiaddr)
    }

    /// The address as the phonebook has it.
    pub(crate) fn node_address(&self) -> NodeAddress {
        NodeAddress::Multiaddr(self.address.to_string())
    }

    /// Checks that an address ends with the peer ID.
    pub(crate) fn new(address: Multiaddr) -> Result<Self, PeerAddressError> {
        #[cfg(feature = "circuits")]
        if let Some((_relay, peer)) = circuit_of(&address) {
            let identity = identity_of(&peer)
                .ok_or_else(|| PeerAddressError::BadPeerId { address: address.to_string() })?;
            return Ok(Self { address, peer, identity });
        }
        #[cfg(all(feature = "circuits", feature = "data-channels"))]
        if let Some(circuit) = meeting_of(&address) {
            return Ok(Self { address, ..circuit });
        }
        Self::direct(address)
    }

    /// The same, of an address that leads through no relay.
    fn direct(address: Multiaddr) -> Result<Self, PeerAddressError> {
        if let Some(feature) = lacking(&address) {
            return Err(PeerAddressError::NoFeature { address: address.to_string(), feature });
        }
        let mut parts = address.iter().peekable();
        let leads = match parts.next_if(|part| matches!(part, Protocol::Dnsaddr(_))) {
            Some(_) => true,
            // Host, UDP port, and QUIC.
            #[cfg(feature = "quic")]
            None if crate::quic::place::dials(&address) => parts.nth(2).is_some(),
            // Host, UDP port, WebRTC Direct, and the hash of the certificate.
            #[cfg(feature = "webrtc")]
            None if crate::webrtc::place::dials(&address) => parts.nth(3).is_some(),
            None => Route::take(&mut parts, End::Dialler).is_some(),
        };
        let named = parts.next_if(|part| leads && matches!(part, Protocol::P2p(_)));
        let peer = match (named, parts.next()) {
            (Some(Protocol::P2p(peer)), None) => peer,
            (_, Some(part)) => {
                let part = part.to_string();
                return Err(PeerAddressError::NotSpoken { address: address.to_string(), part });
            }
            (_, None) => return Err(PeerAddressError::NoPeerId { address: address.to_string() }),
        };
        let identity = identity_of(&peer)
            .ok_or_else(|| PeerAddressError::BadPeerId { address: address.to_string() })?;
        Ok(Self { address, peer, identity })
    }

    /// Checks that a network with these means can dial the address.
    pub(crate) fn needs(&self, trees: TreeNames) -> Result<(), PeerAddressError> {
        match (trees, self.tree()) {
            (TreeNames::Unresolved, Some(_)) => {
                Err(PeerAddressError::NoResolver { address: self.address.to_string() })
            }
            _ => Ok(()),
        }
    }

    /// The name below which DNS lists the addresses of the peer; `None` if the address says itself where to dial.
    pub(crate) fn tree(&self) -> Option<String> {
        match self.address.iter().next() {
            // The name is that of the relay, which is dialled for itself.
            _ if self.address.iter().any(|part| matches!(part, Protocol::P2pCircuit)) => None,
            Some(Protocol::Dnsaddr(name)) => Some(name.into_owned()),
            _ => None,
        }
    }
}

/// Shortens an unreadable address for an error message.
pub(crate) fn short(text: &str) -> String {
    text.chars().take(200).collect()
}

/// The identity of a peer; `None` for a peer ID that is neither a hash nor a copy of a key.
pub(crate) fn identity_of(peer: &PeerId) -> Option<Identity> {
    Identity::from_peer_id_bytes(&peer.to_bytes())
}

/// The way of a connection to this address, or from it.
pub(crate) fn path_of(address: &Multiaddr) -> LinkPath {
    let mut parts = address.iter().skip_while(|part| !matches!(part, Protocol::P2pCircuit));
    match (parts.next(), parts.next()) {
        // The circuit carried signals alone.
        (None, _) | (_, Some(Protocol::WebRTC)) => LinkPath::Direct,
        _ => LinkPath::Relayed,
    }
}

/// The circuit for the signals to a peer, of an address that ends with `/p2p/RELAY/p2p-circuit/webrtc/p2p/ID`; `None` for every
/// other one.
#[cfg(all(feature = "circuits", feature = "data-channels"))]
pub(crate) fn meeting_of(address: &Multiaddr) -> Option<PeerAddress> {
    let mut circuit = address.clone();
    let Some(Protocol::P2p(peer)) = circuit.pop() else { return None };
    let Some(Protocol::WebRTC) = circuit.pop() else { return None };
    circuit.push(Protocol::P2p(peer));
    circuit_of(&circuit)?;
    PeerAddress::new(circuit).ok()
}

/// The relay of an address that ends with `/p2p/RELAY/p2p-circuit`; `None` for every other one.
#[cfg(feature = "circuits")]
pub(crate) fn relay_of(address: &Multiaddr) -> Option<PeerAddress> {
    let mut relay = address.clone();
    let Some(Protocol::P2pCircuit) = relay.pop() else { return None };
    PeerAddress::direct(relay).ok()
}

/// The relay and the peer of an address that ends with `/p2p/RELAY/p2p-circuit/p2p/ID`; `None` for every other one.
#[cfg(feature = "circuits")]
pub(crate) fn circuit_of(address: &Multiaddr) -> Option<(PeerAddress, PeerId)> {
    let mut through = address.clone();
    let Some(Protocol::P2p(peer)) = through.pop() else { return None };
    Some((relay_of(&through)?, peer))
}

/// The IP address that an address begins with; `None` if it begins with a name.
#[cfg(feature = "circuits")]
pub(crate) fn ip_literal(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

/// The address a connection comes from. A connection without an IP address was made inside this process and
/// counts as loopback.
pub(crate) fn ip_of(address: &Multiaddr) -> IpAddr {
    let ip = address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    });
    ip.unwrap_or(Ipv4Addr::LOCALHOST.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

    #[test]
    fn an_address_with_a_peer_id_is_accepted() {
        let text = format!("/ip4/127.0.0.1/tcp/4190/p2p/{ID}");
        let parsed = PeerAddress::parse(&NodeAddress::Multiaddr(text.clone())).unwrap();
        assert_eq!(parsed.address.to_string(), text);
        assert_eq!(parsed.identity.to_string(), ID);
        // Issue 9, 6: peers with keys of other kinds can be dialled too.
        let hashed = "/ip4/1.2.3.4/tcp/1/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N";
        let parsed = PeerAddress::parse(&NodeAddress::Multiaddr(hashed.to_owned())).unwrap();
        assert_eq!(parsed.identity.kind(), gossip::KeyKind::Hashed);
    }

    // Issue 8, 6.
    #[test]
    fn an_address_over_an_unsupported_transport_is_refused() {
        for (place, part) in [
            ("/dnsaddr/bootstrap.example/tcp/1", "/tcp/1"),
            #[cfg(not(feature = "websocket"))]
            ("/ip4/1.2.3.4/tcp/4190/ws", "/ws"),
            #[cfg(feature = "websocket")]
            ("/ip4/1.2.3.4/tcp/4190/ws/tls", "/tls"),
            #[cfg(not(feature = "websocket"))]
            ("/dns4/h.example/tcp/443/wss", "/wss"),
            ("/ip4/1.2.3.4/tcp/0", "/tcp/0"),
            // Issue 9, 13: the peer ID alone reaches a connected peer, but it is no address to dial.
            (&format!("/p2p/{ID}"), &format!("/p2p/{ID}")),
            #[cfg(not(feature = "circuits"))]
            (&format!("/ip4/1.2.3.4/tcp/1/p2p/{ID}/p2p-circuit"), "/p2p-circuit"),
            // Issue 11, 6: a circuit over a circuit.
            #[cfg(feature = "circuits")]
            (
                &format!("/ip4/1.2.3.4/tcp/1/p2p/{ID}/p2p-circuit/p2p/{ID}/p2p-circuit"),
                "/p2p-circuit",
            ),
        ] {
            let text = NodeAddress::Multiaddr(format!("{place}/p2p/{ID}"));
            let said = PeerAddress::parse(&text).unwrap_err().to_string();
            assert!(said.contains(&format!("because of {part}: this build dials")), "{said}");
        }
        for place in ["/ip6/::1", "/dns/h.example", "/dns4/h.example", "/dns6/h.example"] {
            let text = NodeAddress::Multiaddr(format!("{place}/tcp/1/p2p/{ID}"));
            assert_eq!(check_peer(&text, TreeNames::Unresolved), Ok(()));
        }
        for text in ["/ip4/127.0.0.1/tcp/0", "/ip6/::/tcp/1"] {
            assert_eq!(parse_listen_address(text).unwrap().to_string(), text);
        }
        for text in [
            "/dns4/localhost/tcp/1",
            "/dnsaddr/h.example",
            "h:1",
            #[cfg(not(feature = "websocket"))]
            "/ip4/1.2.3.4/tcp/1/ws",
        ] {
            let said = parse_listen_address(text).unwrap_err().to_string();
            assert!(said.contains("this build listens on: write /ip4/ADDRESS"), "{said}");
        }
        let tree = NodeAddress::Multiaddr(format!("/dnsaddr/h.example/p2p/{ID}"));
        assert_eq!(check_peer(&tree, TreeNames::Resolved), Ok(()));
        let said = check_peer(&tree, TreeNames::Unresolved).unwrap_err().to_string();
        assert!(said.ends_with("this build lacks the feature `discovery`"), "{said}");
        assert!(parse_announced_address("/dns4/h.example/tcp/1").is_ok());
        for text in ["/dns4/h.example/tcp/0", "/dnsaddr/h.example", "h:1"] {
            let tree = NodeAddress::Multiaddr(format!("/dnsaddr/h.example/p2p/{ID}"));
            assert_eq!(check_peer(&tree, TreeNames::Resolved), Ok(()));
            let said = check_peer(&tree, TreeNames::Unresolved).unwrap_err().to_string();
            assert!(said.ends_with("this build lacks the feature `discovery`"), "{said}");
            assert!(parse_announced_address(text).is_err(), "{text}");
        }
        let quic = "/ip4/1.2.3.4/udp/1/quic-v1";
        let peer = NodeAddress::Multiaddr(format!("{quic}/p2p/{ID}"));
        assert_eq!(parse_listen_address(quic).is_ok(), cfg!(feature = "quic"));
        assert_eq!(check_peer(&peer, TreeNames::Unresolved).is_ok(), cfg!(feature = "quic"));
        let webrtc = "/ip4/1.2.3.4/udp/1/webrtc-direct";
        assert_eq!(parse_listen_address(webrtc).is_ok(), cfg!(feature = "webrtc"));
        let hash = "uEiDDq4_xNyDorZBH3TlGazyJdOWSwvo4PUo5YHFMrvDE8g";
        let peer = NodeAddress::Multiaddr(format!("{webrtc}/certhash/{hash}/p2p/{ID}"));
        assert_eq!(check_peer(&peer, TreeNames::Unresolved).is_ok(), cfg!(feature = "webrtc"));
        let unnamed = NodeAddress::Multiaddr(format!("{webrtc}/p2p/{ID}"));
        assert!(check_peer(&unnamed, TreeNames::Unresolved).is_err());
    }

    // Issue 13, 3.
    #[cfg(all(feature = "circuits", feature = "data-channels"))]
    #[test]
    fn an_address_to_meet_at_names_its_circuit_and_is_a_direct_way() {
        let relay = format!("/dns4/r.example/tcp/1/p2p/{ID}/p2p-circuit");
        let address: Multiaddr = format!("{relay}/webrtc/p2p/{ID}").parse().unwrap();
        let circuit = meeting_of(&address).unwrap();
        assert_eq!(circuit.address.to_string(), format!("{relay}/p2p/{ID}"));
        assert_eq!(path_of(&address), LinkPath::Direct);
        assert_eq!(path_of(&circuit.address), LinkPath::Relayed);
        let peer = PeerAddress::new(address.clone()).unwrap();
        assert_eq!((peer.address, peer.peer), (address, circuit.peer));
        let tree = format!("/dnsaddr/r.example/p2p/{ID}/p2p-circuit/webrtc/p2p/{ID}");
        assert_eq!(PeerAddress::new(tree.parse().unwrap()).unwrap().tree(), None);
        for other in [
            format!("{relay}/p2p/{ID}"),
            format!("{relay}/webrtc"),
            format!("/webrtc/p2p/{ID}"),
            format!("/ip4/1.2.3.4/tcp/1/webrtc/p2p/{ID}"),
            format!("{relay}/p2p/{ID}/p2p-circuit/webrtc/p2p/{ID}"),
        ] {
            assert_eq!(meeting_of(&other.parse().unwrap()), None, "{other}");
        }
    }

    // Issue 13.
    #[cfg(not(all(feature = "quic", feature = "webrtc")))]
    #[test]
    fn an_address_of_a_transport_that_is_not_built_in_names_its_feature() {
        for (place, feature) in [
            #[cfg(not(feature = "quic"))]
            ("/ip4/1.2.3.4/udp/1/quic-v1", "quic"),
            #[cfg(not(feature = "webrtc"))]
            ("/ip4/1.2.3.4/udp/1/webrtc-direct", "webrtc"),
        ] {
            let peer = NodeAddress::Multiaddr(format!("{place}/p2p/{ID}"));
            let said = [
                parse_listen_address(place).unwrap_err().to_string(),
                parse_announced_address(place).unwrap_err().to_string(),
                PeerAddress::parse(&peer).unwrap_err().to_string(),
            ];
            for said in said {
                assert!(said.contains(&format!("the feature `{feature}`")), "{said}");
            }
        }
    }

    #[cfg(all(feature = "quic", feature = "webrtc"))]
    #[test]
    fn a_port_is_shared_only_if_both_are_to_listen_there() {
        let addresses = [
            "/ip4/127.0.0.1/udp/1/quic-v1",
            "/ip4/127.0.0.1/udp/1/webrtc-direct",
            "/ip4/127.0.0.1/udp/2/quic-v1",
            "/ip4/127.0.0.2/udp/2/webrtc-direct",
            "/ip4/127.0.0.1/udp/0/quic-v1",
            "/ip4/127.0.0.1/udp/0/webrtc-direct",
            "/ip4/127.0.0.1/tcp/1",
        ];
        let shared = shared_by(&addresses.map(|address| address.parse().unwrap()));
        assert_eq!(shared, BTreeSet::from([([127, 0, 0, 1], 1).into()]));
    }

    #[test]
    fn an_address_without_a_valid_peer_id_is_refused_with_the_reason() {
        let said = |text: &str| {
            PeerAddress::parse(&NodeAddress::Multiaddr(text.to_owned())).unwrap_err().to_string()
        };
        assert!(said("/ip4/127.0.0.1/tcp/1").contains("does not end with /p2p/ID"));
        assert!(said("127.0.0.1:80").contains("cannot be read"));
        // A SHA-256 multihash truncated to one byte.
        assert!(said("/ip4/1.2.3.4/tcp/1/p2p/73kJ").contains("a peer ID that no key has"));
    }
}
