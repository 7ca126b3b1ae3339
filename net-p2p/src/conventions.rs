//! What this crate does differently from network to network.
//!
//! Nothing here asks for a network's name. Everything follows from one field of the profile: a network
//! whose nodes *rank* the links to one peer consists of nodes like this one, while one where the first
//! link stays consists of nodes that existed before, whose habits are those of wire facts 8.

use gossip::{ClaimRule, NetworkProfile};

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

/// The habits of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Conventions {
    pub(crate) genesis: GenesisRule,
    pub(crate) link_end: LinkEnd,
    pub(crate) extras: Extras,
}

impl Conventions {
    /// The habits of the network of a profile.
    pub(crate) const fn of(profile: &NetworkProfile) -> Self {
        match profile.claims {
            ClaimRule::Ranked => Self {
                genesis: GenesisRule::Compared,
                link_end: LinkEnd::Streams,
                extras: Extras::DialLinkLanes,
            },
            ClaimRule::FirstVerified => Self {
                genesis: GenesisRule::Ignored,
                link_end: LinkEnd::Connection,
                extras: Extras::None,
            },
        }
    }
}
