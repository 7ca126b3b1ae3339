//! The policies of a node's topics, as GossipSub asks for them: IDs and signatures by topic.
//!
//! # Invariants
//!
//! * A topic of the network itself has the policy of existing nodes: IDs by content, an author that nobody proves, no
//!   signature. Source: wire facts 8.6, S-2.
//! * All empty messages have one ID: they stand for excess ones (`topic_gate.rs`).

use std::{collections::HashMap, sync::Arc};

use blake2::{Blake2b, Digest, digest::consts::U32};
use libp2p::gossipsub::{Message, MessageId, RawMessage, TopicHash};

use super::{IdParts, MessageIds, OwnTopic, Signing};

/// Largest ID of a message, in bytes. Chosen: the longest hash in use; the library keeps IDs for minutes.
const MAX_ID_BYTES: usize = 64;

/// The topics of an application by their names on the wire. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct TopicPolicies {
    own: Arc<HashMap<TopicHash, Arc<OwnTopic>>>,
}

impl TopicPolicies {
    /// The policies of `own`, which have been checked.
    pub(crate) fn new(own: &[OwnTopic]) -> Self {
        let named = |topic: &OwnTopic| (TopicHash::from_raw(topic.name()), Arc::new(topic.clone()));
        Self { own: Arc::new(own.iter().map(named).collect()) }
    }

    /// The application's topics.
    pub(crate) fn own(&self) -> impl Iterator<Item = (&TopicHash, &Arc<OwnTopic>)> {
        self.own.iter()
    }

    /// An application's topic.
    pub(crate) fn of(&self, topic: &TopicHash) -> Option<&Arc<OwnTopic>> {
        self.own.get(topic)
    }

    fn signing(&self, topic: &TopicHash) -> Signing {
        self.own.get(topic).map_or(Signing::Author, |topic| topic.signing)
    }

    /// The ID of a message.
    pub(crate) fn id(&self, message: &Message) -> MessageId {
        if message.data.is_empty() {
            return MessageId::new(&[]);
        }
        let by_content = || MessageId::new(&Blake2b::<U32>::digest(&message.data));
        let Some(topic) = self.own.get(&message.topic) else { return by_content() };
        let by_author = || {
            let (author, sequence) = (message.source?, message.sequence_number?);
            // Source: go-libp2p-pubsub, `DefaultMsgIdFn`; js-libp2p has the same.
            Some(MessageId::new(&[&author.to_bytes()[..], &sequence.to_be_bytes()].concat()))
        };
        match (&topic.ids, topic.signing) {
            (Some(MessageIds::Content), _) | (None, Signing::None) => by_content(),
            (Some(MessageIds::Author) | None, _) => by_author().unwrap_or_else(by_content),
            (Some(MessageIds::Custom(function)), _) => {
                let author = message.source.map(|author| author.to_bytes());
                let id = (function.0)(IdParts {
                    author: author.as_deref(),
                    sequence: message.sequence_number,
                    body: &message.data,
                });
                MessageId::new(id.get(..MAX_ID_BYTES).unwrap_or(&id))
            }
        }
    }

    /// Checks what a message says of its author against the policy of its topic. The library has verified every signature
    /// that is there.
    ///
    /// # Errors
    ///
    /// The reason why the message is refused.
    pub(crate) fn check(&self, message: &RawMessage) -> Result<(), &'static str> {
        let is_signed = message.signature.is_some() || message.key.is_some();
        let names_author = message.source.is_some() || message.sequence_number.is_some();
        match self.signing(&message.topic) {
            Signing::Strict if message.signature.is_none() || message.source.is_none() => {
                Err("an unsigned message")
            }
            Signing::Author | Signing::None if is_signed => Err("a signed message"),
            Signing::None if names_author => Err("a message with an author"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use libp2p::PeerId;

    use super::*;
    use crate::own_topics::IdFunction;

    fn message(topic: &str, source: Option<PeerId>, body: &[u8]) -> Message {
        Message {
            source,
            data: body.to_vec(),
            sequence_number: source.map(|_| 7),
            topic: TopicHash::from_raw(topic),
        }
    }

    fn policies() -> TopicPolicies {
        let custom = IdFunction::new(|parts: IdParts<'_>| {
            vec![u8::try_from(parts.body.len()).unwrap_or(u8::MAX); parts.body.len()]
        });
        TopicPolicies::new(&[
            OwnTopic::new("signed"),
            OwnTopic::new("author").with_signing(Signing::Author),
            OwnTopic::new("nobody").with_signing(Signing::None),
            OwnTopic::new("content").with_ids(MessageIds::Content),
            OwnTopic::new("custom").with_ids(MessageIds::Custom(custom)),
        ])
    }

    // Issue 11, 3.
    #[test]
    fn each_topic_has_its_own_ids() {
        let (policies, author) = (policies(), PeerId::random());
        let id = |topic, source, body: &[u8]| policies.id(&message(topic, source, body));
        let of_author = [&author.to_bytes()[..], &7_u64.to_be_bytes()].concat();
        for topic in ["signed", "author"] {
            assert_eq!(id(topic, Some(author), b"a"), MessageId::new(&of_author), "{topic}");
        }
        let hash = MessageId::new(&Blake2b::<U32>::digest(b"a"));
        for topic in ["nobody", "content", "tandem/tx/1"] {
            assert_eq!(id(topic, Some(author), b"a"), hash, "{topic}");
        }
        assert_eq!(id("author", None, b"a"), hash, "it names nobody");
        assert_eq!(id("custom", Some(author), b"abc"), MessageId::new(&[3; 3]));
        assert_eq!(id("custom", None, &[1; 200]).0.len(), MAX_ID_BYTES);
        let empty = |topic| id(topic, Some(author), b"");
        for topic in ["signed", "nobody", "custom", "tandem/tx/1"] {
            assert_eq!(empty(topic), MessageId::new(&[]), "{topic}");
        }
    }

    // Issue 11, 3.
    #[test]
    fn messages_that_break_the_policy_of_their_topic_are_refused() {
        let policies = policies();
        let sealed = |topic: &str, author: bool, signature: bool| {
            policies.check(&RawMessage {
                source: author.then(PeerId::random),
                data: vec![1],
                sequence_number: author.then_some(7),
                topic: TopicHash::from_raw(topic),
                signature: signature.then(|| vec![1]),
                key: None,
                validated: false,
            })
        };
        assert_eq!(sealed("signed", true, true), Ok(()));
        assert_eq!(sealed("signed", true, false), Err("an unsigned message"));
        assert_eq!(sealed("signed", false, false), Err("an unsigned message"));
        for topic in ["author", "tandem/tx/1"] {
            assert_eq!(sealed(topic, true, false), Ok(()));
            assert_eq!(sealed(topic, false, false), Ok(()));
            assert_eq!(sealed(topic, true, true), Err("a signed message"));
        }
        assert_eq!(sealed("nobody", false, false), Ok(()));
        assert_eq!(sealed("nobody", true, false), Err("a message with an author"));
        assert_eq!(sealed("nobody", true, true), Err("a signed message"));
    }
}
