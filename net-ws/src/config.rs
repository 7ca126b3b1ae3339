//! What a WebSocket network is made of, and why it may not start.

use std::{io, sync::Arc, time::Duration};

use gossip::{NetworkId, NodeAddress, Security, wire::identity::Keypair};
use mesh::{DialLimits, Door};
use net_http::{HttpServer, client::Clients};
use tokio_rustls::rustls::pki_types::CertificateDer;

use crate::tls::TlsIdentity;

/// Whether peers may connect here, or only the plain HTTP services are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GossipService {
    /// The gossip path is served. The default.
    #[default]
    On,
    /// The gossip path is as unknown as any other.
    Off,
}

/// Whether `identity` is also the identity of a libp2p network of this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Libp2pIdentity {
    /// It is not, or there is no libp2p network. The default.
    #[default]
    Separate,
    /// It is: other nodes may name this one by its peer ID.
    Shared,
}

/// What an operator or an embedder may set. [`WsConfig::new`] sets everything but the network.
#[derive(Clone, Debug)]
pub struct WsConfig {
    /// The network to join.
    pub network: NetworkId,
    /// Where to listen, `host:port`; port 0 picks a free one. Default: not at all.
    pub listen: Option<String>,
    /// Under which address other nodes know this one, `host:port`. Default: none.
    pub public_address: Option<String>,
    /// Whom to dial. Default: nobody.
    pub peers: Vec<NodeAddress>,
    /// The key for the identity exchange. Default: none; where the profile wants one, a fresh key.
    pub identity: Option<Arc<Keypair>>,
    /// Whether a libp2p network uses the same key.
    pub libp2p_identity: Libp2pIdentity,
    /// Whether peers may connect here.
    pub gossip_service: GossipService,
    /// Lets connections in, shared with the other networks of the node. Default: one of the network's own,
    /// with default limits.
    pub door: Door,
    /// How much to dial, and how eagerly.
    pub dial: DialLimits,
    /// How long a dial may take, from the name look-up to the last header. Default: 10 s. Chosen:
    /// a fifth of what existing nodes allow (wire facts 11.5); who needs longer is no good neighbour.
    pub dial_timeout: Duration,
    /// The server for HTTP requests that are not gossip, shared with the other networks of the node.
    /// Default: none; such requests are answered 404.
    pub http_server: Option<HttpServer>,
    /// The HTTP clients, shared with the other networks of the node, whose owner stops them. Default: some
    /// of the network's own, with default limits, which end with it.
    pub clients: Option<Clients>,
    /// What is shown to clients that come over TLS, on the same port. Default: none; they are refused.
    pub tls: Option<TlsIdentity>,
    /// Whose certificates are believed besides those of the system. Default: nobody's.
    pub tls_roots: Vec<CertificateDer<'static>>,
    /// Name of this node among its operator's. Default: empty.
    pub instance: String,
    /// Identifier in telemetry. Default: empty.
    pub telemetry_id: String,
    /// What dials announce as their program. Default: `tandem/<version>`.
    pub user_agent: String,
    /// Tells this node that it dialled itself. Default: drawn at the start.
    pub node_random: Option<[u8; 10]>,
}

impl WsConfig {
    /// A node of `network` that neither listens nor dials.
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
            dial: DialLimits::default(),
            dial_timeout: Duration::from_secs(10),
            http_server: None,
            clients: None,
            tls: None,
            tls_roots: Vec::new(),
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
    /// It asks for TLS.
    #[error(
        "{address} asks for gossip over TLS, which is not supported yet; write http:// instead"
    )]
    Tls {
        /// The address.
        address: String,
    },
    /// It is a multiaddr.
    #[error("{address} is an address of the libp2p network, not of the WebSocket network")]
    Multiaddr {
        /// The address.
        address: String,
    },
}

/// Checks that this network can dial an address.
///
/// # Errors
///
/// [`TargetError`]: it asks for TLS, or belongs to the other network.
pub fn check_peer(address: &NodeAddress) -> Result<(), TargetError> {
    match address {
        NodeAddress::WebSocket(url) if url.security() == Security::Tls => {
            Err(TargetError::Tls { address: address.to_string() })
        }
        NodeAddress::WebSocket(_) => Ok(()),
        NodeAddress::Multiaddr(_) => Err(TargetError::Multiaddr { address: address.to_string() }),
    }
}

/// Why a WebSocket network did not start. Nothing keeps running after one of these.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Another program has the address.
    #[error(
        "cannot listen on {address}: the address is in use; stop the other program or choose another port"
    )]
    AddressInUse {
        /// The address as configured.
        address: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The listening socket could not be bound.
    #[error("cannot listen on {address}; is it a host:port of this machine?")]
    Listen {
        /// The address as configured.
        address: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// A configured peer cannot be dialled.
    #[error("a peer cannot be dialled")]
    Peer(#[from] TargetError),
    /// A text would break the lines of the handshake.
    #[error("the {setting} {text:?} has characters that no HTTP header may hold; use plain text")]
    BadText {
        /// Which setting.
        setting: &'static str,
        /// The text as configured.
        text: String,
    },
    /// The broadcaster of the node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

impl StartError {
    /// Sorts what the system said about a listening address.
    pub(crate) fn listen(address: String, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::AddressInUse { address, source },
            _ => Self::Listen { address, source },
        }
    }
}
