//! Gathering of the messages of a write.
//!
//! # Invariants
//!
//! * A stream has no memory of its own for the bytes that it is to write; those of a thread share it.

use std::cell::Cell;

use libp2p::Multiaddr;
#[cfg(feature = "quic")]
use libp2p::multiaddr::Protocol;

/// Size of one gathered piece, in bytes. Chosen: a Yamux frame, which stays in the innermost cache until it is copied from there.
pub(crate) const PIECE_BYTES: usize = 16 * 1024;

/// The way in which the messages of a batch are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gathered {
    /// For the stream, which copies them.
    Copied,
    /// For all links, since the stream keeps what it is given (`pieces.rs`).
    #[cfg(feature = "quic")]
    Shared,
}

impl Gathered {
    /// The way for the streams of a connection with a peer at this address.
    #[cfg(feature = "quic")]
    pub(crate) fn of(address: &Multiaddr) -> Self {
        let is_quic = address.iter().any(|part| part == Protocol::QuicV1);
        if is_quic { Self::Shared } else { Self::Copied }
    }

    /// The way for the streams of any connection.
    #[cfg(not(feature = "quic"))]
    pub(crate) const fn of(_: &Multiaddr) -> Self {
        Self::Copied
    }
}

thread_local! {
    /// Memory to gather into; taken for the time of one write.
    static COMMON: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Runs `write` with empty memory that has room for a piece.
pub(crate) fn in_common_memory<T>(write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    let mut common = COMMON.take();
    common.clear();
    common.reserve(PIECE_BYTES);
    let result = write(&mut common);
    COMMON.set(common);
    result
}
