//! The framed messages of batches, in pieces that the links of a thread share.
//!
//! Links send the same messages, mostly in the same order. A stream that keeps what it is given until the peer has acknowledged it would
//! otherwise have a copy for each peer, which do not fit into the caches together.
//!
//! # Invariants
//!
//! * A piece is used for a link only as far as it holds the messages of its batch, in their order.
//! * Of a thread, the last [`KEPT`] pieces are kept, and no message longer than its queues keep it.
//! * Where a piece ends follows from the messages alone, so that links with other beginnings come to the same pieces.

use std::{cell::Cell, collections::VecDeque};

use broadcaster::{Frame, FrameMark};
use bytes::Bytes;
use gossip::wire::frame::{FRAME_HEADER_BYTES, encode_header};

use crate::gathering::PIECE_BYTES;

/// Pieces that a thread keeps for other links. Chosen: a batch of a write loop, twice.
const KEPT: usize = 16;

/// Length of a message that is a chunk of its own, in bytes, and mean length of a piece. Chosen: few pieces for a batch, and several
/// of them, so that links with other beginnings share some.
const LARGE_BYTES: usize = PIECE_BYTES / 2;

/// Messages in one piece of memory, each behind its length.
struct Piece {
    messages: Vec<FrameMark>,
    /// The end of each of them.
    ends: Vec<usize>,
    bytes: Bytes,
}

thread_local! {
    /// The last pieces of this thread, the newest first.
    static RECENT: Cell<VecDeque<Piece>> = const { Cell::new(VecDeque::new()) };
}

/// Says whether a piece ends behind a message: more often behind a long one.
fn is_last(frame: &Frame) -> bool {
    // The bits of the place are spread by a multiplication, of which the upper half is taken. Source: Knuth, TAOCP 3, 6.4.
    let spread = (frame.place() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let framed = (FRAME_HEADER_BYTES + frame.wire().len()) as u64;
    spread < framed * ((1 << 32) / LARGE_BYTES as u64)
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
            if is_last(frame) {
                break;
            }
        }
        let (mut bytes, mut messages) = (Vec::with_capacity(end), Vec::with_capacity(ends.len()));
        for frame in batch.iter().take(ends.len()) {
            bytes.extend_from_slice(&encode_header(frame.wire().len()));
            bytes.extend_from_slice(frame.wire());
            messages.push(frame.mark());
        }
        Self { messages, ends, bytes: bytes.into() }
    }

    /// The first of `batch` as far as they are in this piece, and their number; `None` if the first is another one.
    fn shared_with(&self, batch: &[Frame]) -> Option<(Bytes, usize)> {
        let same = self.messages.iter().zip(batch).take_while(|(mark, frame)| mark.is_of(frame));
        let count = same.count();
        let end = *self.ends.get(count.checked_sub(1)?)?;
        Some((self.bytes.slice(..end), count))
    }
}

/// The first of `batch`, which is not large, and their number.
fn piece(batch: &[Frame]) -> (Bytes, usize) {
    let mut recent = RECENT.take();
    let found = recent.iter().find_map(|piece| piece.shared_with(batch));
    let shared = found.unwrap_or_else(|| {
        let piece = Piece::of(batch);
        let made = (piece.bytes.clone(), piece.messages.len());
        recent.truncate(KEPT - 1);
        recent.push_front(piece);
        made
    });
    RECENT.set(recent);
    shared
}

/// The first framed bytes of `batch`, of which `written` are left out, with at least `wanted` bytes if there are so many.
pub(crate) fn chunks(batch: &[Frame], mut written: usize, wanted: usize) -> Vec<Bytes> {
    let (mut left, mut chunks, mut bytes) = (batch, Vec::new(), 0);
    while let Some((first, rest)) = left.split_first()
        && bytes < wanted
    {
        let wire = first.wire();
        if written == 0 && wire.len() < LARGE_BYTES {
            let (piece, messages) = piece(left);
            bytes += piece.len();
            chunks.push(piece);
            left = left.get(messages..).unwrap_or_default();
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

    #[test]
    fn links_share_their_pieces_although_their_batches_begin_elsewhere() {
        let batch = frames(&[1_000; 2_000]);
        for batch in batch.chunks(60) {
            let places = |first: usize| {
                let chunks = chunks(&batch[first..], 0, usize::MAX);
                chunks.iter().map(|chunk| chunk.as_ptr_range().end).collect::<Vec<_>>()
            };
            let one = places(0);
            let (again, other) = (places(0), places(1));
            assert_eq!(one, again);
            // The last piece of the batch is the same in any case, except if there is none between.
            let shared = other.iter().filter(|end| one.contains(end)).count();
            assert!(one.len() < 2 || shared + 2 >= one.len(), "{shared} of {}", one.len());
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
        let recent = RECENT.take();
        assert_eq!(recent.len(), KEPT);
        assert!(recent.iter().all(|piece| piece.bytes.len() <= PIECE_BYTES));
        let whole: usize = recent.iter().map(|piece| piece.bytes.len()).sum();
        assert!(whole > KEPT * 2_000, "pieces hold several messages: {whole}");
    }
}
