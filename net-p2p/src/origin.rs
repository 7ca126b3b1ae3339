//! The origin of a message for the topics: each has a share of every queue and bound.

use gossip::LinkId;
use libp2p::PeerId;

/// The origin of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Origin {
    /// This node.
    Own,
    /// A gossip link of this node.
    Link(LinkId),
    /// A peer on the topic.
    Peer(PeerId),
}
