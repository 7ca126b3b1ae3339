//! Puts messages together from the bytes of a connection, whatever carries them.
//!
//! ```text
//!   bytes ─▶ [read buffer] ─┬─ up to 4 KiB, in one part ── sliced out ──────────────┬─▶ message
//!               │           └─ larger, or in parts ─▶ [unfinished] ─▶ pieces, then ─┘
//!               └─ Framing: heads, masks, what belongs to the transport
//! ```
//!
//! [`Assembler`] is a pure state machine: bytes go in; what comes out is that it needs more of them,
//! that memory has to be charged, a piece of a message, a message, or the end. [`AssembledSource`]
//! drives it over a stream of bytes. A transport brings its [`Framing`] and nothing else.
//!
//! # Invariants
//!
//! * A length is judged as soon as it is announced, and against the bound of its tag as soon as that
//!   is known. Neither costs memory.
//! * Memory follows the bytes that came: it at most doubles. Beyond [`FREE_BYTES`] of one unfinished
//!   message it is charged to the node's budget before it is taken, and all unfinished messages of a
//!   node together hold at most half of the budget.
//! * A message of more than [`INLINE_BYTES`] is charged, and has an allocation of its own. Smaller ones
//!   lie in the read buffer and share it; a buffer that they outlive is charged in full.
//! * A message comes within the time of [`AssemblyRules`], however its bytes are spread over it, and the
//!   time in which this node does not read is not counted. Waiting for the budget has a time of its own.

mod framing;
mod read_buffer;
mod source;
mod stopwatch;

use std::time::Duration;

use bytes::BytesMut;
use gossip::{DisconnectReason, Lane, MAX_MESSAGE_BYTES, Tag, TagTable};
use runtime::time::Instant;

use self::{
    read_buffer::{ReadBuffer, Room},
    stopwatch::Stopwatch,
};
use crate::{
    budget::{ByteBudget, Reservation, Stage},
    link::Received,
};

pub use self::{
    framing::{Follows, Framing, Head, LengthPrefix, PartHead},
    read_buffer::MessageMemory,
    source::AssembledSource,
};

/// Longest message that is sliced out of the read buffer, in bytes, tag included. Chosen: votes and
/// most transactions are shorter, and a slice keeps at most four times its length alive at this size.
pub(crate) const INLINE_BYTES: usize = 4 * 1024;

/// Bytes of one unfinished message that are not charged. Chosen: as much as the read
/// buffer of a busy peer, so that a connection costs at most twice that whatever its peer sends.
const FREE_BYTES: usize = 16 * 1024;

/// The bounds by which every connection of a node assembles messages. Made by
/// [`Broadcaster::assembly`](crate::Broadcaster::assembly).
#[derive(Clone, Debug)]
pub struct AssemblyRules {
    /// The tags of the network, which bound the length of each message.
    pub tags: TagTable,
    /// The budget that unfinished and large messages are charged to.
    pub budget: ByteBudget,
    /// Longest time for a message to arrive once its first byte has, counted while the node waits for its bytes. See
    /// [`Limits::message_time`](crate::Limits::message_time).
    pub message_time: Duration,
    /// Longest wait for room in the budget. See [`Limits::inbound_wait`](crate::Limits::inbound_wait).
    pub room_time: Duration,
}

/// A state machine that puts messages together from bytes. It does no I/O and reads no clock: the driver
/// hands it bytes and times, and does what each [`Step`] asks for.
#[derive(Debug)]
pub struct Assembler<F> {
    framing: F,
    rules: AssemblyRules,
    buffer: ReadBuffer,
    /// The part whose payload comes next.
    part: Option<Part>,
    /// The message that is being put together, unless all of it will lie in the read buffer.
    message: Option<Unfinished>,
    /// A charge that is due before anything goes on.
    pending: Option<Pending>,
    /// Time spent waiting for the bytes of what has begun.
    coming: Stopwatch,
    /// Time spent waiting for the budget.
    room: Stopwatch,
    heard: Instant,
}

#[derive(Debug)]
struct Part {
    remaining: usize,
    /// Bytes of its payload that were taken.
    offset: usize,
    follows: Follows,
}

#[derive(Debug, Default)]
struct Unfinished {
    bytes: Vec<u8>,
    /// Number of `bytes` that were given out as pieces.
    given: usize,
    charged: usize,
    held: Option<Reservation>,
}

#[derive(Clone, Copy, Debug)]
enum Pending {
    /// For the message that is being put together.
    Message,
    /// For the read buffer, which messages that were handed on keep alive.
    Buffer,
}

