//! The framed messages of batches, in pieces that the links of a thread share.
//!
//! Links send the same messages, mostly in the same order. A stream that keeps what it is given until the peer has acknowledged it would
//! otherwise have a copy for each peer, which do not fit into the caches together.
//!
//! # Invariants
//!
//! * A piece is used for a link only as far as it holds the messages of its batch, in their order.
//! * A link that sends all messages of a piece shares it, wherever its batches begin and end.
//! * The chunks of a write keep at most twice their bytes in memory, however few messages of each piece they are.
//! * Of a thread, the last [`KEPT`] pieces are kept, and no message longer than its queues keep it.

use std::{cell::Cell, collections::VecDeque};

use broadcaster::{Frame, FrameMark};
use bytes::Bytes;
use gossip::wire::frame::{FRAME_HEADER_BYTES, encode_header};

use crate::gathering::PIECE_BYTES;

/// Pieces that a thread keeps for other links. Chosen by measuring: links of one thread are hundreds of messages apart, and with 16
/// pieces a third of all bytes had to be copied again, with 64 a thirtieth.
const KEPT: usize = 64;

/// Length of a message that is a chunk of its own, in bytes. Chosen: half a piece, so that a piece with one message is not much
/// shorter than others.
const LARGE_BYTES: usize = PIECE_BYTES / 2;

/// Messages in one piece of memory, each behind its length.
struct Piece {
    messages: Vec<FrameMark>,
    /// The end of each of them.
    ends: Vec<usize>,
    bytes: Bytes,
}

impl Piece {
    /// Puts the first of `batch` together, which is not large.
    fn of(batch: &[Frame]) -> Self {
        let (mut ends, mut end) = (Vec::new(), 0);
        for frame in batch {
            let next = end + FRAME_HEADER_BYTES + frame.wire().len();
            if !ends.is_empty() && (frame.wire().len() >= LARGE_BYTES || next > PIECE_BYTES) {
                break;
            }
            end = next;
            ends.push(end);
        }
        let (mut bytes, mut messages) = (Vec::with_capacity(end), Vec::with_capacity(ends.len()));
        for frame in batch.iter().take(ends.len()) {
            bytes.extend_from_slice(&encode_header(frame.wire().len()));
            bytes.extend_from_slice(frame.wire());
            messages.push(frame.mark());
        }
        Self { messages, ends, bytes: bytes.into() }
    }

    /// The first of `batch` as far as they are in this piece from its message `from` on; `None` if the first is another one.
    fn shared_from(&self, from: usize, batch: &[Frame]) -> Option<Shared> {
        let here = self.messages.get(from..)?;
        let count = here.iter().zip(batch).take_while(|(mark, frame)| mark.is_of(frame)).count();
        let start = from.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?;
        let end = *self.ends.get(from + count.checked_sub(1)?)?;
        let idle = self.bytes.len() - (end - start);
        Some(Shared { bytes: self.bytes.slice(start..end), count, idle })
    }

    /// The same from wherever in this piece the first of `batch` is.
    fn shared_within(&self, batch: &[Frame]) -> Option<Shared> {
        let first = batch.first()?;
        self.shared_from(self.messages.iter().position(|mark| mark.is_of(first))?, batch)
    }
}

/// Messages of a batch as they are in a piece.
struct Shared {
    bytes: Bytes,
    /// Number of the messages.
    count: usize,
    /// Bytes of the piece that are kept with them.
    idle: usize,
}

/// The last pieces of a thread.
#[derive(Default)]
struct Recent {
    /// The newest first.
    pieces: VecDeque<Piece>,
    /// The place of the piece that was used last. The messages behind it are mostly in the piece that is newer by one.
    used: usize,
}

impl Recent {
    /// The first of `batch`, which is not large, in a piece with at most `most_idle` other bytes.
    fn piece(&mut self, batch: &[Frame], most_idle: usize) -> Shared {
        if let Some((place, shared)) = self.find(batch, most_idle) {
            self.used = place;
            return shared;
        }
        let piece = Piece::of(batch);
        let (bytes, count) = (piece.bytes.clone(), piece.messages.len());
        self.pieces.truncate(KEPT - 1);
        self.pieces.push_front(piece);
        self.used = 0;
        Shared { bytes, count, idle: 0 }
    }

