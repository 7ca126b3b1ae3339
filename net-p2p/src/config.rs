//! Configuration of a libp2p network, and the parsing of peer addresses.

use std::{io, sync::Arc};

use gossip::{Keypair, NetworkId, NodeAddress};
use libp2p::Multiaddr;
use mesh::Door;
use net_http::{HttpServer, client::Clients};

use crate::{
    given::SharedTransport, own_topics::OwnTopic, protocols::OwnProtocol, security::Security,
    trees::ResolveTree,
};

/// Selects whether peers on the local network are discovered by mDNS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mdns {
    /// No discovery. Default, because mDNS announces the node to everybody on the local network.
    #[default]
    Off,
    /// Peers are discovered by mDNS, and up to eight of them are dialled.
    On,
}

/// Selects whether a node receives the messages published on topics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Subscription {
    /// The node subscribes to every topic of the network. Default.
    #[default]
    Subscribed,
    /// The node only publishes.
    PublishOnly,
}

/// Selects whether a node gossips over libp2p.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GossipStreams {
    /// The node gossips. Default.
    #[default]
    On,
    /// The node opens and accepts other streams only. It announces no gossip protocol, subscribes to no topic
    /// and dials nobody of its own accord, so configured peers and [`Mdns`] have no effect.
    Off,
}

/// Configuration of a libp2p network. [`P2pConfig::new`] sets every field but network and key to its default.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct P2pConfig {
    /// The network to join.
    pub network: NetworkId,
    /// The private key of the node. Its public key is the node's identity.
    pub key: Keypair,
    /// Addresses to listen on; port 0 lets the system choose. With the feature `reachability`, one that ends with
    /// `/p2p/ID/p2p-circuit` names a relay through which others reach the node. Default: none, the node does not listen.
    pub listen: Vec<Multiaddr>,
    /// Transports of the embedder. The first one that carries an address is used for it, before the sockets of the
    /// environment; natively the address has to be of a form that this build knows. Default: none.
    pub transports: Vec<SharedTransport>,
    /// Transports of the embedder whose connections have data channels. The first one that carries an address dials it, before
    /// all others. None of them is asked in a private network. Default: none.
    #[cfg(feature = "data-channels")]
    pub channel_transports: Vec<crate::given::SharedChannelTransport>,
    /// Addresses that other nodes are told, by identify and in the DHT, in place of those that the node listens on: for
    /// nodes behind a proxy or a gateway. Default: none, the addresses of the listeners are told.
    pub announce: Vec<Multiaddr>,
    /// Asks DNS for the addresses of peers that are given as `/dnsaddr/NAME/p2p/ID`. Default: none, and such peers are
    /// refused.
    pub resolver: Option<Arc<dyn ResolveTree>>,
    /// Addresses to dial and to keep dialled. They must be multiaddrs with `/p2p/ID`. Default: none.
    pub peers: Vec<NodeAddress>,
    /// Security protocols of connections over byte streams, in the order of preference. Default: those of this build.
    pub security: Vec<Security>,
    /// Number of peers to gossip with per topic; the degrees of the GossipSub mesh follow from it. Default: 4.
    /// Source: wire facts 8.6, `GossipFanout`.
    pub fanout: usize,
    /// States whether peers on the local network are discovered. Default: [`Mdns::Off`].
    pub mdns: Mdns,
    /// The door that admits or refuses inbound connections, shared with the other networks of the node.
    /// Default: a door of this network's own with default limits.
    pub door: Door,
    /// Program and version, announced by the identify protocol. Default: `tandem/<version>`.
    pub agent: String,
    /// States whether the node receives messages of topics. Default: [`Subscription::Subscribed`].
    pub subscribe: Subscription,
    /// States whether the node gossips over libp2p. Default: [`GossipStreams::On`].
    pub gossip: GossipStreams,
    /// Bound on the backlog of all connections together, in bytes, in addition to the byte budget: bytes received
    /// and not yet read, and bytes written and not yet sent. Beyond it, the connection with the largest backlog
    /// loses its largest stream, or ends. Default: a quarter of the byte budget, at least 16 MiB; 48 MiB with the
    /// default budget.
    pub backlog_bytes: Option<usize>,
    /// The server for HTTP over streams, shared with the other networks of the node. On streams it also serves
    /// `/.well-known/libp2p/protocols`. Default: none; the node does not announce HTTP.
    pub http_server: Option<HttpServer>,
    /// The HTTP clients, shared with the other networks of the node; their owner stops them. Default: none; the
    /// network makes its own with default limits, which end with it.
    pub clients: Option<Clients>,
    /// The application's own protocols, whose streams are accepted. Default: none.
    pub protocols: Vec<OwnProtocol>,
    /// The application's own topics, which the node subscribes to and publishes on. Default: none.
    pub topics: Vec<OwnTopic>,
    /// The certificates for secure WebSockets, and the WebSocket port of another network. Default: none.
    #[cfg(feature = "websocket")]
    pub web: crate::web::WebConfig,
    /// The certificate that browsers know by its hash in the addresses of WebRTC Direct. Default: none, one is made at
    /// each start, and the addresses change with it.
    #[cfg(feature = "webrtc")]
    pub webrtc_certificate: Option<crate::webrtc::WebRtcCertificate>,
    /// The version of WebRTC Direct's handshake that this node dials with. Default: the first, as with go-libp2p, whose nodes
    /// before 0.49 have no other. Those that dial this node have either.
    #[cfg(feature = "webrtc")]
    pub webrtc_version: crate::webrtc::WebRtcVersion,
    /// The key of a private network, without which no connection is made. Default: none.
    #[cfg(feature = "private-network")]
    pub private_network: Option<crate::network_key::NetworkKey>,
    /// The part that the node takes in the distributed hash table. Default: none.
    #[cfg(feature = "dht")]
    pub dht: crate::dht::DhtConfig,
    /// The part that the node takes in making nodes reachable. Default: none.
    #[cfg(feature = "reachability")]
    pub reach: crate::reach::ReachConfig,
}

