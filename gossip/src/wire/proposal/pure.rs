//! Frames through ruzstd, which is Rust only, for WebAssembly.
//!
//! # Invariants
//!
//! * A frame that zstd refuses is refused here. What ruzstd leaves to its caller is checked here: the reserved bit, the
//!   announced length, and the checksum.
//! * ruzstd keeps the window to itself and shows only what no longer fits into it. So its window is never larger than
//!   the bound of the body needs, and a frame that goes on is noticed at most 128 KiB after it has filled it.

use std::{error::Error, io, iter};

use ruzstd::{
    decoding::{BlockDecodingStrategy, FrameDecoder, errors::FrameDecoderError},
    encoding::{CompressionLevel, compress_to_vec},
};

use super::{MAGIC, MAX_WINDOW_LOG, ProposalError, first_step, header::Header};

/// A descriptor that says: a window, four bytes of content size, no checksum and no dictionary. Source: RFC 8878,
/// section 3.1.1.1.1.
const DESCRIPTOR: u8 = 0b1000_0000;

/// Bytes that ruzstd writes in front of the blocks, without a content size: magic, descriptor, and window.
const HEADER_BYTES: usize = 6;

/// Bytes that ruzstd writes after the blocks.
const CHECKSUM_BYTES: usize = 4;

/// The most that one block holds, as a power of two of bytes; a window below it also bounds the blocks. Source: RFC
/// 8878, section 3.1.1.2.4.
const BLOCK_LOG: u32 = 17;

/// The refusals of zstd in its own words, so that a log reads alike everywhere.
const CORRUPTED: ProposalError = ProposalError::Frame { reason: "Data corruption detected" };
const CHECKSUM: ProposalError =
    ProposalError::Frame { reason: "Restored data doesn't match checksum" };
const DICTIONARY: ProposalError = ProposalError::Frame { reason: "Dictionary mismatch" };
const WINDOW: ProposalError =
    ProposalError::Frame { reason: "Frame requires too much memory for decoding" };
const UNSUPPORTED: ProposalError = ProposalError::Frame { reason: "Unsupported frame parameter" };

/// The blocks are ruzstd's. The header is written here: existing nodes announce the length of a proposal, and leave
/// out the checksum.
pub(super) fn compress(body: &[u8]) -> Vec<u8> {
    let written = compress_to_vec(body, CompressionLevel::Fastest);
    let blocks = written.get(HEADER_BYTES..written.len().saturating_sub(CHECKSUM_BYTES));
    match (u32::try_from(body.len()), written.get(HEADER_BYTES - 1), blocks) {
        (Ok(len), Some(&window), Some(blocks)) => {
            [&MAGIC[..], &[DESCRIPTOR, window], &len.to_le_bytes(), blocks].concat()
        }
        _ => body.to_vec(),
    }
}

pub(super) fn announced_len(payload: &[u8]) -> Option<u64> {
    Header::read(payload).filter(Header::is_supported)?.content
}

/// The body of a frame, at most `limit` bytes of it.
pub(super) fn decompress(payload: &[u8], limit: usize) -> Result<Vec<u8>, ProposalError> {
    let header = Header::read(payload).ok_or(ProposalError::Truncated)?;
    let mut decoder = begin(payload, &header, limit)?;
    let mut rest = payload.get(header.bytes..).unwrap_or_default();
    let mut body = first_step(payload, limit);
    loop {
        let one = BlockDecodingStrategy::UptoBlocks(1);
        let is_last = decoder.decode_blocks(&mut rest, one).map_err(|error| refusal(&error))?;
        decoder.collect_to_writer(&mut body).map_err(|_| CORRUPTED)?;
        let is_as_announced = header.content.is_none_or(|len| len == body.len() as u64);
        if is_last && !is_as_announced {
            return Err(CORRUPTED);
        }
        if body.len() > limit {
            return Err(ProposalError::TooLarge { limit });
        }
        if is_last {
            break;
        }
    }
    let written = decoder.get_checksum_from_data();
    if written.is_some() && written != decoder.get_calculated_checksum() {
        return Err(CHECKSUM);
    }
    match rest.len() {
        0 => Ok(body),
        bytes => Err(ProposalError::Trailing { bytes }),
    }
}

/// A decompressor that expects the first block.
fn begin(payload: &[u8], header: &Header, limit: usize) -> Result<FrameDecoder, ProposalError> {
    if !header.is_supported() {
        return Err(UNSUPPORTED);
    }
    if header.dictionary != 0 {
        return Err(DICTIONARY);
    }
    if header.window > 1 << MAX_WINDOW_LOG {
        return Err(WINDOW);
    }
    let needed = limit.clamp(1 << BLOCK_LOG, 1 << MAX_WINDOW_LOG).next_power_of_two();
    let smaller = [&MAGIC[..], &header.with_window_of(needed.ilog2())].concat();
    let read = if header.window > needed as u64 { &smaller } else { payload };
    let mut decoder = FrameDecoder::new();
    decoder.init(read).map_err(|error| refusal(&error))?;
    Ok(decoder)
}

/// A slice fails to be read only where it ends.
fn refusal(error: &FrameDecoderError) -> ProposalError {
    let first: &(dyn Error + 'static) = error;
    let mut causes = iter::successors(Some(first), |&error| error.source());
    if causes.any(|cause| cause.is::<io::Error>()) { ProposalError::Truncated } else { CORRUPTED }
}
