//! Settings with which a node cannot be started, whatever the machine is like.
//!
//! # Invariants
//!
//! * Nothing here starts anything or leaves anything behind, so a configuration can be judged beside a node
//!   that runs.
//! * A setting that a running node would pass over is refused: an address that no transport dials, a handler
//!   that no message reaches.

use std::collections::BTreeSet;

use gossip::{NetworkProfile, NodeAddress, Tag};

use crate::{Mode, StartError};

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
            (NodeAddress::Multiaddr(_), _) => Ok(net_p2p::check_peer(address)?),
        }
    }
}

/// The two things that a tag has one each of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Handler,
    Validator,
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::Handler => "handler",
            Self::Validator => "validator",
        }
    }
}

/// Checks that every one of them is reached by messages.
pub(crate) fn tags(
    profile: &NetworkProfile,
    role: Role,
    tags: impl Iterator<Item = Tag>,
) -> Result<(), StartError> {
    let mut seen = BTreeSet::new();
    for tag in tags {
        let role = role.name();
        if profile.tags.rule(tag).is_none() {
            let known: Vec<String> =
                profile.tags.rules().iter().map(|rule| rule.tag.to_string()).collect();
            return Err(StartError::UnknownTag { role, tag, known: known.join(", ") });
        }
        if !seen.insert(tag) {
            return Err(StartError::TwoForOneTag { role, tag });
        }
    }
    Ok(())
}
