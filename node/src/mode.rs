//! The transports that a node uses, and the peers that it can dial with them.
//!
//! # Invariants
//!
//! * Nothing here looks anything up or dials, so a configuration can be judged beside a node that runs.
//! * An address that no transport of the node dials is refused: a running node would pass it over.

use gossip::NodeAddress;

/// The transports that a node uses. The variants depend on the features; the default is [`Mode::Hybrid`] where both
/// networks are compiled, and otherwise the one there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// WebSocket and libp2p, over one broadcaster, with one link to each peer. Needs the features `ws` and `p2p`.
    #[cfg(all(feature = "ws", feature = "p2p"))]
    #[default]
    Hybrid,
    /// WebSocket alone. Needs the feature `ws`.
    #[cfg(feature = "ws")]
    #[cfg_attr(not(feature = "p2p"), default)]
    WebSocket,
    /// libp2p alone. Needs the feature `p2p`.
    #[cfg(feature = "p2p")]
    #[cfg_attr(not(feature = "ws"), default)]
    Libp2p,
}

impl Mode {
    /// The mode's name in configuration: `hybrid`, `ws` or `p2p`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            #[cfg(all(feature = "ws", feature = "p2p"))]
            Self::Hybrid => "hybrid",
            #[cfg(feature = "ws")]
            Self::WebSocket => "ws",
            #[cfg(feature = "p2p")]
            Self::Libp2p => "p2p",
        }
    }
}

/// The reason for which a peer's address cannot be dialled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// The WebSocket side cannot dial the address.
    #[cfg(feature = "ws")]
    #[error(transparent)]
    WebSocket(#[from] net_ws::TargetError),
    /// The libp2p side cannot dial the address.
    #[cfg(feature = "p2p")]
    #[error(transparent)]
    Libp2p(#[from] net_p2p::PeerAddressError),
    /// The address is of a transport that the node does not use.
    #[error("{address} is {what}, which mode {mode} does not dial")]
    OtherTransport {
        /// The address as given.
        address: NodeAddress,
        /// The kind of the address.
        what: &'static str,
        /// Name of the node's mode.
        mode: &'static str,
    },
}

/// Names below which DNS lists peers are asked of the room that asks DNS.
#[cfg(all(feature = "p2p", feature = "discovery"))]
const TREES: net_p2p::TreeNames = net_p2p::TreeNames::Resolved;
#[cfg(all(feature = "p2p", not(feature = "discovery")))]
const TREES: net_p2p::TreeNames = net_p2p::TreeNames::Unresolved;

impl Mode {
    /// Checks that a node of this mode can dial an address. Nothing is looked up or dialled.
    ///
    /// # Errors
    ///
    /// [`PeerError`], with the addresses that could be dialled.
    pub fn check_peer(self, address: &NodeAddress) -> Result<(), PeerError> {
        let other = |what| {
            let (address, mode) = (address.clone(), self.name());
            Err(PeerError::OtherTransport { address, what, mode })
        };
        match (address, self) {
            #[cfg(feature = "p2p")]
            (NodeAddress::WebSocket(_), Self::Libp2p) => other("no multiaddr"),
            #[cfg(feature = "ws")]
            (NodeAddress::Multiaddr(_), Self::WebSocket) => other("a multiaddr"),
            #[cfg(feature = "ws")]
            (NodeAddress::WebSocket(_), _) => Ok(net_ws::check_peer(address)?),
            #[cfg(feature = "p2p")]
            (NodeAddress::Multiaddr(_), _) => Ok(net_p2p::check_peer(address, TREES)?),
        }
    }
}
