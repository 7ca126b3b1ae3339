//! The author and the signature on this node's own messages, on their way out.
//!
//! The library has one policy for all topics: it names the author and does not sign, as the topics of existing networks
//! need it. So a message of this node for a topic with another policy is changed where its RPC is written.
//!
//! # Invariants
//!
//! * Messages of others, and those for topics of the network itself, are written as they are.
//! * A message is signed once, not once for each peer.
//! * Of a message the library has an ID by then, and no ID is made of a signature.

use std::{
    borrow::Cow,
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use libp2p::identity::Keypair;

use super::{Signing, TopicPolicies};
use crate::backlog::delimited;

/// Fields of an RPC and of its messages, by number and wire type. Source: libp2p specifications, pubsub, `rpc.proto`.
const PUBLISH: u8 = 2 << 3 | 2;
const FROM: u8 = 1 << 3 | 2;
const SEQUENCE: u8 = 3 << 3 | 2;
const TOPIC: u8 = 4 << 3 | 2;
const SIGNATURE: u8 = 5 << 3 | 2;

/// Begins every text that is signed. Source: libp2p specifications, pubsub, message signing.
const SIGNED_PREFIX: &[u8] = b"libp2p-pubsub:";

/// Signatures that are kept. Chosen: the messages that are being written to peers at one time.
const KEPT_SIGNATURES: usize = 256;

/// Stamps this node's messages by the policies of their topics. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stamp {
    /// `None` if no topic needs it.
    shared: Option<Arc<Shared>>,
}

struct Shared {
    key: Keypair,
    author: Vec<u8>,
    /// The topics whose messages are changed, by their names.
    topics: HashMap<Vec<u8>, Signing>,
    signatures: Mutex<VecDeque<(Vec<u8>, Vec<u8>)>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("topics", &self.topics).finish_non_exhaustive()
    }
}

/// A message in the form of the wire, taken apart.
#[derive(Default)]
struct Parts<'a> {
    from: &'a [u8],
    sequence: &'a [u8],
    topic: &'a [u8],
    is_signed: bool,
    /// The message without author and sequence number.
    nameless: Vec<u8>,
}

impl<'a> Parts<'a> {
    /// `None` if the message has a field of another kind, which none of this node has.
    fn of(mut message: &'a [u8]) -> Option<Self> {
        let mut parts = Self::default();
        while let Some((&tag, rest)) = message.split_first() {
            let (length, rest) = delimited(rest)?;
            let (field, after) = rest.split_at_checked(length)?;
            match tag {
                FROM => parts.from = field,
                SEQUENCE => parts.sequence = field,
                TOPIC => parts.topic = field,
                SIGNATURE => parts.is_signed = true,
                _ => {}
            }
            if !matches!(tag, FROM | SEQUENCE) {
                let whole = message.len() - after.len();
                parts.nameless.extend_from_slice(message.get(..whole)?);
            }
            message = after;
        }
        Some(parts)
    }
}

/// Appends a length as protobuf has it.
fn push_length(into: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        into.push(length.to_le_bytes()[0] | 0x80);
        length >>= 7;
    }
    into.push(length.to_le_bytes()[0]);
}

/// An RPC that publishes `message`, with its length in front.
fn rpc(message: &[u8]) -> Vec<u8> {
    let mut body = vec![PUBLISH];
    push_length(&mut body, message.len());
    let mut rpc = Vec::with_capacity(message.len() + 16);
    push_length(&mut rpc, body.len() + message.len());
    rpc.extend_from_slice(&body);
    rpc.extend_from_slice(message);
    rpc
}

/// The message of an RPC that publishes one, and nothing else.
fn published(rpc: &[u8]) -> Option<&[u8]> {
    let (length, body) = delimited(rpc)?;
    let (&PUBLISH, rest) = body.split_first()? else { return None };
    let (message, inner) = delimited(rest)?;
    (length == body.len() && message == inner.len()).then_some(inner)
}

impl Stamp {
    /// Signs with `key`.
    pub(crate) fn new(key: Keypair, policies: &TopicPolicies) -> Self {
        let changed = policies.own().filter(|(_, topic)| topic.signing != Signing::Author);
        let changed = changed.map(|(_, topic)| (topic.name().as_bytes().to_vec(), topic.signing));
        let topics: HashMap<_, _> = changed.collect();
        let author = key.public().to_peer_id().to_bytes();
        let make = |topics| Shared { key, author, topics, signatures: Mutex::default() };
        let shared = (!topics.is_empty()).then(|| Arc::new(make(topics)));
        Self { shared }
    }

