//! From the bytes of a WebSocket to whole messages.
//!
//! ```text
//!   read buffer ─┬─ one frame, up to 64 KiB ───────── sliced out ─┬─▶ message
//!                ├─ pieces, larger frames ─▶ Assembly ── frozen ──┘
//!                └─ ping, close, violation ──▶ Port
//! ```
//!
//! # Invariants
//!
//! * The bound of a message's tag is checked as soon as its two bytes are known, and the bound of any
//!   message as soon as a header announces it; neither costs memory.
//! * Memory follows what has arrived: it at most doubles at a time, and beyond 64 KiB somebody has to
//!   answer for it first.
//! * A message has at most 16,384 pieces.

use std::sync::Arc;

use broadcaster::{Received, Reservation};
use bytes::{Buf, Bytes, BytesMut};
use gossip::{DisconnectReason, Lane, MAX_MESSAGE_BYTES, Tag, TagTable};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::{
    bucket::Bucket,
    frame::{self, CloseEcho, Header, Part, Role, Violation, Within, apply_mask},
    port::Port,
};

/// First room of a message that comes in pieces.
const FIRST_BYTES: usize = 16 * 1024;
/// Messages up to this length stay in the read buffer until they are whole, and are not charged to
/// the budget. Chosen: as much as a batch of the write loop.
pub(crate) const INLINE_BYTES: usize = 64 * 1024;
/// Pieces of one message. Chosen: ten times those of the largest message of an existing node, which
/// has 1,537 (wire facts 1.7).
pub(crate) const MAX_FRAGMENTS: u32 = 16_384;

/// Takes messages out of a stream of bytes.
#[derive(Debug)]
pub(crate) struct Decoder {
    role: Role,
    tags: TagTable,
    port: Arc<Port>,
    /// What was read and not looked at.
    buffer: BytesMut,
    /// The data frame whose payload is being moved to `assembly`.
    open: Option<OpenFrame>,
    /// The message that is being put together.
    assembly: Option<Assembly>,
    controls: Bucket,
}

#[derive(Debug)]
struct OpenFrame {
    remaining: usize,
    mask: [u8; 4],
    /// How much of the payload has been moved.
    offset: usize,
    part: Part,
}

#[derive(Debug, Default)]
struct Assembly {
    bytes: BytesMut,
    fragments: u32,
    /// Bytes charged to the budget.
    charged: usize,
    held: Option<Reservation>,
}

/// What became of the bytes that are there.
#[derive(Debug)]
pub(crate) enum Step {
    /// A whole message.
    Message(Received),
    /// Something was taken out of the buffer; there may be more.
    Progress,
    /// More bytes are needed.
    Hungry,
    /// The message goes on only once so much of the budget is charged for it.
    Charge(usize, Lane),
}

