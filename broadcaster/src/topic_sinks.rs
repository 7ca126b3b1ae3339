//! The topics that take part in broadcasts.
//!
//! # Invariants
//!
//! * A tag has one topic at most. A message whose tag has one goes either to the topic or to the streams of the
//!   topic's transport, never to both.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use gossip::{Tag, Transport};

use crate::{
    intake::{Job, Target, ToTopic},
    metrics::{DropReason, Metrics},
    receipts::{Receipts, TopicReceipt},
    topic::{TopicAdmission, TopicSink},
    trace::TraceEvent,
};

/// The sinks of topics by tag.
#[derive(Default)]
pub(crate) struct TopicSinks {
    by_tag: RwLock<HashMap<Tag, Topic>>,
}

struct Topic {
    /// The transport whose streams it stands in for.
    transport: Transport,
    sink: Arc<dyn TopicSink>,
}

impl TopicSinks {
    /// Installs the sink of a tag, in place of an earlier one.
    pub(crate) fn attach(&self, tag: Tag, transport: Transport, sink: Arc<dyn TopicSink>) {
        let mut sinks = self.by_tag.write().unwrap_or_else(PoisonError::into_inner);
        sinks.insert(tag, Topic { transport, sink });
    }

    /// Removes the sink of a tag.
    pub(crate) fn detach(&self, tag: Tag) {
        self.by_tag.write().unwrap_or_else(PoisonError::into_inner).remove(&tag);
    }

    /// Publishes on the topic of the tag, if there is one, and says which transport that covers.
    pub(crate) fn publish(&self, job: &Job, metrics: &Metrics) -> Option<Transport> {
        let sinks = self.by_tag.read().unwrap_or_else(PoisonError::into_inner);
        let Topic { transport, sink } = sinks.get(&job.frame.tag())?;
        match job.topic {
            // The message spreads on the topic already. Only one for a single peer has to take the stream.
            ToTopic::Skip if matches!(job.target, Target::One(_)) => None,
            ToTopic::Skip => Some(*transport),
            ToTopic::Publish => {
                let body = job.frame.wire().slice(Tag::BYTES..);
                let receipt = job.receipts.as_ref().map(Receipts::topic);
                let receipt = receipt.unwrap_or_else(TopicReceipt::unwanted);
                match sink.publish(body, job.source(), receipt) {
                    TopicAdmission::Queued => {
                        job.frame.trace(TraceEvent::Published);
                        Some(*transport)
                    }
                    TopicAdmission::Full => {
                        metrics.dropped(DropReason::TopicFull, job.frame.lane());
                        job.frame.trace(TraceEvent::Dropped(DropReason::TopicFull));
                        Some(*transport)
                    }
                    TopicAdmission::TooLarge | TopicAdmission::Closed => None,
                }
            }
        }
    }
}
