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
//! * The bytes of a vote packed against earlier ones are those of its references, so links with the same ones share them.
//! * Votes are referred for a few at a time, because the tables that do it are locked meanwhile. Everything else, such as
//!   reading a vote that no other link has read, is done before or after.
//! * A vote that cannot be packed goes as it is, whole, between the packed ones. It ends nothing: existing nodes stop
//!   packing against earlier votes for it, and anybody could make all nodes do that (S-4).
//! * The first vote of a peer that cannot be unpacked ends the packing against earlier votes on its link, both ways,
//!   and so does the peer's word that it could not read one. The link stays, and further votes are packed by
//!   themselves. Source: wire facts 5.2.
//! * The tables of all links have a bound. A link for which there is no room begins with the word that votes are not
//!   packed against earlier ones on it.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::{BufMut, Bytes, BytesMut};
use gossip::{
    DisconnectReason, Lane, Tag,
    wire::{
        features::Features,
        vote::{
            self, MAX_PACKED_BYTES, MAX_PLAIN_BYTES, MarkKey, References, VoteError, VotePacker,
            VoteUnpacker,
        },
    },
};

use crate::{
    budget::{ByteBudget, Reservation},
    codec::{Decoded, Decoder, Encoder, LinkCodec},
    context::Context,
    frame::{Frame, PackedVote, Stateless},
    metrics::{AbortedBy, DropReason, Metrics, PackedSum, VoteForm},
};

/// Longest message of a vote packed against earlier ones, tag included, in bytes: no value is longer than in a vote packed
/// by itself, and the bits take the place of its second byte.
const MAX_STATEFUL_BYTES: usize = Tag::BYTES + MAX_PACKED_BYTES;

/// Memory of such a message that several links share, its frame included, in bytes.
const MAX_SHARED_BYTES: usize = MAX_STATEFUL_BYTES + 128;

/// Largest number of messages whose bytes share one allocation. Chosen: half a batch of a write loop, 64 KiB at most.
const SHARED_MESSAGES: usize = 128;

/// Number of votes that are referred for together. Chosen: the processor waits for their cache lines at once, and no other
/// link waits for long.
const TOGETHER: usize = 8;

/// Largest batch after which a link keeps no memory for the next one. Chosen: a few votes.
const QUIET_MESSAGES: usize = 8;

/// The form of a vote, made once and kept with its frame if there is room for it in the budget.
fn packed<'a>(frame: &'a Frame, budget: &ByteBudget) -> Cow<'a, PackedVote> {
    if let Some(packed) = frame.packed().get() {
        return Cow::Borrowed(packed);
    }
    let packed = pack(frame, budget);
    let is_kept = match &packed {
        PackedVote::Stateless(stateless) => stateless.frame.is_charged(),
        PackedVote::Plain | PackedVote::Misleading => true,
    };
    if is_kept { Cow::Borrowed(frame.packed().get_or_init(|| packed)) } else { Cow::Owned(packed) }
}

fn pack(frame: &Frame, budget: &ByteBudget) -> PackedVote {
    let stateless = |wire: Bytes, bytes: usize| {
        let held = budget.try_reserve(bytes + size_of::<Stateless>(), Lane::Priority);
        let frame = frame.recoded(Tag::AV, wire, held);
        PackedVote::Stateless(Arc::new(Stateless::new(frame)))
    };
    if let Some(wire) = frame.came_packed() {
        // The vote's frame is charged for both of its forms.
        return stateless(wire.clone(), 0);
    }
    let plain = frame.wire().get(Tag::BYTES..).unwrap_or_default();
    let mut wire = Vec::with_capacity(Tag::BYTES + MAX_PACKED_BYTES);
    wire.extend(Tag::AV.0);
    if vote::pack(plain, &mut wire).is_ok() {
        let bytes = wire.len();
        return stateless(Bytes::from(wire), bytes);
    }
    match vote::unpack(plain, &mut wire) {
        Ok(()) => PackedVote::Misleading,
        Err(_no_vote) => PackedVote::Plain,
    }
}

