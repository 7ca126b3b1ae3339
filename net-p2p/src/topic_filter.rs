//! The topics that peers may subscribe to.
//!
//! # Invariants
//!
//! * Only topics of the network can be subscribed to, by this node and by peers.
//! * A peer that goes on about other topics is disconnected for flooding: each costs it as much of its share as an empty
//!   message (`topic_rates.rs`). The library leaves them without effect on the peer's score.

use std::collections::HashSet;

use libp2p::gossipsub::{TopicHash, TopicSubscriptionFilter};

use crate::topic_gate::TopicGate;

/// Lets topics of the network pass, and charges peers for others.
#[derive(Clone, Debug)]
pub(crate) struct KnownTopics {
    known: HashSet<TopicHash>,
    gate: TopicGate,
}

impl KnownTopics {
    /// Lets `known` pass.
    pub(crate) const fn new(known: HashSet<TopicHash>, gate: TopicGate) -> Self {
        Self { known, gate }
    }
}

impl TopicSubscriptionFilter for KnownTopics {
    fn can_subscribe(&mut self, topic: &TopicHash) -> bool {
        let is_known = self.known.contains(topic);
        if !is_known {
            self.gate.unknown_topic();
        }
        is_known
    }
}