/// Where the next bytes belong.
#[derive(Debug)]
pub(crate) enum Space<'a> {
    /// Anything may come.
    Buffer(&'a mut BytesMut),
    /// So many bytes of a large message, to be handed to [`Decoder::arrived`].
    Message(&'a mut BytesMut, usize),
}

impl Decoder {
    /// A decoder for one connection, of which `early` has been read already.
    pub(crate) fn new(
        role: Role,
        tags: TagTable,
        port: Arc<Port>,
        (early, now): (BytesMut, Instant),
    ) -> Self {
        let (open, assembly, controls) = (None, None, Bucket::new(now));
        Self { role, tags, port, buffer: early, open, assembly, controls }
    }

    /// Does what can be done with the bytes that are there, which came at the latest `now`.
    ///
    /// # Errors
    ///
    /// Why the connection ends. What the peer is to be told is in the port.
    pub(crate) fn step(&mut self, now: Instant) -> Result<Step, DisconnectReason> {
        if self.open.is_some() {
            return self.continue_frame();
        }
        let within = if self.assembly.is_some() { Within::Message } else { Within::Nothing };
        let header = frame::read_header(&self.buffer, self.role, within)
            .map_err(|violation| self.violated(violation))?;
        match header {
            None => Ok(Step::Hungry),
            Some(header) => match header.opcode {
                OpCode::Control(kind) => self.control(kind, &header, now),
                OpCode::Data(kind) => self.begin_frame(kind, &header),
            },
        }
    }

    /// Whether a message, or a frame, has begun and not ended.
    pub(crate) fn is_within_message(&self) -> bool {
        self.assembly.is_some() || !self.buffer.is_empty()
    }

    /// Takes what was charged for the message that is being put together, in place of what was before.
    pub(crate) fn charged(&mut self, bytes: usize, held: Reservation) {
        if let Some(assembly) = &mut self.assembly {
            (assembly.held, assembly.charged) = (Some(held), bytes);
        }
    }

    /// Where the next bytes are to be read to. A large message is read to where it belongs.
    pub(crate) fn space(&mut self) -> Space<'_> {
        match (&self.open, &mut self.assembly) {
            // The first two bytes are judged before there is more of the message.
            (Some(open), Some(Assembly { bytes, .. }))
                if self.buffer.is_empty() && bytes.len() >= Tag::BYTES =>
            {
                match open.remaining.min(bytes.capacity() - bytes.len()) {
                    0 => Space::Buffer(&mut self.buffer),
                    room => Space::Message(bytes, room),
                }
            }
            _ => Space::Buffer(&mut self.buffer),
        }
    }

    /// The last `count` bytes of the message that is being put together were read just now.
    pub(crate) fn arrived(&mut self, count: usize) {
        let (Some(open), Some(Assembly { bytes, .. })) = (&mut self.open, &mut self.assembly)
        else {
            return;
        };
        let at = bytes.len().saturating_sub(count);
        if let Some(arrived) = bytes.get_mut(at..) {
            apply_mask(arrived, open.mask, open.offset);
        }
        (open.offset, open.remaining) = (open.offset + count, open.remaining - count);
    }

    /// Ends the connection for a rule of the frame level.
    fn violated(&self, violation: Violation) -> DisconnectReason {
        self.port.close(violation.close_payload());
        match violation {
            Violation::TooBig => DisconnectReason::Oversized,
            _ => DisconnectReason::Protocol,
        }
    }

    fn control(
        &mut self,
        kind: Control,
        header: &Header,
        now: Instant,
    ) -> Result<Step, DisconnectReason> {
        // A control frame has at most 125 bytes: the header was refused otherwise.
        let end = header.size + usize::try_from(header.len).unwrap_or(usize::MAX);
        if self.buffer.len() < end {
            return Ok(Step::Hungry);
        }
        let mut payload = self.buffer.split_to(end);
        payload.advance(header.size);
        apply_mask(&mut payload, header.mask, 0);
        if kind == Control::Close {
            return Err(match frame::read_close(&payload) {
                Ok(CloseEcho(echo)) => {
                    self.port.close(echo);
                    DisconnectReason::RemoteClosed
                }
                Err(violation) => self.violated(violation),
            });
        }
        if !self.controls.take(now) {
            return Err(DisconnectReason::Flood);
        }
        if kind == Control::Ping {
            self.port.pong(Bytes::copy_from_slice(&payload));
        }
        Ok(Step::Progress)
    }

    fn begin_frame(&mut self, kind: Data, header: &Header) -> Result<Step, DisconnectReason> {
        let before = self.assembly.as_ref().map_or(0, |assembly| assembly.bytes.len());
        let len = usize::try_from(header.len)
            .ok()
            .filter(|len| before.saturating_add(*len) <= MAX_MESSAGE_BYTES)
            .ok_or_else(|| self.violated(Violation::TooBig))?;
        let is_last = header.part == Part::Last;
        if kind == Data::Text || is_last && before + len < Tag::BYTES {
            return Err(DisconnectReason::Protocol);
        }
        if self.assembly.is_none() && is_last && len <= INLINE_BYTES {
            return self.whole_message(header, len);
        }
        self.buffer.advance(header.size);
        let assembly = self.assembly.get_or_insert_default();
        assembly.fragments += 1;
        if assembly.fragments > MAX_FRAGMENTS {
            return Err(DisconnectReason::Protocol);
        }
        let Header { mask, part, .. } = *header;
        self.open = Some(OpenFrame { remaining: len, mask, offset: 0, part });
        self.admit_assembly()?;
        Ok(Step::Progress)
    }

    /// A message of one frame, which stays in the read buffer until all of it is there.
    fn whole_message(&mut self, header: &Header, len: usize) -> Result<Step, DisconnectReason> {
        let payload = self.buffer.get(header.size..).unwrap_or_default();
        let Some(&[a, b]) = payload.first_chunk() else { return Ok(Step::Hungry) };
        let tag = Tag([a ^ header.mask[0], b ^ header.mask[1]]);
        self.admit(tag, len)?;
        if payload.len() < len {
            return Ok(Step::Hungry);
        }
        self.buffer.advance(header.size);
        let mut wire = self.buffer.split_to(len);
        apply_mask(&mut wire, header.mask, 0);
        Ok(Step::Message(Received { tag, wire: wire.freeze(), held: None }))
    }

    /// Moves what there is of the open frame to the assembly.
    fn continue_frame(&mut self) -> Result<Step, DisconnectReason> {
        let remaining = self.open.as_ref().map_or(0, |open| open.remaining);
        let ready = remaining.min(self.buffer.len());
        if ready > 0 {
            if let Some(step) = self.make_room(ready) {
                return Ok(step);
            }
            if let Some(assembly) = &mut self.assembly {
                assembly.bytes.extend_from_slice(self.buffer.get(..ready).unwrap_or_default());
                self.buffer.advance(ready);
            }
            self.arrived(ready);
            self.admit_assembly()?;
        }
        if ready < remaining {
            // What comes next is read into the assembly itself.
            return Ok(self.make_room(1).unwrap_or(Step::Hungry));
        }
        match self.open.take() {
            Some(OpenFrame { part: Part::Last, .. }) => self.assembled(),
            _ => Ok(Step::Progress),
        }
    }

    fn assembled(&mut self) -> Result<Step, DisconnectReason> {
        let Assembly { bytes, held, .. } = self.assembly.take().unwrap_or_default();
        let tag = tag_of(&bytes).ok_or(DisconnectReason::Protocol)?;
        Ok(Step::Message(Received { tag, wire: bytes.freeze(), held }))
    }

    /// Sees to it that the assembly has room for `more` bytes, or says what that takes.
    fn make_room(&mut self, more: usize) -> Option<Step> {
        let (open, assembly) = (self.open.as_ref()?, self.assembly.as_mut()?);
        let needed = assembly.bytes.len() + more;
        if needed <= assembly.bytes.capacity() {
            return None;
        }
        let limit = match open.part {
            Part::Last => assembly.bytes.len() + open.remaining,
            Part::More => MAX_MESSAGE_BYTES,
        };
        let capacity = needed.max(2 * assembly.bytes.len()).max(FIRST_BYTES).min(limit);
        if capacity > INLINE_BYTES && capacity > assembly.charged {
            let rule = tag_of(&assembly.bytes).and_then(|tag| self.tags.rule(tag));
            return Some(Step::Charge(capacity, rule.map_or(Lane::Bulk, |rule| rule.lane)));
        }
        assembly.bytes.reserve(capacity - assembly.bytes.len());
        None
    }

    /// Checks the message that is being put together, as far as its headers announce it.
    fn admit_assembly(&self) -> Result<(), DisconnectReason> {
        let (Some(open), Some(assembly)) = (&self.open, &self.assembly) else { return Ok(()) };
        match tag_of(&assembly.bytes) {
            Some(tag) => self.admit(tag, assembly.bytes.len() + open.remaining),
            None => Ok(()),
        }
    }

    /// Checks a message of `len` bytes against the bound of its tag. Unknown ones may have any length.
    fn admit(&self, tag: Tag, len: usize) -> Result<(), DisconnectReason> {
        let bound = self.tags.rule(tag).map_or(usize::MAX, |rule| rule.max_payload);
        if len.saturating_sub(Tag::BYTES) > bound {
            Err(DisconnectReason::Oversized)
        } else {
            Ok(())
        }
    }
}

fn tag_of(message: &[u8]) -> Option<Tag> {
    message.first_chunk().map(|tag| Tag(*tag))
}

#[cfg(test)]
mod tests;
