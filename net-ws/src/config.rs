//! Configuration of a WebSocket network, and the errors of starting one.

use std::{io, sync::Arc, time::Duration};

use gossip::{
    LimitError, NetworkId, NodeAddress, PriorityScheme, Security, wire::identity::Keypair,
};
use mesh::Door;
use net_http::{HttpServer, client::Clients};
use net_tcp::{CertificateDer, hand_over::HandOver, origins::PageOrigins};

use crate::{
    proxy::ProxyRules,
    tls::{self, TlsIdentity},
};

/// Selects whether a listener serves gossip, or only the node's HTTP services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GossipService {
    /// The gossip path is served. Default.
    #[default]
    On,
    /// Requests for the gossip path are treated like those for any unknown path.
    Off,
}

/// Selects whether [`WsConfig::identity`] is also the identity of a libp2p network of this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Libp2pIdentity {
    /// The key belongs to this network alone, or the node has no libp2p network. Default.
    #[default]
    Separate,
    /// The libp2p network of the node uses the same key, so other nodes may name this one by its peer ID.
    Shared,
}

/// Configuration of a WebSocket network. [`WsConfig::new`] sets every field but the network to its default.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WsConfig {
    /// The network to join.
    pub network: NetworkId,
    /// Address to listen on, `host:port`; port 0 picks a free one. Default: none, the node does not listen.
    pub listen: Option<String>,
    /// Address that this node announces for itself, `host:port`. Default: the one it listens on, if any.
    pub public_address: Option<String>,
    /// Addresses to dial and to keep dialled. Default: none.
    pub peers: Vec<NodeAddress>,
    /// The key for the identity exchange. Default: none; a fresh key is drawn if the profile requires one.
    pub identity: Option<Arc<Keypair>>,
    /// States whether a libp2p network of this node uses the same key. Default: [`Libp2pIdentity::Separate`].
    pub libp2p_identity: Libp2pIdentity,
    /// States whether the listener serves gossip. Default: [`GossipService::On`].
    pub gossip_service: GossipService,
    /// The door that admits or refuses inbound connections, shared with the other networks of the node.
    /// Default: a door of this network's own with default limits.
    pub door: Door,
    /// The web origins whose pages may gossip with this node, where the profile lets pages in. Default: none.
    pub page_origins: PageOrigins,
    /// The proxies in front of the listener, and the ways in which they tell their clients. Default: none.
    pub proxies: ProxyRules,
    /// Longest time for one dial, from the name look-up to the last header of the reply. Default: 10 s. Chosen:
    /// a fifth of what existing nodes allow (wire facts 11.5); a peer that needs longer would relay late too.
    pub dial_timeout: Duration,
    /// The server for HTTP requests that are not gossip, shared with the other networks of the node.
    /// Default: none; such requests are answered 404.
    pub http_server: Option<HttpServer>,
    /// The HTTP clients, shared with the other networks of the node; their owner stops them. Default: none; the
    /// network makes its own with default limits, which end with it.
    pub clients: Option<Clients>,
    /// Certificate and key for TLS connections, which share the port with plain ones unless clients need a certificate.
    /// Their files are read again while the network runs. Default: none; TLS connections are refused.
    pub tls: Option<TlsIdentity>,
    /// Interval at which the files of `tls` and `tls_client` are read again. Default: 10 s. Chosen: a renewed certificate is in use long
    /// before anybody misses it, and reading two small files wears nothing out.
    pub tls_reread: Duration,
    /// Root certificates to trust in addition to the system's when this node dials or calls a server over TLS.
    /// Default: none.
    pub tls_roots: Vec<CertificateDer<'static>>,
    /// Certificate and key that this node presents to servers which ask for a client certificate. Default: none.
    pub tls_client: Option<TlsIdentity>,
    /// The queue to another network of the node that takes the WebSockets of clients which ask for `/` and no gossip.
    /// Default: none; such requests are answered as any other.
    pub hand_over: Option<HandOver>,
    /// The scheme by which peers prove what they weigh, and this node to them. Default: none; no proof is asked for, and
    /// none is given.
    pub priority: Option<Arc<dyn PriorityScheme>>,
    /// Name of this node among those of its operator, sent in the handshake; printable ASCII. Default: empty.
    pub instance: String,
    /// Identifier of this node in telemetry, sent in the handshake; printable ASCII. Default: empty.
    pub telemetry_id: String,
    /// Program name that dials announce in `User-Agent`; printable ASCII. Default: `tandem/<version>`.
    pub user_agent: String,
    /// Random bytes sent in every handshake, by which this node recognizes that it has dialled itself.
    /// Default: those of the broadcaster, which are drawn when it starts.
    pub node_random: Option<[u8; 10]>,
}

