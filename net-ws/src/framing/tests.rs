//! Tests of the framing: which bytes make a message, which end the link, and which close frame goes out.

use broadcaster::{Assembler, AssemblyRules, ByteBudget, Charge, Received, Space, Step};
use bytes::BytesMut;
use gossip::{NetworkProfile, Tag};
use rand::{Rng, RngCore, SeedableRng, rngs::SmallRng};
use std::time::Duration;

use super::*;
use crate::frame::write_frame;

const BINARY: OpCode = OpCode::Data(Data::Binary);
const CONTINUE: OpCode = OpCode::Data(Data::Continue);

/// The assembler of one connection, and the port it shares with the sink.
struct Rig {
    assembler: Assembler<WsFraming>,
    port: Arc<Port>,
    budget: ByteBudget,
}

fn rig() -> Rig {
    let (port, budget, now) = (Arc::<Port>::default(), ByteBudget::new(1 << 26), Instant::now());
    let rules = AssemblyRules {
        tags: NetworkProfile::TANDEM.tags,
        budget: budget.clone(),
        message_time: Duration::from_secs(30),
        room_time: Duration::from_secs(30),
    };
    let framing = WsFraming::new(Role::Server, Arc::clone(&port), now);
    let assembler = Assembler::new(framing, rules, BytesMut::new(), now);
    Rig { assembler, port, budget }
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

/// Feeds bytes in chunks of at most `chunk`, as a socket would. Returns every message, and the reason of the
/// end if the link ended.
fn feed(
    rig: &mut Rig,
    mut bytes: &[u8],
    chunk: usize,
) -> (Vec<Received>, Option<DisconnectReason>) {
    let (now, assembler) = (Instant::now(), &mut rig.assembler);
    let mut messages = Vec::new();
    loop {
        match assembler.step() {
            Ok(Step::Message(message)) => messages.push(message),
            Ok(Step::Piece(_)) => {}
            Ok(Step::Charge(Charge { bytes, lane, stage })) => {
                assembler.charged(rig.budget.try_reserve_for(bytes, lane, stage).unwrap(), now);
            }
            Ok(Step::Need) if bytes.is_empty() => return (messages, None),
            Ok(Step::Need) => {
                let (count, room) = match assembler.space() {
                    Space::Buffer(space, room) => {
                        let count = chunk.min(bytes.len()).min(room);
                        space.extend_from_slice(&bytes[..count]);
                        (count, room)
                    }
                    Space::Message(space, room) => {
                        let count = chunk.min(bytes.len()).min(room);
                        space.extend_from_slice(&bytes[..count]);
                        (count, room)
                    }
                };
                assembler.filled(count, room, now);
                bytes = &bytes[count..];
            }
            Err(reason) => return (messages, Some(reason)),
        }
    }
}

#[track_caller]
fn ends(bytes: &[u8], expected: DisconnectReason, close: Option<&[u8]>) {
    for chunk in [1, 7, 100_000] {
        let mut rig = rig();
        let (messages, reason) = feed(&mut rig, bytes, chunk);
        assert_eq!((messages.len(), reason), (0, Some(expected)));
        assert_eq!(rig.port.take_close().as_deref(), close);
    }
}

#[test]
fn a_message_is_the_same_however_it_is_cut() {
    for len in [0, 1, 4_000, 20_000, 200_000] {
        let whole = message(b"VB", len);
        for piece in [1_000, 4_096, 70_000, usize::MAX] {
            let mut bytes = Vec::new();
            let pieces: Vec<&[u8]> = whole.chunks(piece).collect();
            for (index, payload) in pieces.iter().enumerate() {
                let opcode = if index == 0 { BINARY } else { CONTINUE };
                let part = if index + 1 < pieces.len() { Part::More } else { Part::Last };
                bytes.extend(frame(part, opcode, payload));
                // A hundred control frames may come at once, also between two frames of a message.
                if pieces.len() < 50 {
                    bytes.extend(frame(Part::Last, OpCode::Control(Control::Pong), b"hello"));
                }
            }
            for chunk in [1, 3, 1_024, 16_384, 1 << 20] {
                // The same connection carries both messages, which shows that the first leaves nothing behind.
                let mut rig = rig();
                for _ in 0..2 {
                    let (messages, end) = feed(&mut rig, &bytes, chunk);
                    assert_eq!((messages.len(), end), (1, None), "{len} {piece} {chunk}");
                    assert_eq!((messages[0].tag, &messages[0].wire[..]), (Tag::VB, &whole[..]));
                }
            }
        }
    }
}

#[test]
fn pieces_together_are_bounded_like_one_frame() {
    let mut bytes = frame(Part::More, BINARY, &message(b"VB", 3 * 1024 * 1024));
    bytes.extend([0x00, 0xff]);
    bytes.extend((3 * 1024 * 1024_u64).to_be_bytes());
    bytes.extend([0; 4]);
    let mut rig = rig();
    let (_, end) = feed(&mut rig, &bytes, 1 << 20);
    assert_eq!(end, Some(DisconnectReason::Oversized));
    assert_eq!(rig.port.take_close().unwrap(), b"\x03\xf1"[..]);
}

#[test]
fn a_message_of_too_many_pieces_is_refused_even_if_they_are_empty() {
    for piece in [&b""[..], b"x"] {
        let mut bytes = frame(Part::More, BINARY, b"VB");
        bytes.extend(frame(Part::More, CONTINUE, piece).repeat(MAX_FRAGMENTS as usize));
        let (_, end) = feed(&mut rig(), &bytes, 16_384);
        assert_eq!(end, Some(DisconnectReason::Protocol));
    }
}

#[test]
fn a_malformed_message_gets_no_close_code() {
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
    assert_eq!(feed(&mut rig(), &ping.repeat(100), 1 << 20).1, None);
    let mut rig = rig();
    assert_eq!(feed(&mut rig, &ping.repeat(101), 1 << 20).1, Some(DisconnectReason::Flood));
    assert_eq!(rig.port.take_urgent().pong.unwrap(), "hi");
}

#[test]
fn a_close_is_answered_by_its_code() {
    let close = |payload: &[u8]| frame(Part::Last, OpCode::Control(Control::Close), payload);
    ends(&close(b"\x03\xe9bye"), DisconnectReason::RemoteClosed, Some(b"\x03\xe9"));
    ends(&close(b""), DisconnectReason::RemoteClosed, Some(b""));
    let invalid: &[u8] = b"\x03\xeainvalid close code";
    ends(&close(b"\x03\xed"), DisconnectReason::Protocol, Some(invalid));
}

#[test]
fn garbage_never_panics_and_takes_no_more_memory_than_its_length() {
    let mut rng = SmallRng::seed_from_u64(1);
    for _ in 0..5_000 {
        let mut garbage = vec![0; rng.random_range(0..400)];
        rng.fill_bytes(&mut garbage);
        // Mostly valid first bytes, so that the decoder gets past the first two.
        if let Some(first) = garbage.first_mut() {
            *first = [0x02, 0x82, 0x82, 0x89, 0x88, *first][rng.random_range(0..6)];
        }
        if let Some(second) = garbage.get_mut(1) {
            *second |= 0x80;
        }
        let chunk = rng.random_range(1..50);
        let (messages, _end) = feed(&mut rig(), &garbage, chunk);
        let taken: usize = messages.iter().map(|message| message.wire.len()).sum();
        assert!(taken <= garbage.len());
    }
}
