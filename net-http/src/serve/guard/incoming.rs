//! The bounds of requests in the bytes that a connection brings.
//!
//! ```text
//!   Head ─judged─▶ Gap ─answered, more came─▶ Head
//!     └─▶ Body, Chunks ─over─▶ Gap       any ─▶ End
//! ```
//!
//! A state machine over bytes: it neither reads nor waits, and knows no clock.
//!
//! # Invariants
//!
//! * A head is passed on only when all of it was judged, and a body only up to the length that was judged.
//! * At most [`MAX_HEAD_BYTES`] and one byte are held, whatever is sent.
//! * Heads that trickle in are judged when a line has come, not byte by byte.

use bytes::{Buf, BufMut, BytesMut, buf::Limit};

use super::{
    chunks::{BadChunk, Chunks},
    head::{self, Judged, Length},
    refusal::Refusal,
};
use crate::serve::{
    conn_state::{BodyState, Pipelined},
    limits::{MAX_HEAD_BYTES, UpgradeOffer},
};

/// The part of a request that the connection brings next.
#[derive(Debug)]
pub(super) enum Next {
    /// The head of a request.
    Head,
    /// Nothing until the answer is out, and then a head.
    Gap,
    /// So many bytes of a body.
    Body(u64),
    /// A body in chunks.
    Chunks(Chunks),
    /// Nothing that is read any more.
    End,
}

/// The state of the other side: it may send more, or has ended its half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Open,
    Over,
}

/// News since the held bytes were judged last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    None,
    Some,
}

/// The verdict about the held bytes as a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// More has to come.
    Incomplete,
    /// The head can be passed on.
    Passed(Pipelined, BodyState),
    /// The connection is to end with a refusal.
    Refused(Refusal),
}

/// The bytes of one connection that were read and not passed on, and what they belong to.
#[derive(Debug)]
pub(super) struct Incoming {
    held: BytesMut,
    /// Length of the head at the front of `held` that passed and was not taken yet.
    passed: usize,
    next: Next,
    input: Input,
    change: Change,
    upgrade: UpgradeOffer,
}

impl Incoming {
    /// A connection of which nothing has been read.
    pub(super) fn new(upgrade: UpgradeOffer) -> Self {
        Self {
            held: BytesMut::new(),
            passed: 0,
            next: Next::Head,
            input: Input::Open,
            change: Change::None,
            upgrade,
        }
    }

    pub(super) const fn next(&self) -> &Next {
        &self.next
    }

    /// The other side has ended its half.
    pub(super) fn is_over(&self) -> bool {
        self.input == Input::Over
    }

    /// No byte is held.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// As much is held as may be.
    pub(super) fn is_full(&self) -> bool {
        self.held.len() > MAX_HEAD_BYTES
    }

    /// A head that passed waits to be taken.
    pub(super) const fn has_head(&self) -> bool {
        self.passed > 0
    }

    /// Bytes of the client are held or announced.
    pub(super) fn has_unread(&self) -> bool {
        !self.held.is_empty() || matches!(self.next, Next::Body(_) | Next::Chunks(_))
    }

    /// The place for bytes that are read. [`Self::filled`] has to be told how many came.
    pub(super) fn room(&mut self) -> Limit<&mut BytesMut> {
        let room = (MAX_HEAD_BYTES + 1).saturating_sub(self.held.len());
        if self.held.capacity() - self.held.len() < room.min(512) {
            self.held.reserve(1024);
        }
        (&mut self.held).limit(room)
    }

    /// Notes that `count` bytes were read into [`Self::room`]; none is the end of the input.
    pub(super) fn filled(&mut self, count: usize) {
        let before = self.held.len().saturating_sub(count);
        if count == 0 && !self.is_full() {
            self.input = Input::Over;
        }
        let is_first = before == 0;
        if is_first || self.is_full() || self.held.get(before..).is_some_and(has_line_end) {
            self.change = Change::Some;
        }
    }

    /// The other side has ended its half while a body was read.
    pub(super) fn input_ended(&mut self) {
        self.input = Input::Over;
    }

    /// Judges the held bytes as a head, if they may be judged otherwise than before.
    pub(super) fn judge(&mut self) -> Verdict {
        if std::mem::replace(&mut self.change, Change::None) == Change::None {
            return Verdict::Incomplete;
        }
        match head::judge(&self.held, self.upgrade) {
            Judged::Partial => Verdict::Incomplete,
            Judged::Refused(refusal) => {
                self.next = Next::End;
                Verdict::Refused(refusal)
            }
            Judged::Complete { len, body, version_at } => {
                if let Some(version) = version_at.and_then(|at| self.held.get_mut(at)) {
                    *version = b'1';
                }
                self.passed = len;
                let behind = self.held.len().saturating_sub(len) as u64;
                let pipelined = if behind > 0 { Pipelined::Something } else { Pipelined::Nothing };
                // The HTTP library reads to its end by itself what is here already in one piece.
                let is_here = matches!(body, Length::Known(len) if len <= behind);
                self.next = match body {
                    Length::Known(0) => Next::Gap,
                    Length::Known(len) => Next::Body(len),
                    Length::Chunked => Next::Chunks(Chunks::new()),
                };
                let rest = if is_here { BodyState::Here } else { BodyState::Awaited };
                Verdict::Passed(pipelined, rest)
            }
        }
    }

    /// Moves held bytes of the head, or else of the body, into `into`.
    pub(super) fn take(&mut self, into: &mut impl BufMut) {
        let end = if self.passed > 0 { self.passed } else { self.held.len() };
        let count = end.min(into.remaining_mut());
        into.put_slice(self.held.get(..count).unwrap_or_default());
        self.held.advance(count);
        self.passed = self.passed.saturating_sub(count);
    }

