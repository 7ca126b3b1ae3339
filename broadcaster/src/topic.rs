//! The seam to GossipSub: how a topic takes part in a broadcast.

use bytes::Bytes;
use gossip::{Identity, LinkId, Tag, Transport, Validation};

use crate::receipts::TopicReceipt;

/// What became of a publication at the moment it was made.
#[must_use = "a message that was not taken has to go another way"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicAdmission {
    /// Accepted into a bounded queue.
    Queued,
    /// The queue was at its bound; the sink counted the drop.
    Full,
    /// Too large for a topic: it has to go over streams.
    TooLarge,
    /// The topic's network is down: it has to go over streams.
    Closed,
}

/// Publishes messages of one tag on a topic.
pub trait TopicSink: Send + Sync + 'static {
    /// Offers a message body for publication. Never waits. `from` is the link that the message came on, unless it
    /// is this node's own: links share what there is room for. The receipt is told how many peers the message was
    /// sent to, once it was.
    fn publish(&self, body: Bytes, from: Option<LinkId>, receipt: TopicReceipt) -> TopicAdmission;
}

/// A message heard on a topic.
pub struct TopicMessage {
    /// The tag whose topic it was heard on.
    pub tag: Tag,
    /// Its body.
    pub body: Bytes,
    /// Who passed it on to us.
    pub from: Option<Identity>,
    /// What carried it.
    pub transport: Transport,
    /// Takes the verdict back, exactly once, from whatever thread.
    pub report: Box<dyn FnOnce(Validation) + Send>,
}

impl std::fmt::Debug for TopicMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TopicMessage")
            .field("tag", &self.tag)
            .field("bytes", &self.body.len())
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}
