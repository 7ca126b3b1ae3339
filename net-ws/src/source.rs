//! The inbound half of a WebSocket.
//!
//! ```text
//!   wire ─▶ read buffer ─┬─ whole message, up to 64 KiB ──────── sliced out ─┬─▶ Received
//!                        ├─ pieces, larger messages ─▶ Assembly ─ frozen ────┘
//!                        └─ ping, close, violation ──▶ Port ─▶ WsSink
//! ```
//!
//! # Invariants
//!
//! * The bound of a message's tag is checked as soon as its two bytes are known, and the bound of any
//!   message as soon as a header announces it; neither costs memory.
//! * Memory follows what has arrived: it at most doubles at a time, and beyond 64 KiB the node's byte
//!   budget is asked first.
//! * A message has at most 16,384 pieces and 30 s to arrive.
//! * Whatever a peer sends counts as a sign of life; without any it is pinged, then ended.
//! * A source that ended stays ended.

use std::{future::Future, io, pin::Pin, sync::Arc, time::Duration};

use broadcaster::{ByteBudget, FrameSource, Received, Reservation, SourceEnd};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use gossip::{DisconnectReason, Lane, MAX_MESSAGE_BYTES, Tag, TagTable};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::oneshot,
    time::{Instant, Sleep, sleep_until},
};
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::{
    bucket::Bucket,
    frame::{self, CloseEcho, Header, Part, Role, Violation, Within, apply_mask},
    port::Port,
};

/// What is read at a time from a busy peer. Source: architecture, "One broadcaster".
const READ_BYTES: usize = 16 * 1024;
/// What is read at a time from a quiet peer. Chosen: ten thousand idle peers take 40 MB.
const QUIET_READ_BYTES: usize = 4 * 1024;
/// Room below which the read buffer is renewed.
const MIN_READ_BYTES: usize = 1024;
/// Messages up to this length stay in the read buffer until they are whole, and are not charged to
/// the budget. Chosen: as much as a batch of the write loop.
const INLINE_BYTES: usize = 64 * 1024;
/// Pieces of one message. Source: wire facts 1.7; the largest message of an existing node has 1,537.
const MAX_FRAGMENTS: u32 = 16_384;
/// How long a message may take to arrive once it has begun. Source: threats and goals, row 9.
const MESSAGE_TIME: Duration = Duration::from_secs(30);
/// Silence after which a peer is pinged, and after which, pinged, it is given up. Source: threats and
/// goals, row 4: 60 s in all.
const QUIET_TIME: Duration = Duration::from_secs(30);

/// What the source needs of its node.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    pub(crate) tags: TagTable,
    pub(crate) budget: ByteBudget,
}

/// The inbound half of one connection.
#[derive(Debug)]
pub(crate) struct WsSource<R: AsyncRead + Unpin + Send + 'static> {
    /// `Some` until the source is dropped, which hands it to the sink.
    io: Option<R>,
    /// Takes the read half back, so that the sink can wait for the peer's last bytes.
    returns: Option<oneshot::Sender<R>>,
    role: Role,
    bounds: Bounds,
    port: Arc<Port>,
    /// What was read and not looked at.
    buffer: BytesMut,
    /// How much to read at a time.
    appetite: usize,
    /// The data frame whose payload is being moved to `assembly`.
    open: Option<OpenFrame>,
    /// The message that is being put together.
    assembly: Option<Assembly>,
    /// When the message began of which something has arrived.
    began: Option<Instant>,
    controls: Bucket,
    heard: Instant,
    pinged: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    ended: Option<DisconnectReason>,
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
enum Step {
    Message(Received),
    /// Something was taken out of the buffer; there may be more.
    Progress,
    /// More bytes are needed.
    Hungry,
    /// The message goes on only once so much of the budget is charged.
    Charge(usize, Lane),
}

