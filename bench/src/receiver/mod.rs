//! Receivers with as little work as possible, so that the sender is measured.
//!
//! ```text
//!   socket ──▶ [buffer, 64 KiB] ──cut by the framing──▶ Tally
//! ```
//!
//! # Invariants
//!
//! * The same code receives for every contender of a transport.
//! * Tag and number of every message are checked. Bodies are not copied.

pub(crate) mod p2p;
pub(crate) mod quic;
pub(crate) mod ws;

use gossip::{Tag, wire::frame};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{error::Failure, meter::Tally};

/// Size of a receiver's buffer, in bytes. Chosen: a whole batch of a node, so that reading is cheap.
const BUFFER_BYTES: usize = 64 * 1024;

/// An item at the start of a buffer.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    /// A message, tag included.
    Message(&'a [u8]),
    /// A ping with this payload, which needs a pong.
    Ping(&'a [u8]),
    /// An item without interest for the measurement.
    Other,
}

/// Parses one item and returns its length; `None` if it is not complete.
type Cut = fn(&[u8]) -> Result<Option<(Piece<'_>, usize)>, Failure>;

/// The messages that are counted, and the place of the number in them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    /// Their tag.
    pub(crate) tag: Tag,
    /// The place in the body, in bytes.
    pub(crate) at: usize,
}

impl Counted {
    /// Messages that begin with their number.
    const NUMBERED: Self = Self { tag: Tag::AV, at: 0 };
}

/// Counts the messages of a connection until it ends.
async fn count<S>(mut io: S, cut: Cut, counted: Counted, tally: &mut Tally) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut filled = 0;
    loop {
        let read = io.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        let mut at = 0;
        while let Some((piece, len)) = cut(&buffer[at..filled])? {
            match piece {
                Piece::Message(message) => {
                    // Other tags, such as the message of interest, come with the connection.
                    if let Some(body) = message.strip_prefix(&counted.tag.0) {
                        tally.take(body.get(counted.at..).unwrap_or_default())?;
                    }
                }
                Piece::Ping(payload) => io.write_all(&ws::pong(payload)).await?,
                Piece::Other => {}
            }
            at += len;
        }
        tally.settle();
        buffer.copy_within(at..filled, 0);
        filled -= at;
        if filled == buffer.len() {
            return Err("a message is longer than the buffer of a receiver".into());
        }
    }
}

/// Counts messages with a length prefix of four bytes, as on libp2p streams, until the connection ends.
pub(crate) async fn count_lengths<S>(io: S, tally: &mut Tally) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    count(io, cut_length, Counted::NUMBERED, tally).await
}

/// Counts the messages of a WebSocket, after its upgrade, until it ends.
pub(crate) async fn count_ws<S>(io: S, tally: &mut Tally) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    count(io, ws::cut, Counted::NUMBERED, tally).await
}

/// Counts the votes of a WebSocket, which have their number elsewhere, as [`count_ws`] does.
pub(crate) async fn count_votes<S>(
    io: S,
    counted: Counted,
    tally: &mut Tally,
) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    count(io, ws::cut, counted, tally).await
}

fn cut_length(buffer: &[u8]) -> Result<Option<(Piece<'_>, usize)>, Failure> {
    let Some((header, rest)) = buffer.split_first_chunk() else { return Ok(None) };
    let len = frame::decode_header(*header)?;
    let message = rest.get(..len);
    Ok(message.map(|message| (Piece::Message(message), frame::FRAME_HEADER_BYTES + len)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::Meter;

    fn message(number: u64) -> Vec<u8> {
        [&Tag::AV.0[..], &number.to_le_bytes(), &[7; 50]].concat()
    }

    /// Sends `bytes` through a pipe so narrow that every message is split.
    async fn counted(bytes: Vec<u8>, cut: Cut) -> u64 {
        let meter = Meter::new(1);
        let mut tally = Tally::new(&meter, 0);
        let (mut near, far) = tokio::io::duplex(7);
        let feed = async move { near.write_all(&bytes).await.unwrap() };
        let (outcome, ()) = tokio::join!(count(far, cut, Counted::NUMBERED, &mut tally), feed);
        outcome.unwrap();
        meter.total()
    }

    #[tokio::test]
    async fn length_prefixed_messages_are_parsed_wherever_reads_end() {
        let framed =
            |message: Vec<u8>| [&frame::encode_header(message.len())[..], &message].concat();
        let mut bytes: Vec<u8> = framed(b"MIx".to_vec());
        bytes.extend((0..100).flat_map(|number| framed(message(number))));
        assert_eq!(counted(bytes, cut_length).await, 100);
    }

    #[tokio::test]
    async fn frames_of_every_length_are_parsed_wherever_reads_end() {
        let framed = |message: Vec<u8>| {
            let short = u8::try_from(message.len()).unwrap();
            [&[0x82, short][..], &message].concat()
        };
        let mut bytes: Vec<u8> = (0..100).flat_map(|number| framed(message(number))).collect();
        let long = [message(100), vec![0; 1_000]].concat();
        let len = u16::try_from(long.len()).unwrap().to_be_bytes();
        bytes.extend([&[0x82, 126][..], &len, &long].concat());
        assert_eq!(counted(bytes, ws::cut).await, 101);
    }
}
