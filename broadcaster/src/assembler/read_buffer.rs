//! The bytes of a connection that were read and not looked at, and who answers for their memory.
//!
//! # Invariants
//!
//! * A buffer is not charged while its connection reads into it: each has one.
//! * A buffer that messages keep alive when another one is needed is charged first, in full, until the
//!   last of those messages is gone.
//! * A quiet connection of which nothing is left to look at has no buffer: its next bytes get one once they are there.

use std::sync::{Arc, OnceLock};

use bytes::{Buf, BytesMut};
use gossip::Lane;

use crate::budget::Reservation;

/// Bytes read at a time from a busy peer. Chosen: a syscall costs little beside it.
pub(super) const READ_BYTES: usize = 16 * 1024;

/// Smallest buffer, in bytes. Chosen: it holds several votes.
const SMALLEST_BYTES: usize = 4 * 1024;

/// The memory that a message lies in. It counts as in use for as long as this lives, so this is kept
/// beside the message's bytes.
#[derive(Debug)]
#[must_use = "the memory counts as free once this is dropped"]
pub enum MessageMemory {
    /// The message is short and has an allocation of its own.
    Uncharged,
    /// The message shares a read buffer.
    Shared(SharedBuffer),
    /// The message has an allocation of its own, which is charged.
    Charged(Reservation),
}

/// A share in a read buffer.
#[derive(Clone, Debug)]
pub struct SharedBuffer(Arc<OnceLock<Reservation>>);

/// The state of a buffer before a read: there is room, or it has to be charged first.
pub(super) enum Room {
    Ready,
    /// Messages keep the buffer alive: so much has to be charged before there is another one.
    Pinned {
        bytes: usize,
        lane: Lane,
    },
}

/// The pace at which a peer sends, by its latest bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// They left room where they were read to.
    Quiet,
    /// They filled it.
    Busy,
}

impl Pace {
    /// Size of a new buffer, in bytes.
    const fn bytes(self) -> usize {
        match self {
            Self::Quiet => SMALLEST_BYTES,
            Self::Busy => READ_BYTES,
        }
    }
}

#[derive(Debug)]
pub(super) struct ReadBuffer {
    bytes: BytesMut,
    /// Shared with the messages that lie in the buffer; holds what was charged for it, if anything was.
    shares: SharedBuffer,
    /// Size of the allocation, in bytes; zero while there is none.
    size: usize,
    /// The most urgent lane of the messages that lie in it.
    lane: Lane,
    pace: Pace,
}

impl ReadBuffer {
    pub(super) fn new(bytes: BytesMut) -> Self {
        let (shares, size) = (SharedBuffer(Arc::default()), bytes.capacity());
        Self { bytes, shares, size, lane: Lane::Bulk, pace: Pace::Quiet }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Passes over the first `count` bytes.
    pub(super) fn skip(&mut self, count: usize) {
        self.bytes.advance(count.min(self.bytes.len()));
    }

    /// Takes a message of `len` bytes out of the buffer, which has them.
    pub(super) fn take(&mut self, len: usize, lane: Lane) -> (BytesMut, MessageMemory) {
        if lane == Lane::Priority {
            self.lane = lane;
        }
        let message = self.bytes.split_to(len.min(self.bytes.len()));
        (message, MessageMemory::Shared(self.shares.clone()))
    }

    /// Sees to it that there is room to read to, or no buffer.
    pub(super) fn make_room(&mut self) -> Room {
        let has_room = self.bytes.capacity() - self.bytes.len() >= self.pace.bytes() / 4;
        let is_shared = Arc::strong_count(&self.shares.0) > 1;
        if self.size == 0 || has_room && (is_shared || !self.is_at_rest()) {
            return Room::Ready;
        }
        if is_shared {
            return Room::Pinned { bytes: self.size, lane: self.lane };
        }
        self.lane = Lane::Bulk;
        if self.is_at_rest() {
            (self.bytes, self.size) = (BytesMut::new(), 0);
        } else {
            // No other handle of the buffer is left, so its memory is used again, or made larger.
            self.bytes.reserve(self.pace.bytes().max(self.bytes.len()));
            self.size = self.size.max(self.bytes.capacity());
        }
        Room::Ready
    }

    /// Returns `true` if a buffer would wait for bytes that may never come.
    fn is_at_rest(&self) -> bool {
        self.pace == Pace::Quiet && self.bytes.is_empty()
    }

    /// Leaves the buffer, for which `held` was charged, to its messages, and goes on with another one.
    pub(super) fn replace(&mut self, held: Reservation) {
        // The cell is empty: a buffer is left once.
        let _ = self.shares.0.set(held);
        let mut bytes = BytesMut::new();
        if !self.is_at_rest() {
            bytes.reserve(self.bytes.len() + self.pace.bytes());
            bytes.extend_from_slice(&self.bytes);
        }
        *self = Self { pace: self.pace, ..Self::new(bytes) };
    }

    /// Returns the memory to read into, and the largest number of bytes. Without a buffer it has no room yet, and the
    /// bytes are appended once they are there.
    pub(super) fn space(&mut self) -> (&mut BytesMut, usize) {
        if self.size == 0 {
            return (&mut self.bytes, READ_BYTES);
        }
        let room = self.bytes.capacity() - self.bytes.len();
        (&mut self.bytes, room)
    }

    /// Learns from a read how fast the peer is.
    pub(super) fn learn(&mut self, count: usize, room: usize) {
        self.pace = if count == room { Pace::Busy } else { Pace::Quiet };
        self.size = self.size.max(self.bytes.capacity());
    }

    /// Appends bytes that were read elsewhere. A new buffer has room for the next ones, too, so that it is not charged
    /// for messages that are gone by then.
    pub(super) fn append(bytes: &mut BytesMut, read: &[u8]) {
        if bytes.capacity() - bytes.len() < read.len() {
            bytes.reserve((read.len() + SMALLEST_BYTES / 4).max(SMALLEST_BYTES));
        }
        bytes.extend_from_slice(read);
    }
}
