//! The ground of a node, on which its networks stand.

use std::sync::Arc;

use broadcaster::Broadcaster;
use gossip::{NetworkId, wire::identity::Keypair};
use mesh::Door;
use tokio_util::sync::CancellationToken;

/// Everything that the networks of a node share.
#[derive(Clone, Debug)]
pub(crate) struct Ground {
    /// The network that it belongs to.
    pub(crate) network: NetworkId,
    /// The key of the node; `None` for one that proves no identity, which has no libp2p.
    pub(crate) key: Option<Arc<Keypair>>,
    /// Takes the links of every network.
    pub(crate) broadcaster: Broadcaster,
    /// Counts the connections of every network.
    pub(crate) door: Door,
    /// Cancelled when the node closes.
    pub(crate) closing: CancellationToken,
}
