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
mod tests {
    use broadcaster::ByteBudget;
    use gossip::NetworkProfile;

    use super::*;
    use crate::frame::write_frame;

    const BINARY: OpCode = OpCode::Data(Data::Binary);
    const CONTINUE: OpCode = OpCode::Data(Data::Continue);

    fn decoder() -> Decoder {
        let early = (BytesMut::new(), Instant::now());
        Decoder::new(Role::Server, NetworkProfile::TANDEM.tags, Arc::default(), early)
    }

    fn frame(part: Part, opcode: OpCode, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write_frame(&mut out, Role::Client, (part, opcode), payload);
        out
    }

    fn message(tag: &[u8], len: usize) -> Vec<u8> {
        let body = (0..len).map(|index| u8::try_from(index % 251).unwrap());
        tag.iter().copied().chain(body).collect()
    }

    /// Feeds bytes as a socket would, at most `chunk` at a time, and gives every message and the end.
    fn feed(
        decoder: &mut Decoder,
        mut bytes: &[u8],
        chunk: usize,
        budget: &ByteBudget,
    ) -> (Vec<Received>, Option<DisconnectReason>) {
        let mut messages = Vec::new();
        loop {
            match decoder.step(Instant::now()) {
                Ok(Step::Message(message)) => messages.push(message),
                Ok(Step::Progress) => {}
                Ok(Step::Charge(bytes, lane)) => {
                    decoder.charged(bytes, budget.try_reserve(bytes, lane).unwrap());
                }
                Ok(Step::Hungry) if bytes.is_empty() => return (messages, None),
                Ok(Step::Hungry) => {
                    let count = match decoder.space() {
                        Space::Buffer(buffer) => {
                            let count = chunk.min(bytes.len());
                            buffer.extend_from_slice(&bytes[..count]);
                            count
                        }
                        Space::Message(message, room) => {
                            let count = chunk.min(bytes.len()).min(room);
                            message.extend_from_slice(&bytes[..count]);
                            decoder.arrived(count);
                            count
                        }
                    };
                    bytes = &bytes[count..];
                }
                Err(reason) => return (messages, Some(reason)),
            }
        }
    }

    #[track_caller]
    fn ends(bytes: &[u8], expected: DisconnectReason, close: Option<&[u8]>) {
        for chunk in [1, 7, 100_000] {
            let (mut decoder, budget) = (decoder(), ByteBudget::new(1 << 26));
            let (messages, reason) = feed(&mut decoder, bytes, chunk, &budget);
            assert_eq!((messages.len(), reason), (0, Some(expected)));
            assert_eq!(decoder.port.take_close().as_deref(), close);
        }
    }

    #[test]
    fn a_message_is_the_same_however_it_is_cut() {
        let budget = ByteBudget::new(1 << 26);
        for len in [0, 1, 4_000, INLINE_BYTES - 2, INLINE_BYTES - 1, 200_000] {
            let whole = message(b"VB", len);
            for piece in [1_000, 4_096, 70_000, usize::MAX] {
                let mut bytes = Vec::new();
                let pieces: Vec<&[u8]> = whole.chunks(piece).collect();
                for (index, payload) in pieces.iter().enumerate() {
                    let opcode = if index == 0 { BINARY } else { CONTINUE };
                    let part = if index + 1 < pieces.len() { Part::More } else { Part::Last };
                    bytes.extend(frame(part, opcode, payload));
                }
                // Two in a row: nothing of the first may be left over.
                let bytes = bytes.repeat(2);
                for chunk in [1, 3, 1_024, 16_384, 1 << 20] {
                    let (messages, end) = feed(&mut decoder(), &bytes, chunk, &budget);
                    assert_eq!((messages.len(), end), (2, None), "{len} {piece} {chunk}");
                    for message in messages {
                        assert_eq!((message.tag, &message.wire[..]), (Tag::VB, &whole[..]));
                    }
                    assert_eq!(budget.used(), 0);
                }
            }
        }
    }

