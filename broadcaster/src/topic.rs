//! The seam to GossipSub: how a topic takes part in a broadcast.

use bytes::Bytes;
use gossip::{Identity, LinkId, Tag, Transport, Validation};

use crate::receipts::TopicReceipt;

/// The result of offering a message to a topic.
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

/// A message that was heard on a topic, and not judged yet.
pub struct TopicMessage {
    /// The tag whose topic it was heard on.
    pub tag: Tag,
    /// Body of the message, without its tag.
    pub body: Bytes,
    /// The node that passed it on to us, which need not be a gossip peer; `None` if its key is of no known kind.
    pub from: Option<Identity>,
    /// Transport that carried the message.
    pub transport: Transport,
    /// Takes the verdict back, exactly once, from whatever thread. It must not block.
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