impl<R: AsyncRead + Unpin + Send + 'static> WsSource<R> {
    /// A source over `io`, of which `early` has been read already. At its end the read half goes to
    /// `returns`.
    pub(crate) fn new(
        (io, early): (R, BytesMut),
        role: Role,
        bounds: Bounds,
        port: Arc<Port>,
        returns: oneshot::Sender<R>,
    ) -> Self {
        let now = Instant::now();
        Self {
            io: Some(io),
            returns: Some(returns),
            role,
            bounds,
            port,
            buffer: early,
            appetite: QUIET_READ_BYTES,
            open: None,
            assembly: None,
            began: None,
            controls: Bucket::new(now),
            heard: now,
            pinged: None,
            timer: Box::pin(sleep_until(now + QUIET_TIME)),
            ended: None,
        }
    }

    /// Ends the source for a rule of the frame level.
    fn violated(&self, violation: Violation) -> DisconnectReason {
        self.port.close(violation.close_payload());
        match violation {
            Violation::TooBig => DisconnectReason::Oversized,
            _ => DisconnectReason::Protocol,
        }
    }

    /// Does what can be done with the bytes that are there.
    fn step(&mut self) -> Result<Step, DisconnectReason> {
        if self.open.is_some() {
            return self.continue_frame();
        }
        let within = if self.assembly.is_some() { Within::Message } else { Within::Nothing };
        let header = frame::read_header(&self.buffer, self.role, within)
            .map_err(|violation| self.violated(violation))?;
        match header {
            None => Ok(Step::Hungry),
            Some(Header { opcode: OpCode::Control(kind), .. }) => self.control(kind, header),
            Some(Header { opcode: OpCode::Data(kind), .. }) => self.begin_frame(kind, header),
        }
    }

    fn control(&mut self, kind: Control, header: Option<Header>) -> Result<Step, DisconnectReason> {
        let Some(Header { mask, size, len, .. }) = header else { return Ok(Step::Hungry) };
        // A control frame has at most 125 bytes: the header was refused otherwise.
        let end = size + usize::from(len as u8);
        if self.buffer.len() < end {
            return Ok(Step::Hungry);
        }
        let mut payload = self.buffer.split_to(end).split_off(size);
        apply_mask(&mut payload, mask, 0);
        if kind == Control::Close {
            return Err(match frame::read_close(&payload) {
                Ok(CloseEcho(echo)) => {
                    self.port.close(echo);
                    DisconnectReason::RemoteClosed
                }
                Err(violation) => self.violated(violation),
            });
        }
        if !self.controls.take(Instant::now()) {
            return Err(DisconnectReason::Flood);
        }
        if kind == Control::Ping {
            self.port.pong(Bytes::copy_from_slice(&payload));
        }
        Ok(Step::Progress)
    }

    fn begin_frame(
        &mut self,
        kind: Data,
        header: Option<Header>,
    ) -> Result<Step, DisconnectReason> {
        let Some(Header { part, mask, len, size, .. }) = header else { return Ok(Step::Hungry) };
        let before = self.assembly.as_ref().map_or(0, |assembly| assembly.bytes.len());
        let len = usize::try_from(len)
            .ok()
            .filter(|len| before.saturating_add(*len) <= MAX_MESSAGE_BYTES)
            .ok_or_else(|| self.violated(Violation::TooBig))?;
        if kind == Data::Text || part == Part::Last && before + len < Tag::BYTES {
            return Err(DisconnectReason::Protocol);
        }
        if self.assembly.is_none() && part == Part::Last && len <= INLINE_BYTES {
            return self.whole_message(mask, size, len);
        }
        self.buffer.advance(size);
        let assembly = self.assembly.get_or_insert_default();
        assembly.fragments += 1;
        if assembly.fragments > MAX_FRAGMENTS {
            return Err(DisconnectReason::Protocol);
        }
        self.open = Some(OpenFrame { remaining: len, mask, offset: 0, part });
        self.admit_assembly()?;
        Ok(Step::Progress)
    }

    /// A message of one frame, which stays in the read buffer until all of it is there.
    fn whole_message(
        &mut self,
        mask: [u8; 4],
        size: usize,
        len: usize,
    ) -> Result<Step, DisconnectReason> {
        let Some(&[mut a, mut b]) = self.buffer.get(size..).and_then(|rest| rest.first_chunk())
        else {
            return Ok(Step::Hungry);
        };
        (a, b) = (a ^ mask[0], b ^ mask[1]);
        let tag = Tag([a, b]);
        self.admit(tag, len)?;
        if self.buffer.len() < size + len {
            return Ok(Step::Hungry);
        }
        self.buffer.advance(size);
        let mut wire = self.buffer.split_to(len);
        apply_mask(&mut wire, mask, 0);
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
            if let (Some(open), Some(assembly)) = (&mut self.open, &mut self.assembly) {
                let mut piece = self.buffer.split_to(ready);
                apply_mask(&mut piece, open.mask, open.offset);
                assembly.bytes.extend_from_slice(&piece);
                (open.offset, open.remaining) = (open.offset + ready, open.remaining - ready);
            }
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
        let capacity = needed.max(2 * assembly.bytes.len()).max(READ_BYTES).min(limit);
        if capacity > INLINE_BYTES && capacity > assembly.charged {
            let rule = tag_of(&assembly.bytes).and_then(|tag| self.bounds.tags.rule(tag));
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
        let bound = self.bounds.tags.rule(tag).map_or(usize::MAX, |rule| rule.max_payload);
        if len - Tag::BYTES > bound { Err(DisconnectReason::Oversized) } else { Ok(()) }
    }

    /// Charges the budget for the message that is being put together.
    async fn charge(&mut self, bytes: usize, lane: Lane) -> Result<(), SourceEnd> {
        let deadline = self.began.unwrap_or_else(Instant::now) + MESSAGE_TIME;
        let reserve = tokio::time::timeout_at(deadline, self.bounds.budget.reserve(bytes, lane));
        let Ok(held) = reserve.await else {
            return Err(SourceEnd::because(DisconnectReason::Stalled));
        };
        if let Some(assembly) = &mut self.assembly {
            (assembly.held, assembly.charged) = (Some(held), bytes);
        }
        Ok(())
    }

    /// Reads something. A large message is read into the assembly, everything else into the buffer.
    async fn fill(&mut self) -> Result<(), SourceEnd> {
        loop {
            let due = self.due();
            if due < self.timer.deadline() {
                self.timer.as_mut().reset(due);
            }
            tokio::select! {
                biased;
                read = read(&mut self.io, &mut self.buffer, Piece::of(&mut self.open, &mut self.assembly), self.appetite) => {
                    let (count, wanted) = read?;
                    if count == 0 {
                        return Err(self.end_of_stream());
                    }
                    self.appetite = if count == wanted { READ_BYTES } else { QUIET_READ_BYTES };
                    (self.heard, self.pinged) = (Instant::now(), None);
                    return Ok(());
                }
                () = &mut self.timer => self.timed_out()?,
            }
        }
    }

    /// When something has to be done though nothing was read.
    fn due(&self) -> Instant {
        let quiet = self.pinged.unwrap_or(self.heard) + QUIET_TIME;
        self.began.map_or(quiet, |began| quiet.min(began + MESSAGE_TIME))
    }

    fn timed_out(&mut self) -> Result<(), SourceEnd> {
        let now = Instant::now();
        if self.began.is_some_and(|began| now >= began + MESSAGE_TIME) {
            return Err(SourceEnd::because(DisconnectReason::Protocol));
        }
        if now >= self.pinged.unwrap_or(self.heard) + QUIET_TIME {
            if self.pinged.is_some() {
                return Err(SourceEnd::because(DisconnectReason::Silent));
            }
            self.port.ping();
            self.pinged = Some(now);
        }
        // The timer may also have been set before the peer was last heard.
        let due = self.due();
        self.timer.as_mut().reset(due);
        Ok(())
    }

    fn is_within_message(&self) -> bool {
        self.assembly.is_some() || !self.buffer.is_empty()
    }

    fn end_of_stream(&self) -> SourceEnd {
        if self.is_within_message() {
            SourceEnd::from(io::Error::from(io::ErrorKind::UnexpectedEof))
        } else {
            SourceEnd::because(DisconnectReason::RemoteClosed)
        }
    }

    async fn advance(&mut self) -> Result<Received, SourceEnd> {
        loop {
            match self.step().map_err(SourceEnd::because)? {
                Step::Message(message) => {
                    self.began = None;
                    return Ok(message);
                }
                Step::Progress => {}
                Step::Hungry => {
                    if self.is_within_message() {
                        self.began.get_or_insert_with(Instant::now);
                    }
                    self.fill().await?;
                }
                Step::Charge(bytes, lane) => self.charge(bytes, lane).await?,
            }
        }
    }
}

