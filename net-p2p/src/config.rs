//! What a libp2p network is made of, and how an address is read.

use gossip::{Identity, Keypair, NetworkId, NodeAddress};
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use mesh::{DialLimits, Door};
use net_http::{HttpServer, client::Clients};

/// Whether nodes of the local network are searched for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mdns {
    /// They are not. The default: it tells everybody on the local network that the node is there.
    #[default]
    Off,
    /// They are; up to eight of them are dialled.
    On,
}

/// Whether a node hears what is published on topics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Subscription {
    /// It is subscribed to every topic of the network. The default.
    #[default]
    Subscribed,
    /// It only publishes.
    PublishOnly,
}

/// Whether a node gossips over libp2p.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GossipStreams {
    /// It does. The default.
    #[default]
    On,
    /// It opens and answers other streams only: it announces no gossip, subscribes to nothing, and
    /// dials nobody of its own accord, so configured peers and [`Mdns`] are without effect.
    Off,
}

/// What a libp2p network is made of.
#[derive(Clone, Debug)]
pub struct P2pConfig {
    /// The network of the node.
    pub network: NetworkId,
    /// The key it is recognised by.
    pub key: Keypair,
    /// Where to listen; a port of 0 lets the system choose. Default: nowhere.
    pub listen: Vec<Multiaddr>,
    /// Whom to dial. Only multiaddrs with `/p2p/ID`. Default: nobody.
    pub peers: Vec<NodeAddress>,
    /// Peers to gossip with on a topic; decides the sizes of the overlay. Default: 4. Source: wire
    /// facts 8.6, GossipFanout.
    pub fanout: usize,
    /// Whether nodes of the local network are searched for.
    pub mdns: Mdns,
    /// Lets connections in, shared with the other networks of the node. Default: one of the network's own,
    /// with default limits.
    pub door: Door,
    /// How much to dial, and how eagerly.
    pub dial: DialLimits,
    /// Program and version, as peers are told them. Default: `tandem/` and the version.
    pub agent: String,
    /// Whether the node hears what is published on topics.
    pub subscribe: Subscription,
    /// Whether the node gossips at all.
    pub gossip: GossipStreams,
    /// The server for HTTP over streams, shared with the other networks of the node. On streams it shows
    /// `/.well-known/libp2p/protocols` too. Default: none, and HTTP is not announced.
    pub http_server: Option<HttpServer>,
    /// The HTTP clients; shared with the other networks of the node, whose owner stops them. Default:
    /// some of the network's own, with default limits, which end with it.
    pub clients: Option<Clients>,
}

impl P2pConfig {
    /// A network that listens nowhere and dials nobody, with defaults for the rest.
    #[must_use]
    pub fn new(network: NetworkId, key: Keypair) -> Self {
        Self {
            network,
            key,
            listen: Vec::new(),
            peers: Vec::new(),
            fanout: 4,
            mdns: Mdns::default(),
            door: Door::default(),
            dial: DialLimits::default(),
            clients: None,
            agent: concat!("tandem/", env!("CARGO_PKG_VERSION")).to_owned(),
            subscribe: Subscription::default(),
            gossip: GossipStreams::default(),
            http_server: None,
        }
    }
}

/// What every refused address is told.
const WHAT_IS_DIALLED: &str =
    "this build dials /ip4, /ip6, /dns, /dns4 or /dns6, then /tcp/PORT, then /p2p/ID";

/// Checks that this network can dial an address.
///
/// # Errors
///
/// [`PeerAddressError`]: it is no multiaddr, does not say who is there, or leads over something else than TCP.
pub fn check_peer(address: &NodeAddress) -> Result<(), PeerAddressError> {
    PeerAddress::parse(address).map(drop)
}

/// Reads an address to listen on: `/ip4` or `/ip6`, then `/tcp/PORT`. `None` if it is anything else.
#[must_use]
pub fn parse_listen_address(text: &str) -> Option<Multiaddr> {
    let address: Multiaddr = text.parse().ok()?;
    let mut parts = address.iter();
    let spoken = matches!(parts.next(), Some(Protocol::Ip4(_) | Protocol::Ip6(_)))
        && matches!(parts.next(), Some(Protocol::Tcp(_)))
        && parts.next().is_none();
    spoken.then_some(address)
}