impl P2pConfig {
    /// Returns the configuration of a node of `network` that neither listens nor dials.
    #[must_use]
    pub fn new(network: NetworkId, key: Keypair) -> Self {
        Self {
            network,
            key,
            listen: Vec::new(),
            transports: Vec::new(),
            #[cfg(feature = "data-channels")]
            channel_transports: Vec::new(),
            announce: Vec::new(),
            resolver: None,
            peers: Vec::new(),
            security: Security::ALL.to_vec(),
            fanout: 4,
            mdns: Mdns::default(),
            door: Door::default(),
            clients: None,
            agent: concat!("tandem/", env!("CARGO_PKG_VERSION")).to_owned(),
            subscribe: Subscription::default(),
            gossip: GossipStreams::default(),
            backlog_bytes: None,
            http_server: None,
            protocols: Vec::new(),
            topics: Vec::new(),
            #[cfg(feature = "websocket")]
            web: crate::web::WebConfig::default(),
            #[cfg(feature = "webrtc")]
            webrtc_certificate: None,
            #[cfg(feature = "webrtc")]
            webrtc_version: crate::webrtc::WebRtcVersion::default(),
            #[cfg(feature = "private-network")]
            private_network: None,
            #[cfg(feature = "dht")]
            dht: crate::dht::DhtConfig::default(),
            #[cfg(feature = "reachability")]
            reach: crate::reach::ReachConfig::default(),
        }
    }
}

impl P2pConfig {
    /// Makes a certificate for WebRTC if there is none, which stays for as long as the network runs.
    #[cfg(feature = "webrtc")]
    pub(crate) fn with_certificate(self) -> Result<Self, crate::webrtc::WebRtcCertificateError> {
        let certificate = match &self.webrtc_certificate {
            Some(certificate) => certificate.clone(),
            None => crate::webrtc::WebRtcCertificate::generate()?,
        };
        Ok(Self { webrtc_certificate: Some(certificate), ..self })
    }

    /// Returns `true` if others are told the addresses that peers have confirmed, in place of those of the listeners.
    pub(crate) fn tells_confirmed(&self) -> bool {
        #[cfg(feature = "reachability")]
        return self.announce.is_empty() && self.reach.has(crate::reach::ReachPart::AutoNat);
        #[cfg(not(feature = "reachability"))]
        return false;
    }

    /// The reason why a private network does not listen on an address that others would; `None` if there is none.
    pub(crate) fn kept_private(&self, address: &Multiaddr) -> Option<io::Error> {
        #[cfg(feature = "private-network")]
        if self.private_network.is_some() && !crate::network_key::is_private(&address.to_string()) {
            return Some(io::Error::other("it would let others into the private network"));
        }
        #[cfg(not(feature = "private-network"))]
        let _ = address;
        None
    }
}

/// Converts a key to the type that libp2p uses.
pub(crate) fn libp2p_key(key: &Keypair) -> libp2p::identity::Keypair {
    // Every 32 bytes are a valid Ed25519 seed.
    #[allow(clippy::expect_used)]
    libp2p::identity::Keypair::ed25519_from_bytes(key.seed()).expect("32 bytes are a key")
}
