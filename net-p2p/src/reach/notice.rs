//! The news and orders that reachability has for the swarm task.

#[cfg(feature = "reachability")]
use libp2p::core::Endpoint;
use libp2p::{Multiaddr, PeerId};
#[cfg(feature = "reachability")]
use tokio::sync::oneshot;

/// News for the swarm task.
#[derive(Debug)]
pub(crate) enum ReachNotice {
    /// A relay has given a place, and these addresses lead through it.
    Reserved { relay: PeerId, addresses: Vec<Multiaddr> },
    /// The place at a relay is lost.
    Lost { relay: PeerId },
    /// Others have tried the addresses of this node, and reached it at these.
    #[cfg(feature = "reachability")]
    Verdict { reached: Vec<Multiaddr> },
}

/// An order to dial a peer for a direct connection.
#[cfg(feature = "reachability")]
#[derive(Debug)]
pub(crate) struct Meet {
    pub(crate) peer: PeerId,
    pub(crate) addresses: Vec<Multiaddr>,
    /// The part that this end takes in the connection.
    pub(crate) part: Endpoint,
    /// Gets `true` if there is a connection.
    pub(crate) reply: oneshot::Sender<bool>,
}