impl<R: AsyncRead + Unpin + Send + 'static> FrameSource for WsSource<R> {
    fn next_message(&mut self) -> impl Future<Output = Result<Received, SourceEnd>> + Send {
        async move {
            if let Some(reason) = self.ended {
                return Err(SourceEnd::because(reason));
            }
            let received = self.advance().await;
            if let Err(end) = &received {
                self.ended = Some(end.reason);
            }
            received
        }
    }
}

impl<R: AsyncRead + Unpin + Send + 'static> Drop for WsSource<R> {
    fn drop(&mut self) {
        if let (Some(io), Some(returns)) = (self.io.take(), self.returns.take()) {
            // A sink that is gone has no use for it; the connection ends here then.
            let _ = returns.send(io);
        }
    }
}

/// The part of the open frame that can be read straight to where it belongs.
struct Piece<'a> {
    open: &'a mut OpenFrame,
    bytes: &'a mut BytesMut,
}

impl<'a> Piece<'a> {
    fn of(open: &'a mut Option<OpenFrame>, assembly: &'a mut Option<Assembly>) -> Option<Self> {
        let (open, assembly) = (open.as_mut()?, assembly.as_mut()?);
        let has_room = assembly.bytes.len() < assembly.bytes.capacity();
        // The first two bytes are looked at in the buffer's way, before there is more of the message.
        let is_known = assembly.bytes.len() >= Tag::BYTES;
        (has_room && is_known).then_some(Self { open, bytes: &mut assembly.bytes })
    }
}