/// The codec of a link to a peer with these features; `None` if votes are not packed on it.
pub(crate) fn of(context: &Context, theirs: Features) -> Option<LinkCodec> {
    let Context { features: ours, budget, vote_tables, vote_packers, mark_key, metrics, .. } =
        context;
    if !ours.stateless_votes() || !theirs.stateless_votes() {
        return None;
    }
    let agreed = ours.shared_table(theirs).map(usize::from);
    let room = agreed.and_then(|entries| {
        vote_tables.try_reserve(vote::link_bytes(entries), Lane::Priority).map(Arc::new)
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
        packer: table.and_then(|entries| vote_packers.packer(entries)),
        _room: room.clone(),
        shared: BytesMut::new(),
        spare: Vec::new(),
        budget: budget.clone(),
        mark_key: Arc::clone(mark_key),
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
    /// Memory of messages packed against earlier ones.
    shared: BytesMut,
    /// Frames of such messages that were written, for the next ones: no more than the latest batch had.
    spare: Vec<Frame>,
    budget: ByteBudget,
    mark_key: Arc<MarkKey>,
    metrics: Metrics,
}

impl Encoder for Sender {
    fn encode(&mut self, frames: &[Frame], out: &mut Vec<Frame>) {
        if self.packer.is_some() && !self.stateful.load(Ordering::Relaxed) {
            self.packer = None;
        }
        let mut sums = Sums::default();
        for (number, some) in frames.chunks(TOGETHER).enumerate() {
            self.encode_some(some, frames.len() - number * TOGETHER, out, &mut sums);
        }
        let sent = self.metrics.votes().sent();
        sent.count(VoteForm::Stateless, sums.stateless);
        sent.count(VoteForm::Stateful, sums.stateful);
    }

    fn take_back(&mut self, written: &mut Vec<Frame>) {
        self.spare.clear();
        if written.len() > QUIET_MESSAGES {
            let made = written.drain(..).filter(|frame| frame.tag() == Tag::VP);
            self.spare.extend(made.filter_map(Frame::into_spare));
        }
        written.clear();
        let has_memory = self.spare.capacity() + self.shared.capacity() > 0;
        if has_memory && self.spare.len() <= QUIET_MESSAGES {
            (self.spare, self.shared) = (Vec::new(), BytesMut::new());
        }
    }
}

/// Votes of a batch, by the form in which they are sent.
#[derive(Default)]
struct Sums {
    stateless: PackedSum,
    stateful: PackedSum,
}

impl Sender {
    /// Encodes some frames of a batch, of which `left` are left, these included.
    fn encode_some(
        &mut self,
        frames: &[Frame],
        left: usize,
        out: &mut Vec<Frame>,
        sums: &mut Sums,
    ) {
        let mut votes = [None; TOGETHER];
        let mut references = [References::default(); TOGETHER];
        if let Some(packer) = &mut self.packer {
            for (vote, frame) in votes.iter_mut().zip(frames) {
                *vote = read(frame, &self.budget, &self.mark_key);
            }
            packer.refer_all(votes.get(..frames.len()).unwrap_or(&votes), &mut references);
        }
        for (number, ((frame, vote), references)) in
            frames.iter().zip(votes).zip(references).enumerate()
        {
            if frame.tag() != Tag::AV {
                out.push(frame.clone());
                continue;
            }
            let plain = frame.wire().len();
            match (&*packed(frame, &self.budget), vote) {
                (PackedVote::Stateless(packed), Some(vote)) => {
                    let coded = self.against_earlier(packed, vote, references, left - number);
                    sums.stateful.add(plain, coded.wire().len());
                    out.push(coded);
                }
                (PackedVote::Stateless(packed), None) => {
                    sums.stateless.add(plain, packed.frame.wire().len());
                    out.push(packed.frame.clone());
                }
                (PackedVote::Plain, _) => out.push(frame.clone()),
                (PackedVote::Misleading, _) => {
                    self.metrics.dropped(DropReason::PackedVote, frame.lane());
                }
            }
        }
    }

    /// The message of a vote with these references. At most `left` follow in the same batch, this one included.
    fn against_earlier(
        &mut self,
        packed: &Stateless,
        vote: &vote::PackedVote,
        references: References,
        left: usize,
    ) -> Frame {
        let shared = if self.packer.as_ref().is_some_and(VotePacker::has_neighbours) {
            packed.shared.get_or_init(|| {
                let held = self.budget.try_reserve(MAX_SHARED_BYTES, Lane::Priority)?;
                let mut wire = Vec::with_capacity(MAX_STATEFUL_BYTES);
                wire.extend(Tag::VP.0);
                vote.write(references, &mut wire);
                Some((references, packed.frame.recoded(Tag::VP, Bytes::from(wire), Some(held))))
            })
        } else {
            packed.shared.get().unwrap_or(&None)
        };
        if let Some((same, frame)) = shared
            && *same == references
        {
            return frame.clone();
        }
        if self.shared.capacity() < MAX_STATEFUL_BYTES {
            self.shared.reserve(left.min(SHARED_MESSAGES) * MAX_STATEFUL_BYTES);
        }
        self.shared.put_slice(&Tag::VP.0);
        vote.write(references, &mut self.shared);
        let wire = self.shared.split().freeze();
        packed.frame.recoded_in(self.spare.pop(), Tag::VP, wire)
    }
}

/// The vote in a message as packers read it, once for all links. `None` if it would come out of an unpacker as another
/// one, or there is no room to keep what was read.
fn read<'a>(frame: &'a Frame, budget: &ByteBudget, key: &MarkKey) -> Option<&'a vote::PackedVote> {
    if frame.tag() != Tag::AV {
        return None;
    }
    let Cow::Borrowed(PackedVote::Stateless(stateless)) = packed(frame, budget) else {
        return None;
    };
    let read = || {
        let packed = stateless.frame.wire().slice(Tag::BYTES..);
        let vote = vote::PackedVote::read(packed, key).ok();
        vote.filter(vote::PackedVote::fits)
    };
    stateless.vote.get_or_init(read).as_ref()
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
                    self.count(VoteForm::Stateless, vote.wire.len(), wire);
                    vote.into()
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
                self.count(VoteForm::Stateful, vote.wire.len(), wire);
                vote.into()
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

    fn count(&self, form: VoteForm, plain: usize, wire: &Bytes) {
        let mut sum = PackedSum::default();
        sum.add(plain, wire.len());
        self.metrics.votes().received().count(form, sum);
    }
}

