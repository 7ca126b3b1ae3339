//! Messages of topics that are an application's own: published and heard over libp2p only, under no tag.

use std::sync::Arc;

use crate::Instant;

use bytes::Bytes;

use crate::identity::Identity;

/// A message that was heard on a topic of the application's own, for the first time within the window of the topic's IDs.
///
/// It goes to the same [`Handler`](crate::Handler) and [`Validator`](crate::Validator) as messages of tags do, with
/// this type in place of [`Inbound`](crate::Inbound).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TopicInbound {
    /// Name of the topic.
    pub topic: Arc<str>,
    /// Body of the message, of one byte or more.
    pub body: Bytes,
    /// The node that the message names as its author. It is proved on a topic whose messages are signed, and a mere claim
    /// on any other. `None` where the message names nobody, or a key of no known kind.
    pub author: Option<Identity>,
    /// Sequence number that the author gave the message, where there is one.
    pub sequence: Option<u64>,
    /// The node that passed the message on, whose identity its connection has proved; `None` if its key is of no known
    /// kind.
    pub from: Option<Identity>,
    /// The time at which the message was read.
    pub received: Instant,
}

impl TopicInbound {
    /// A message with no author, heard just now from nobody that is known. The other fields can be set.
    pub fn new(topic: impl Into<Arc<str>>, body: impl Into<Bytes>) -> Self {
        Self {
            topic: topic.into(),
            body: body.into(),
            author: None,
            sequence: None,
            from: None,
            received: Instant::now(),
        }
    }
}

/// The reason why a message was not published on a topic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The node has no such topic: it was not given when the node started.
    #[error("{topic:?} is no topic of this node")]
    UnknownTopic {
        /// The topic as given.
        topic: String,
    },
    /// The body is empty. Empty messages stand for dropped ones in the library, and are never handled.
    #[error("a message on a topic has one byte or more")]
    Empty,
    /// The body is longer than the topic allows.
    #[error("the message has {bytes} bytes, {max} are allowed")]
    TooLarge {
        /// Length of the body, in bytes.
        bytes: usize,
        /// Largest length that the topic allows, in bytes.
        max: usize,
    },
    /// A message with the same ID was published or heard within the last two minutes.
    #[error("the same message was published or heard a short while ago")]
    Duplicate,
    /// A local queue or bound was full. The message was dropped and counted, and may be tried again later.
    #[error("too much is waiting to be published")]
    Full,
    /// The libp2p side does not run, or the node has stopped.
    #[error("the libp2p side of the node does not run")]
    Closed,
}
