//! The codec of links on which votes travel packed.
//!
//! ```text
//!   vote ─▶ packed (once for all links) ─┬─▶ AV: packed by itself
//!                                        └─▶ VotePacker of the link ─▶ VP: packed against earlier votes
//!   AV, VP ─▶ VoteUnpacker of the link ─▶ vote
//! ```
//!
//! # Invariants
//!
//! * In between a vote is a plain one: it is recognized, judged and passed on as one, and each link packs it anew, in
//!   the form of that link. What the far end unpacks is that vote, byte for byte.
//! * A vote that cannot be packed goes as it is, whole, between the packed ones. It ends nothing: existing nodes stop
//!   packing against earlier votes for it, and anybody could make all nodes do that (S-4).
//! * The first vote of a peer that cannot be unpacked ends the packing against earlier votes on its link, both ways,
//!   and so does the peer's word that it could not read one. The link stays, and further votes are packed by
//!   themselves. Source: wire facts 5.2.
//! * The tables of all links have a bound. A link for which there is no room begins with the word that votes are not
//!   packed against earlier ones on it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use gossip::{
    DisconnectReason, Lane, Tag,
    wire::{
        features::Features,
        vote::{self, MAX_PACKED_BYTES, MAX_PLAIN_BYTES, VoteError, VotePacker, VoteUnpacker},
    },
};

use crate::{
    budget::{ByteBudget, Reservation},
    codec::{Decoded, Decoder, Encoder, LinkCodec},
    context::Context,
    frame::{Frame, PackedVote},
    metrics::{AbortedBy, DropReason, Metrics, PackedSum, VoteForm},
};

/// The form of a vote, made once and kept with its frame if there is room for it in the budget.
fn packed(frame: &Frame, budget: &ByteBudget) -> PackedVote {
    if let Some(packed) = frame.packed().get() {
        return packed.clone();
    }
    let plain = frame.wire().get(Tag::BYTES..).unwrap_or_default();
    let mut wire = Vec::with_capacity(Tag::BYTES + MAX_PACKED_BYTES);
    wire.extend(Tag::AV.0);
    if vote::pack(plain, &mut wire).is_err() {
        let packed = if vote::unpack(plain, &mut wire).is_ok() {
            PackedVote::Misleading
        } else {
            PackedVote::Plain
        };
        return frame.packed().get_or_init(|| packed).clone();
    }
    let fits = vote::fits(wire.get(Tag::BYTES..).unwrap_or_default());
    let wire = Bytes::from(wire);
    let held = budget.try_reserve(wire.len(), Lane::Priority);
    let is_kept = held.is_some();
    let packed = frame.recoded(Tag::AV, wire, held);
    let packed =
        if fits { PackedVote::Stateless(packed) } else { PackedVote::StatelessOnly(packed) };
    if is_kept { frame.packed().get_or_init(|| packed).clone() } else { packed }
}

/// The codec of a link to a peer with these features; `None` if votes are not packed on it.
pub(crate) fn of(context: &Context, theirs: Features) -> Option<LinkCodec> {
    let Context { features: ours, budget, vote_tables, metrics, .. } = context;
    if !ours.stateless_votes() || !theirs.stateless_votes() {
        return None;
    }
    let agreed = ours.shared_table(theirs).map(usize::from);
    let room = agreed.and_then(|entries| {
        vote_tables.try_reserve(2 * vote::state_bytes(entries), Lane::Priority).map(Arc::new)
    });
    let table = agreed.filter(|_| room.is_some());
    let opening = if table == agreed {
        None
    } else {
        metrics.votes().aborted_by(AbortedBy::Us);
        Some((Tag::VP, Bytes::from_static(&vote::ABORT)))
    };
    let stateful = Arc::new(AtomicBool::new(table.is_some()));
    let sender = Sender {
        stateful: Arc::clone(&stateful),
        packer: table.and_then(VotePacker::new),
        _room: room.clone(),
        scratch: Vec::new(),
        budget: budget.clone(),
        metrics: metrics.clone(),
    };
    let receiver = Receiver {
        stateful,
        unpacker: table.and_then(VoteUnpacker::new),
        _room: room,
        scratch: Vec::new(),
        metrics: metrics.clone(),
    };
    Some(LinkCodec { encoder: Box::new(sender), decoder: Box::new(receiver), opening })
}

/// Packs the votes of a link.
struct Sender {
    /// `true` while votes are packed against earlier ones, in both directions.
    stateful: Arc<AtomicBool>,
    packer: Option<VotePacker>,
    /// Room for the tables of both directions, until the link ends.
    _room: Option<Arc<Reservation>>,
    /// Empty between two votes; kept for its memory.
    scratch: Vec<u8>,
    budget: ByteBudget,
    metrics: Metrics,
}

