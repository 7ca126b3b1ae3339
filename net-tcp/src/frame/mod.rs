//! WebSocket frames as bytes: headers, masks, and the close frames for violations.
//!
//! # Invariants
//!
//! * A header is checked as far as it has been read, so a bad frame is refused before its payload arrives.
//! * This module is pure: it has no clock, allocates nothing for a payload, and does not interpret messages.

mod mask;
mod violation;

pub use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

pub use mask::apply as apply_mask;
pub use violation::{CloseEcho, Violation, close_payload, read_close};

/// Largest payload of a control frame, in bytes. Source: RFC 6455, section 5.5.
pub const MAX_CONTROL_BYTES: usize = 125;

/// Longest header this end writes, in bytes: two, plus a 64-bit length and a mask key.
pub const MAX_HEADER_BYTES: usize = 14;

/// The end of a connection that this node is, which decides which side masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// This node listened: it reads masked frames and writes unmasked ones.
    Server,
    /// This node dialled: it reads unmasked frames and writes masked ones.
    Client,
}

/// Position of a frame relative to the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Within {
    /// Between two messages.
    Nothing,
    /// After a data frame that was not the last of its message.
    Message,
}

/// Position of a frame within its message: the FIN bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// More frames follow.
    More,
    /// The last frame, or the only one.
    Last,
}

/// A frame header that violates no rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The position of the frame in its message.
    pub part: Part,
    /// The kind of the frame.
    pub opcode: OpCode,
    /// The mask key. Zero for an unmasked frame, so that applying it changes nothing.
    pub mask: [u8; 4],
    /// Announced length of the payload, in bytes.
    pub len: u64,
    /// Length of the header itself, in bytes.
    pub size: usize,
}

/// Reads a header from the start of `bytes`. Returns `None` if more bytes are needed.
///
/// # Errors
///
/// The first violation, in the order in which existing nodes check. Source: wire facts 1.7.
pub fn read_header(bytes: &[u8], role: Role, within: Within) -> Result<Option<Header>, Violation> {
    let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
    let (part, opcode) = judge(first, second, within)?;
    let (len, after_len) = match second & 0x7f {
        126 => match rest.split_first_chunk() {
            Some((len, rest)) => (u64::from(u16::from_be_bytes(*len)), rest),
            None => return Ok(None),
        },
        127 => match rest.split_first_chunk() {
            Some((len, rest)) => (u64::from_be_bytes(*len), rest),
            None => return Ok(None),
        },
        short => (u64::from(short), rest),
    };
    if len > i64::MAX as u64 {
        return Err(Violation::BadLength);
    }
    let is_masked = second & 0x80 != 0;
    if is_masked != (role == Role::Server) {
        return Err(Violation::IncorrectMask);
    }
    let (mask, payload) = if is_masked {
        match after_len.split_first_chunk() {
            Some((mask, payload)) => (*mask, payload),
            None => return Ok(None),
        }
    } else {
        ([0; 4], after_len)
    };
    Ok(Some(Header { part, opcode, mask, len, size: bytes.len() - payload.len() }))
}

/// Checks the first two bytes of a header.
fn judge(first: u8, second: u8, within: Within) -> Result<(Part, OpCode), Violation> {
    let reserved = first & 0x70;
    if reserved != 0 {
        return Err(Violation::ReservedBits(reserved));
    }
    let part = if first & 0x80 == 0 { Part::More } else { Part::Last };
    let opcode = OpCode::from(first & 0x0f);
    match opcode {
        OpCode::Control(Control::Reserved(number)) | OpCode::Data(Data::Reserved(number)) => {
            return Err(Violation::UnknownOpcode(number));
        }
        OpCode::Control(_) if usize::from(second & 0x7f) > MAX_CONTROL_BYTES => {
            return Err(Violation::LongControl);
        }
        OpCode::Control(_) if part == Part::More => return Err(Violation::FragmentedControl),
        OpCode::Data(Data::Continue) if within == Within::Nothing => {
            return Err(Violation::ContinuationWithoutStart);
        }
        OpCode::Data(Data::Text | Data::Binary) if within == Within::Message => {
            return Err(Violation::StartInsideMessage);
        }
        OpCode::Control(_) | OpCode::Data(_) => {}
    }
    Ok((part, opcode))
}