    #[test]
    fn a_large_message_is_charged_for_what_has_arrived_of_it() {
        let budget = ByteBudget::new(1 << 26);
        let whole = frame(Part::Last, BINARY, &message(b"VB", 1_000_000));
        for (sent, most) in [(50_000, 0), (150_000, 400_000), (600_000, 1_200_000)] {
            let mut decoder = decoder();
            let (messages, end) = feed(&mut decoder, &whole[..sent], 16_384, &budget);
            assert_eq!((messages.len(), end), (0, None));
            assert!(budget.used() <= most, "{sent}: {}", budget.used());
        }
        assert_eq!(budget.used(), 0);
        let (messages, _) = feed(&mut decoder(), &whole, 16_384, &budget);
        assert!(budget.used() >= 1_000_002);
        drop(messages);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn an_announced_length_takes_no_memory() {
        let mut header = vec![0x82, 0xff];
        header.extend(6_000_000_u64.to_be_bytes());
        header.extend([0, 0, 0, 0]);
        header.extend(b"VB");
        let mut decoder = decoder();
        let (messages, end) = feed(&mut decoder, &header, 100, &ByteBudget::new(0));
        assert_eq!((messages.len(), end), (0, None));
        assert!(decoder.assembly.unwrap().bytes.capacity() <= FIRST_BYTES);
    }

    #[test]
    fn a_tag_bounds_its_message_as_soon_as_it_is_known() {
        let over = message(b"AV", 1_229);
        let mut announced = frame(Part::Last, BINARY, &over);
        ends(&announced, DisconnectReason::Oversized, None);
        announced.truncate(8 + 2);
        ends(&announced, DisconnectReason::Oversized, None);
        let split =
            [frame(Part::More, BINARY, &over[..1]), frame(Part::Last, CONTINUE, &over[1..])];
        ends(&split.concat(), DisconnectReason::Oversized, None);
        let grown = [
            frame(Part::More, BINARY, &over[..1_230]),
            frame(Part::More, CONTINUE, &over[1_230..]),
        ];
        ends(&grown.concat(), DisconnectReason::Oversized, None);
    }

    #[test]
    fn pieces_together_are_bounded_like_one_frame() {
        let mut bytes = frame(Part::More, BINARY, &message(b"VB", 3 * 1024 * 1024));
        bytes.extend([0x00, 0xff]);
        bytes.extend((3 * 1024 * 1024_u64).to_be_bytes());
        bytes.extend([0; 4]);
        let (mut decoder, budget) = (decoder(), ByteBudget::new(1 << 26));
        let (_, end) = feed(&mut decoder, &bytes, 1 << 20, &budget);
        assert_eq!(end, Some(DisconnectReason::Oversized));
        assert_eq!(decoder.port.take_close().unwrap(), b"\x03\xf1"[..]);
    }

    #[test]
    fn a_message_of_too_many_pieces_is_refused_even_if_they_are_empty() {
        for piece in [&b""[..], b"x"] {
            let mut bytes = frame(Part::More, BINARY, b"VB");
            bytes.extend(frame(Part::More, CONTINUE, piece).repeat(MAX_FRAGMENTS as usize));
            let (_, end) = feed(&mut decoder(), &bytes, 16_384, &ByteBudget::new(1 << 26));
            assert_eq!(end, Some(DisconnectReason::Protocol));
        }
    }

    #[test]
    fn what_is_wrong_above_the_frames_is_not_told() {
        for bytes in [
            frame(Part::Last, OpCode::Data(Data::Text), b"TXhello"),
            frame(Part::Last, BINARY, b""),
            frame(Part::Last, BINARY, b"T"),
            [frame(Part::More, BINARY, b"T"), frame(Part::Last, CONTINUE, b"")].concat(),
        ] {
            ends(&bytes, DisconnectReason::Protocol, None);
        }
    }

    #[test]
    fn control_frames_have_a_rate() {
        let ping = frame(Part::Last, OpCode::Control(Control::Ping), b"hi");
        let now = Instant::now();
        let mut decoder = decoder();
        decoder.buffer.extend_from_slice(&ping.repeat(101));
        for _ in 0..100 {
            assert!(matches!(decoder.step(now), Ok(Step::Progress)));
        }
        assert_eq!(decoder.step(now).unwrap_err(), DisconnectReason::Flood);
        assert_eq!(decoder.port.take_urgent().pong.unwrap(), "hi");
    }

    #[test]
    fn a_close_is_answered_in_kind() {
        let close = |payload: &[u8]| frame(Part::Last, OpCode::Control(Control::Close), payload);
        ends(&close(b"\x03\xe9bye"), DisconnectReason::RemoteClosed, Some(b"\x03\xe9"));
        ends(&close(b""), DisconnectReason::RemoteClosed, Some(b""));
        let invalid: &[u8] = b"\x03\xeainvalid close code";
        ends(&close(b"\x03\xed"), DisconnectReason::Protocol, Some(invalid));
    }
}
