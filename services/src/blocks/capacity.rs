//! Counts the bytes of answers that are on their way.
//!
//! # Invariants
//!
//! * Bytes are counted from when they are ready until the last handle of them is dropped: sent, or given up.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;

/// Most bytes of answers on their way: 500 MB. Source: wire facts 9.4, `BlockServiceMemCap`.
pub const MAX_BYTES_IN_FLIGHT: usize = 500_000_000;

/// Room for answers on their way. A cheap handle; clones share the room, so that what serves blocks over
/// HTTP and over gossip keeps one bound together.
#[derive(Clone, Debug)]
pub struct Capacity {
    used: Arc<AtomicUsize>,
    max: usize,
}

impl Default for Capacity {
    /// Room for [`MAX_BYTES_IN_FLIGHT`].
    fn default() -> Self {
        Self::new(MAX_BYTES_IN_FLIGHT)
    }
}

impl Capacity {
    /// Room for so many bytes.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { used: Arc::default(), max }
    }

    /// Bytes on their way.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Counts `bytes` for as long as they live; `None` when there is no room for them.
    #[must_use]
    pub fn hold(&self, bytes: impl AsRef<[u8]> + Send + 'static) -> Option<Bytes> {
        let room = self.reserve(bytes.as_ref().len())?;
        Some(Bytes::from_owner(Held { bytes, _room: room }))
    }

    fn reserve(&self, bytes: usize) -> Option<Room> {
        let fits = |used: usize| used.checked_add(bytes).filter(|&used| used <= self.max);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        Some(Room { used: Arc::clone(&self.used), bytes })
    }
}

/// Bytes that are counted.
struct Held<B> {
    bytes: B,
    _room: Room,
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for Held<B> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

/// Gives its bytes back when it is dropped.
struct Room {
    used: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_until_their_last_handle_is_gone() {
        let capacity = Capacity::new(10);
        let held = capacity.hold(vec![1; 8]).unwrap();
        let part = held.slice(2..3);
        assert!(capacity.hold(vec![1; 3]).is_none());
        drop(held);
        assert_eq!(capacity.used(), 8);
        drop(part);
        assert_eq!(capacity.used(), 0);
        assert_eq!(capacity.hold(vec![1; 10]).unwrap().len(), 10);
    }
}
