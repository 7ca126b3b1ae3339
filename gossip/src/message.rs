//! Messages as an application sees them.

use bytes::Bytes;

use crate::{
    Instant,
    identity::Identity,
    peer::{LinkId, Transport},
    tag::Tag,
    wire::topics::Topics,
};

/// The peers a message is meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipients {
    /// Every connected peer.
    All,
    /// Every connected peer but the one it came from.
    AllExcept(LinkId),
    /// One peer.
    One(LinkId),
}

/// A message the application wants sent.
#[derive(Clone, Debug)]
pub struct Outbound {
    /// Decides the lane, the bound, the interest check and the route.
    pub tag: Tag,
    /// Body, without the tag and not compressed.
    pub body: Bytes,
    /// The peers it is meant for.
    pub to: Recipients,
}

impl Outbound {
    /// A message for every connected peer.
    pub fn new(tag: Tag, body: impl Into<Bytes>) -> Self {
        Self { tag, body: body.into(), to: Recipients::All }
    }

    /// The same message for somebody else.
    #[must_use]
    pub fn to(self, to: Recipients) -> Self {
        Self { to, ..self }
    }
}

/// A message that was heard, for the first time within the window of the duplicate filter.
#[derive(Clone, Debug)]
pub struct Inbound {
    /// Its tag, always a known one.
    pub tag: Tag,
    /// Its body, without the tag, decompressed.
    pub body: Bytes,
    /// The connected peer it came from; `None` when it was heard on a topic from a node that is not
    /// a gossip peer.
    pub from: Option<LinkId>,
    /// The identity of the node it came from, where one was proved by the time it came; over a topic, of
    /// the node that passed it on, gossip peer or not. That node need not be its author.
    pub identity: Option<Identity>,
    /// The transport it came over.
    pub transport: Transport,
    /// The time at which the last byte was read.
    pub received: Instant,
}

/// The outcome of a broadcast that was waited for: how many peers it was written to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Peers to whose connection it was written.
    pub written: usize,
    /// Peers that it was meant for and not written to: their queue was full, they left, or it aged.
    pub given_up: usize,
}

/// Why a message can never be sent, however often it is tried: the message is wrong, not the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The network has no such tag.
    #[error("{tag} is not a tag of this network")]
    UnknownTag {
        /// The tag as given.
        tag: Tag,
    },
    /// Messages of this tag belong to one connection; nodes send them by themselves.
    #[error("{tag} cannot be broadcast: it belongs to one connection")]
    HopLocal {
        /// The tag as given.
        tag: Tag,
    },
    /// The message is longer than its tag allows.
    #[error("the message has {bytes} bytes, {max} are allowed")]
    TooLarge {
        /// Length of the body, in bytes; of the compressed body, where the tag is compressed and the
        /// body does not shrink enough.
        bytes: usize,
        /// Most bytes that the tag allows, counted as `bytes` is.
        max: usize,
    },
}

/// Why a broadcast that is waited for was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeliveryError {
    /// The message can never be sent.
    #[error(transparent)]
    Refused(#[from] SubmitError),
    /// A local queue is at its bound; the message was dropped and counted. It may be tried again later.
    #[error("too much is waiting to be sent")]
    Full,
    /// The node has shut down, perhaps while the broadcast was waited for; no later submission can
    /// succeed.
    #[error("the node has stopped")]
    Closed,
}

/// A request to one peer: topics without the nonce, which is added on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The topics of the request.
    pub topics: Topics,
}

/// The answer to a request: its topics without the request hash, which was used on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The topics of the answer.
    pub topics: Topics,
}

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The peer is not, or no longer, connected.
    #[error("peer {peer} is not connected")]
    NotConnected {
        /// The peer asked.
        peer: LinkId,
    },
    /// The request is longer than the bound of its tag.
    #[error("the request has {bytes} bytes, {max} are allowed")]
    TooLarge {
        /// Length of the encoded request.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// The queue to the peer is full, or too many requests to it are waiting.
    #[error("too much is waiting to be sent to peer {peer}")]
    Full {
        /// The peer asked.
        peer: LinkId,
    },
    /// No answer came in time.
    #[error("peer {peer} did not answer in time")]
    TimedOut {
        /// The peer asked.
        peer: LinkId,
    },
}
