//! The messages on a data channel of libp2p, as length-delimited protobuf: bytes of the stream, and flags that end its
//! directions. Source: libp2p specifications, `webrtc/README.md`, Multiplexing.
//!
//! # Invariants
//!
//! * No message is longer than [`MAX_MESSAGE_BYTES`], its length in front included, in either direction.
//! * A decoder keeps at most one message that is not complete.

use bytes::{Bytes, BytesMut};
use prost::Message as _;

/// Longest message, in bytes, its length in front included. Source: libp2p specifications, `webrtc/README.md`: 16 KiB.
pub(super) const MAX_MESSAGE_BYTES: usize = 16 * 1024;

/// Most bytes of a stream in one message: what the two lengths, the two tags and the flag leave.
pub(super) const MAX_DATA_BYTES: usize = MAX_MESSAGE_BYTES - 3 - 3 - 4;

/// Longest length in front of a message, in bytes.
const MAX_LENGTH_BYTES: usize = 3;

/// Longest message that is sent in one part. Source: go-libp2p 0.51, which reads with `bufio.NewReader`.
const LARGEST_SINGLE_PART: usize = 4_096;

/// The end of a direction, or the answer to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flag {
    /// The sender sends no more.
    Fin,
    /// The sender reads no more.
    StopSending,
    /// The sender sends no more, and what it has sent may be incomplete.
    Reset,
    /// A FIN was received, and so was everything before it.
    FinAck,
}

impl Flag {
    fn of(number: i32) -> Option<Self> {
        match number {
            0 => Some(Self::Fin),
            1 => Some(Self::StopSending),
            2 => Some(Self::Reset),
            3 => Some(Self::FinAck),
            _ => None,
        }
    }

    const fn number(self) -> i32 {
        match self {
            Self::Fin => 0,
            Self::StopSending => 1,
            Self::Reset => 2,
            Self::FinAck => 3,
        }
    }
}

/// A message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Frame {
    /// `None` also for a flag that this version does not know.
    pub(super) flag: Option<Flag>,
    /// Bytes of the stream.
    pub(super) data: Bytes,
}

/// The message as protobuf has it.
#[derive(Clone, PartialEq, prost::Message)]
struct Wire {
    #[prost(int32, optional, tag = "1")]
    flag: Option<i32>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    message: Option<Bytes>,
}

/// The reason why a message cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    /// It is longer than the specification allows.
    #[error("a message is longer than 16 KiB")]
    TooLong,
    /// It is no protobuf, or its length is none.
    #[error("a message cannot be read")]
    Malformed,
}

impl From<Flag> for Frame {
    fn from(flag: Flag) -> Self {
        Self { flag: Some(flag), data: Bytes::new() }
    }
}

impl Frame {
    /// The message for bytes of a stream; takes at most [`MAX_DATA_BYTES`] of them.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let taken = bytes.get(..MAX_DATA_BYTES).unwrap_or(bytes);
        Self { flag: None, data: Bytes::copy_from_slice(taken) }
    }

    /// The parts in which the message is sent, its length in front. go-libp2p reads with a buffer of 4 KiB, into which a part
    /// has to fit, unless it is all of a message but its length.
    pub(super) fn parts(self) -> Vec<Vec<u8>> {
        let mut encoded = self.encode();
        if encoded.len() <= LARGEST_SINGLE_PART {
            return vec![encoded];
        }
        let prefix = encoded.iter().take_while(|byte| *byte & 0x80 != 0).count() + 1;
        let message = encoded.split_off(prefix);
        vec![encoded, message]
    }

    /// The message with its length in front.
    pub(super) fn encode(self) -> Vec<u8> {
        let message = Some(self.data).filter(|data| !data.is_empty());
        Wire { flag: self.flag.map(Flag::number), message }.encode_length_delimited_to_vec()
    }
}

/// Puts messages together from bytes, which may be cut anywhere.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    bytes: BytesMut,
}

