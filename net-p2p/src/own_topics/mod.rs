//! Topics that are an application's own: published and heard over libp2p only, under no tag.
//!
//! ```text
//!   peers ──▶ GossipSub, by the policy of the topic ──▶ swarm task ──▶ [pool] ──▶ validator ──▶ passed on
//!                                                                        └──▶ observers, handler
//!   publish ──▶ [publications] ──▶ GossipSub ──▶ stamp: signs, or leaves the author out ──▶ peers
//! ```
//!
//! # Invariants
//!
//! * The set of topics is fixed when the network starts: peers tell their subscriptions once, and those to unknown topics
//!   are refused.
//! * A message that breaks the signing policy of its topic is handed to nobody, and is held against the peer that
//!   passed it on.

mod names;
mod policy;
mod pool;
mod stamp;

use std::{fmt, sync::Arc};

use gossip::{Handler, TopicInbound, Validator};

pub use self::names::TopicError;
pub(crate) use self::{
    names::check,
    policy::TopicPolicies,
    pool::{EndLinks, Heard, TopicPool},
    stamp::Stamp,
};
use crate::pubsub::MAX_BODY_BYTES;

/// The rule by which messages of a topic are signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Signing {
    /// Each message names its author and is signed by it; others are refused. Default, as in other implementations of
    /// libp2p, which call it `StrictSign`.
    #[default]
    Strict,
    /// Messages may name an author, whom nobody can prove; signed ones are refused. This node names itself.
    Author,
    /// Messages name nobody and are not signed; others are refused. Other implementations call it `StrictNoSign`.
    None,
}

/// The rule by which a message of a topic gets its ID. Messages with one ID are one message, which is handled and passed on
/// once within two minutes. All nodes of a topic must have the same rule: they ask each other for messages by ID.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum MessageIds {
    /// Author and sequence number, as other implementations of libp2p do by default: two messages of one content differ. A
    /// message without them gets the hash of its body.
    Author,
    /// BLAKE2b-256 of the body: two messages of one content are one, whoever sends them.
    Content,
    /// A function of the application's own.
    Custom(IdFunction),
}

/// The parts of a message from which an ID can be made.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct IdParts<'a> {
    /// Peer ID of the author in bytes, where the message names one.
    pub author: Option<&'a [u8]>,
    /// Sequence number, where the message has one.
    pub sequence: Option<u64>,
    /// The body.
    pub body: &'a [u8],
}

/// A function that makes IDs of messages. It runs on the central task of the network, for each message before anything else
/// is known of it: it must be quick, and it must not panic. Of longer IDs the first 64 bytes count.
#[derive(Clone)]
pub struct IdFunction(Arc<dyn Fn(IdParts<'_>) -> Vec<u8> + Send + Sync>);

impl IdFunction {
    /// Uses `make`.
    pub fn new(make: impl Fn(IdParts<'_>) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }
}

impl fmt::Debug for IdFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdFunction")
    }
}

/// A topic of the application's own, and everything that is decided about it.
///
/// ```
/// use gossip::{TopicInbound, Verdict};
/// use tandem_net_p2p::{MessageIds, OwnTopic, Signing};
///
/// let chat = OwnTopic::new("/my-chain/chat/1")
///     .with_signing(Signing::Author)
///     .with_ids(MessageIds::Content)
///     .with_max_bytes(10_000)
///     .with_handler(|message: TopicInbound| async move {
///         println!("{:?}: {:?}", message.author, message.body);
///         Verdict::Ignore
///     });
/// assert_eq!(chat.name(), "/my-chain/chat/1");
/// ```
#[derive(Clone)]
#[must_use]
pub struct OwnTopic {
    pub(crate) name: Arc<str>,
    pub(crate) signing: Signing,
    pub(crate) ids: Option<MessageIds>,
    pub(crate) max_bytes: usize,
    pub(crate) validator: Option<Arc<dyn Validator<TopicInbound>>>,
    pub(crate) handler: Option<Arc<dyn Handler<TopicInbound>>>,
}

impl OwnTopic {
    /// Largest body that any topic takes, in bytes: what GossipSub carries, less 256 bytes around the body.
    pub const MAX_BYTES: usize = MAX_BODY_BYTES;

    /// A topic whose messages are signed, told apart by author and sequence number, accepted without a judgement and
    /// handled by nobody. `name` has 1 to 128 bytes and no control characters.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            signing: Signing::default(),
            ids: None,
            max_bytes: Self::MAX_BYTES,
            validator: None,
            handler: None,
        }
    }

    /// Sets the rule of signatures. Default: [`Signing::Strict`].
    pub const fn with_signing(mut self, signing: Signing) -> Self {
        self.signing = signing;
        self
    }

    /// Sets the rule of IDs. Default: [`MessageIds::Author`], and [`MessageIds::Content`] where messages name no author.
    pub fn with_ids(self, ids: MessageIds) -> Self {
        Self { ids: Some(ids), ..self }
    }

    /// Sets the largest body, in bytes; longer ones are refused. Default, and most: [`OwnTopic::MAX_BYTES`].
    pub const fn with_max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets the validator, which judges each message before it is passed on and handled. A rejected message is held against
    /// the peer that passed it on. Default: none, every message is accepted.
    pub fn with_validator(self, validator: impl Validator<TopicInbound>) -> Self {
        Self { validator: Some(Arc::new(validator)), ..self }
    }

    /// Sets the handler, which gets each accepted message once. Default: none, the node only passes messages on.
    pub fn with_handler(self, handler: impl Handler<TopicInbound>) -> Self {
        Self { handler: Some(Arc::new(handler)), ..self }
    }

    /// The name of the topic.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for OwnTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, signing, ids, max_bytes, .. } = self;
        f.debug_struct("OwnTopic")
            .field("name", name)
            .field("signing", signing)
            .field("ids", ids)
            .field("max_bytes", max_bytes)
            .finish_non_exhaustive()
    }
}
