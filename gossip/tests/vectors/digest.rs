//! Digests and their filter against the recordings of existing nodes.

use crate::support;
use std::num::NonZeroUsize;

use bytes::Bytes;
use serde_json::Value;
use tandem_gossip::{
    NetworkProfile, Tag,
    wire::{
        digest::{self, Digest, DigestFilter, Novelty},
        request::RequestKey,
    },
};

/// The payload of a case, which is given as bytes or as a rule in words.
fn payload(case: &Value) -> Bytes {
    let len = support::size(case, "payload_len");
    let payload = match case["payload_rule"].as_str() {
        None => support::bytes(case, "payload"),
        Some(rule) if rule.ends_with("zero bytes") => vec![0; len].into(),
        Some(rule) if rule.starts_with("byte i is i mod 256") => {
            (0..=255).cycle().take(len).collect()
        }
        Some(rule) => panic!("unknown rule {rule}"),
    };
    assert_eq!(payload.len(), len);
    payload
}

#[test]
fn a_digest_covers_tag_and_body() {
    support::each_case("digest", "message_digests", 42, |case| {
        let tag: Tag = support::text(case, "tag").parse().unwrap();
        let digest = Digest::of(tag, &payload(case));
        assert_eq!(digest.to_string(), support::text(case, "digest"));
        let carried = support::bytes(case, "digest");
        assert_eq!(Digest::from_payload(&carried), Some(digest));
    });
}

#[test]
fn a_hash_is_the_truncated_one_with_its_own_start() {
    support::each_case("digest", "hash", 11, |case| {
        let input = support::bytes(case, "input");
        assert_eq!(digest::hash(&input), support::array(case, "digest"));
        assert_eq!(RequestKey::of(&input), RequestKey(support::number(case, "trim_u64")));
    });
}

#[test]
fn the_filter_forgets_and_promotes_as_recorded() {
    let mut operations = 0;
    support::each_case("filter", "ring", 4, |case| {
        let size = |key: &str| NonZeroUsize::new(support::size(case, key)).unwrap();
        let mut filter = DigestFilter::new(size("buckets"), size("bucket_size"));
        for operation in case["ops"].as_array().unwrap() {
            let [key, add, promote, found] = [0, 1, 2, 3].map(|i| operation[i].as_u64().unwrap());
            let mut digest = Digest([0; 32]);
            digest.0[..2].copy_from_slice(&u16::try_from(key).unwrap().to_le_bytes());
            let novelty = if found == 1 { Novelty::Known } else { Novelty::New };
            match (add, promote) {
                (0, _) => assert_eq!(filter.contains(&digest), found == 1),
                (_, 0) => assert_eq!(filter.note_once(digest), novelty),
                _ => assert_eq!(filter.note(digest), novelty),
            }
            operations += 1;
        }
    });
    assert_eq!(operations, OPERATIONS);
}

/// Operations on all four rings together.
const OPERATIONS: usize = 2960;

#[test]
fn digests_announced_by_live_nodes_have_the_length_of_one() {
    let corpus = support::json("corpus/small-messages.json");
    let messages = corpus["MS"].as_array().unwrap();
    assert_eq!(messages.len(), 42);
    for message in messages {
        assert!(Digest::from_payload(&support::bytes(message, "payload")).is_some());
    }
}

#[test]
fn small_messages_of_live_nodes_are_within_the_bounds_of_their_tags() {
    let corpus = support::json("corpus/small-messages.json");
    let mut run = 0;
    for (tag, messages) in corpus.as_object().unwrap() {
        let bound = NetworkProfile::ALGORAND.tags.rule(tag.parse().unwrap()).unwrap().max_payload;
        for message in messages.as_array().unwrap() {
            assert!(support::bytes(message, "payload").len() <= bound, "{tag}");
            run += 1;
        }
    }
    assert_eq!(run, 14 + 6 + 1 + 3 + 42);
}