/// The demand or the result of an assembler, as [`Assembler::step`] returns it.
#[derive(Debug)]
pub enum Step {
    /// A whole message.
    Message(Received),
    /// More of a message that is not whole has come.
    Piece(Piece),
    /// Nothing goes on without more bytes, which go to [`Assembler::space`].
    Need,
    /// Nothing goes on before this is charged and handed to [`Assembler::charged`].
    Charge(Charge),
}

/// A piece of a message that is not whole yet. Pieces follow each other without a gap, and the last of
/// them ends where the message does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The tag of the message.
    pub tag: Tag,
    /// Offset in the message, in bytes, tag included.
    pub offset: usize,
    /// Length of the piece, in bytes.
    pub len: usize,
    /// Length of the whole message in bytes, tag included; `None` until it is announced.
    pub whole: Option<usize>,
}

/// A charge to the budget that the assembler needs before it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// Bytes to charge, beyond those that were charged before.
    pub bytes: usize,
    /// The lane of the message.
    pub lane: Lane,
    /// True if the message is whole.
    pub stage: Stage,
}

/// The memory for the next bytes, and the largest number to read.
#[derive(Debug)]
pub enum Space<'a> {
    /// Behind what has been read and not looked at. Its capacity is smaller while the connection is quiet: then the
    /// bytes are read elsewhere and appended, so that a connection holds no memory for bytes that may never come.
    Buffer(&'a mut BytesMut, usize),
    /// Directly in the allocation of a large message.
    Message(&'a mut Vec<u8>, usize),
}

impl<F: Framing> Assembler<F> {
    /// An assembler for one connection, of which `early` has been read already.
    #[must_use]
    pub fn new(framing: F, rules: AssemblyRules, early: BytesMut, now: Instant) -> Self {
        Self {
            framing,
            rules,
            buffer: ReadBuffer::new(early),
            part: None,
            message: None,
            pending: None,
            coming: Stopwatch::default(),
            room: Stopwatch::default(),
            heard: now,
        }
    }

    /// Does what can be done with the bytes that are there.
    ///
    /// # Errors
    ///
    /// Why the connection ends.
    pub fn step(&mut self) -> Result<Step, DisconnectReason> {
        loop {
            if self.part.is_none() && !self.next_part()? {
                return Ok(self.read_more());
            }
            if self.message.is_none() {
                return self.inline();
            }
            if let Some(step) = self.take_payload()? {
                return Ok(step);
            }
        }
    }

    /// Begins to wait, for bytes or for a charge, and says until when that makes sense. `None`: for
    /// ever, as nothing has begun.
    pub fn wait(&mut self, now: Instant) -> Option<Instant> {
        if self.pending.is_some() {
            Some(self.room.run(now, self.rules.room_time))
        } else if self.has_begun() {
            Some(self.coming.run(now, self.rules.message_time))
        } else {
            None
        }
    }

    /// Why the connection ends now that what [`Assembler::wait`] said has passed.
    #[must_use]
    pub fn overdue(&self) -> DisconnectReason {
        match self.pending {
            Some(_) => DisconnectReason::Stalled,
            None => DisconnectReason::Protocol,
        }
    }

    /// Returns the memory for the next bytes. Those of a large message go straight into its allocation.
    pub fn space(&mut self) -> Space<'_> {
        if let (Some(part), Some(Unfinished { bytes, .. })) = (&self.part, &mut self.message) {
            let room = part.remaining.min(bytes.capacity() - bytes.len());
            // The first two bytes are judged before there is more of the message.
            if self.buffer.is_empty() && bytes.len() >= Tag::BYTES && room > 0 {
                return Space::Message(bytes, room);
            }
        }
        let (bytes, room) = self.buffer.space();
        Space::Buffer(bytes, room)
    }

    /// `count` bytes were appended to the space of [`Assembler::space`], which had room for `room`.
    pub fn filled(&mut self, count: usize, room: usize, now: Instant) {
        self.heard = now;
        self.coming.stop(now);
        self.buffer.learn(count, room);
        let (Some(part), Some(message)) = (&mut self.part, &mut self.message) else { return };
        if self.buffer.is_empty() {
            let at = message.bytes.len().saturating_sub(count);
            part.unmask(&self.framing, message.bytes.get_mut(at..).unwrap_or_default());
        }
    }

    /// Hands over the reservation for the last [`Charge`], so that the assembler can go on. `now` ends the wait for
    /// room, which has a limit of its own and does not count as time of the message.
    pub fn charged(&mut self, held: Reservation, now: Instant) {
        self.room.stop(now);
        match (self.pending.take(), &mut self.message) {
            (Some(Pending::Buffer), _) => self.buffer.replace(held),
            (Some(Pending::Message), Some(message)) => {
                message.charged += held.bytes();
                message.held = Some(match message.held.take() {
                    Some(before) => before.with(held),
                    None => held,
                });
            }
            _ => {}
        }
    }

    /// Returns the bytes of a piece. Valid until the next step only.
    #[must_use]
    pub fn bytes_of(&self, piece: &Piece) -> &[u8] {
        let bytes = self.message.as_ref().map_or(&[][..], |message| &message.bytes);
        bytes.get(piece.offset..piece.offset + piece.len).unwrap_or_default()
    }

    /// Returns whether a message, or something of the transport, has begun and not ended.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.part.is_some() || self.message.is_some() || !self.buffer.is_empty()
    }

    /// Returns the time at which the last bytes came.
    #[must_use]
    pub fn heard(&self) -> Instant {
        self.heard
    }

    /// Opens the next part of a message; false if more bytes are needed for that.
    fn next_part(&mut self) -> Result<bool, DisconnectReason> {
        loop {
            match self.framing.head(self.buffer.bytes(), self.heard)? {
                Head::Incomplete => return Ok(false),
                Head::Own { bytes } => {
                    self.buffer.skip(bytes);
                    if self.message.is_none() {
                        self.coming.reset();
                    }
                }
                Head::Part(head) => {
                    self.buffer.skip(head.header);
                    self.open(&head)?;
                    return Ok(true);
                }
            }
        }
    }

    fn open(&mut self, head: &PartHead) -> Result<(), DisconnectReason> {
        let before = self.message.as_ref().map_or(0, |message| message.bytes.len());
        let whole = before.saturating_add(head.payload);
        if whole > MAX_MESSAGE_BYTES {
            return Err(DisconnectReason::Oversized);
        }
        let is_last = head.follows == Follows::Nothing;
        if is_last && whole < Tag::BYTES {
            return Err(DisconnectReason::Protocol);
        }
        let (remaining, follows) = (head.payload, head.follows);
        self.part = Some(Part { remaining, offset: 0, follows });
        if !(is_last && self.message.is_none() && head.payload <= INLINE_BYTES) {
            self.message.get_or_insert_default();
        }
        self.admit_unfinished()
    }

    /// A message that lies in the read buffer once all of it is there.
    fn inline(&mut self) -> Result<Step, DisconnectReason> {
        let len = self.part.as_ref().map_or(0, |part| part.remaining);
        let Some(mut tag) = self.buffer.bytes().first_chunk::<{ Tag::BYTES }>().copied() else {
            return Ok(self.read_more());
        };
        self.framing.unmask(&mut tag, 0);
        let tag = Tag(tag);
        let lane = self.admit(tag, len)?;
        if self.buffer.bytes().len() < len {
            return Ok(self.read_more());
        }
        let (mut wire, memory) = self.buffer.take(len, lane);
        self.framing.unmask(&mut wire, 0);
        self.part = None;
        self.start_afresh();
        Ok(Step::Message(Received { tag, wire: wire.freeze(), memory }))
    }

    /// Moves what there is of the part to its message. `None`: the part is done, and another follows.
    fn take_payload(&mut self) -> Result<Option<Step>, DisconnectReason> {
        let remaining = self.part.as_ref().map_or(0, |part| part.remaining);
        let ready = remaining.min(self.buffer.bytes().len());
        if ready > 0 {
            if let Some(charge) = self.make_room(ready) {
                return Ok(Some(charge));
            }
            if let (Some(part), Some(message)) = (&mut self.part, &mut self.message) {
                let at = message.bytes.len();
                message.bytes.extend_from_slice(&self.buffer.bytes()[..ready]);
                self.buffer.skip(ready);
                part.unmask(&self.framing, message.bytes.get_mut(at..).unwrap_or_default());
            }
            self.admit_unfinished()?;
        }
        if let Some(piece) = self.piece() {
            return Ok(Some(Step::Piece(piece)));
        }
        if ready < remaining {
            // The following bytes are read into the message itself.
            return Ok(Some(self.make_room(1).unwrap_or_else(|| self.read_more())));
        }
        match self.part.as_ref().map(|part| part.follows) {
            Some(Follows::Nothing) => self.finish().map(Some),
            _ => {
                self.part = None;
                Ok(None)
            }
        }
    }

    /// The bytes that have come since the last piece, once the tag is known.
    fn piece(&mut self) -> Option<Piece> {
        let message = self.message.as_mut()?;
        let part = self.part.as_ref()?;
        let tag = tag_of(&message.bytes)?;
        let (offset, end) = (message.given, message.bytes.len());
        message.given = end;
        let is_last = part.follows == Follows::Nothing;
        let whole = is_last.then_some(end + part.remaining);
        (offset < end).then_some(Piece { tag, offset, len: end - offset, whole })
    }

    /// Hands the message on, once all of it is charged.
    fn finish(&mut self) -> Result<Step, DisconnectReason> {
        let message = self.message.as_mut().ok_or(DisconnectReason::Protocol)?;
        let (tag, len) =
            (tag_of(&message.bytes).ok_or(DisconnectReason::Protocol)?, message.bytes.len());
        if len > INLINE_BYTES && len > message.charged {
            let bytes = len - message.charged;
            self.pending = Some(Pending::Message);
            return Ok(Step::Charge(Charge { bytes, lane: self.lane(tag), stage: Stage::Whole }));
        }
        let Unfinished { mut bytes, held, .. } = self.message.take().unwrap_or_default();
        if bytes.capacity() - len > len / 4 {
            bytes.shrink_to_fit();
        }
        let memory = match held {
            Some(held) => MessageMemory::Charged(held.whole(bytes.capacity())),
            None => MessageMemory::Uncharged,
        };
        self.part = None;
        self.start_afresh();
        Ok(Step::Message(Received { tag, wire: bytes.into(), memory }))
    }

    /// Sees to it that the message has room for `more` bytes, or says what has to be charged for that.
    fn make_room(&mut self, more: usize) -> Option<Step> {
        let (part, message) = (self.part.as_ref()?, self.message.as_mut()?);
        let len = message.bytes.len();
        let needed = len + more;
        if needed <= message.bytes.capacity() {
            return None;
        }
        let limit = match part.follows {
            Follows::Nothing => len + part.remaining,
            Follows::More => MAX_MESSAGE_BYTES,
        };
        let capacity = needed.max(2 * len).max(FREE_BYTES).min(limit);
        if capacity > FREE_BYTES && capacity > message.charged {
            let bytes = capacity - message.charged;
            let tag = tag_of(&message.bytes);
            self.pending = Some(Pending::Message);
            let lane = tag.map_or(Lane::Bulk, |tag| self.lane(tag));
            return Some(Step::Charge(Charge { bytes, lane, stage: Stage::Unfinished }));
        }
        message.bytes.reserve_exact(capacity - len);
        None
    }

    /// Asks for bytes, once there is a buffer to read them to.
    fn read_more(&mut self) -> Step {
        match self.buffer.make_room() {
            Room::Ready => Step::Need,
            Room::Pinned { bytes, lane } => {
                self.pending = Some(Pending::Buffer);
                Step::Charge(Charge { bytes, lane, stage: Stage::Whole })
            }
        }
    }

    /// Begins anew: the following bytes are another message.
    fn start_afresh(&mut self) {
        self.coming.reset();
        self.room.reset();
    }

    /// Judges the message that is being put together, as far as it is announced.
    fn admit_unfinished(&self) -> Result<(), DisconnectReason> {
        let (Some(part), Some(message)) = (&self.part, &self.message) else { return Ok(()) };
        match tag_of(&message.bytes) {
            Some(tag) => self.admit(tag, message.bytes.len() + part.remaining).map(|_lane| ()),
            None => Ok(()),
        }
    }

    /// Judges a message of `len` bytes and says what its lane is. Unknown ones may have any length, if
    /// only the budget can hold them.
    fn admit(&self, tag: Tag, len: usize) -> Result<Lane, DisconnectReason> {
        let rule = self.rules.tags.rule(tag);
        let lane = rule.map_or(Lane::Bulk, |rule| rule.lane);
        let is_long = rule.is_some_and(|rule| len.saturating_sub(Tag::BYTES) > rule.max_payload);
        let is_hopeless = len > FREE_BYTES && len > self.rules.budget.most(lane, Stage::Unfinished);
        if is_long || is_hopeless { Err(DisconnectReason::Oversized) } else { Ok(lane) }
    }

    fn lane(&self, tag: Tag) -> Lane {
        self.rules.tags.rule(tag).map_or(Lane::Bulk, |rule| rule.lane)
    }
}

impl Part {
    /// Makes the next bytes of the payload plain, and counts them.
    fn unmask(&mut self, framing: &impl Framing, bytes: &mut [u8]) {
        framing.unmask(bytes, self.offset);
        self.offset += bytes.len();
        self.remaining -= bytes.len();
    }
}

fn tag_of(message: &[u8]) -> Option<Tag> {
    message.first_chunk().map(|tag| Tag(*tag))
}

#[cfg(test)]
mod tests;