    /// Such a piece that is there already, and its place. Most batches begin where a piece does, so the beginnings are compared
    /// before the rest.
    fn find(&self, batch: &[Frame], most_idle: usize) -> Option<(usize, Shared)> {
        let suits = |shared: &Shared| shared.idle <= most_idle;
        let begins =
            |at: usize| Some((at, self.pieces.get(at)?.shared_from(0, batch).filter(suits)?));
        let holds =
            |at: usize| Some((at, self.pieces.get(at)?.shared_within(batch).filter(suits)?));
        let mut all = 0..self.pieces.len();
        let next = self.used.checked_sub(1);
        next.and_then(begins)
            .or_else(|| all.clone().find_map(begins))
            .or_else(|| all.find_map(holds))
    }
}

/// The framed bytes of the first of `batch`: at least `wanted`, if there are so many.
fn framed_bytes(batch: &[Frame], wanted: usize) -> usize {
    let mut bytes = 0;
    for frame in batch {
        if bytes >= wanted {
            break;
        }
        bytes += FRAME_HEADER_BYTES + frame.wire().len();
    }
    bytes
}

thread_local! {
    static RECENT: Cell<Recent> = const { Cell::new(Recent { pieces: VecDeque::new(), used: 0 }) };
}

/// The first framed bytes of `batch`, of which `written` are left out, with at least `wanted` bytes if there are so many.
pub(crate) fn chunks(batch: &[Frame], mut written: usize, wanted: usize) -> Vec<Bytes> {
    let (mut left, mut chunks, mut bytes) = (batch, Vec::new(), 0);
    let mut recent = RECENT.take();
    let mut most_idle = framed_bytes(batch, wanted.saturating_add(written)).saturating_sub(written);
    while let Some((first, rest)) = left.split_first()
        && bytes < wanted
    {
        let wire = first.wire();
        if written == 0 && wire.len() < LARGE_BYTES {
            let shared = recent.piece(left, most_idle);
            most_idle -= shared.idle;
            bytes += shared.bytes.len();
            chunks.push(shared.bytes);
            left = left.get(shared.count..).unwrap_or_default();
            continue;
        }
        let header = encode_header(wire.len());
        if let Some(header) = header.get(written..).filter(|rest| !rest.is_empty()) {
            chunks.push(Bytes::copy_from_slice(header));
        }
        chunks.push(wire.slice(written.saturating_sub(FRAME_HEADER_BYTES)..));
        bytes += FRAME_HEADER_BYTES + wire.len() - written;
        (left, written) = (rest, 0);
    }
    RECENT.set(recent);
    chunks
}

#[cfg(test)]
mod tests {
    use gossip::{Lane, Tag};

    use super::*;

    fn frames(lens: &[usize]) -> Vec<Frame> {
        let body = |len: usize| (0..len).map(|at| at as u8).collect::<Vec<_>>();
        lens.iter().map(|len| Frame::control(Tag::VB, Lane::Bulk, &body(*len))).collect()
    }

    fn framed(batch: &[Frame]) -> Vec<u8> {
        let each = |frame: &Frame| [&encode_header(frame.wire().len())[..], frame.wire()].concat();
        batch.iter().flat_map(each).collect()
    }

    #[test]
    fn the_chunks_are_the_batch_wherever_it_begins_and_whatever_was_sent_before() {
        let lens = [0, 1, 200, 1_000, LARGE_BYTES - 3, LARGE_BYTES, 5, 40_000, 7].repeat(4);
        let batch = frames(&lens);
        let without_some: Vec<Frame> = batch.iter().step_by(3).cloned().collect();
        let backwards: Vec<Frame> = batch.iter().rev().cloned().collect();
        for batch in [&batch, &batch, &without_some, &backwards, &frames(&lens), &batch] {
            for first in [0, 1, 2, 9, 17] {
                let batch = batch.get(first..).unwrap_or_default();
                assert!(chunks(batch, 0, usize::MAX).concat() == framed(batch));
                for written in [1, 3, 4, 5] {
                    let rest = chunks(batch, written, usize::MAX).concat();
                    assert!(batch.is_empty() || rest == framed(batch)[written..]);
                }
                let some = chunks(batch, 0, 1_000).concat();
                assert!(framed(batch).starts_with(&some));
                assert!(some.len() >= framed(batch).len().min(1_000));
            }
        }
    }