    /// The RPC as it is to be written.
    pub(crate) fn stamped<'a>(&self, rpc: &'a [u8]) -> Cow<'a, [u8]> {
        let stamped = self.shared.as_ref().and_then(|shared| shared.stamped(rpc));
        stamped.map_or(Cow::Borrowed(rpc), Cow::Owned)
    }
}

impl Shared {
    /// `None` if the RPC stays as it is.
    fn stamped(&self, whole: &[u8]) -> Option<Vec<u8>> {
        let message = published(whole)?;
        let parts = Parts::of(message)?;
        let signing = *self.topics.get(parts.topic)?;
        if parts.from != self.author {
            return None;
        }
        match signing {
            Signing::Author => None,
            Signing::None => Some(rpc(&parts.nameless)),
            Signing::Strict if parts.is_signed => None,
            Signing::Strict => {
                let signature = self.signature(parts.sequence, message)?;
                let mut signed = message.to_vec();
                signed.push(SIGNATURE);
                push_length(&mut signed, signature.len());
                signed.extend_from_slice(&signature);
                Some(rpc(&signed))
            }
        }
    }

    /// The signature of a message of this node. Its sequence number tells it from all others.
    fn signature(&self, sequence: &[u8], message: &[u8]) -> Option<Vec<u8>> {
        // No code of others runs under this lock, but for the signing of a message, which takes microseconds.
        let mut signatures = self.signatures.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, signature)) = signatures.iter().rev().find(|(of, _)| of == sequence) {
            return Some(signature.clone());
        }
        let signature = self.key.sign(&[SIGNED_PREFIX, message].concat()).ok()?;
        if signatures.len() == KEPT_SIGNATURES {
            signatures.pop_front();
        }
        signatures.push_back((sequence.to_vec(), signature.clone()));
        Some(signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{own_topics::OwnTopic, tests::rpc};

    fn stamp() -> (Stamp, Keypair) {
        let key = Keypair::generate_ed25519();
        let topics = [OwnTopic::new("signed"), OwnTopic::new("nobody").with_signing(Signing::None)];
        (Stamp::new(key.clone(), &TopicPolicies::new(&topics)), key)
    }

    /// A message of `author` in the order of fields that the library writes.
    fn message(author: &[u8], topic: &str, body: &[u8]) -> Vec<u8> {
        let field = |number, bytes: &[u8]| rpc::field(number, bytes);
        let sequence = body.len().to_be_bytes();
        [field(1, author), field(2, body), field(3, &sequence), field(4, topic.as_bytes())].concat()
    }

    // Issue 11, 3.
    #[test]
    fn own_messages_are_signed_or_made_nameless_and_others_stay() {
        let (stamp, key) = stamp();
        let own = key.public().to_peer_id().to_bytes();
        for bytes in [1, 200, 100_000] {
            let body = vec![9; bytes];
            let before = message(&own, "signed", &body);
            let after = stamp.stamped(&super::rpc(&before)).into_owned();
            let signed = published(&after).unwrap();
            let (kept, signature) = signed.split_at(before.len());
            assert_eq!((kept, signature.len(), signature[0]), (&before[..], 66, SIGNATURE));
            let text = [SIGNED_PREFIX, &before].concat();
            assert!(key.public().verify(&text, &signature[2..]));
            assert_eq!(stamp.stamped(&super::rpc(&before)), after, "the next peer gets the same");
            let nameless = stamp.stamped(&super::rpc(&message(&own, "nobody", &body))).into_owned();
            let expected = [rpc::field(2, &body), rpc::field(4, b"nobody")].concat();
            assert_eq!(published(&nameless).unwrap(), expected);
        }
        let other = Keypair::generate_ed25519().public().to_peer_id().to_bytes();
        for unchanged in [message(&other, "signed", b"a"), message(&own, "tandem/tx/1", b"a")] {
            let rpc = super::rpc(&unchanged);
            assert_eq!(stamp.stamped(&rpc), Cow::Borrowed(&rpc[..]));
        }
    }

    #[test]
    fn bytes_that_are_no_message_stay() {
        let (stamp, key) = stamp();
        let own = key.public().to_peer_id().to_bytes();
        let whole = super::rpc(&message(&own, "signed", b"a"));
        for end in 0..whole.len() {
            let part = &whole[..end];
            assert_eq!(stamp.stamped(part), Cow::Borrowed(part));
        }
        let control = rpc::request(&[rpc::subscription("signed")]);
        assert_eq!(stamp.stamped(&control), Cow::Borrowed(&control[..]));
    }
}
