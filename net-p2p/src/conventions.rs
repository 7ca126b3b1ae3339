//! Protocol differences between networks.
//!
//! Nothing here depends on a network's name. Everything follows from one field of the profile: if a network's
//! nodes *rank* the links to one peer, they are Tandem nodes; if the first link stays, they are the existing
//! nodes that wire facts 8 describe.

use gossip::{ClaimRule, Identity, NetworkProfile};

/// Treatment of a peer that announces another network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GenesisRule {
    /// The handshake compares the names and refuses another network.
    Compared,
    /// The handshake accepts any name. Source: wire facts 8.4.
    Ignored,
}

/// The things that end together with a gossip link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkEnd {
    /// The streams of the link, and the connection only on the side that dialled it.
    Streams,
    /// The whole connection, on both sides. Source: wire facts 8.5, S-26.
    Connection,
}

/// Headers announced in addition to those of wire facts 8.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extras {
    /// None.
    None,
    /// The number of the dial, the number of the link, and the number of lanes.
    DialLinkLanes,
}

/// The kinds of key that may gossip over streams. Connections, HTTP and topics are open to every kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GossipKeys {
    /// Every kind.
    Any,
    /// Ed25519 only. Source: wire facts 8.1: a gossiping node of an existing network is known by a key of 32
    /// bytes.
    Ed25519,
}

impl GossipKeys {
    /// Returns `true` if gossip streams with this peer are opened and accepted.
    pub(crate) fn include(self, identity: &Identity) -> bool {
        match self {
            Self::Any => true,
            Self::Ed25519 => identity.ed25519().is_some(),
        }
    }
}

/// The protocol differences of one network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Conventions {
    pub(crate) genesis: GenesisRule,
    pub(crate) link_end: LinkEnd,
    pub(crate) extras: Extras,
    pub(crate) gossip_keys: GossipKeys,
}

impl Conventions {
    /// Derives the differences from the profile of a network.
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
