//! Messages in, messages out, and everything a peer may do wrong in between.

use broadcaster::ByteBudget;
use gossip::NetworkProfile;
use rand::{Rng, RngCore, SeedableRng, rngs::SmallRng};

use super::*;
use crate::frame::write_frame;

const BINARY: OpCode = OpCode::Data(Data::Binary);
const CONTINUE: OpCode = OpCode::Data(Data::Continue);

fn decoder() -> Decoder {
    let early = (BytesMut::new(), Instant::now());
    Decoder::new(Role::Server, NetworkProfile::TANDEM.tags, Arc::default(), early)
}

fn frame(part: Part, opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_frame(&mut out, Some([7, 77, 177, 217]), (part, opcode), payload);
    out
}

fn message(tag: &[u8], len: usize) -> Vec<u8> {
    let body = (0..len).map(|index| u8::try_from(index % 251).unwrap());
    tag.iter().copied().chain(body).collect()
}

/// Feeds bytes as a socket would, at most `chunk` at a time, and gives every message and the end.
fn feed(
    decoder: &mut Decoder,
    mut bytes: &[u8],
    chunk: usize,
    budget: &ByteBudget,
) -> (Vec<Received>, Option<DisconnectReason>) {
    let mut messages = Vec::new();
    loop {
        match decoder.step(Instant::now()) {
            Ok(Step::Message(message)) => messages.push(message),
            Ok(Step::Progress) => {}
            Ok(Step::Charge(bytes, lane)) => {
                decoder.charged(bytes, budget.try_reserve(bytes, lane).unwrap());
            }
            Ok(Step::Hungry) if bytes.is_empty() => return (messages, None),
            Ok(Step::Hungry) => {
                let count = match decoder.space() {
                    Space::Buffer(buffer) => {
                        let count = chunk.min(bytes.len());
                        buffer.extend_from_slice(&bytes[..count]);
                        count
                    }
                    Space::Message(message, room) => {
                        let count = chunk.min(bytes.len()).min(room);
                        message.extend_from_slice(&bytes[..count]);
                        decoder.arrived(count);
                        count
                    }
                };
                bytes = &bytes[count..];
            }
            Err(reason) => return (messages, Some(reason)),
        }
    }
}

#[track_caller]
fn ends(bytes: &[u8], expected: DisconnectReason, close: Option<&[u8]>) {
    for chunk in [1, 7, 100_000] {
        let (mut decoder, budget) = (decoder(), ByteBudget::new(1 << 26));
        let (messages, reason) = feed(&mut decoder, bytes, chunk, &budget);
        assert_eq!((messages.len(), reason), (0, Some(expected)));
        assert_eq!(decoder.port.take_close().as_deref(), close);
    }
}

#[test]
fn a_message_is_the_same_however_it_is_cut() {
    let budget = ByteBudget::new(1 << 26);
    for len in [0, 1, 4_000, INLINE_BYTES - 2, INLINE_BYTES - 1, 200_000] {
        let whole = message(b"VB", len);
        for piece in [1_000, 4_096, 70_000, usize::MAX] {
            let mut bytes = Vec::new();
            let pieces: Vec<&[u8]> = whole.chunks(piece).collect();
            for (index, payload) in pieces.iter().enumerate() {
                let opcode = if index == 0 { BINARY } else { CONTINUE };
                let part = if index + 1 < pieces.len() { Part::More } else { Part::Last };
                bytes.extend(frame(part, opcode, payload));
            }
            // Two in a row: nothing of the first may be left over.
            let bytes = bytes.repeat(2);
            for chunk in [1, 3, 1_024, 16_384, 1 << 20] {
                let (messages, end) = feed(&mut decoder(), &bytes, chunk, &budget);
                assert_eq!((messages.len(), end), (2, None), "{len} {piece} {chunk}");
                for message in messages {
                    assert_eq!((message.tag, &message.wire[..]), (Tag::VB, &whole[..]));
                }
                assert_eq!(budget.used(), 0);
            }
        }
    }
}

#[test]
fn a_large_message_is_charged_for_what_has_arrived_of_it() {
    let budget = ByteBudget::new(1 << 26);
    let whole = frame(Part::Last, BINARY, &message(b"VB", 1_000_000));
    for (sent, most) in [(50_000, 0), (150_000, 400_000), (600_000, 1_200_000)] {
        let mut decoder = decoder();
        let (messages, end) = feed(&mut decoder, &whole[..sent], 16_384, &budget);
        assert_eq!((messages.len(), end), (0, None));
        assert!(budget.used() <= most, "{sent}: {}", budget.used());
    }
    assert_eq!(budget.used(), 0);
    let (messages, _) = feed(&mut decoder(), &whole, 16_384, &budget);
    assert!(budget.used() >= 1_000_002);
    drop(messages);
    assert_eq!(budget.used(), 0);
}

