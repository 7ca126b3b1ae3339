//! Control messages of GossipSub, encoded by hand.

use super::rpc::field;

/// Encodes a control message with one part: IHAVE is 1, IWANT 2, GRAFT 3, PRUNE 4, IDONTWANT 5.
pub(crate) fn control(kind: u8, body: &[u8]) -> Vec<u8> {
    field(3, &field(kind, body))
}
