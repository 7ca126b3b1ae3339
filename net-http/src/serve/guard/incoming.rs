//! Splits the bytes of a connection into heads and bodies.
//!
//! ```text
//!   Head ─judged─▶ Gap ─answered, more came─▶ Head
//!     └─▶ Body, Chunks ─over─▶ Gap       any ─▶ End
//! ```
//!
//! A pure state machine over bytes, without I/O and without a clock.
//!
//! # Invariants
//!
//! * A head is passed on only after all of it was checked, and a body only up to the checked length.
//! * At most [`MAX_HEAD_BYTES`] and one byte are held, whatever the client sends.
//! * A head that arrives slowly is checked once per line, not once per byte.

use bytes::{Buf, BufMut, Bytes, BytesMut, buf::Limit};

use super::{
    chunks::{BadChunk, Chunks},
    head::{self, Judged, Length},
    refusal::Refusal,
};
use crate::serve::{
    conn_state::{BodyState, Pipelined},
    limits::{MAX_HEAD_BYTES, UpgradeOffer},
};

/// The item that comes next on the connection.
#[derive(Debug)]
pub(super) enum Next {
    /// The head of a request.
    Head,
    /// A head, but not before the current answer is sent.
    Gap,
    /// This many bytes of a body.
    Body(u64),
    /// A chunked body.
    Chunks(Chunks),
    /// Nothing: no more bytes are read.
    End,
}

/// The form of a head that has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// The plainest one, without a body.
    Plain,
    Any,
}

/// The client's half: open, or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Open,
    Over,
}

/// Changes since the held bytes were last checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    None,
    Some,
}

/// The result of checking the held bytes as a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The head is not complete yet.
    Incomplete,
    /// The head passes.
    Passed(Pipelined, BodyState),
    /// The connection must end with this refusal.
    Refused(Refusal),
}

/// The bytes that were read and not passed on, and the item they belong to.
#[derive(Debug)]
pub(super) struct Incoming {
    held: BytesMut,
    /// Length of the head at the front of `held` that has passed and was not taken yet.
    passed: usize,
    /// The form of that head.
    form: Form,
    next: Next,
    input: Input,
    change: Change,
    upgrade: UpgradeOffer,
}

impl Incoming {
    /// The state of a new connection.
    pub(super) fn new(upgrade: UpgradeOffer) -> Self {
        Self {
            held: BytesMut::new(),
            passed: 0,
            form: Form::Any,
            next: Next::Head,
            input: Input::Open,
            change: Change::None,
            upgrade,
        }
    }

    pub(super) const fn next(&self) -> &Next {
        &self.next
    }

    /// Returns `true` if the client has ended its half.
    pub(super) fn is_over(&self) -> bool {
        self.input == Input::Over
    }

    /// Returns `true` if no byte is held.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Returns `true` if no more bytes may be held.
    pub(super) fn is_full(&self) -> bool {
        self.held.len() > MAX_HEAD_BYTES
    }

    /// Returns `true` if a head has passed and was not taken yet.
    pub(super) const fn has_head(&self) -> bool {
        self.passed > 0
    }

    /// Returns `true` if bytes of the client are held or announced.
    pub(super) fn has_unread(&self) -> bool {
        !self.held.is_empty() || matches!(self.next, Next::Body(_) | Next::Chunks(_))
    }

    /// The buffer for the next read. Its length must then be reported to [`Self::filled`].
    pub(super) fn room(&mut self) -> Limit<&mut BytesMut> {
        let room = (MAX_HEAD_BYTES + 1).saturating_sub(self.held.len());
        if self.held.capacity() - self.held.len() < room.min(512) {
            self.held.reserve(1024);
        }
        (&mut self.held).limit(room)
    }

    /// Records that `count` bytes were read into [`Self::room`]; zero is the end of the input.
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

    /// Records that the client ended its half within a body.
    pub(super) fn input_ended(&mut self) {
        self.input = Input::Over;
    }

    /// Checks the held bytes as a head, unless nothing has changed since the last check.
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
            Judged::Plain(len) => {
                (self.passed, self.form, self.next) = (len, Form::Plain, Next::Gap);
                Verdict::Passed(self.behind(len), BodyState::Here)
            }
            Judged::Complete { len, body, version_at } => {
                if let Some(version) = version_at.and_then(|at| self.held.get_mut(at)) {
                    *version = b'1';
                }
                (self.passed, self.form) = (len, Form::Any);
                let behind = self.held.len().saturating_sub(len) as u64;
                // The HTTP library reads a body to its end by itself if it is here already in one piece.
                let is_here = matches!(body, Length::Known(len) if len <= behind);
                self.next = match body {
                    Length::Known(0) => Next::Gap,
                    Length::Known(len) => Next::Body(len),
                    Length::Chunked => Next::Chunks(Chunks::new()),
                };
                let rest = if is_here { BodyState::Here } else { BodyState::Awaited };
                Verdict::Passed(self.behind(len), rest)
            }
        }
    }

    /// Tells whether there are bytes behind a head of this length.
    fn behind(&self, len: usize) -> Pipelined {
        if self.held.len() > len { Pipelined::Something } else { Pipelined::Nothing }
    }

    /// Takes the head that has passed, if it is plain.
    pub(super) fn take_plain(&mut self) -> Option<Bytes> {
        if self.passed == 0 || self.form == Form::Any {
            return None;
        }
        let len = std::mem::take(&mut self.passed).min(self.held.len());
        Some(self.held.split_to(len).freeze())
    }

    /// Moves held bytes of the head, or else of the body, to `into`.
    pub(super) fn take(&mut self, into: &mut impl BufMut) {
        let end = if self.passed > 0 { self.passed } else { self.held.len() };
        let count = end.min(into.remaining_mut());
        into.put_slice(self.held.get(..count).unwrap_or_default());
        self.held.advance(count);
        self.passed = self.passed.saturating_sub(count);
    }

    /// Counts bytes that were read within a body. Returns how many of them belong to it; the rest is held.
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
            // The bytes that are still held were sent after these.
            let later = std::mem::take(&mut self.held);
            self.held.extend_from_slice(surplus);
            self.held.extend_from_slice(&later);
        }
        if is_over {
            self.next = Next::Gap;
        }
        Ok(len)
    }

    /// Starts the next head after the last answer was sent.
    pub(super) const fn begin_head(&mut self) {
        self.next = Next::Head;
        self.change = Change::Some;
    }

    /// Stops reading.
    pub(super) fn end(&mut self) {
        self.next = Next::End;
    }

    /// Returns the bytes that were read and not passed on.
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
    fn a_head_is_taken_whole_and_the_bytes_after_it_are_held() {
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
    fn bytes_after_a_body_are_held() {
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
    fn at_most_one_byte_beyond_the_longest_head_is_held() {
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
        fn requests_are_the_same_however_their_bytes_are_split(cut in 1..60_usize, count in 1..5_usize) {
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