/// A vote in both forms, each with its tag, in one allocation.
struct Unpacked {
    wire: Bytes,
    packed: Bytes,
}

impl From<Unpacked> for Decoded {
    fn from(vote: Unpacked) -> Self {
        Self::Message { wire: vote.wire, packed: Some(vote.packed) }
    }
}

/// The message whose vote is packed in `payload`.
fn plain(payload: &[u8]) -> Result<Unpacked, VoteError> {
    let mut wire = Vec::with_capacity(2 * Tag::BYTES + MAX_PLAIN_BYTES + MAX_PACKED_BYTES);
    wire.extend(Tag::AV.0);
    vote::unpack(payload, &mut wire)?;
    let plain = wire.len();
    wire.extend(Tag::AV.0);
    vote::put_normal(payload, &mut wire);
    let mut wire = Bytes::from(wire);
    let packed = wire.split_off(plain);
    Ok(Unpacked { wire, packed })
}

#[cfg(test)]
mod tests {
    use gossip::wire::vote::VotePackers;

    use super::*;

    const KEY: MarkKey = MarkKey::new([0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835; MarkKey::WORDS]);

    fn sender(budget: &ByteBudget, packers: &VotePackers) -> Sender {
        Sender {
            stateful: Arc::new(AtomicBool::new(true)),
            packer: packers.packer(16),
            _room: None,
            shared: BytesMut::new(),
            spare: Vec::new(),
            budget: budget.clone(),
            mark_key: Arc::new(KEY),
            metrics: Metrics::default(),
        }
    }

    fn vote(number: u8) -> Frame {
        let parts: [&[u8]; 7] =
            [&[0, 0], &[number; 80], &[1], &[2; 32], &[3; 96], &[4; 96], &[number; 64]];
        let mut plain = Vec::new();
        vote::unpack(&parts.concat(), &mut plain).unwrap();
        Frame::control(Tag::AV, Lane::Priority, &plain)
    }

    fn encode(sender: &mut Sender, frame: &Frame) -> Frame {
        let mut out = Vec::new();
        sender.encode(std::slice::from_ref(frame), &mut out);
        out.remove(0)
    }

    fn unpack(unpacker: &mut VoteUnpacker, frame: &Frame) -> Vec<u8> {
        let (mut packed, mut plain) = (Vec::new(), Vec::new());
        unpacker.unpack(&frame.wire()[Tag::BYTES..], &mut packed).unwrap();
        vote::unpack(&packed, &mut plain).unwrap();
        plain
    }

    // Issue 10, 7.
    #[test]
    fn links_with_the_same_references_share_the_bytes_of_a_vote_and_others_have_their_own() {
        let (budget, packers) = (ByteBudget::new(1 << 20), VotePackers::default());
        let mut senders: Vec<Sender> = (0..4).map(|_| sender(&budget, &packers)).collect();
        let mut unpackers: Vec<_> = (0..4).map(|_| VoteUnpacker::new(16).unwrap()).collect();
        let links = senders.iter_mut().zip(&mut unpackers);
        for (number, (sender, unpacker)) in links.enumerate() {
            // The last link was sent nothing before.
            let before = vote(0);
            if number < 3 {
                let first = encode(sender, &before);
                assert_eq!(unpack(unpacker, &first), before.wire()[Tag::BYTES..]);
            }
        }
        let next = vote(1);
        let coded: Vec<Frame> = senders.iter_mut().map(|sender| encode(sender, &next)).collect();
        for (coded, unpacker) in coded.iter().zip(&mut unpackers) {
            assert_eq!(unpack(unpacker, coded), next.wire()[Tag::BYTES..]);
        }
        let place = |at: usize| coded[at].wire().as_ptr();
        assert_eq!(place(0), place(1));
        assert_eq!(place(1), place(2));
        assert_ne!(coded[2].wire(), coded[3].wire());
        let held = budget.used();
        assert!(held > 0);
        drop((coded, next));
        assert!(budget.used() < held, "the shared form goes with its vote");
    }

    #[test]
    fn a_link_alone_keeps_no_bytes_for_others() {
        let (budget, packers) = (ByteBudget::new(1 << 20), VotePackers::default());
        let mut sender = sender(&budget, &packers);
        let vote = vote(1);
        assert_eq!(encode(&mut sender, &vote).tag(), Tag::VP);
        assert!(budget.used() < MAX_SHARED_BYTES);
    }

    #[test]
    fn a_budget_without_room_leaves_votes_packed_by_themselves() {
        let (budget, packers) = (ByteBudget::new(0), VotePackers::default());
        let mut sender = sender(&budget, &packers);
        let coded = encode(&mut sender, &vote(1));
        assert_eq!((coded.tag(), coded.wire().len()), (Tag::AV, 373));
        assert_eq!(budget.used(), 0);
    }
}
