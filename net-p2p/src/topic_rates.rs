//! The rate limit on the topic messages of each peer and its subscriptions to unknown topics, and the one on its control
//! messages.
//!
//! # Invariants
//!
//! * Messages within [`PEER_BYTES_PER_SECOND`] and a burst are accepted. An honest peer stays below, because
//!   its [`Outbox`](crate::outbox::Outbox) paces it.
//! * Messages beyond that are dropped, and a peer that continues is disconnected for flooding.
//! * The record of a peer is removed when it has disconnected.

use std::collections::HashMap;

use libp2p::PeerId;
use runtime::time::Instant;

use crate::outbox::{MAX_KEPT_BYTES, cost};

/// Rate allowed to one peer, in bytes of [`cost`] per second. Chosen: a quarter more than a node publishes.
pub(crate) const PEER_BYTES_PER_SECOND: f64 = 8.0 * 1024.0 * 1024.0;

/// Burst allowed to one peer, in bytes of cost. Chosen: a quarter more than a node publishes at once.
#[expect(clippy::cast_precision_loss, reason = "a power of two")]
const BURST_BYTES: f64 = MAX_KEPT_BYTES as f64 * 1.25;

/// Excess at which a peer counts as flooding, in bytes of cost; forgiven at the same rate. Chosen: a second
/// burst.
const EXCESS_BYTES: f64 = BURST_BYTES;

/// The verdict on one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RateVerdict {
    /// The message is within the peer's share.
    Within,
    /// The message exceeds the share and must be dropped.
    Excess,
    /// The peer exceeds its share by so much that it must be disconnected. It counts so once.
    Flood,
}

/// The shares of all peers.
#[derive(Debug, Default)]
pub(crate) struct TopicRates {
    peers: HashMap<PeerId, Share>,
}

#[derive(Debug)]
struct Share {
    /// Bytes of cost that the peer may still send; negative by the excess.
    left: f64,
    counted: Instant,
    /// `true` once the peer counted as flooding. It is disconnected then.
    has_flooded: bool,
}

impl TopicRates {
    /// Charges a message to its peer.
    pub(crate) fn note(&mut self, peer: PeerId, body_bytes: usize, now: Instant) -> RateVerdict {
        let full = Share { left: BURST_BYTES, counted: now, has_flooded: false };
        let share = self.peers.entry(peer).or_insert(full);
        let elapsed = now.saturating_duration_since(share.counted).as_secs_f64();
        share.left = elapsed.mul_add(PEER_BYTES_PER_SECOND, share.left).min(BURST_BYTES);
        share.counted = now;
        // The bound of topic messages is far below 4 GiB, so the conversion never saturates.
        share.left -= f64::from(u32::try_from(cost(body_bytes)).unwrap_or(u32::MAX));
        match share.left {
            0.0.. => RateVerdict::Within,
            left if left < -EXCESS_BYTES && !share.has_flooded => {
                share.has_flooded = true;
                RateVerdict::Flood
            }
            _ => RateVerdict::Excess,
        }
    }

    /// Removes the record of a peer.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.peers.remove(peer);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_is_accepted_an_excess_is_dropped_and_a_flood_is_detected() {
        let (mut rates, peer, now) = (TopicRates::default(), PeerId::random(), Instant::now());
        let mut say = |at| rates.note(peer, 100_000, at);
        let mut taken = 0;
        while say(now) == RateVerdict::Within {
            taken += 1;
        }
        assert!(taken >= MAX_KEPT_BYTES / cost(100_000), "what an honest peer passes on at once");
        let mut left_out = 1;
        let beyond = loop {
            match say(now) {
                RateVerdict::Excess => left_out += 1,
                beyond => break beyond,
            }
        };
        assert!(left_out >= taken);
        assert_eq!(beyond, RateVerdict::Flood);
        assert_eq!(say(now), RateVerdict::Excess, "it is being disconnected");
        assert_eq!(
            say(now + Duration::from_secs(5)),
            RateVerdict::Excess,
            "some of it is forgiven"
        );
        assert_eq!(say(now + Duration::from_secs(30)), RateVerdict::Within);
    }

    #[test]
    fn a_rate_within_the_share_is_always_accepted() {
        let (mut rates, peer, now) = (TopicRates::default(), PeerId::random(), Instant::now());
        for second in 0..60 {
            for _ in 0..5_000 {
                let at = now + Duration::from_secs(second);
                assert_eq!(rates.note(peer, 300, at), RateVerdict::Within);
            }
        }
    }
}
