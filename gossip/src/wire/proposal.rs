//! PP: proposals travel as one zstd frame.
//!
//! ```text
//!   native ── zstd, in C: the fast one       ┐ the same bodies, and the same
//!   pure ──── ruzstd, in Rust: WebAssembly   ┘ refusals (`tests` say where not)
//! ```
//!
//! # Invariants
//!
//! * Memory for the output grows with the output, in steps, never with what a frame announces. The
//!   window of the decompressor is reserved, not touched, until output fills it.
//! * A frame that ends early, or has anything after it, is refused. Existing nodes hand on a part of
//!   the first and sometimes accept the second; nobody sends either. Source: wire facts 5.1.

#[cfg(any(target_family = "wasm", test))]
mod header;
#[cfg(not(target_family = "wasm"))]
mod native;
#[cfg(any(target_family = "wasm", test))]
mod pure;
#[cfg(test)]
mod tests;

use bytes::Bytes;

#[cfg(not(target_family = "wasm"))]
use native as codec;
#[cfg(target_family = "wasm")]
use pure as codec;

/// Largest proposal after decompression, in bytes. Source: wire facts 5.1.
pub const MAX_DECOMPRESSED: usize = 5_250_618;

/// The first bytes of every zstd frame.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Largest window a frame may ask for, as a power of two of bytes. Source: wire facts 5.1.
const MAX_WINDOW_LOG: u32 = 27;

/// First step of the output, in bytes, however short the frame.
const FIRST_STEP_BYTES: usize = 16 * 1024;

/// First step of the output as a multiple of the frame. Chosen: more than proposals shrink, so that
/// one step is enough and the decompressor writes straight into it.
const FIRST_STEP_FACTOR: usize = 4;

/// Why a compressed proposal is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProposalError {
    /// The frame is damaged, or asks for what is not allowed: a dictionary, or a huge window.
    #[error("the zstd frame cannot be decompressed: {reason}")]
    Frame {
        /// The error of the decompressor.
        reason: &'static str,
    },
    /// The frame ends before its last block.
    #[error("the zstd frame ends early")]
    Truncated,
    /// There is something after the frame.
    #[error("{bytes} bytes follow the zstd frame")]
    Trailing {
        /// Number of bytes.
        bytes: usize,
    },
    /// The content is longer than allowed.
    #[error("the zstd frame holds more than the {limit} bytes allowed")]
    TooLarge {
        /// The bound.
        limit: usize,
    },
}

/// One zstd frame with its content size and without a checksum, as existing nodes write it.
///
/// If the compressor fails, which takes a lack of memory, the body is returned as it is: every reader
/// accepts that. A body that does not shrink grows by some bytes, which counts against the bound of
/// the tag.
#[must_use]
pub fn compress(body: &[u8]) -> Vec<u8> {
    codec::compress(body)
}

/// Returns `true` if a payload is a zstd frame, so that [`decompress`] has work to do.
#[must_use]
pub fn is_compressed(payload: &[u8]) -> bool {
    payload.len() > MAGIC.len() && payload.starts_with(&MAGIC)
}

/// The length of the body that a zstd frame announces; `None` if it announces none. [`decompress`] refuses a frame
/// that holds more.
#[must_use]
pub fn announced_len(payload: &[u8]) -> Option<u64> {
    codec::announced_len(payload)
}

/// The body of a proposal, at most `limit` bytes of it.
///
/// A payload of at most four bytes, or one that does not start like a zstd frame, is returned as it is
/// and without a copy, whatever its length: its bound is that of the tag.
///
/// # Errors
///
/// [`ProposalError`] when the frame is damaged, cut off, followed by anything, or too large inside.
pub fn decompress(payload: &Bytes, limit: usize) -> Result<Bytes, ProposalError> {
    if !is_compressed(payload) {
        return Ok(payload.clone());
    }
    codec::decompress(payload, limit).map(into_bytes)
}

/// Memory for the first step of the output of a frame.
fn first_step(payload: &[u8], ceiling: usize) -> Vec<u8> {
    let first = payload.len().saturating_mul(FIRST_STEP_FACTOR).max(FIRST_STEP_BYTES);
    Vec::with_capacity(first.min(ceiling))
}

/// Gives back most of what the steps reserved too much.
fn into_bytes(mut body: Vec<u8>) -> Bytes {
    if body.capacity() / 2 > body.len() {
        body.shrink_to_fit();
    }
    Bytes::from(body)
}
