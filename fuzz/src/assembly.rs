//! Messages put together from the bytes of a connection, however they are cut.

use broadcaster::{Assembler, AssemblyRules, ByteBudget, Framing, LengthPrefix, Space, Step};
use bytes::{Buf, Bytes, BytesMut};
use gossip::{DisconnectReason, NetworkProfile, Tag};
use net_ws::fuzzing::{End, framing};
use tokio::time::{Duration, Instant};

/// Bytes that all messages of a target may take.
const BUDGET: usize = 8 << 20;

/// A run over one input: the messages, and the reason for the end, if it came.
type Outcome = (Vec<Bytes>, Option<DisconnectReason>);

/// Puts messages together from reads of the lengths in `cuts`, in rotation.
fn assemble(framing: impl Framing, mut bytes: &[u8], cuts: &[u8]) -> Outcome {
    let budget = ByteBudget::new(BUDGET);
    let rules = AssemblyRules {
        tags: NetworkProfile::TANDEM.tags,
        budget: budget.clone(),
        message_time: Duration::from_secs(30),
        room_time: Duration::from_secs(30),
    };
    let now = Instant::now();
    let mut assembler = Assembler::new(framing, rules, BytesMut::new(), now);
    let mut cuts = cuts.iter().cycle();
    let mut found = Vec::new();
    let mut given = 0;
    loop {
        match assembler.step() {
            Err(reason) => return (found, Some(reason)),
            Ok(Step::Message(message)) => {
                assert!(message.wire.len() >= Tag::BYTES);
                assert!(given <= message.wire.len(), "pieces go beyond their message");
                given = 0;
                found.push(message.wire);
            }
            Ok(Step::Piece(piece)) => {
                assert_eq!(assembler.bytes_of(&piece).len(), piece.len);
                assert_eq!(piece.offset, given, "a piece follows the one before");
                given += piece.len;
            }
            Ok(Step::Charge(charge)) => {
                let held = budget.try_reserve_for(charge.bytes, charge.lane, charge.stage);
                // A peer that is refused room ends as stalled, which is the driver's to say.
                let Some(held) = held else { return (found, None) };
                assembler.charged(held, now);
            }
            Ok(Step::Need) => {
                if bytes.is_empty() {
                    return (found, None);
                }
                let cut = cuts.next().map_or(usize::MAX, |cut| usize::from(*cut) + 1);
                let count = match assembler.space() {
                    Space::Buffer(into, room) => {
                        let count = cut.min(room).min(bytes.len());
                        into.extend_from_slice(&bytes[..count]);
                        (count, room)
                    }
                    Space::Message(into, room) => {
                        let count = cut.min(room).min(bytes.len());
                        into.extend_from_slice(&bytes[..count]);
                        (count, room)
                    }
                };
                bytes.advance(count.0);
                assembler.filled(count.0, count.1, now);
            }
        }
    }
}

/// The first byte says how many cuts follow; the rest is what a peer sends.
fn cut(data: &[u8]) -> (&[u8], &[u8]) {
    let Some((count, rest)) = data.split_first() else { return (&[], data) };
    rest.split_at(usize::from(count % 8).min(rest.len()))
}

fn same_however_it_is_cut<F: Framing>(framing: impl Fn() -> F, data: &[u8]) {
    let (cuts, bytes) = cut(data);
    let (whole, its_end) = assemble(framing(), bytes, &[]);
    let (in_pieces, their_end) =
        assemble(framing(), bytes, if cuts.is_empty() { &[0] } else { cuts });
    assert_eq!(whole, in_pieces);
    assert_eq!(its_end, their_end);
}

/// A gossip stream of libp2p: a length, then a message.
pub(crate) fn gossip_stream(data: &[u8]) {
    same_however_it_is_cut(|| LengthPrefix, data);
}

/// The frames of a WebSocket, of either end.
pub(crate) fn websocket(data: &[u8]) {
    let (first, data) = data.split_first().unwrap_or((&0, data));
    let end = if first % 2 == 0 { End::Listener } else { End::Dialer };
    same_however_it_is_cut(|| framing(end), data);
}
