//! PP: proposals travel as one zstd frame.
//!
//! # Invariants
//!
//! * Memory for the output grows with the output, in steps, never with what a frame announces. The
//!   window of the decompressor is reserved, not touched, until output fills it.
//! * A frame that ends early, or has anything after it, is refused. Existing nodes hand on a part of
//!   the first and sometimes accept the second; nobody sends either. Source: wire facts 5.1.

use bytes::Bytes;
use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, get_error_name};

/// Largest proposal after decompression, in bytes. Source: wire facts 5.1.
pub const MAX_DECOMPRESSED: usize = 5_250_618;

/// The first bytes of every zstd frame.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The level existing nodes compress with. Source: wire facts 5.1.
const LEVEL: i32 = 1;

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
    zstd::bulk::compress(body, LEVEL).unwrap_or_else(|_| body.to_vec())
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
    zstd::zstd_safe::get_frame_content_size(payload).ok().flatten()
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
    let mut context = DCtx::create();
    context.set_parameter(DParameter::WindowLogMax(MAX_WINDOW_LOG)).map_err(frame_error)?;
    // One byte of room above the limit shows whether the content goes on.
    let ceiling = limit.saturating_add(1);
    let first = payload.len().saturating_mul(FIRST_STEP_FACTOR).max(FIRST_STEP_BYTES);
    let mut body = Vec::with_capacity(first.min(ceiling));
    let mut input = InBuffer::around(payload);
    loop {
        let (read, written) = (input.pos(), body.len());
        let mut output = OutBuffer::around_pos(&mut body, written);
        let left = context.decompress_stream(&mut output, &mut input).map_err(frame_error)?;
        if body.len() > limit {
            return Err(ProposalError::TooLarge { limit });
        }
        if left == 0 {
            break;
        }
        if body.len() == body.capacity() {
            // Doubles, and never passes the ceiling, which the check above keeps out of reach.
            let step = body.len().min(ceiling - body.len());
            body.reserve_exact(step.max(1));
        } else if input.pos() == read && body.len() == written {
            // Room on both sides and no progress: the decompressor waits for bytes that never come.
            return Err(ProposalError::Truncated);
        }
    }
    match payload.len() - input.pos() {
        0 => Ok(into_bytes(body)),
        bytes => Err(ProposalError::Trailing { bytes }),
    }
}

/// Gives back most of what the steps reserved too much.
fn into_bytes(mut body: Vec<u8>) -> Bytes {
    if body.capacity() / 2 > body.len() {
        body.shrink_to_fit();
    }
    Bytes::from(body)
}

fn frame_error(code: usize) -> ProposalError {
    ProposalError::Frame { reason: get_error_name(code) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compressed(body: &[u8]) -> Bytes {
        Bytes::from(compress(body))
    }

    #[test]
    fn a_frame_announces_the_length_of_its_body_and_holds_no_more() {
        let frame = compressed(&[7; 100_000]);
        assert_eq!(announced_len(&frame), Some(100_000));
        assert_eq!(announced_len(&frame[..4]), None);
        assert_eq!(announced_len(b"no frame"), None);
        // The descriptor says that four bytes of length follow.
        assert_eq!(frame[4] >> 6, 2);
        let mut lying = frame.to_vec();
        lying[5..9].copy_from_slice(&99_999_u32.to_le_bytes());
        assert_eq!(announced_len(&lying), Some(99_999));
        let refused = decompress(&Bytes::from(lying), MAX_DECOMPRESSED);
        assert!(matches!(refused, Err(ProposalError::Frame { .. })), "{refused:?}");
    }

    #[test]
    fn a_body_at_the_limit_passes_and_one_byte_more_does_not() {
        let limit = MAX_DECOMPRESSED;
        let at_limit = vec![7; limit];
        assert_eq!(decompress(&compressed(&at_limit), limit).unwrap(), at_limit);
        let above = compressed(&vec![7; limit + 1]);
        assert_eq!(decompress(&above, limit), Err(ProposalError::TooLarge { limit }));
    }

    #[test]
    fn an_empty_body_survives_even_a_limit_of_nothing() {
        assert_eq!(decompress(&compressed(b""), 0).unwrap(), Bytes::new());
        assert_eq!(decompress(&compressed(b"x"), 0), Err(ProposalError::TooLarge { limit: 0 }));
    }

    #[test]
    fn a_plain_payload_is_not_copied() {
        let plain = Bytes::from(vec![1; 100]);
        assert_eq!(decompress(&plain, 10).unwrap().as_ptr(), plain.as_ptr());
    }

    #[test]
    fn a_small_result_does_not_keep_a_large_buffer() {
        let body = decompress(&compressed(b"short"), MAX_DECOMPRESSED).unwrap();
        let owned: Vec<u8> = body.into();
        assert!(owned.capacity() <= 2 * owned.len() + 1, "{}", owned.capacity());
    }

    proptest! {
        #[test]
        fn every_body_survives(body: Vec<u8>, repeat in 1_usize..200) {
            let body = body.repeat(repeat);
            prop_assert_eq!(decompress(&compressed(&body), body.len()).unwrap(), body);
        }

        #[test]
        fn a_frame_cut_anywhere_is_refused(body: Vec<u8>, cut: prop::sample::Index) {
            let frame = compressed(&body);
            let len = cut.index(frame.len());
            prop_assume!(len > MAGIC.len());
            prop_assert_eq!(
                decompress(&frame.slice(..len), MAX_DECOMPRESSED),
                Err(ProposalError::Truncated)
            );
        }

        #[test]
        fn anything_after_a_frame_is_refused(body: Vec<u8>, tail in prop::collection::vec(any::<u8>(), 1..50)) {
            let payload = Bytes::from([compress(&body), tail.clone()].concat());
            prop_assert_eq!(
                decompress(&payload, MAX_DECOMPRESSED),
                Err(ProposalError::Trailing { bytes: tail.len() })
            );
        }

        #[test]
        fn no_bytes_cause_a_panic(mut bytes: Vec<u8>, body: Vec<u8>, flip: prop::sample::Index) {
            bytes.splice(..0, MAGIC);
            let _: Result<_, _> = decompress(&Bytes::from(bytes), 10_000);
            let mut frame = compress(&body);
            let at = flip.index(frame.len());
            frame[at] ^= 0x55;
            let _: Result<_, _> = decompress(&Bytes::from(frame), 10_000);
        }
    }
}
