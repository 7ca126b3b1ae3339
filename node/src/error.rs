//! Why a node does not start.

use std::io;

use gossip::{LimitError, Tag, TagTopicError};

use crate::{data_dir::DataDirError, keys::KeyError, mode::PeerError};

/// The reason for which a node did not start. Nothing keeps running then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The node's key cannot be read or made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The certificates to trust cannot be used.
    #[cfg(any(feature = "ws", feature = "websocket"))]
    #[error(transparent)]
    Certificates(#[from] net_tcp::tls::CertificateError),
    /// The certificates or the key for HTTPS cannot be used.
    #[cfg(any(feature = "ws", feature = "websocket"))]
    #[error("cannot serve HTTPS")]
    Tls(#[from] net_tcp::tls::TlsError),
    /// A duration among the limits is under a millisecond or over a year.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// More names for DNS to look up than a node asks for.
    #[cfg(feature = "discovery")]
    #[error("there are {count} names to look up in DNS: at most {} are", discovery::MAX_ENTRIES)]
    TooManyBootstraps {
        /// Their number.
        count: usize,
    },
    /// A name to look up in DNS, and sockets in memory, behind which there is none.
    #[cfg(feature = "discovery")]
    #[error("a node whose sockets are in memory cannot look up names in DNS: name its peers")]
    BootstrapInMemory,
    /// A configured peer cannot be dialled.
    #[error("a peer cannot be dialled")]
    Peer(#[from] PeerError),
    /// A handler or a validator is for a tag that the network does not have.
    #[error("the {role} for {tag} would never be called: the tags of this network are {known}")]
    UnknownTag {
        /// Its role: handler or validator.
        role: &'static str,
        /// Its tag.
        tag: Tag,
        /// The tags there are.
        known: String,
    },
    /// A tag has two handlers or two validators, of which only one could be called.
    #[error("there are two {role}s for {tag}: put them into one")]
    TwoForOneTag {
        /// Their role: handlers or validators.
        role: &'static str,
        /// Their tag.
        tag: Tag,
    },
    /// The node cannot ask its peers for what it is to ask for.
    #[error("cannot ask peers for other messages than the usual ones")]
    Want(#[from] broadcaster::WantError),
    /// An address to listen on is no multiaddr that libp2p can listen on here.
    #[cfg(feature = "p2p")]
    #[error(transparent)]
    ListenAddress(#[from] net_p2p::ListenAddressError),
    /// The libp2p side was to listen over TLS without a certificate.
    #[cfg(feature = "websocket")]
    #[error("cannot listen on {address} without a certificate: set `tls_cert` and `tls_key`")]
    NoCertificate {
        /// The address as given.
        address: String,
    },
    /// A node of a private network has a side that the network's key does not protect.
    #[cfg(feature = "private-network")]
    #[error(
        "a private network is one of libp2p, and mode {mode} would let everybody in over WebSocket: set `mode` to p2p"
    )]
    PrivateNetworkMode {
        /// The mode of the node.
        mode: &'static str,
    },
    /// An address of a node of a private network uses a transport that the network's key does not protect.
    #[cfg(feature = "private-network")]
    #[error("{address} cannot be used in a private network, which has TCP and WebSocket alone")]
    PrivateNetworkAddress {
        /// The address as given.
        address: String,
    },
    /// A node without libp2p was to accept streams, which only libp2p has.
    #[cfg(all(feature = "ws", feature = "p2p"))]
    #[error("streams of {protocol} would never come: they need libp2p, which mode ws does not use")]
    NoStreams {
        /// Name of the protocol.
        protocol: String,
    },
    /// A tag cannot be carried on a topic.
    #[error("cannot carry a tag on a topic")]
    TagTopic(#[from] TagTopicError),
    /// A node without libp2p was to carry a tag on a topic, which only libp2p has.
    #[cfg(all(feature = "ws", feature = "p2p"))]
    #[error("{tag} cannot go over a topic: topics need libp2p, which mode ws does not use")]
    NoTagTopics {
        /// The tag as given.
        tag: Tag,
    },
    /// A node without libp2p was to serve a topic of the application, which only libp2p has.
    #[cfg(all(feature = "ws", feature = "p2p"))]
    #[error(
        "the topic {topic:?} would never be heard: topics need libp2p, which mode ws does not use"
    )]
    NoTopics {
        /// Name of the topic.
        topic: String,
    },
    /// A topic of the application cannot be served.
    #[cfg(feature = "p2p")]
    #[error("cannot serve a topic")]
    Topic(#[from] net_p2p::TopicError),
    /// A protocol of the application cannot be accepted.
    #[cfg(feature = "p2p")]
    #[error("cannot accept streams of a protocol")]
    Protocol(#[from] net_p2p::ProtocolError),
    /// Another program listens there.
    #[error(
        "cannot listen on {address}: the address is in use; stop the other program or choose another port"
    )]
    AddressInUse {
        /// The address as given.
        address: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The WebSocket network did not start.
    #[cfg(feature = "ws")]
    #[error(transparent)]
    WebSocket(net_ws::StartError),
    /// The libp2p network did not start.
    #[cfg(feature = "p2p")]
    #[error(transparent)]
    Libp2p(net_p2p::StartError),
    /// The hybrid network did not start.
    #[cfg(all(feature = "ws", feature = "p2p"))]
    #[error(transparent)]
    Hybrid(net_hybrid::StartError),
}

impl StartError {
    /// `true` if the same start can never succeed, so that its settings have to be changed; `false` if it may succeed
    /// another time, such as when a port is free again.
    #[must_use]
    pub const fn is_misconfiguration(&self) -> bool {
        match self {
            Self::Limit(_)
            | Self::Peer(_)
            | Self::UnknownTag { .. }
            | Self::TwoForOneTag { .. }
            | Self::TagTopic(_)
            | Self::Want(_) => true,
            #[cfg(feature = "discovery")]
            Self::TooManyBootstraps { .. } | Self::BootstrapInMemory => true,
            #[cfg(feature = "p2p")]
            Self::ListenAddress(_) | Self::Protocol(_) | Self::Topic(_) => true,
            #[cfg(feature = "websocket")]
            Self::NoCertificate { .. } => true,
            #[cfg(feature = "private-network")]
            Self::PrivateNetworkMode { .. } | Self::PrivateNetworkAddress { .. } => true,
            #[cfg(all(feature = "ws", feature = "p2p"))]
            Self::NoStreams { .. } | Self::NoTopics { .. } | Self::NoTagTopics { .. } => true,
            #[cfg(any(feature = "ws", feature = "websocket"))]
            Self::Certificates(_) | Self::Tls(_) => true,
            #[cfg(feature = "ws")]
            Self::WebSocket(error) => {
                matches!(error, net_ws::StartError::Peer(_) | net_ws::StartError::BadText { .. })
            }
            #[cfg(feature = "p2p")]
            Self::Libp2p(error) => {
                matches!(
                    error,
                    net_p2p::StartError::Peer(_)
                        | net_p2p::StartError::Protocol(_)
                        | net_p2p::StartError::Topic(_)
                )
            }
            Self::Key(KeyError::Missing { .. } | KeyError::NotAFile { .. }) => true,
            Self::DataDir(_) | Self::Key(_) | Self::AddressInUse { .. } => false,
            #[cfg(all(feature = "ws", feature = "p2p"))]
            Self::Hybrid(_) => false,
        }
    }
}

#[cfg(feature = "ws")]
impl From<net_ws::StartError> for StartError {
    fn from(error: net_ws::StartError) -> Self {
        match error {
            net_ws::StartError::AddressInUse { address, source } => {
                Self::AddressInUse { address, source }
            }
            other => Self::WebSocket(other),
        }
    }
}

#[cfg(feature = "p2p")]
impl From<net_p2p::StartError> for StartError {
    fn from(error: net_p2p::StartError) -> Self {
        match error {
            net_p2p::StartError::Listen { address, source }
                if source.kind() == io::ErrorKind::AddrInUse =>
            {
                Self::AddressInUse { address: address.to_string(), source }
            }
            other => Self::Libp2p(other),
        }
    }
}

#[cfg(all(feature = "ws", feature = "p2p"))]
impl From<net_hybrid::StartError> for StartError {
    fn from(error: net_hybrid::StartError) -> Self {
        match error {
            net_hybrid::StartError::WebSocket(error) => error.into(),
            net_hybrid::StartError::Libp2p(error) => error.into(),
            other => Self::Hybrid(other),
        }
    }
}