impl Encoder for Sender {
    fn encode(&mut self, frames: &[Frame], out: &mut Vec<Frame>) {
        if self.packer.is_some() && !self.stateful.load(Ordering::Relaxed) {
            self.packer = None;
        }
        let (mut stateless, mut stateful) = (PackedSum::default(), PackedSum::default());
        for frame in frames {
            if frame.tag() != Tag::AV {
                out.push(frame.clone());
                continue;
            }
            let plain = frame.wire().len();
            match packed(frame, &self.budget) {
                PackedVote::Stateless(packed) => match self.stateful(&packed) {
                    Some(coded) => {
                        stateful.add(plain, coded.wire().len());
                        out.push(coded);
                    }
                    None => {
                        stateless.add(plain, packed.wire().len());
                        out.push(packed);
                    }
                },
                PackedVote::StatelessOnly(packed) => {
                    stateless.add(plain, packed.wire().len());
                    out.push(packed);
                }
                PackedVote::Plain => out.push(frame.clone()),
                PackedVote::Misleading => {
                    self.metrics.dropped(DropReason::PackedVote, frame.lane());
                }
            }
        }
        let sent = self.metrics.votes().sent();
        sent.count(VoteForm::Stateless, stateless);
        sent.count(VoteForm::Stateful, stateful);
    }
}

impl Sender {
    /// A packed vote, packed against the earlier ones of the link, if that is done.
    fn stateful(&mut self, packed: &Frame) -> Option<Frame> {
        let packer = self.packer.as_mut()?;
        self.scratch.clear();
        self.scratch.extend(Tag::VP.0);
        packer.pack(packed.wire().get(Tag::BYTES..)?, &mut self.scratch).ok()?;
        Some(packed.recoded(Tag::VP, Bytes::copy_from_slice(&self.scratch), None))
    }
}

/// Unpacks the votes of a link.
struct Receiver {
    stateful: Arc<AtomicBool>,
    unpacker: Option<VoteUnpacker>,
    _room: Option<Arc<Reservation>>,
    /// Empty between two votes; kept for its memory.
    scratch: Vec<u8>,
    metrics: Metrics,
}

impl Decoder for Receiver {
    fn decode(&mut self, tag: Tag, wire: &Bytes) -> Result<Decoded, DisconnectReason> {
        let payload = wire.get(Tag::BYTES..).unwrap_or_default();
        Ok(match tag {
            Tag::AV => match plain(payload) {
                Ok(vote) => {
                    self.count(VoteForm::Stateless, &vote, wire);
                    Decoded::Message(vote)
                }
                Err(_as_it_is) => Decoded::AsItCame,
            },
            Tag::VP => self.stateful(payload, wire),
            _ => Decoded::AsItCame,
        })
    }
}

impl Receiver {
    fn stateful(&mut self, payload: &[u8], wire: &Bytes) -> Decoded {
        let Some(unpacker) = &mut self.unpacker else { return Decoded::AsItCame };
        if payload == vote::ABORT {
            self.end(AbortedBy::Peer);
            return Decoded::Nothing;
        }
        self.scratch.clear();
        let vote = unpacker.unpack(payload, &mut self.scratch).and_then(|()| plain(&self.scratch));
        match vote {
            Ok(vote) => {
                self.count(VoteForm::Stateful, &vote, wire);
                Decoded::Message(vote)
            }
            Err(error) => {
                tracing::debug!(%error, "a packed vote cannot be read");
                self.metrics.dropped(DropReason::PackedVote, Lane::Priority);
                self.end(AbortedBy::Us);
                Decoded::Answer(Tag::VP, Bytes::from_static(&vote::ABORT))
            }
        }
    }

    /// Ends the packing against earlier votes, in both directions.
    fn end(&mut self, by: AbortedBy) {
        self.unpacker = None;
        self.stateful.store(false, Ordering::Relaxed);
        self.metrics.votes().aborted_by(by);
    }

    fn count(&self, form: VoteForm, vote: &Bytes, wire: &Bytes) {
        let mut sum = PackedSum::default();
        sum.add(vote.len(), wire.len());
        self.metrics.votes().received().count(form, sum);
    }
}

/// The message whose vote is packed in `payload`.
fn plain(payload: &[u8]) -> Result<Bytes, VoteError> {
    let mut wire = Vec::with_capacity(Tag::BYTES + MAX_PLAIN_BYTES);
    wire.extend(Tag::AV.0);
    vote::unpack(payload, &mut wire)?;
    Ok(Bytes::from(wire))
}
