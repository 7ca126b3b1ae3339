//! From a message to its frame: tag and body, compressed and hashed at most once.
//!
//! Runs on the caller's thread, so that compressing a proposal of megabytes delays its sender and
//! nobody's votes.

use bytes::Bytes;
use gossip::{
    Compression, Forwarding, MAX_MESSAGE_BYTES, Tag, TagRule, TagTable,
    wire::{
        digest::{Digest, MIN_DIGEST_BODY_BYTES},
        proposal,
    },
};

use crate::{
    budget::ByteBudget,
    frame::{Frame, FrameParts, Origin},
    metrics::DropReason,
};

/// The rule of a tag that an application may send.
pub(crate) fn gossip_rule(table: &TagTable, tag: Tag) -> Option<&'static TagRule> {
    table.rule(tag).filter(|rule| rule.forwarding == Forwarding::Gossip)
}

/// The digest by which a peer may say that it has this body already; only long bodies have one.
pub(crate) fn digest(tag: Tag, body: &[u8]) -> Option<Digest> {
    (body.len() >= MIN_DIGEST_BODY_BYTES).then(|| Digest::of(tag, body))
}

/// Encodes a message and charges it to the budget.
pub(crate) fn encode(
    rule: &TagRule,
    body: &Bytes,
    origin: Origin,
    budget: &ByteBudget,
) -> Result<Frame, DropReason> {
    let payload = match rule.compression {
        Compression::None => body.clone(),
        Compression::Zstd if body.len() > proposal::MAX_DECOMPRESSED => {
            return Err(DropReason::Oversized);
        }
        Compression::Zstd => Bytes::from(proposal::compress(body)),
    };
    let len = Tag::BYTES + payload.len();
    if payload.len() > rule.max_payload || len > MAX_MESSAGE_BYTES {
        return Err(DropReason::Oversized);
    }
    let held = budget.try_reserve(len, rule.lane).ok_or(DropReason::BudgetFull)?;
    let mut wire = Vec::with_capacity(len);
    wire.extend_from_slice(&rule.tag.0);
    wire.extend_from_slice(&payload);
    Ok(Frame::new(FrameParts {
        tag: rule.tag,
        lane: rule.lane,
        wire: Bytes::from(wire),
        digest: digest(rule.tag, body),
        origin,
        held: Some(held),
    }))
}

#[cfg(test)]
mod tests {
    use gossip::NetworkProfile;

    use super::*;

    fn encoded(tag: Tag, len: usize) -> Result<Frame, DropReason> {
        let rule = gossip_rule(&NetworkProfile::TANDEM.tags, tag).unwrap();
        let budget = ByteBudget::new(20_000_000);
        encode(rule, &Bytes::from(vec![7; len]), Origin::Own, &budget)
    }

    #[test]
    fn a_body_at_the_bound_of_its_tag_is_sent_and_one_byte_more_is_not() {
        assert_eq!(encoded(Tag::AV, 1_228).unwrap().wire().len(), 1_230);
        assert_eq!(encoded(Tag::AV, 1_229).unwrap_err(), DropReason::Oversized);
        assert!(encoded(Tag::VB, MAX_MESSAGE_BYTES - Tag::BYTES).is_ok());
        assert_eq!(encoded(Tag::VB, MAX_MESSAGE_BYTES).unwrap_err(), DropReason::Oversized);
        assert_eq!(
            encoded(Tag::PP, proposal::MAX_DECOMPRESSED + 1).unwrap_err(),
            DropReason::Oversized
        );
    }

    #[test]
    fn a_proposal_is_compressed_and_its_digest_is_of_what_it_was() {
        let frame = encoded(Tag::PP, 100_000).unwrap();
        assert!(frame.wire().len() < 1_000);
        assert_eq!(frame.digest(), Some(&Digest::of(Tag::PP, &[7; 100_000])));
        assert_eq!(encoded(Tag::TX, 4_999).unwrap().digest(), None);
    }

    #[test]
    fn an_application_cannot_send_what_belongs_to_a_connection() {
        for tag in [Tag::MI, Tag::MS, Tag::NI, Tag::NP, Tag::TS, Tag::UE, Tag::VP, Tag(*b"ZZ")] {
            assert!(gossip_rule(&NetworkProfile::TANDEM.tags, tag).is_none(), "{tag}");
        }
    }
}
