//! Violations of the frame layer, and the close codes and texts sent for them.
//!
//! # Invariants
//!
//! * A close payload is at most [`MAX_CONTROL_BYTES`](super::MAX_CONTROL_BYTES) long.
//! * No text of a peer is ever sent back.

use bytes::Bytes;

/// A rule of the frame layer that the peer broke. Source of codes and texts: wire facts 1.7, 1.9 and the
/// vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A reserved bit is set, which only an extension would allow.
    ReservedBits(u8),
    /// An opcode that RFC 6455 does not define.
    UnknownOpcode(u8),
    /// A control frame of more than 125 bytes.
    LongControl,
    /// A fragmented control frame.
    FragmentedControl,
    /// A continuation frame outside a message.
    ContinuationWithoutStart,
    /// A new message before the last frame of the current one.
    StartInsideMessage,
    /// An unmasked frame of a client, or a masked frame of a server.
    IncorrectMask,
    /// A 64-bit length with its top bit set.
    BadLength,
    /// A message whose headers announce more than the largest bound of any tag.
    TooBig,
    /// A close code that must not be sent on the wire.
    InvalidCloseCode,
    /// A close text that is not UTF-8.
    InvalidCloseText,
}

impl Violation {
    /// The payload of the close frame that this violation is answered with.
    #[must_use]
    pub fn close_payload(self) -> Bytes {
        match self {
            Self::TooBig => close_payload(1009, ""),
            other => close_payload(1002, &other.text()),
        }
    }

    fn text(self) -> String {
        let text = match self {
            Self::ReservedBits(bits) => return format!("unexpected reserved bits {bits:#x}"),
            Self::UnknownOpcode(number) => return format!("unknown opcode {number}"),
            Self::LongControl => "control frame length > 125",
            Self::FragmentedControl => "control frame not final",
            Self::ContinuationWithoutStart => "continuation after final message frame",
            Self::StartInsideMessage => "message start before final message frame",
            Self::IncorrectMask => "incorrect mask flag",
            Self::BadLength => "bad frame length",
            Self::TooBig => "",
            Self::InvalidCloseCode => "invalid close code",
            Self::InvalidCloseText => "invalid utf8 payload in close frame",
        };
        text.to_owned()
    }
}

/// Encodes the payload of a close frame. `text` must leave it within [`MAX_CONTROL_BYTES`](super::MAX_CONTROL_BYTES).
#[must_use]
pub fn close_payload(code: u16, text: &str) -> Bytes {
    let mut payload = Vec::with_capacity(2 + text.len());
    payload.extend_from_slice(&code.to_be_bytes());
    payload.extend_from_slice(text.as_bytes());
    Bytes::from(payload)
}

/// The reply to a peer's close frame: the same code without the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseEcho(pub Bytes);

/// Reads the unmasked payload of a close frame.
///
/// # Errors
///
/// [`Violation::InvalidCloseCode`], or [`Violation::InvalidCloseText`] if the code is valid.
pub fn read_close(payload: &[u8]) -> Result<CloseEcho, Violation> {
    let Some((&code, text)) = payload.split_first_chunk() else {
        return Ok(CloseEcho(Bytes::new()));
    };
    if !matches!(u16::from_be_bytes(code), 1000..=1003 | 1007..=1013 | 3000..=4999) {
        return Err(Violation::InvalidCloseCode);
    }
    if std::str::from_utf8(text).is_err() {
        return Err(Violation::InvalidCloseText);
    }
    Ok(CloseEcho(Bytes::copy_from_slice(&code)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_close_text_fits_a_control_frame() {
        for violation in [
            Violation::ReservedBits(0x70),
            Violation::UnknownOpcode(15),
            Violation::StartInsideMessage,
            Violation::InvalidCloseText,
        ] {
            assert!(violation.close_payload().len() <= super::super::MAX_CONTROL_BYTES);
        }
        assert_eq!(&Violation::TooBig.close_payload()[..], [0x03, 0xf1]);
    }

    #[test]
    fn a_close_is_echoed_by_its_code_alone() {
        for (payload, echo) in [
            (&b""[..], &b""[..]),
            (b"\x03", b""),
            (b"\x03\xe8", b"\x03\xe8"),
            (b"\x03\xe8bye", b"\x03\xe8"),
            (b"\x13\x87", b"\x13\x87"),
        ] {
            assert_eq!(read_close(payload).unwrap().0, echo);
        }
    }

    #[test]
    fn codes_that_may_not_be_sent_are_refused_before_the_text_is_looked_at() {
        for code in [0_u16, 999, 1004, 1005, 1006, 1015, 2000, 2999, 5000, 65_535] {
            let payload = [&code.to_be_bytes()[..], b"\xff"].concat();
            assert_eq!(read_close(&payload), Err(Violation::InvalidCloseCode), "{code}");
        }
        assert_eq!(read_close(b"\x03\xe8\xff"), Err(Violation::InvalidCloseText));
    }
}