/// The key that masks a client's payload; `None` for the frames of a server.
pub type MaskKey = Option<[u8; 4]>;

/// Appends a frame to `out`: a header of minimal length and the payload, masked if there is a key.
pub fn write_frame(
    out: &mut Vec<u8>,
    mask: MaskKey,
    (part, opcode): (Part, OpCode),
    payload: &[u8],
) {
    write_header(out, mask, (part, opcode), payload.len());
    let at = out.len();
    out.extend_from_slice(payload);
    if let (Some(key), Some(written)) = (mask, out.get_mut(at..)) {
        apply_mask(written, key, 0);
    }
}

/// Appends the header of a frame to `out`.
pub fn write_header(out: &mut Vec<u8>, mask: MaskKey, (part, opcode): (Part, OpCode), len: usize) {
    let last = if part == Part::Last { 0x80 } else { 0 };
    let mask_bit = if mask.is_some() { 0x80 } else { 0 };
    let first = last | u8::from(opcode);
    // In one piece each: every append asks for room.
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(short @ 0..=125), _) => out.extend_from_slice(&[first, mask_bit | short]),
        (_, Ok(medium)) => {
            let [high, low] = medium.to_be_bytes();
            out.extend_from_slice(&[first, mask_bit | 126, high, low]);
        }
        _ => {
            out.extend_from_slice(&[first, mask_bit | 127]);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    if let Some(key) = mask {
        out.extend_from_slice(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BINARY: OpCode = OpCode::Data(Data::Binary);

    #[track_caller]
    fn judged(bytes: &[u8], within: Within) -> Result<Option<Header>, Violation> {
        read_header(bytes, Role::Server, within)
    }

    #[test]
    fn a_written_frame_is_read_at_every_length_where_the_header_changes() {
        for (key, reader) in [(None, Role::Client), (Some([7, 77, 177, 217]), Role::Server)] {
            let mask = key.unwrap_or_default();
            for len in [0, 1, 125, 126, 4096, 65_535, 65_536, 6 * 1024 * 1024] {
                let mut out = Vec::new();
                write_header(&mut out, key, (Part::Last, BINARY), len);
                assert!(out.len() <= MAX_HEADER_BYTES);
                let header = read_header(&out, reader, Within::Nothing).unwrap().unwrap();
                let (opcode, size, len) = (BINARY, out.len(), len as u64);
                assert_eq!(header, Header { part: Part::Last, opcode, mask, len, size });
                for cut in 0..out.len() {
                    let partly = read_header(&out[..cut], reader, Within::Nothing);
                    assert_eq!(partly, Ok(None), "{cut} of {} bytes", out.len());
                }
            }
        }
    }

    #[test]
    fn a_bad_frame_is_refused_before_its_payload() {
        let cases: [(&[u8], Within, Violation); 9] = [
            (&[0xc2, 0x85], Within::Nothing, Violation::ReservedBits(0x40)),
            (&[0x83, 0x85], Within::Nothing, Violation::UnknownOpcode(3)),
            (&[0x8b, 0x80], Within::Nothing, Violation::UnknownOpcode(11)),
            (&[0x89, 0xfe], Within::Nothing, Violation::LongControl),
            (&[0x09, 0x81], Within::Nothing, Violation::FragmentedControl),
            (&[0x80, 0x85], Within::Nothing, Violation::ContinuationWithoutStart),
            (&[0x82, 0x85], Within::Message, Violation::StartInsideMessage),
            (&[0x82, 0x05], Within::Nothing, Violation::IncorrectMask),
            (&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 1], Within::Nothing, Violation::BadLength),
        ];
        for (bytes, within, violation) in cases {
            assert_eq!(judged(bytes, within), Err(violation), "{bytes:x?}");
        }
    }

    #[test]
    fn a_length_need_not_be_minimal() {
        let header = judged(&[0x82, 0xfe, 0, 5, 1, 2, 3, 4], Within::Nothing).unwrap().unwrap();
        assert_eq!((header.len, header.size), (5, 8));
    }
}