    /// Counts bytes that were read where a body is due. The answer is how many of them belong to it; the
    /// rest is held.
    pub(super) fn body_read(&mut self, read: &[u8]) -> Result<usize, BadChunk> {
        let (len, is_over) = match &mut self.next {
            Next::Body(left) => {
                let len = usize::try_from(*left).unwrap_or(usize::MAX).min(read.len());
                *left -= len as u64;
                (len, *left == 0)
            }
            Next::Chunks(chunks) => (chunks.pass(read)?, chunks.is_over()),
            Next::Head | Next::Gap | Next::End => (0, true),
        };
        if let Some(surplus) = read.get(len..).filter(|surplus| !surplus.is_empty()) {
            // The bytes that are still held were sent after it.
            let later = std::mem::take(&mut self.held);
            self.held.extend_from_slice(surplus);
            self.held.extend_from_slice(&later);
        }
        if is_over {
            self.next = Next::Gap;
        }
        Ok(len)
    }

    /// The last request is answered, and the next one is held, or a part of it.
    pub(super) const fn begin_head(&mut self) {
        self.next = Next::Head;
        self.change = Change::Some;
    }

    /// Nothing is read any more.
    pub(super) fn end(&mut self) {
        self.next = Next::End;
    }

    /// The bytes that were read and not passed on.
    pub(super) fn into_held(self) -> BytesMut {
        self.held
    }
}

fn has_line_end(bytes: &[u8]) -> bool {
    bytes.contains(&b'\n')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn feed(incoming: &mut Incoming, bytes: &[u8]) -> usize {
        let mut room = incoming.room();
        let count = room.remaining_mut().min(bytes.len());
        room.put_slice(&bytes[..count]);
        incoming.filled(count);
        count
    }

    fn taken(incoming: &mut Incoming) -> Vec<u8> {
        let mut out = Vec::new();
        incoming.take(&mut out);
        out
    }

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    const POST: &[u8] = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n";

    #[test]
    fn a_head_is_taken_whole_and_what_follows_it_is_held() {
        let mut incoming = Incoming::new(UpgradeOffer::Refused);
        feed(&mut incoming, &[GET, b"GET /n"].concat());
        let passed = Verdict::Passed(Pipelined::Something, BodyState::Here);
        assert_eq!(incoming.judge(), passed);
        assert_eq!(taken(&mut incoming), GET);
        assert!(matches!(incoming.next(), Next::Gap));
        incoming.begin_head();
        assert_eq!(incoming.judge(), Verdict::Incomplete);
        feed(&mut incoming, b"ext HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(incoming.judge(), Verdict::Passed(Pipelined::Nothing, BodyState::Here));
    }

    #[test]
    fn what_follows_a_body_is_held() {
        let mut incoming = Incoming::new(UpgradeOffer::Refused);
        feed(&mut incoming, POST);
        assert_eq!(incoming.judge(), Verdict::Passed(Pipelined::Nothing, BodyState::Awaited));
        assert_eq!(taken(&mut incoming), POST);
        assert_eq!(incoming.body_read(b"ab"), Ok(2));
        assert!(matches!(incoming.next(), Next::Body(1)));
        assert_eq!(incoming.body_read(b"cGET"), Ok(1));
        assert!(matches!(incoming.next(), Next::Gap));
        assert_eq!(taken(&mut incoming), b"GET");
    }

    #[test]
    fn no_more_is_held_than_one_byte_beyond_the_longest_head() {
        let mut incoming = Incoming::new(UpgradeOffer::Refused);
        assert_eq!(feed(&mut incoming, &[b'x'; 20_000]), MAX_HEAD_BYTES + 1);
        assert!(incoming.is_full());
        assert_eq!(feed(&mut incoming, b"x"), 0);
        assert!(!incoming.is_over());
        assert!(matches!(incoming.judge(), Verdict::Refused(_)));
        assert!(matches!(incoming.next(), Next::End));
    }

    proptest! {
        #[test]
        fn the_requests_are_the_same_however_the_bytes_are_cut(cut in 1..60_usize, count in 1..5_usize) {
            let sent: Vec<u8> = (0..count).flat_map(|_| [POST, b"abc", GET].concat()).collect();
            let mut incoming = Incoming::new(UpgradeOffer::Refused);
            let (mut heads, mut bodies, mut pieces) = (Vec::new(), Vec::new(), sent.chunks(cut));
            loop {
                match incoming.next() {
                    Next::Head => match incoming.judge() {
                        Verdict::Passed(..) => heads.push(taken(&mut incoming)),
                        Verdict::Incomplete => match pieces.next() {
                            Some(piece) => prop_assert_eq!(feed(&mut incoming, piece), piece.len()),
                            None => break,
                        },
                        Verdict::Refused(refusal) => prop_assert!(false, "{:?}", refusal),
                    },
                    Next::Gap => {
                        if incoming.is_empty() {
                            let Some(piece) = pieces.next() else { break };
                            feed(&mut incoming, piece);
                        }
                        incoming.begin_head();
                    }
                    Next::Body(_) => {
                        let piece = match incoming.is_empty() {
                            true => pieces.next().unwrap().to_vec(),
                            false => taken(&mut incoming),
                        };
                        let len = incoming.body_read(&piece).unwrap();
                        bodies.extend_from_slice(&piece[..len]);
                    }
                    Next::Chunks(_) | Next::End => prop_assert!(false),
                }
            }
            prop_assert_eq!(heads.len(), 2 * count);
            prop_assert_eq!(heads.concat(), [POST, GET].concat().repeat(count));
            prop_assert_eq!(bodies, b"abc".repeat(count));
        }
    }
}