/// Reads once, and says how much of how much. Nothing is lost when the future is dropped.
async fn read<R: AsyncRead + Unpin>(
    io: &mut Option<R>,
    buffer: &mut BytesMut,
    piece: Option<Piece<'_>>,
    appetite: usize,
) -> io::Result<(usize, usize)> {
    let Some(io) = io else { return Ok((0, 0)) };
    let Some(Piece { open, bytes }) = piece.filter(|_| buffer.is_empty()) else {
        if buffer.capacity() - buffer.len() < MIN_READ_BYTES {
            // An unfinished message makes the buffer grow with what has arrived of it.
            buffer.reserve(appetite.max(buffer.len()));
        }
        let room = buffer.capacity() - buffer.len();
        return Ok((io.read_buf(buffer).await?, room));
    };
    let (at, room) = (bytes.len(), open.remaining.min(bytes.capacity() - bytes.len()));
    let count = io.read_buf(&mut bytes.limit(room)).await?;
    if let Some(arrived) = bytes.get_mut(at..) {
        apply_mask(arrived, open.mask, open.offset);
    }
    (open.offset, open.remaining) = (open.offset + count, open.remaining - count);
    Ok((count, room))
}

fn tag_of(message: &[u8]) -> Option<Tag> {
    message.first_chunk().map(|tag| Tag(*tag))
}
