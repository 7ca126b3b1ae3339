//! What this crate does differently from network to network.
//!
//! Nothing here asks for a network's name. Everything follows from one field of the profile: a network
//! whose nodes *rank* the links to one peer consists of nodes like this one, while one where the first
//! link stays consists of nodes that existed before, whose habits are those of wire facts 8.

use gossip::{ClaimRule, Identity, NetworkProfile};

/// Whether a peer that announces another network is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GenesisRule {
    /// It is.
    Compared,
    /// It is not. Source: wire facts 8.4.
    Ignored,
}

/// What ends when a gossip link ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkEnd {
    /// Its streams; the connection only on the side that dialled it.
    Streams,
    /// The whole connection, on either side. Source: wire facts 8.5, S-26.
    Connection,
}

/// Which headers are announced beside those of wire facts 8.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extras {
    /// None.
    None,
    /// A number for the dial, one for the link, and the number of lanes.
    DialLinkLanes,
}

/// Whose gossip streams are opened and answered. Connections, HTTP and topics are open to any key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GossipKeys {
    /// Those of every peer.
    Any,
    /// Those of peers with an Ed25519 key. Source: wire facts 8.1: a gossiping node of an existing
    /// network is known by 32 bytes of key.
    Ed25519,
}

impl GossipKeys {
    /// Whether gossip streams with this peer are opened and answered.
    pub(crate) fn include(self, identity: &Identity) -> bool {
        match self {
            Self::Any => true,
            Self::Ed25519 => identity.ed25519().is_some(),
        }
    }
}

/// The habits of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Conventions {
    pub(crate) genesis: GenesisRule,
    pub(crate) link_end: LinkEnd,
    pub(crate) extras: Extras,
    pub(crate) gossip_keys: GossipKeys,
}

impl Conventions {
    /// The habits of the network of a profile.
    pub(crate) const fn of(profile: &NetworkProfile) -> Self {
        match profile.claims {
            ClaimRule::Ranked => Self {
                genesis: GenesisRule::Compared,
                link_end: LinkEnd::Streams,
                extras: Extras::DialLinkLanes,
                gossip_keys: GossipKeys::Any,
            },
            ClaimRule::FirstVerified => Self {
                genesis: GenesisRule::Ignored,
                link_end: LinkEnd::Connection,
                extras: Extras::None,
                gossip_keys: GossipKeys::Ed25519,
            },
        }
    }
}
