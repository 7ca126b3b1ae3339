//! Publishes the broadcaster's messages on a topic.
//!
//! # Invariants
//!
//! * Messages that wait for the swarm are charged to the node's budget, and each link has its share of the queue.
//! * A message too large for a topic is refused with an error. The library would drop it silently.

use broadcaster::{ByteBudget, TopicAdmission, TopicReceipt, TopicSink};
use bytes::Bytes;
use gossip::{Lane, LinkId};
use libp2p::gossipsub::TopicHash;

use crate::{
    command::ToSwarm,
    metrics::{P2pEvent, P2pMetrics},
    origin::Origin,
    outbox::cost,
    publications::{NotTaken, Publication, Receipt},
    pubsub::MAX_BODY_BYTES,
};

/// Publishes the messages of one tag.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) hash: TopicHash,
    pub(crate) lane: Lane,
    pub(crate) swarm: ToSwarm,
    pub(crate) budget: ByteBudget,
    pub(crate) metrics: P2pMetrics,
}

impl TopicSink for Topic {
    fn publish(&self, body: Bytes, from: Option<LinkId>, receipt: TopicReceipt) -> TopicAdmission {
        if body.len() > MAX_BODY_BYTES {
            return TopicAdmission::TooLarge;
        }
        let full = || {
            self.metrics.note(P2pEvent::PublishQueueFull);
            TopicAdmission::Full
        };
        let Some(held) = self.budget.try_reserve(cost(body.len()), self.lane) else {
            return full();
        };
        let origin = from.map_or(Origin::Own, Origin::Link);
        let receipt = Receipt::Broadcast(receipt);
        let (topic, lane) = (self.hash.clone(), self.lane);
        let publication = Publication { origin, topic, lane, body, held, receipt };
        match self.swarm.publish(publication) {
            Ok(displaced) => {
                self.metrics.note_many(P2pEvent::PublishQueueFull, displaced as u64);
                TopicAdmission::Queued
            }
            Err(NotTaken::Full) => full(),
            Err(NotTaken::Down) => TopicAdmission::Closed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{command::channels, publications::publications};

    #[test]
    fn a_message_too_large_for_a_topic_is_refused() {
        let (publications, to_publish) = publications(1 << 20);
        let (senders, _receivers) = channels(publications);
        let topic = Topic {
            hash: TopicHash::from_raw("t"),
            lane: Lane::Bulk,
            swarm: ToSwarm::default(),
            budget: ByteBudget::new(8 << 20),
            metrics: P2pMetrics::default(),
        };
        let publish = |bytes: usize| {
            topic.publish(Bytes::from(vec![0; bytes]), None, TopicReceipt::unwanted())
        };
        assert_eq!(publish(1), TopicAdmission::Closed, "no swarm yet");
        topic.swarm.lead_to(Some(&senders));
        drop(senders);
        assert_eq!(publish(MAX_BODY_BYTES), TopicAdmission::Queued);
        assert_eq!(publish(MAX_BODY_BYTES + 1), TopicAdmission::TooLarge);
        while publish(1) == TopicAdmission::Queued {}
        assert_eq!(publish(1), TopicAdmission::Full);
        assert_eq!(topic.metrics.count(P2pEvent::PublishQueueFull), 2);
        drop(to_publish);
        assert_eq!(publish(1), TopicAdmission::Closed, "the swarm died");
        assert_eq!(topic.budget.used(), 0);
    }
}
