//! The codec of links to peers that do not announce that they read compressed messages, such as pages in a browser.
//!
//! # Invariants
//!
//! * A message is decompressed once for all such links, by the first write loop that comes to it, and its plain form is charged
//!   to the budget with it. Without room there the message is dropped for these links, and counted.
//! * Only what was judged before goes out, so the bytes decompress within their bound. A decompression takes a few
//!   milliseconds at most: that of the longest proposal.

use bytes::{BufMut, BytesMut};
use gossip::{
    Compression, DisconnectReason, ProposalRule, Tag, TagTable,
    wire::{
        features::Features,
        proposal::{self, MAX_DECOMPRESSED},
    },
};

use crate::{
    budget::ByteBudget,
    codec::{Decoded, Decoder, Encoder, LinkCodec},
    context::Context,
    frame::Frame,
    metrics::{DropReason, Metrics},
};

/// The codec of a link to a peer with these features; `None` if messages go to it as they are.
pub(crate) fn of(context: &Context, theirs: Features) -> Option<LinkCodec> {
    if context.proposals == ProposalRule::AlwaysCompressed || theirs.proposal_zstd() {
        return None;
    }
    let Context { tags, budget, metrics, .. } = context;
    let encoder = Plain { tags: *tags, budget: budget.clone(), metrics: metrics.clone() };
    Some(LinkCodec { encoder: Box::new(encoder), decoder: Box::new(AsItComes), opening: None })
}

/// Sends messages without their compression.
struct Plain {
    tags: TagTable,
    budget: ByteBudget,
    metrics: Metrics,
}

impl Encoder for Plain {
    fn encode(&mut self, frames: &[Frame], out: &mut Vec<Frame>) {
        for frame in frames {
            if !self.is_compressed(frame) {
                out.push(frame.clone());
                continue;
            }
            match frame.plain().get_or_init(|| self.plain(frame)) {
                Some(plain) => out.push(plain.clone()),
                None => self.metrics.dropped(DropReason::BudgetFull, frame.lane()),
            }
        }
    }
}

impl Plain {
    fn is_compressed(&self, frame: &Frame) -> bool {
        let rule = self.tags.rule(frame.tag());
        rule.is_some_and(|rule| rule.compression == Compression::Zstd)
            && frame.wire().get(Tag::BYTES..).is_some_and(proposal::is_compressed)
    }

    /// The plain form of a compressed message; `None` if there is no room for it.
    fn plain(&self, frame: &Frame) -> Option<Frame> {
        let payload = frame.wire().slice(Tag::BYTES..);
        let announced = proposal::announced_len(&payload).and_then(|len| usize::try_from(len).ok());
        let most = announced.unwrap_or(MAX_DECOMPRESSED).min(MAX_DECOMPRESSED);
        let held = self.budget.try_reserve(Tag::BYTES + most, frame.lane())?;
        let body = proposal::decompress(&payload, most).ok()?;
        let mut wire = BytesMut::with_capacity(Tag::BYTES + body.len());
        wire.put_slice(&frame.tag().0);
        wire.put_slice(&body);
        Some(frame.recoded(frame.tag(), wire.freeze(), Some(held)))
    }
}

/// Takes messages as they come: plain ones are read by every node.
struct AsItComes;

impl Decoder for AsItComes {
    fn decode(&mut self, _tag: Tag, _wire: &bytes::Bytes) -> Result<Decoded, DisconnectReason> {
        Ok(Decoded::AsItCame)
    }
}

#[cfg(test)]
mod tests {
    use gossip::{Lane, NetworkProfile};

    use super::*;

    fn plain(budget_bytes: usize) -> Plain {
        let (tags, budget) = (NetworkProfile::TANDEM.tags, ByteBudget::new(budget_bytes));
        Plain { tags, budget, metrics: Metrics::default() }
    }

    fn proposal(body: &[u8]) -> Frame {
        Frame::control(Tag::PP, Lane::Priority, &proposal::compress(body))
    }

    fn encode(plain: &mut Plain, frame: &Frame) -> Vec<Frame> {
        let mut out = Vec::new();
        plain.encode(std::slice::from_ref(frame), &mut out);
        out
    }

    #[test]
    fn a_proposal_goes_out_plain_and_is_decompressed_once_for_all_links() {
        let mut links = [plain(20_000_000), plain(20_000_000)];
        let body = vec![7; MAX_DECOMPRESSED];
        let frame = proposal(&body);
        let [one, other] = links.each_mut().map(|link| encode(link, &frame).remove(0));
        assert_eq!(one.wire()[..Tag::BYTES], *b"PP");
        assert!(one.wire()[Tag::BYTES..] == body);
        assert_eq!(one.wire().as_ptr(), other.wire().as_ptr());
        assert!(links[0].budget.used() > MAX_DECOMPRESSED);
        drop((one, other, frame));
        assert_eq!(links[0].budget.used(), 0, "the plain form goes with its message");
    }

    #[test]
    fn other_messages_go_as_they_are() {
        let mut link = plain(0);
        let vote = Frame::control(Tag::AV, Lane::Priority, &proposal::compress(b"no proposal"));
        let raw = Frame::control(Tag::PP, Lane::Priority, b"plain already");
        for frame in [vote, raw] {
            assert_eq!(encode(&mut link, &frame)[0].wire().as_ptr(), frame.wire().as_ptr());
        }
    }

    #[test]
    fn a_proposal_without_room_is_dropped_and_counted() {
        let mut link = plain(1_000);
        assert!(encode(&mut link, &proposal(&[7; 100_000])).is_empty());
        assert_eq!(link.metrics.drops(DropReason::BudgetFull), 1);
    }
}
