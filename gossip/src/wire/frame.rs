//! Messages on a libp2p stream: a length, then the tag, then the payload.
//!
//! ```text
//!   u32 big endian: tag + payload │ tag │ payload
//! ```
//!
//! # Invariants
//!
//! * A length is refused before any of the message is read or any memory is taken for it.
//! * Splitting a message copies nothing.

use bytes::Bytes;

use crate::{profile::MAX_MESSAGE_BYTES, tag::Tag};

/// Length of the header, in bytes. Source: wire facts 8.5.
pub const FRAME_HEADER_BYTES: usize = 4;

/// Why a frame cannot be read. The stream has no way to recover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Too short for a tag.
    #[error("a frame of {bytes} bytes has no room for a tag")]
    TooShort {
        /// The length announced.
        bytes: usize,
    },
    /// Longer than any message may be.
    #[error("a frame of {bytes} bytes is longer than the {MAX_MESSAGE_BYTES} allowed")]
    TooLong {
        /// The length announced.
        bytes: usize,
    },
}

/// The header of a message of `len` bytes, tag included.
///
/// A length above 32 bits, which no message has, becomes one that every reader refuses.
#[must_use]
pub fn encode_header(len: usize) -> [u8; FRAME_HEADER_BYTES] {
    u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes()
}

/// The length of the message that follows, tag included.
///
/// # Errors
///
/// [`FrameError`] below two bytes and above [`MAX_MESSAGE_BYTES`].
pub fn decode_header(header: [u8; FRAME_HEADER_BYTES]) -> Result<usize, FrameError> {
    let bytes = usize::try_from(u32::from_be_bytes(header)).unwrap_or(usize::MAX);
    if bytes < Tag::BYTES {
        return Err(FrameError::TooShort { bytes });
    }
    if bytes > MAX_MESSAGE_BYTES {
        return Err(FrameError::TooLong { bytes });
    }
    Ok(bytes)
}

/// Tag and payload of a message of either transport; `None` when it is too short for a tag.
#[must_use]
pub fn split(message: &Bytes) -> Option<(Tag, Bytes)> {
    let &tag = message.first_chunk::<{ Tag::BYTES }>()?;
    Some((Tag(tag), message.slice(Tag::BYTES..)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_length_is_accepted_from_a_bare_tag_to_the_largest_message() {
        for good in [2, 3, MAX_MESSAGE_BYTES - 1, MAX_MESSAGE_BYTES] {
            assert_eq!(decode_header(encode_header(good)), Ok(good));
        }
        for bytes in [0, 1] {
            assert_eq!(decode_header(encode_header(bytes)), Err(FrameError::TooShort { bytes }));
        }
        for bytes in [MAX_MESSAGE_BYTES + 1, u32::MAX as usize] {
            assert_eq!(decode_header(encode_header(bytes)), Err(FrameError::TooLong { bytes }));
        }
    }

    #[test]
    fn a_bare_tag_is_a_message_with_an_empty_payload() {
        assert_eq!(split(&Bytes::from_static(b"AV")), Some((Tag::AV, Bytes::new())));
        assert_eq!(split(&Bytes::from_static(b"A")), None);
        assert_eq!(split(&Bytes::new()), None);
    }

    proptest! {
        #[test]
        fn a_message_is_its_tag_and_its_payload(tag: [u8; 2], body: Vec<u8>) {
            let message = Bytes::from([&tag[..], &body].concat());
            prop_assert_eq!(split(&message), Some((Tag(tag), Bytes::from(body))));
        }

        #[test]
        fn no_header_causes_a_panic(header: [u8; 4]) {
            if let Ok(len) = decode_header(header) {
                prop_assert_eq!(encode_header(len), header);
            }
        }
    }
}
