//! The messages by which two hosts tell each other how to connect, as length-delimited protobuf.
//! Source: libp2p specifications, `webrtc/webrtc.md`, Signaling Protocol.
//!
//! # Invariants
//!
//! * No message is longer than [`MAX_SIGNAL_BYTES`], in either direction, whatever length it announces.
//! * A codec keeps at most one message that is not complete, and what came with its last bytes.

use std::io;

use bytes::{Buf, BytesMut};
use prost::Message as _;
use tokio_util::codec::{Decoder, Encoder};

/// Longest signal, in bytes, without its length in front. Chosen: the description of a browser with one section for data has
/// 500 bytes, and one candidate 300.
pub(super) const MAX_SIGNAL_BYTES: usize = 16 * 1024;

/// Longest length in front of a signal, in bytes.
const MAX_LENGTH_BYTES: usize = 3;

/// A signal between two hosts that connect with each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The description of the end that offers a connection, in SDP.
    Offer(String),
    /// The description of the other end, in SDP.
    Answer(String),
    /// A way to the sender that may work, as the JSON of an `RTCIceCandidate`.
    Candidate(String),
}

/// The signal as protobuf has it.
#[derive(Clone, PartialEq, prost::Message)]
struct Wire {
    #[prost(int32, optional, tag = "1")]
    kind: Option<i32>,
    #[prost(string, optional, tag = "2")]
    data: Option<String>,
}

/// The reason why a signal is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SignalFault {
    #[error("a signal is longer than 16 KiB")]
    TooLong,
    #[error("a signal cannot be read")]
    Malformed,
    #[error("a signal came that is not of the end that sent it, or came at a wrong time")]
    Misplaced,
    #[error("too many candidates came")]
    TooMany,
}

/// The reason why nothing more can be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignalError {
    #[error(transparent)]
    Fault(#[from] SignalFault),
    #[error("the signals have ended")]
    Io(#[from] io::Error),
}

/// Puts signals together from bytes, and turns them into bytes.
#[derive(Debug, Default)]
pub(super) struct SignalCodec;

/// The length of the next message, and the number of bytes that say so; `None` if it is not complete.
fn length(bytes: &[u8]) -> Result<Option<(usize, usize)>, SignalFault> {
    let mut length = 0;
    for (number, byte) in bytes.iter().take(MAX_LENGTH_BYTES).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * number);
        if byte & 0x80 == 0 {
            let fits = length <= MAX_SIGNAL_BYTES;
            return if fits { Ok(Some((length, number + 1))) } else { Err(SignalFault::TooLong) };
        }
    }
    if bytes.len() < MAX_LENGTH_BYTES { Ok(None) } else { Err(SignalFault::TooLong) }
}

impl Decoder for SignalCodec {
    type Item = Signal;
    type Error = SignalError;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Signal>, SignalError> {
        let Some((length, prefix)) = length(bytes)? else { return Ok(None) };
        if bytes.len() < prefix + length {
            return Ok(None);
        }
        bytes.advance(prefix);
        let wire =
            Wire::decode(bytes.split_to(length)).map_err(|_broken| SignalFault::Malformed)?;
        let data = wire.data.unwrap_or_default();
        match wire.kind {
            Some(0) => Ok(Some(Signal::Offer(data))),
            Some(1) => Ok(Some(Signal::Answer(data))),
            Some(2) => Ok(Some(Signal::Candidate(data))),
            _ => Err(SignalFault::Malformed.into()),
        }
    }
}

impl Encoder<Signal> for SignalCodec {
    type Error = SignalError;

    fn encode(&mut self, signal: Signal, into: &mut BytesMut) -> Result<(), SignalError> {
        let (kind, data) = match signal {
            Signal::Offer(data) => (0, data),
            Signal::Answer(data) => (1, data),
            Signal::Candidate(data) => (2, data),
        };
        let wire = Wire { kind: Some(kind), data: Some(data) };
        if wire.encoded_len() > MAX_SIGNAL_BYTES {
            return Err(SignalFault::TooLong.into());
        }
        wire.encode_length_delimited(into).map_err(io::Error::other)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn signals() -> impl Strategy<Value = Signal> {
        (0..3, ".{0,200}").prop_map(|(kind, data)| match kind {
            0 => Signal::Offer(data),
            1 => Signal::Answer(data),
            _ => Signal::Candidate(data),
        })
    }

    fn read_all(bytes: &mut BytesMut) -> Result<Vec<Signal>, SignalError> {
        let mut all = Vec::new();
        while let Some(signal) = SignalCodec.decode(bytes)? {
            all.push(signal);
        }
        Ok(all)
    }

    // Bytes of js-libp2p 3.3.11: it writes a kind that is zero.
    #[test]
    fn an_offer_is_written_as_others_expect_it() {
        let mut bytes = BytesMut::new();
        SignalCodec.encode(Signal::Offer("v=0".to_owned()), &mut bytes).unwrap();
        assert_eq!(&bytes[..], b"\x07\x08\x00\x12\x03v=0");
    }

    #[test]
    fn a_long_or_broken_signal_is_refused() {
        let mut into = BytesMut::new();
        let long = Signal::Offer("x".repeat(MAX_SIGNAL_BYTES));
        assert!(SignalCodec.encode(long, &mut into).is_err() && into.is_empty());
        let longest = Signal::Candidate("x".repeat(MAX_SIGNAL_BYTES - 6));
        SignalCodec.encode(longest.clone(), &mut into).unwrap();
        assert_eq!(read_all(&mut into).unwrap(), [longest]);
        for bad in [
            &b"\x81\x80\x01"[..],
            b"\xff\xff\xff",
            b"\x01\x08",
            b"\x02\x08\x03",
            b"\x00",
            b"\x04\x12\x02\xff\xff",
        ] {
            assert!(read_all(&mut bad.into()).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn signals_are_the_same_however_their_bytes_are_cut(
            sent in prop::collection::vec(signals(), 0..5),
            cut in 1..40_usize,
        ) {
            let mut bytes = BytesMut::new();
            for signal in sent.clone() {
                SignalCodec.encode(signal, &mut bytes).unwrap();
            }
            let (mut buffer, mut read) = (BytesMut::new(), Vec::new());
            for piece in bytes.chunks(cut) {
                buffer.extend_from_slice(piece);
                read.extend(read_all(&mut buffer).unwrap());
            }
            prop_assert_eq!(read, sent);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_all(&mut BytesMut::from(&bytes[..]));
        }
    }
}
