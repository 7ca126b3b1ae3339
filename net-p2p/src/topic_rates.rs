//! How much each peer may say on topics.
//!
//! # Invariants
//!
//! * What a peer says within [`PEER_BYTES_PER_SECOND`] and a burst is taken. An honest peer passes on less:
//!   its [`Outbox`](crate::outbox::Outbox) lets it.
//! * What is more is left out, and a peer that goes on is one that floods.
//! * A peer is forgotten when it is gone.

use std::collections::HashMap;

use libp2p::PeerId;
use tokio::time::Instant;

use crate::outbox::{MAX_KEPT_BYTES, cost};

/// What one peer may say on topics in a second, in bytes of cost. Chosen: a quarter more than a node
/// publishes.
pub(crate) const PEER_BYTES_PER_SECOND: f64 = 8.0 * 1024.0 * 1024.0;

/// What it may say at once. Chosen: a quarter more than a node publishes at once.
#[expect(clippy::cast_precision_loss, reason = "a power of two")]
const BURST_BYTES: f64 = MAX_KEPT_BYTES as f64 * 1.25;

/// What it may say beyond that before it counts as flooding; forgiven at the same rate. Chosen: another
/// burst.
const EXCESS_BYTES: f64 = BURST_BYTES;

/// What a message means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// It is within the peer's share.
    Within,
    /// It is too much, and left out.
    Excess,
    /// The peer does not stop.
    Flood,
}

/// What all peers said lately.
#[derive(Debug, Default)]
pub(crate) struct TopicRates {
    peers: HashMap<PeerId, Share>,
}

#[derive(Debug)]
struct Share {
    /// What the peer may still say; below nothing, what it said too much.
    left: f64,
    counted: Instant,
}

impl TopicRates {
    /// Counts a message of a peer.
    pub(crate) fn note(&mut self, peer: PeerId, body_bytes: usize, now: Instant) -> Said {
        let share = self.peers.entry(peer).or_insert(Share { left: BURST_BYTES, counted: now });
        let elapsed = now.saturating_duration_since(share.counted).as_secs_f64();
        share.left = elapsed.mul_add(PEER_BYTES_PER_SECOND, share.left).min(BURST_BYTES);
        share.counted = now;
        // No topic carries a message that would not fit.
        share.left -= f64::from(u32::try_from(cost(body_bytes)).unwrap_or(u32::MAX));
        match share.left {
            0.0.. => Said::Within,
            left if left < -EXCESS_BYTES => Said::Flood,
            _ => Said::Excess,
        }
    }

    /// Forgets a peer.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.peers.remove(peer);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_is_taken_more_is_left_out_and_a_flood_is_one() {
        let (mut rates, peer, now) = (TopicRates::default(), PeerId::random(), Instant::now());
        let mut say = |at| rates.note(peer, 100_000, at);
        let mut taken = 0;
        while say(now) == Said::Within {
            taken += 1;
        }
        assert!(taken >= MAX_KEPT_BYTES / cost(100_000), "what an honest peer passes on at once");
        let mut left_out = 1;
        while say(now) == Said::Excess {
            left_out += 1;
        }
        assert!(left_out >= taken);
        assert_eq!(say(now), Said::Flood);
        assert_eq!(say(now + Duration::from_secs(5)), Said::Excess, "some of it is forgiven");
        assert_eq!(say(now + Duration::from_secs(30)), Said::Within);
    }

    #[test]
    fn a_pace_within_the_share_is_taken_for_ever() {
        let (mut rates, peer, now) = (TopicRates::default(), PeerId::random(), Instant::now());
        for second in 0..60 {
            for _ in 0..5_000 {
                let at = now + Duration::from_secs(second);
                assert_eq!(rates.note(peer, 300, at), Said::Within);
            }
        }
    }
}
