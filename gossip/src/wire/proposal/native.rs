//! Frames through zstd, the library in C.

use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, get_error_name};

use super::{MAX_WINDOW_LOG, ProposalError, first_step};

/// The level existing nodes compress with. Source: wire facts 5.1.
const LEVEL: i32 = 1;

pub(super) fn compress(body: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(body, LEVEL).unwrap_or_else(|_| body.to_vec())
}

pub(super) fn announced_len(payload: &[u8]) -> Option<u64> {
    zstd::zstd_safe::get_frame_content_size(payload).ok().flatten()
}

/// The body of a frame, at most `limit` bytes of it.
pub(super) fn decompress(payload: &[u8], limit: usize) -> Result<Vec<u8>, ProposalError> {
    let mut context = DCtx::create();
    context.set_parameter(DParameter::WindowLogMax(MAX_WINDOW_LOG)).map_err(frame_error)?;
    // One byte of room above the limit shows whether the content goes on.
    let ceiling = limit.saturating_add(1);
    let mut body = first_step(payload, ceiling);
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
        0 => Ok(body),
        bytes => Err(ProposalError::Trailing { bytes }),
    }
}

fn frame_error(code: usize) -> ProposalError {
    ProposalError::Frame { reason: get_error_name(code) }
}