#[test]
fn an_announced_length_takes_no_memory() {
    let mut header = vec![0x82, 0xff];
    header.extend(6_000_000_u64.to_be_bytes());
    header.extend([0, 0, 0, 0]);
    header.extend(b"VB");
    let mut decoder = decoder();
    let (messages, end) = feed(&mut decoder, &header, 100, &ByteBudget::new(0));
    assert_eq!((messages.len(), end), (0, None));
    assert!(decoder.assembly.unwrap().bytes.capacity() <= FIRST_BYTES);
}

#[test]
fn a_tag_bounds_its_message_as_soon_as_it_is_known() {
    let over = message(b"AV", 1_229);
    let mut announced = frame(Part::Last, BINARY, &over);
    ends(&announced, DisconnectReason::Oversized, None);
    announced.truncate(8 + 2);
    ends(&announced, DisconnectReason::Oversized, None);
    let split = [frame(Part::More, BINARY, &over[..1]), frame(Part::Last, CONTINUE, &over[1..])];
    ends(&split.concat(), DisconnectReason::Oversized, None);
    let grown =
        [frame(Part::More, BINARY, &over[..1_230]), frame(Part::More, CONTINUE, &over[1_230..])];
    ends(&grown.concat(), DisconnectReason::Oversized, None);
}

#[test]
fn pieces_together_are_bounded_like_one_frame() {
    let mut bytes = frame(Part::More, BINARY, &message(b"VB", 3 * 1024 * 1024));
    bytes.extend([0x00, 0xff]);
    bytes.extend((3 * 1024 * 1024_u64).to_be_bytes());
    bytes.extend([0; 4]);
    let (mut decoder, budget) = (decoder(), ByteBudget::new(1 << 26));
    let (_, end) = feed(&mut decoder, &bytes, 1 << 20, &budget);
    assert_eq!(end, Some(DisconnectReason::Oversized));
    assert_eq!(decoder.port.take_close().unwrap(), b"\x03\xf1"[..]);
}

#[test]
fn a_message_of_too_many_pieces_is_refused_even_if_they_are_empty() {
    for piece in [&b""[..], b"x"] {
        let mut bytes = frame(Part::More, BINARY, b"VB");
        bytes.extend(frame(Part::More, CONTINUE, piece).repeat(MAX_FRAGMENTS as usize));
        let (_, end) = feed(&mut decoder(), &bytes, 16_384, &ByteBudget::new(1 << 26));
        assert_eq!(end, Some(DisconnectReason::Protocol));
    }
}

#[test]
fn what_is_wrong_above_the_frames_is_not_told() {
    for bytes in [
        frame(Part::Last, OpCode::Data(Data::Text), b"TXhello"),
        frame(Part::Last, BINARY, b""),
        frame(Part::Last, BINARY, b"T"),
        [frame(Part::More, BINARY, b"T"), frame(Part::Last, CONTINUE, b"")].concat(),
    ] {
        ends(&bytes, DisconnectReason::Protocol, None);
    }
}

#[test]
fn control_frames_have_a_rate() {
    let ping = frame(Part::Last, OpCode::Control(Control::Ping), b"hi");
    let now = Instant::now();
    let mut decoder = decoder();
    decoder.buffer.extend_from_slice(&ping.repeat(101));
    for _ in 0..100 {
        assert!(matches!(decoder.step(now), Ok(Step::Progress)));
    }
    assert_eq!(decoder.step(now).unwrap_err(), DisconnectReason::Flood);
    assert_eq!(decoder.port.take_urgent().pong.unwrap(), "hi");
}

#[test]
fn a_close_is_answered_in_kind() {
    let close = |payload: &[u8]| frame(Part::Last, OpCode::Control(Control::Close), payload);
    ends(&close(b"\x03\xe9bye"), DisconnectReason::RemoteClosed, Some(b"\x03\xe9"));
    ends(&close(b""), DisconnectReason::RemoteClosed, Some(b""));
    let invalid: &[u8] = b"\x03\xeainvalid close code";
    ends(&close(b"\x03\xed"), DisconnectReason::Protocol, Some(invalid));
}

#[test]
fn garbage_never_panics_and_never_takes_more_than_it_is() {
    let mut rng = SmallRng::seed_from_u64(1);
    let budget = ByteBudget::new(1 << 26);
    for _ in 0..5_000 {
        let mut garbage = vec![0; rng.random_range(0..400)];
        rng.fill_bytes(&mut garbage);
        // Mostly frames that are read, so that it gets further than the first two bytes.
        if let Some(first) = garbage.first_mut() {
            *first = [0x02, 0x82, 0x82, 0x89, 0x88, *first][rng.random_range(0..6)];
        }
        if let Some(second) = garbage.get_mut(1) {
            *second |= 0x80;
        }
        let chunk = rng.random_range(1..50);
        let (messages, _end) = feed(&mut decoder(), &garbage, chunk, &budget);
        let taken: usize = messages.iter().map(|message| message.wire.len()).sum();
        assert!(taken <= garbage.len());
    }
    assert_eq!(budget.used(), 0);
}