/// Why an address cannot be dialled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerAddressError {
    /// It is an address of the other transport.
    #[error("{address} is no multiaddr")]
    NotMultiaddr {
        /// The address as given.
        address: String,
    },
    /// It cannot be read.
    #[error("{address:?} cannot be read as a multiaddr")]
    Malformed {
        /// The address as given.
        address: String,
    },
    /// It does not say who is to be found there.
    #[error("{address} does not end with /p2p/ID, so nobody could tell who answers there")]
    NoPeerId {
        /// The address as given.
        address: String,
    },
    /// It leads over something that this build does not speak.
    #[error("{address} cannot be dialled because of {part}: {WHAT_IS_DIALLED}")]
    NotSpoken {
        /// The address as given.
        address: String,
        /// The part that is not spoken.
        part: String,
    },
    /// What follows `/p2p/` is no peer ID of a kind that nodes have.
    #[error("{address} ends with a peer ID that no key has")]
    BadPeerId {
        /// The address as given.
        address: String,
    },
}

/// A place to dial, and who must be found there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PeerAddress {
    /// With `/p2p/ID` at its end.
    pub(crate) address: Multiaddr,
    pub(crate) peer: PeerId,
    pub(crate) identity: Identity,
}

impl PeerAddress {
    /// Reads an address as an operator writes it.
    pub(crate) fn parse(address: &NodeAddress) -> Result<Self, PeerAddressError> {
        let NodeAddress::Multiaddr(text) = address else {
            return Err(PeerAddressError::NotMultiaddr { address: address.to_string() });
        };
        let multiaddr: Multiaddr =
            text.parse().map_err(|_| PeerAddressError::Malformed { address: short(text) })?;
        Self::new(multiaddr)
    }

    /// Checks that an address says who is to be found there.
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

/// The key as libp2p uses it.
pub(crate) fn libp2p_key(key: &Keypair) -> libp2p::identity::Keypair {
    // 32 bytes always are a secret key.
    #[allow(clippy::expect_used)]
    libp2p::identity::Keypair::ed25519_from_bytes(key.seed()).expect("32 bytes are a key")
}

/// What an error shows of an address that could not be read.
pub(crate) fn short(text: &str) -> String {
    text.chars().take(200).collect()
}

/// The identity of a peer; `None` for a peer ID that is no hash or copy of a key.
pub(crate) fn identity_of(peer: &PeerId) -> Option<Identity> {
    Identity::from_peer_id_bytes(&peer.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

    #[test]
    fn an_address_says_who_is_there() {
        let text = format!("/ip4/127.0.0.1/tcp/4190/p2p/{ID}");
        let parsed = PeerAddress::parse(&NodeAddress::Multiaddr(text.clone())).unwrap();
        assert_eq!(parsed.address.to_string(), text);
        assert_eq!(parsed.identity.to_string(), ID);
        // Issue 9, 6: hosts with keys of other kinds can be dialled too.
        let hashed = "/ip4/1.2.3.4/tcp/1/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N";
        let parsed = PeerAddress::parse(&NodeAddress::Multiaddr(hashed.to_owned())).unwrap();
        assert_eq!(parsed.identity.kind(), gossip::KeyKind::Hashed);
    }

    // Issue 8, 6.
    #[test]
    fn an_address_that_this_build_does_not_speak_is_refused() {
        for (place, part) in [
            ("/dnsaddr/bootstrap.example", "/dnsaddr/bootstrap.example"),
            ("/ip4/1.2.3.4/udp/4190/quic-v1", "/udp/4190"),
            ("/ip4/1.2.3.4/tcp/4190/ws", "/ws"),
            ("/dns4/h.example/tcp/443/wss", "/wss"),
            ("/dns4/h.example/tcp/443/tls/ws", "/tls"),
            ("/ip4/1.2.3.4/tcp/0", "/tcp/0"),
            // Issue 9, 13: whom to call is enough where the node is connected, and not where it is dialled.
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
    fn an_address_that_does_not_is_refused_with_the_reason() {
        let said = |text: &str| {
            PeerAddress::parse(&NodeAddress::Multiaddr(text.to_owned())).unwrap_err().to_string()
        };
        assert!(said("/ip4/127.0.0.1/tcp/1").contains("does not end with /p2p/ID"));
        assert!(said("127.0.0.1:80").contains("cannot be read"));
        // A SHA-256 multihash that was cut to one byte.
        assert!(said("/ip4/1.2.3.4/tcp/1/p2p/73kJ").contains("a peer ID that no key has"));
    }
}
