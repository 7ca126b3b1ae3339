//! The bytes of a connection that were read and not looked at, and who answers for their memory.
//!
//! # Invariants
//!
//! * A buffer is not charged while its connection reads into it: each has one.
//! * A buffer that messages keep alive when another one is needed is charged first, in full, until the
//!   last of those messages is gone.

use std::sync::{Arc, OnceLock};

use bytes::{Buf, BytesMut};
use gossip::Lane;

use crate::budget::Reservation;

/// Bytes read at a time from a busy peer. Chosen: a syscall costs little beside it.
const READ_BYTES: usize = 16 * 1024;

/// Bytes read at a time from a quiet peer. Chosen: ten thousand idle peers take 40 MB.
const QUIET_READ_BYTES: usize = 4 * 1024;

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

#[derive(Debug)]
pub(super) struct ReadBuffer {
    bytes: BytesMut,
    /// Shared with the messages that lie in the buffer; holds what was charged for it, if anything was.
    shares: SharedBuffer,
    /// Size of the allocation, in bytes.
    size: usize,
    /// The most urgent lane of the messages that lie in it.
    lane: Lane,
    /// Number of bytes to read at a time.
    appetite: usize,
}

impl ReadBuffer {
    pub(super) fn new(bytes: BytesMut) -> Self {
        let (shares, size) = (SharedBuffer(Arc::default()), bytes.capacity());
        Self { bytes, shares, size, lane: Lane::Bulk, appetite: QUIET_READ_BYTES }
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

    /// Sees to it that there is room to read to.
    pub(super) fn make_room(&mut self) -> Room {
        if self.bytes.capacity() - self.bytes.len() >= self.appetite / 4 {
            return Room::Ready;
        }
        if Arc::strong_count(&self.shares.0) > 1 {
            return Room::Pinned { bytes: self.size, lane: self.lane };
        }
        // No other handle of the buffer is left, so its memory is used again, or made larger.
        self.bytes.reserve(self.appetite.max(self.bytes.len()));
        (self.size, self.lane) = (self.size.max(self.bytes.capacity()), Lane::Bulk);
        Room::Ready
    }

    /// Leaves the buffer, for which `held` was charged, to its messages, and goes on with another one.
    pub(super) fn replace(&mut self, held: Reservation) {
        // The cell is empty: a buffer is left once.
        let _ = self.shares.0.set(held);
        let mut bytes = BytesMut::with_capacity(self.bytes.len() + self.appetite);
        bytes.extend_from_slice(&self.bytes);
        *self = Self { appetite: self.appetite, ..Self::new(bytes) };
    }

    /// Returns the memory to read into, and the largest number of bytes.
    pub(super) fn space(&mut self) -> (&mut BytesMut, usize) {
        let room = self.bytes.capacity() - self.bytes.len();
        (&mut self.bytes, room)
    }

    /// Learns from a read how much to read at a time.
    pub(super) fn learn(&mut self, count: usize, room: usize) {
        self.appetite = if count == room { READ_BYTES } else { QUIET_READ_BYTES };
    }
}
