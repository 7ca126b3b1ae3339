//! From a message to its frame: tag and body, compressed and hashed at most once.
//!
//! Runs on the caller's thread, so that compressing a proposal of megabytes delays its sender and
//! nobody's votes.

use bytes::Bytes;
use gossip::{
    Compression, Forwarding, MAX_MESSAGE_BYTES, SubmitError, Tag, TagRule, TagTable,
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
pub(crate) fn gossip_rule(table: &TagTable, tag: Tag) -> Result<&'static TagRule, SubmitError> {
    let rule = table.rule(tag).ok_or(SubmitError::UnknownTag { tag })?;
    match rule.forwarding {
        Forwarding::Gossip => Ok(rule),
        Forwarding::HopLocal => Err(SubmitError::HopLocal { tag }),
    }
}

/// Wire length, tag included, up to which a message is sent even to a peer that has it. Source: wire facts 2.3.
pub(crate) const MAX_UNSUPPRESSED_BYTES: usize = 5_000;

/// The digest by which a peer may say that it has a message of this body and wire length already. Only long messages have
/// one. A long body that is short on the wire has none, because its digest would change nothing, and hashing what a few
/// bytes became would take ten times as long as all the rest.
pub(crate) fn digest(tag: Tag, body: &[u8], wire_bytes: usize) -> Option<Digest> {
    let is_long = body.len() >= MIN_DIGEST_BODY_BYTES && wire_bytes > MAX_UNSUPPRESSED_BYTES;
    is_long.then(|| Digest::of(tag, body))
}

/// Encodes a message and charges it to the budget; `None` when the budget has no room for it.
pub(crate) fn encode(
    rule: &TagRule,
    body: &Bytes,
    origin: Origin,
    budget: &ByteBudget,
) -> Result<Option<Frame>, SubmitError> {
    let payload = match rule.compression {
        Compression::None => body.clone(),
        Compression::Zstd => {
            within(body.len(), proposal::MAX_DECOMPRESSED)?;
            Bytes::from(proposal::compress(body))
        }
    };
    within(payload.len(), rule.max_payload.min(MAX_MESSAGE_BYTES - Tag::BYTES))?;
    let len = Tag::BYTES + payload.len();
    let Some(held) = budget.try_reserve(len, rule.lane) else { return Ok(None) };
    Ok(Some(Frame::new(FrameParts {
        tag: rule.tag,
        lane: rule.lane,
        wire: joined(rule.tag, &payload),
        digest: digest(rule.tag, body, len),
        origin,
        sender: None,
        held: Some(held),
    })))
}

/// Encodes a message of one connection, such as a request, and charges it to the budget.
///
/// # Errors
///
/// [`DropReason::Oversized`] when the payload is longer than its tag allows, [`DropReason::BudgetFull`] when
/// the budget has no room for it.
pub(crate) fn direct(
    rule: &TagRule,
    payload: &[u8],
    budget: &ByteBudget,
) -> Result<Frame, DropReason> {
    let len = Tag::BYTES + payload.len();
    if payload.len() > rule.max_payload || len > MAX_MESSAGE_BYTES {
        return Err(DropReason::Oversized);
    }
    let held = budget.try_reserve(len, rule.lane).ok_or(DropReason::BudgetFull)?;
    Ok(Frame::new(FrameParts {
        tag: rule.tag,
        lane: rule.lane,
        wire: joined(rule.tag, payload),
        digest: None,
        origin: Origin::Own,
        sender: None,
        held: Some(held),
    }))
}

/// Tag and payload in one piece.
pub(crate) fn joined(tag: Tag, payload: &[u8]) -> Bytes {
    let mut wire = Vec::with_capacity(Tag::BYTES + payload.len());
    wire.extend_from_slice(&tag.0);
    wire.extend_from_slice(payload);
    Bytes::from(wire)
}

fn within(bytes: usize, max: usize) -> Result<(), SubmitError> {
    if bytes > max { Err(SubmitError::TooLarge { bytes, max }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use gossip::NetworkProfile;

    use super::*;

    fn encoded(tag: Tag, len: usize) -> Result<Frame, SubmitError> {
        let rule = gossip_rule(&NetworkProfile::TANDEM.tags, tag).unwrap();
        let budget = ByteBudget::new(20_000_000);
        let frame = encode(rule, &Bytes::from(vec![7; len]), Origin::Own, &budget)?;
        Ok(frame.expect("the budget has room"))
    }

    #[test]
    fn a_body_at_the_bound_of_its_tag_is_sent_and_one_byte_more_is_not() {
        assert_eq!(encoded(Tag::AV, 1_228).unwrap().wire().len(), 1_230);
        let refused = |tag, len| encoded(tag, len).unwrap_err();
        let too_large = |bytes, max| SubmitError::TooLarge { bytes, max };
        assert_eq!(refused(Tag::AV, 1_229), too_large(1_229, 1_228));
        assert!(encoded(Tag::VB, MAX_MESSAGE_BYTES - Tag::BYTES).is_ok());
        let longest = MAX_MESSAGE_BYTES - Tag::BYTES;
        assert_eq!(refused(Tag::VB, MAX_MESSAGE_BYTES), too_large(MAX_MESSAGE_BYTES, longest));
        let longest = proposal::MAX_DECOMPRESSED;
        assert_eq!(refused(Tag::PP, longest + 1), too_large(longest + 1, longest));
    }

    #[test]
    fn a_proposal_is_compressed_and_its_digest_is_of_what_it_was() {
        let frame = encoded(Tag::PP, 100_000).unwrap();
        assert!(frame.wire().len() < 1_000);
        assert_eq!(frame.digest(), None, "no peer is spared so short a message");
        // A generator's numbers do not shrink.
        let numbers = (1..10_000_u64).flat_map(|number| {
            number.wrapping_mul(0xbf58_476d_1ce4_e5b9).wrapping_pow(3).to_be_bytes()
        });
        let body = Bytes::from_iter(numbers);
        let rule = gossip_rule(&NetworkProfile::ALGORAND.tags, Tag::PP).unwrap();
        let budget = ByteBudget::new(20_000_000);
        let frame = encode(rule, &body, Origin::Own, &budget).unwrap().unwrap();
        assert_eq!(frame.digest(), Some(&Digest::of(Tag::PP, &body)));
        assert_eq!(encoded(Tag::TX, 4_999).unwrap().digest(), None);
    }

    #[test]
    fn an_application_cannot_send_what_belongs_to_a_connection() {
        let refused = |tag| gossip_rule(&NetworkProfile::TANDEM.tags, tag).unwrap_err();
        for tag in [Tag::MI, Tag::MS, Tag::NI, Tag::NP, Tag::TS, Tag::UE, Tag::VP] {
            assert_eq!(refused(tag), SubmitError::HopLocal { tag });
        }
        let unknown = Tag(*b"ZZ");
        assert_eq!(refused(unknown), SubmitError::UnknownTag { tag: unknown });
    }
}