impl WsConfig {
    /// Returns the configuration of a node of `network` that neither listens nor dials.
    #[must_use]
    pub fn new(network: NetworkId) -> Self {
        Self {
            network,
            listen: None,
            public_address: None,
            peers: Vec::new(),
            identity: None,
            libp2p_identity: Libp2pIdentity::default(),
            gossip_service: GossipService::default(),
            door: Door::default(),
            page_origins: PageOrigins::default(),
            proxies: ProxyRules::default(),
            dial_timeout: Duration::from_secs(10),
            http_server: None,
            clients: None,
            tls: None,
            tls_reread: Duration::from_secs(10),
            tls_roots: Vec::new(),
            tls_client: None,
            hand_over: None,
            priority: None,
            instance: String::new(),
            telemetry_id: String::new(),
            user_agent: concat!("tandem/", env!("CARGO_PKG_VERSION")).to_owned(),
            node_random: None,
        }
    }
}

/// An address that the WebSocket network cannot dial.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// The address asks for TLS, and its host is no name that a certificate can be valid for.
    #[error("{address} asks for TLS, and no certificate can be for its host: write its DNS name")]
    ServerName {
        /// The address as configured.
        address: String,
    },
    /// The address is a multiaddr, which only the libp2p network dials.
    #[error("{address} is an address of the libp2p network, not of the WebSocket network")]
    Multiaddr {
        /// The address as configured.
        address: String,
    },
}

/// The reason why an address was not added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddPeerError {
    /// The address cannot be dialled.
    #[error(transparent)]
    Address(#[from] TargetError),
    /// The phonebook is full of addresses that operators named.
    #[error("too many addresses are configured")]
    Full,
}

/// Checks that the WebSocket network can dial `address`.
///
/// # Errors
///
/// [`TargetError`] when the address belongs to the libp2p network, or asks for TLS without a name for it.
pub fn check_peer(address: &NodeAddress) -> Result<(), TargetError> {
    match address {
        NodeAddress::WebSocket(url)
            if url.security() == Security::Tls && tls::server_name(url).is_none() =>
        {
            Err(TargetError::ServerName { address: address.to_string() })
        }
        NodeAddress::WebSocket(_) => Ok(()),
        NodeAddress::Multiaddr(_) => Err(TargetError::Multiaddr { address: address.to_string() }),
    }
}

/// The reason why a WebSocket network did not start. Nothing keeps running after any of these errors.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A duration among the limits is under a millisecond or over a year.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The listening address is in use by another program.
    #[error(
        "cannot listen on {address}: the address is in use; stop the other program or choose another port"
    )]
    AddressInUse {
        /// The address as configured.
        address: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The listening socket could not be bound for a reason other than an address in use.
    #[error("cannot listen on {address}; is it a host:port of this machine?")]
    Listen {
        /// The address as configured.
        address: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A configured peer address cannot be dialled.
    #[error("a peer cannot be dialled")]
    Peer(#[from] TargetError),
    /// A configured text contains bytes other than printable ASCII, which would break the handshake's headers.
    #[error(
        "the {setting} {text:?} has characters that are not allowed in an HTTP header; use plain text"
    )]
    BadText {
        /// Name of the setting.
        setting: &'static str,
        /// The text as configured.
        text: String,
    },
    /// Pages are to be let in, and the profile has no hello for them.
    #[error("pages cannot be let in: a node of the profile {profile} has no hello for them")]
    NoPages {
        /// Name of the profile.
        profile: &'static str,
    },
    /// The node's broadcaster is stopping and takes no new network.
    #[error("the node is stopping")]
    Stopping,
}

impl StartError {
    /// Tells an address in use from the other errors of binding a listening socket.
    pub(crate) fn listen(address: String, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::AddressInUse { address, source },
            _ => Self::Listen { address, source },
        }
    }
}
