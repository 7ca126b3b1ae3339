//! Addresses that this network dials and listens on.

use std::net::{IpAddr, Ipv4Addr};

use gossip::{Identity, NodeAddress};
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

/// End of the message of every address error: the form of address that this network dials.
const WHAT_IS_DIALLED: &str =
    "this build dials /ip4, /ip6, /dns, /dns4 or /dns6, then /tcp/PORT, then /p2p/ID";

/// Checks that the libp2p network can dial `address`.
///
/// # Errors
///
/// [`PeerAddressError`] when it is no multiaddr, lacks the peer ID, or uses another transport than TCP.
pub fn check_peer(address: &NodeAddress) -> Result<(), PeerAddressError> {
    PeerAddress::parse(address).map(drop)
}

/// Parses a listening address: `/ip4` or `/ip6`, then `/tcp/PORT`. Returns `None` for any other text.
#[must_use]
pub fn parse_listen_address(text: &str) -> Option<Multiaddr> {
    let address: Multiaddr = text.parse().ok()?;
    let mut parts = address.iter();
    let spoken = matches!(parts.next(), Some(Protocol::Ip4(_) | Protocol::Ip6(_)))
        && matches!(parts.next(), Some(Protocol::Tcp(_)))
        && parts.next().is_none();
    spoken.then_some(address)
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
        let mut parts = address.iter().peekable();
        let hosted = parts.next_if(|part| {
            use Protocol::{Dns, Dns4, Dns6, Ip4, Ip6};
            matches!(part, Ip4(_) | Ip6(_) | Dns(_) | Dns4(_) | Dns6(_))
        });
        let ported = hosted.and_then(|_| parts.next_if(|part| matches!(part, Protocol::Tcp(1..))));
        let named = ported.and_then(|_| parts.next_if(|part| matches!(part, Protocol::P2p(_))));
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
}

/// Shortens an unreadable address for an error message.
pub(crate) fn short(text: &str) -> String {
    text.chars().take(200).collect()
}

/// The identity of a peer; `None` for a peer ID that is neither a hash nor a copy of a key.
pub(crate) fn identity_of(peer: &PeerId) -> Option<Identity> {
    Identity::from_peer_id_bytes(&peer.to_bytes())
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
            ("/dnsaddr/bootstrap.example", "/dnsaddr/bootstrap.example"),
            ("/ip4/1.2.3.4/udp/4190/quic-v1", "/udp/4190"),
            ("/ip4/1.2.3.4/tcp/4190/ws", "/ws"),
            ("/dns4/h.example/tcp/443/wss", "/wss"),
            ("/dns4/h.example/tcp/443/tls/ws", "/tls"),
            ("/ip4/1.2.3.4/tcp/0", "/tcp/0"),
            // Issue 9, 13: the peer ID alone reaches a connected peer, but it is no address to dial.
            (&format!("/p2p/{ID}"), &format!("/p2p/{ID}")),
            (&format!("/ip4/1.2.3.4/tcp/1/p2p/{ID}/p2p-circuit"), "/p2p-circuit"),
        ] {
            let text = NodeAddress::Multiaddr(format!("{place}/p2p/{ID}"));
            let said = PeerAddress::parse(&text).unwrap_err().to_string();
            assert!(said.contains(&format!("because of {part}: this build dials")), "{said}");
        }
        for place in ["/ip6/::1", "/dns/h.example", "/dns4/h.example", "/dns6/h.example"] {
            let text = NodeAddress::Multiaddr(format!("{place}/tcp/1/p2p/{ID}"));
            assert_eq!(check_peer(&text), Ok(()));
        }
        for text in ["/ip4/127.0.0.1/tcp/0", "/ip6/::/tcp/1"] {
            assert_eq!(parse_listen_address(text).unwrap().to_string(), text);
        }
        for text in ["/dns4/localhost/tcp/1", "/ip4/1.2.3.4/udp/1/quic-v1", "/ip4/1.2.3.4/tcp/1/ws"]
        {
            assert_eq!(parse_listen_address(text), None, "{text}");
        }
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
