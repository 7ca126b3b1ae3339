//! The ranking of peers by what they can prove to hold.

use std::fmt;

use crate::wire::priority::{PriorityResponse, Voter};

/// Ranks peers by the weight of the voting keys that they prove to hold, and proves this node's own to others.
///
/// A network calls these from the loop that reads a peer, so they must be quick and must not wait. A proof ranks a
/// peer among others of this node and does nothing else: the heavier peer is written to first, and is the last to
/// give up its place to a newcomer.
pub trait PriorityScheme: fmt::Debug + Send + Sync + 'static {
    /// The answer of this node to a peer's challenge; `None`, the default, if it holds no voting key, or does not
    /// want to show it. A challenge of a peer is any text of at most
    /// [`MAX_CHALLENGE_BYTES`](crate::wire::priority::MAX_CHALLENGE_BYTES).
    fn respond(&self, challenge: &str) -> Option<PriorityResponse> {
        let _ = challenge;
        None
    }

    /// The keys by which an account votes in a round; `None` if it does not, or is not known.
    fn voter(&self, account: &[u8; 32], round: u64) -> Option<Voter>;

    /// The weight of an account now, in units of this scheme's own. It is asked for when a proof was verified, and
    /// again every minute while its peer is connected.
    fn weight(&self, account: &[u8; 32]) -> u64;
}
