//! The messages by which peers ask for circuits, meet directly, and test each other's addresses, as length-delimited
//! protobuf. Source: libp2p specifications, `relay/circuit-v2.md`, `relay/DCUtR.md`.
//!
//! # Invariants
//!
//! * A message is read only up to [`MAX_MESSAGE_BYTES`], whatever length it announces.
//! * Nothing that stands behind a message on its stream is read with it.

use std::io;

use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest message, in bytes. Source: libp2p specifications, `relay/circuit-v2.md`: 4 KiB.
pub(super) const MAX_MESSAGE_BYTES: usize = 4_096;

/// The result of a request, in the words of the protocol.
pub(super) mod status {
    pub(in crate::reach) const OK: i32 = 100;
    pub(in crate::reach) const RESERVATION_REFUSED: i32 = 200;
    pub(in crate::reach) const RESOURCE_LIMIT_EXCEEDED: i32 = 201;
    pub(in crate::reach) const PERMISSION_DENIED: i32 = 202;
    pub(in crate::reach) const CONNECTION_FAILED: i32 = 203;
    pub(in crate::reach) const NO_RESERVATION: i32 = 204;
    pub(in crate::reach) const MALFORMED_MESSAGE: i32 = 400;
    pub(in crate::reach) const UNEXPECTED_MESSAGE: i32 = 401;
}

/// Kinds of [`HopMessage`].
pub(super) mod hop {
    pub(in crate::reach) const RESERVE: i32 = 0;
    pub(in crate::reach) const CONNECT: i32 = 1;
    pub(in crate::reach) const STATUS: i32 = 2;
}

/// Kinds of [`StopMessage`].
pub(super) mod stop {
    pub(in crate::reach) const CONNECT: i32 = 0;
    pub(in crate::reach) const STATUS: i32 = 1;
}

/// Kinds of [`HolePunch`].
pub(super) mod punch {
    pub(in crate::reach) const CONNECT: i32 = 100;
    pub(in crate::reach) const SYNC: i32 = 300;
}

/// Between two ends of a circuit that want to meet.
#[derive(Clone, PartialEq, Message)]
pub(super) struct HolePunch {
    #[prost(int32, required, tag = "1")]
    pub(super) kind: i32,
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub(super) addrs: Vec<Vec<u8>>,
}

/// Between a client and its relay.
#[derive(Clone, PartialEq, Message)]
pub(super) struct HopMessage {
    #[prost(int32, required, tag = "1")]
    pub(super) kind: i32,
    #[prost(message, optional, tag = "2")]
    pub(super) peer: Option<Peer>,
    #[prost(message, optional, tag = "3")]
    pub(super) reservation: Option<Reservation>,
    #[prost(message, optional, tag = "4")]
    pub(super) limit: Option<Limit>,
    #[prost(int32, optional, tag = "5")]
    pub(super) status: Option<i32>,
}

/// Between a relay and the peer that a circuit leads to.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StopMessage {
    #[prost(int32, required, tag = "1")]
    pub(super) kind: i32,
    #[prost(message, optional, tag = "2")]
    pub(super) peer: Option<Peer>,
    #[prost(message, optional, tag = "3")]
    pub(super) limit: Option<Limit>,
    #[prost(int32, optional, tag = "4")]
    pub(super) status: Option<i32>,
}

/// The other end of a circuit.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Peer {
    #[prost(bytes = "vec", required, tag = "1")]
    pub(super) id: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub(super) addrs: Vec<Vec<u8>>,
}

/// A place at a relay. The voucher that the protocol knows is of no use without a third party, and is left out, as
/// other implementations do.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Reservation {
    /// Seconds of the Unix clock.
    #[prost(uint64, required, tag = "1")]
    pub(super) expire: u64,
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub(super) addrs: Vec<Vec<u8>>,
}

/// The limits of a circuit; none is unlimited.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Limit {
    /// Seconds.
    #[prost(uint32, optional, tag = "1")]
    pub(super) duration: Option<u32>,
    /// Bytes in each direction.
    #[prost(uint64, optional, tag = "2")]
    pub(super) data: Option<u64>,
}

impl HopMessage {
    /// A message of one of the kinds in [`hop`], of which nothing else is said.
    pub(super) fn of(kind: i32) -> Self {
        Self { kind, peer: None, reservation: None, limit: None, status: None }
    }

    /// An answer.
    pub(super) fn answer(status: i32) -> Self {
        Self { status: Some(status), ..Self::of(hop::STATUS) }
    }
}

impl StopMessage {
    /// A message of one of the kinds in [`stop`], of which nothing else is said.
    pub(super) fn of(kind: i32) -> Self {
        Self { kind, peer: None, limit: None, status: None }
    }

    /// An answer.
    pub(super) fn answer(status: i32) -> Self {
        Self { status: Some(status), ..Self::of(stop::STATUS) }
    }
}

/// Reads one message.
///
/// # Cancel safety
///
/// Not safe: a part of the message may have been read.
pub(super) async fn read<M: Message + Default>(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<M> {
    let (mut length, mut shift) = (0_usize, 0_u32);
    loop {
        let byte = stream.read_u8().await?;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
        shift += 7;
        // Two groups of seven bits hold every length that is allowed.
        if shift > 7 {
            return Err(too_long());
        }
    }
    if length > MAX_MESSAGE_BYTES {
        return Err(too_long());
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    M::decode(&bytes[..]).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Writes one message and flushes it.
///
/// # Cancel safety
///
/// Not safe: a part of the message may have been written.
pub(super) async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &impl Message,
) -> io::Result<()> {
    stream.write_all(&message.encode_length_delimited_to_vec()).await?;
    stream.flush().await
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the message is too long")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_is_read_alone_and_a_long_or_broken_one_is_refused() {
        let mut bytes = Vec::new();
        let sent = HopMessage {
            peer: Some(Peer { id: vec![7; 300], addrs: vec![vec![1], vec![2]] }),
            limit: Some(Limit { duration: Some(120), data: Some(1 << 17) }),
            ..HopMessage::of(hop::CONNECT)
        };
        write(&mut bytes, &sent).await.unwrap();
        bytes.extend_from_slice(b"behind");
        let mut reader = &bytes[..];
        assert_eq!(read::<HopMessage>(&mut reader).await.unwrap(), sent);
        assert_eq!(reader, b"behind");
        for bad in [&[0x81, 0x80, 1][..], &[0x81, 0x20], &[2, 8], &[1, 0xff], &[]] {
            assert!(read::<HopMessage>(&mut &bad[..]).await.is_err(), "{bad:?}");
        }
    }

    // Bytes of go-libp2p 0.51: a request for a reservation, and one for a circuit.
    #[tokio::test]
    async fn kinds_that_are_zero_are_written_as_others_expect_them() {
        let mut bytes = Vec::new();
        write(&mut bytes, &HopMessage::of(hop::RESERVE)).await.unwrap();
        assert_eq!(bytes, [2, 8, 0]);
        bytes.clear();
        write(&mut bytes, &StopMessage::answer(status::OK)).await.unwrap();
        assert_eq!(bytes, [4, 8, 1, 32, 100]);
    }
}