    /// The places in memory of a link's chunks, of batches of so many messages.
    fn places(messages: &[Frame], in_a_batch: usize) -> Vec<std::ops::Range<*const u8>> {
        let chunks = messages.chunks(in_a_batch).flat_map(|batch| chunks(batch, 0, usize::MAX));
        chunks.map(|chunk| chunk.as_ptr_range()).collect()
    }

    #[track_caller]
    fn are_within(theirs: &[std::ops::Range<*const u8>], ours: &[std::ops::Range<*const u8>]) {
        let is_within = |their: &std::ops::Range<*const u8>| {
            ours.iter().any(|our| our.start <= their.start && their.end <= our.end)
        };
        let copied = theirs.iter().filter(|their| !is_within(their)).count();
        assert_eq!(copied, 0, "of {}", theirs.len());
    }

    #[test]
    fn links_share_their_pieces_although_their_batches_begin_and_end_elsewhere() {
        let messages = frames(&[1_000; 120]);
        let first = places(&messages, 60);
        assert_eq!(first.len(), 8, "four pieces for a batch");
        assert_eq!(places(&messages, 60), first);
        for in_a_batch in [40, 60, 120] {
            for begin in [0, 1, 8] {
                are_within(&places(&messages[begin..], in_a_batch), &first);
            }
        }
    }

    // Issue 11: with fewer pieces, links that were half a window of messages apart copied what others had copied.
    #[test]
    fn a_link_that_is_hundreds_of_messages_behind_shares_the_pieces_of_the_first() {
        let messages = frames(&[1_024; 512]);
        let first = places(&messages, 60);
        are_within(&places(&messages, 37), &first);
    }

    #[test]
    fn a_link_that_sends_few_messages_of_each_piece_keeps_little_more_than_those() {
        let messages = frames(&[1_000; 450]);
        places(&messages, 60);
        for every in [3, 15, 40] {
            let some: Vec<Frame> = messages.iter().step_by(every).cloned().collect();
            for batch in some.chunks(1).chain(some.chunks(20)) {
                let chunks = chunks(batch, 0, usize::MAX);
                let recent = RECENT.take();
                let holds = |piece: &&Piece| {
                    let memory = piece.bytes.as_ptr_range();
                    chunks.iter().any(|chunk| memory.contains(&chunk.as_ptr()))
                };
                let kept: usize =
                    recent.pieces.iter().filter(holds).map(|piece| piece.bytes.len()).sum();
                RECENT.set(recent);
                let bytes = framed(batch).len();
                assert!((bytes..=2 * bytes).contains(&kept), "{kept} for {bytes}");
            }
        }
    }

    #[test]
    fn a_message_that_is_gone_is_not_kept_and_no_other_one_is_taken_for_it() {
        let first = frames(&[300; 50]);
        let before = chunks(&first, 0, usize::MAX).concat();
        let marks: Vec<FrameMark> = first.iter().map(Frame::mark).collect();
        drop(first);
        assert!(marks.iter().all(FrameMark::is_gone));
        // They are allocated where memory was given back.
        let others: Vec<Frame> =
            (0..50_u8).map(|number| Frame::control(Tag::VB, Lane::Bulk, &[number; 300])).collect();
        let after = chunks(&others, 0, usize::MAX).concat();
        assert!(after == framed(&others) && after != before);
    }

    #[test]
    fn the_memory_that_a_thread_keeps_is_bounded() {
        for batch in frames(&[2_000; 1_000]).chunks(30) {
            chunks(batch, 0, usize::MAX);
        }
        let pieces = RECENT.take().pieces;
        assert_eq!(pieces.len(), KEPT);
        assert!(pieces.iter().all(|piece| piece.bytes.len() <= PIECE_BYTES));
        let whole: usize = pieces.iter().map(|piece| piece.bytes.len()).sum();
        assert!(whole > KEPT * 2_000, "pieces hold several messages: {whole}");
    }
}
