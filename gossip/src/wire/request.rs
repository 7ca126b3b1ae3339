//! UE and TS: what ties an answer to its request.
//!
//! The request carries a nonce as its last topic, so that no two are alike; the answer carries a hash
//! of the whole request, as it was received, as its last topic.
//!
//! # Invariants
//!
//! * The key of a request is a function of its bytes: both ends compute it, nobody sends it.
//! * An answer has one request hash, ours, whatever topics it is made from.

use bytes::Bytes;

use super::{
    digest::hash,
    topics::{MAX_TOPICS, Topics, TopicsError},
    varint,
};

/// Most topics an application may put into a request or an answer: one is added on the way.
pub const MAX_OWN_TOPICS: usize = MAX_TOPICS - 1;

/// Key of the nonce. Source: wire facts 4.2.
const NONCE: &str = "nonce";

/// Key of the request hash. Source: wire facts 4.2.
const REQUEST_HASH: &str = "RequestHash";

/// Names a request of one connection, among those that wait for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestKey(pub u64);

impl RequestKey {
    /// The key of a request, from its payload as it travels, without the tag.
    #[must_use]
    pub fn of(payload: &[u8]) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = hash(payload);
        Self(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
    }
}

/// The payload of a request. No two requests of one connection may share a nonce; the first is 1.
#[must_use]
pub fn seal(topics: &Topics, nonce: u64) -> Bytes {
    topics.clone().with(NONCE, varint::padded(nonce).to_vec()).encode()
}

/// The payload of the answer to the request with this key.
///
/// A request hash among `topics` is left out, since a reader would take it for ours: an answer passed
/// on from another node brings one.
#[must_use]
pub fn answer(mut topics: Topics, key: RequestKey) -> Bytes {
    topics.remove(REQUEST_HASH);
    topics.with(REQUEST_HASH, varint::padded(key.0).to_vec()).encode()
}

/// Reads an answer: which request it is for, and its topics without the request hash.
///
/// The key is `None` when it is missing or unreadable; such an answer belongs to no request.
///
/// # Errors
///
/// [`TopicsError`] when the payload is not a list of topics.
pub fn open_answer(payload: &Bytes) -> Result<(Option<RequestKey>, Topics), TopicsError> {
    let mut topics = Topics::decode(payload)?;
    let number = topics.get(REQUEST_HASH).and_then(|data| varint::get(data));
    topics.remove(REQUEST_HASH);
    Ok((number.map(|(key, _)| RequestKey(key)), topics))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_answer_passed_on_gets_the_hash_of_our_request() {
        let theirs = Topics::decode(&answer(Topics::new().with("a", "1"), RequestKey(1))).unwrap();
        let ours = answer(theirs, RequestKey(2));
        let opened = open_answer(&ours).unwrap();
        assert_eq!(opened, (Some(RequestKey(2)), Topics::new().with("a", "1")));
    }

    #[test]
    fn an_answer_with_a_broken_hash_belongs_to_no_request() {
        for broken in [&b""[..], &[0x80], &[0xff; 11]] {
            let payload = Topics::new().with(REQUEST_HASH, broken.to_vec()).encode();
            assert_eq!(open_answer(&payload), Ok((None, Topics::new())));
        }
        assert_eq!(open_answer(&Topics::new().encode()), Ok((None, Topics::new())));
    }

    #[test]
    fn a_request_with_every_topic_allowed_can_be_read() {
        let topics: Topics = (0..MAX_OWN_TOPICS).map(|_| ("k", "v")).collect();
        assert!(Topics::decode(&seal(&topics, u64::MAX)).is_ok());
    }

    proptest! {
        #[test]
        fn every_answer_finds_its_request(key: u64, nonce: u64, data: Vec<u8>) {
            let topics = Topics::new().with("blob", data);
            let request = seal(&topics, nonce);
            prop_assert!(RequestKey::of(&request) != RequestKey::of(&seal(&topics, !nonce)));
            let payload = answer(topics.clone(), RequestKey(key));
            prop_assert_eq!(open_answer(&payload), Ok((Some(RequestKey(key)), topics)));
        }

        #[test]
        fn no_bytes_cause_a_panic(bytes: Vec<u8>) {
            let _: Result<_, _> = open_answer(&Bytes::from(bytes));
        }
    }
}