impl Decoder {
    /// Adds bytes. The caller takes all messages before it adds more.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes the next message; `None` if it is not complete.
    ///
    /// # Errors
    ///
    /// [`FrameError`], after which nothing more can be read.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some((length, prefix)) = self.length()? else { return Ok(None) };
        if self.bytes.len() < prefix + length {
            return Ok(None);
        }
        let wire = self.bytes.split_to(prefix + length).freeze().slice(prefix..);
        let wire = Wire::decode(wire).map_err(|_| FrameError::Malformed)?;
        let data = wire.message.unwrap_or_default();
        Ok(Some(Frame { flag: wire.flag.and_then(Flag::of), data }))
    }

    /// The length of the next message, and the number of bytes that say so.
    fn length(&self) -> Result<Option<(usize, usize)>, FrameError> {
        let mut length = 0;
        for (number, byte) in self.bytes.iter().take(MAX_LENGTH_BYTES).enumerate() {
            length |= usize::from(byte & 0x7f) << (7 * number);
            if byte & 0x80 == 0 {
                let prefix = number + 1;
                let fits = prefix + length <= MAX_MESSAGE_BYTES;
                return if fits { Ok(Some((length, prefix))) } else { Err(FrameError::TooLong) };
            }
        }
        if self.bytes.len() < MAX_LENGTH_BYTES { Ok(None) } else { Err(FrameError::TooLong) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_all(decoder: &mut Decoder) -> Vec<Frame> {
        std::iter::from_fn(|| decoder.next().unwrap()).collect()
    }

    #[test]
    fn the_longest_message_fits_and_a_longer_one_is_refused() {
        let longest = Frame { flag: Some(Flag::FinAck), data: vec![7; MAX_DATA_BYTES].into() };
        let bytes = longest.clone().encode();
        assert!(bytes.len() <= MAX_MESSAGE_BYTES && bytes.len() > MAX_MESSAGE_BYTES - 4);
        let mut decoder = Decoder::default();
        decoder.push(&bytes);
        assert_eq!(decoder.next(), Ok(Some(longest)));
        let mut decoder = Decoder::default();
        decoder.push(&Frame { flag: None, data: vec![7; MAX_MESSAGE_BYTES].into() }.encode());
        assert_eq!(decoder.next(), Err(FrameError::TooLong));
    }

    #[test]
    fn a_length_that_never_ends_is_refused_at_its_third_byte() {
        let mut decoder = Decoder::default();
        decoder.push(&[0xff, 0xff]);
        assert_eq!(decoder.next(), Ok(None));
        decoder.push(&[0xff]);
        assert_eq!(decoder.next(), Err(FrameError::TooLong));
    }

    #[test]
    fn a_long_message_is_sent_apart_from_its_length() {
        for (bytes, parts) in [(0, 1), (4_091, 1), (4_092, 2), (MAX_DATA_BYTES, 2)] {
            let frame = Frame::of(&vec![7; bytes]);
            let sent = frame.clone().parts();
            assert_eq!((sent.len(), sent.concat()), (parts, frame.clone().encode()), "{bytes}");
            if let [length, message] = &sent[..] {
                assert!(length.len() == 2 && message.len() < MAX_MESSAGE_BYTES);
            }
        }
    }

    // As js-libp2p and go-libp2p write them.
    #[test]
    fn messages_have_the_bytes_of_the_specification() {
        assert_eq!(Frame::of(b"ab").encode(), [4, 0x12, 2, b'a', b'b']);
        assert_eq!(Frame::from(Flag::Fin).encode(), [2, 8, 0]);
        assert_eq!(Frame::from(Flag::FinAck).encode(), [2, 8, 3]);
    }

    #[test]
    fn a_flag_of_a_later_version_is_no_flag() {
        let mut decoder = Decoder::default();
        decoder.push(&[2, 8, 9]);
        assert_eq!(decoder.next(), Ok(Some(Frame::default())));
    }

    fn frames() -> impl Strategy<Value = Vec<Frame>> {
        let flag = proptest::option::of((0..4).prop_map(|number| Flag::of(number).unwrap()));
        let data = proptest::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
        proptest::collection::vec((flag, data).prop_map(|(flag, data)| Frame { flag, data }), 0..8)
    }

    proptest! {
        #[test]
        fn messages_arrive_however_they_are_cut(frames in frames(), size in 1_usize..40) {
            let bytes: Vec<u8> = frames.iter().flat_map(|frame| frame.clone().encode()).collect();
            let (mut decoder, mut heard) = (Decoder::default(), Vec::new());
            for piece in bytes.chunks(size) {
                decoder.push(piece);
                heard.extend(read_all(&mut decoder));
            }
            prop_assert_eq!(heard, frames);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next() {}
            prop_assert!(decoder.bytes.len() <= bytes.len());
        }
    }
}
