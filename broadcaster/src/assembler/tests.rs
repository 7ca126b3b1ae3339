//! Messages in, messages out, and what they may hold and how long they may take in between.

use std::collections::VecDeque;

use gossip::NetworkProfile;
use rand::{Rng, RngCore, SeedableRng, rngs::SmallRng};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Two bytes say what follows, three how long it is, and the payload is masked.
#[derive(Debug)]
struct Toy;

const MASK: [u8; 3] = [0x55, 0xaa, 0x0f];

impl Framing for Toy {
    fn head(&mut self, bytes: &[u8], _heard: Instant) -> Result<Head, DisconnectReason> {
        let Some(&[kind, a, b, c]) = bytes.first_chunk() else { return Ok(Head::Incomplete) };
        let payload = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap();
        let part = |follows| Ok(Head::Part(PartHead { header: 4, payload, follows }));
        match kind {
            b'.' => part(Follows::Nothing),
            b',' => part(Follows::More),
            b'!' if bytes.len() < 4 + payload => Ok(Head::Incomplete),
            b'!' => Ok(Head::Own { bytes: 4 + payload }),
            _ => Err(DisconnectReason::Protocol),
        }
    }

    fn unmask(&self, bytes: &mut [u8], offset: usize) {
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte ^= MASK[(offset + index) % MASK.len()];
        }
    }
}

fn part(kind: u8, payload: &[u8]) -> Vec<u8> {
    let [_, len @ ..] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut payload = payload.to_vec();
    Toy.unmask(&mut payload, 0);
    [&[kind], &len[..], &payload].concat()
}

fn message(tag: &[u8], len: usize) -> Vec<u8> {
    let body = (0..len).map(|index| u8::try_from(index % 251).unwrap());
    tag.iter().copied().chain(body).collect()
}

/// An assembler, and the clock and the budget around it.
struct Rig {
    assembler: Assembler<Toy>,
    budget: ByteBudget,
    now: Instant,
    /// The output of every step between two messages, put together.
    pieces: Vec<u8>,
}

fn rig_with(budget: &ByteBudget) -> Rig {
    let rules = AssemblyRules {
        tags: NetworkProfile::TANDEM.tags,
        budget: budget.clone(),
        message_time: 30 * SECOND,
        room_time: 20 * SECOND,
    };
    let now = Instant::now();
    let assembler = Assembler::new(Toy, rules, BytesMut::new(), now);
    Rig { assembler, budget: budget.clone(), now, pieces: Vec::new() }
}

fn rig() -> Rig {
    rig_with(&ByteBudget::new(64 << 20))
}

/// The result of a rig.
#[derive(Debug)]
enum Came {
    Message(Received),
    /// It waits for more bytes than there are.
    Hungry,
    /// It waits for the budget.
    Refused(Charge),
    End(DisconnectReason),
}

impl Rig {
    /// Feeds `bytes` as a socket would, at most `chunk` at a time, up to the next message.
    fn feed(&mut self, bytes: &mut VecDeque<u8>, chunk: usize) -> Came {
        loop {
            match self.assembler.step() {
                Err(reason) => return Came::End(reason),
                Ok(Step::Message(message)) => return Came::Message(message),
                Ok(Step::Piece(piece)) => {
                    if piece.offset == 0 {
                        self.pieces.clear();
                    }
                    assert_eq!(piece.offset, self.pieces.len());
                    self.pieces.extend_from_slice(self.assembler.bytes_of(&piece));
                    assert_eq!(piece.offset + piece.len, self.pieces.len());
                }
                Ok(Step::Charge(charge)) => {
                    let Charge { bytes, lane, stage } = charge;
                    let Some(held) = self.budget.try_reserve_for(bytes, lane, stage) else {
                        return Came::Refused(charge);
                    };
                    self.assembler.charged(held, self.now);
                }
                Ok(Step::Need) if bytes.is_empty() => return Came::Hungry,
                Ok(Step::Need) => {
                    let (count, room) = match self.assembler.space() {
                        Space::Buffer(space, room) => {
                            let count = chunk.min(bytes.len()).min(room);
                            ReadBuffer::append(space, &bytes.drain(..count).collect::<Vec<_>>());
                            (count, room)
                        }
                        Space::Message(space, room) => {
                            let count = chunk.min(bytes.len()).min(room);
                            space.extend(bytes.drain(..count));
                            (count, room)
                        }
                    };
                    assert!(count > 0, "it needs bytes and has no room for any");
                    self.assembler.filled(count, room, self.now);
                }
            }
        }
    }

    /// Everything that `bytes` come to.
    fn all(&mut self, bytes: &[u8], chunk: usize) -> (Vec<Received>, Came) {
        let (mut bytes, mut messages) = (bytes.iter().copied().collect(), Vec::new());
        loop {
            match self.feed(&mut bytes, chunk) {
                Came::Message(message) => messages.push(message),
                came => return (messages, came),
            }
        }
    }

    /// Until when it waits for what it last asked for.
    fn due(&mut self) -> Option<Duration> {
        let now = self.now;
        self.assembler.wait(now).map(|due| due - now)
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }
}

#[track_caller]
fn ends(bytes: &[u8], expected: DisconnectReason) {
    for chunk in [1, 7, 100_000] {
        let (messages, came) = rig().all(bytes, chunk);
        assert!(messages.is_empty());
        assert!(matches!(came, Came::End(reason) if reason == expected), "{came:?}");
    }
}

#[test]
fn a_message_is_the_same_however_it_is_cut() {
    let lens = [0, 1, INLINE_BYTES - 2, INLINE_BYTES - 1, FREE_BYTES, 200_000];
    for len in lens {
        let whole = message(b"VB", len);
        for piece in [1_000, 4_096, 70_000, usize::MAX] {
            let pieces: Vec<&[u8]> = whole.chunks(piece).collect();
            let last = pieces.len() - 1;
            let parts = pieces.iter().enumerate().map(|(index, payload)| {
                // Control frames of the transport may come between two parts.
                let part = part(if index == last { b'.' } else { b',' }, payload);
                [part, self::part(b'!', b"hello")].concat()
            });
            // Two in a row: nothing of the first may be left over.
            let bytes = parts.collect::<Vec<_>>().concat().repeat(2);
            for chunk in [1, 3, 1_024, 16_384, 1 << 20] {
                let mut rig = rig();
                let (messages, came) = rig.all(&bytes, chunk);
                assert_eq!(messages.len(), 2, "{len} {piece} {chunk}");
                assert!(matches!(came, Came::Hungry), "{came:?}");
                for message in messages {
                    assert_eq!((message.tag, &message.wire[..]), (Tag::VB, &whole[..]));
                }
                assert_eq!(rig.budget.used(), 0);
            }
        }
    }
}

#[test]
fn a_large_message_comes_in_pieces_long_before_it_is_whole() {
    let whole = message(b"VB", 1_000_000);
    for chunk in [1_000, 16 * 1024, 1 << 20] {
        let mut rig = rig();
        let mut bytes: VecDeque<u8> = part(b'.', &whole).into();
        let rest = bytes.split_off(700_000);
        assert!(matches!(rig.feed(&mut bytes, chunk), Came::Hungry));
        assert_eq!(rig.pieces, whole[..rig.pieces.len()]);
        assert_eq!(rig.pieces.len(), 700_000 - 4, "everything that came was given out");
        bytes.extend(rest);
        assert!(matches!(rig.feed(&mut bytes, chunk), Came::Message(_)));
        assert_eq!(rig.pieces, whole, "the pieces are the message");
    }
}

#[test]
fn a_piece_says_how_long_its_message_is_once_that_is_known() {
    let mut rig = rig();
    let bytes = [part(b',', b"VBhello"), part(b'.', &[7; 100_000])].concat();
    rig.assembler.buffer.space().0.extend_from_slice(&bytes);
    let mut pieces = Vec::new();
    loop {
        match rig.assembler.step().unwrap() {
            Step::Piece(piece) => pieces.push((piece.tag, piece.offset, piece.len, piece.whole)),
            Step::Charge(charge) => {
                let held = rig.budget.try_reserve(charge.bytes, charge.lane).unwrap();
                rig.assembler.charged(held, rig.now);
            }
            Step::Message(_) => break,
            Step::Need => panic!("all of it is there"),
        }
    }
    assert_eq!(pieces, [(Tag::VB, 0, 7, None), (Tag::VB, 7, 100_000, Some(100_007))]);
}

// Issue 9, 3.
#[test]
fn a_message_is_charged_for_what_has_come_of_it() {
    let announced = part(b'.', &message(b"VB", 6_000_000));
    for sent in [2, 5_000, FREE_BYTES, 50_000, 150_000, 1_000_000, 5_900_000] {
        let mut rig = rig();
        let (messages, came) = rig.all(&announced[..sent], 16 * 1024);
        assert!(messages.is_empty() && matches!(came, Came::Hungry));
        let (used, taken) =
            (rig.budget.used(), rig.assembler.message.map_or(0, |m| m.bytes.capacity()));
        assert!(used <= 2 * sent, "{sent} bytes came, {used} are charged");
        assert!(taken <= used.max(FREE_BYTES), "{sent} bytes came, {used} charged, {taken} taken");
    }
}

#[test]
fn a_whole_message_is_charged_in_full_until_it_is_gone() {
    for (len, charged) in [(100, 0), (INLINE_BYTES, 0), (5_000, 5_000), (3_000_000, 3_000_000)] {
        let mut rig = rig();
        let (messages, _) = rig.all(&part(b'.', &message(b"VB", len - 2)), 16 * 1024);
        assert_eq!(rig.budget.used(), charged);
        drop(messages);
        assert_eq!(rig.budget.used(), 0);
    }
    let mut rig = rig();
    let whole = message(b"VB", 300_000);
    let parts = [part(b',', &whole[..200_000]), part(b'.', &whole[200_000..])].concat();
    let (messages, _) = rig.all(&parts, 16 * 1024);
    let used = rig.budget.used();
    assert!((300_002..=375_002).contains(&used), "{used}");
    drop(messages);
    assert_eq!(rig.budget.used(), 0);
}

// Issue 9, 3.
#[test]
fn unfinished_messages_leave_half_of_the_budget_to_everything_else() {
    let budget = ByteBudget::new(16 << 20);
    let almost = part(b'.', &message(b"VB", 4_000_000));
    let almost = &almost[..almost.len() - 1];
    let attackers: Vec<Rig> = (0..20)
        .map(|_| {
            let mut rig = rig_with(&budget);
            let (messages, _) = rig.all(almost, 16 * 1024);
            assert!(messages.is_empty());
            rig
        })
        .collect();
    assert!(budget.used() <= 8 << 20, "{}", budget.used());
    assert!(budget.try_reserve(7 << 20, Lane::Priority).is_some());
    drop(attackers);
    assert_eq!(budget.used(), 0);
}

// Issue 9, 3: the memory that slices pin.
#[test]
fn a_read_buffer_that_a_small_message_keeps_alive_is_charged() {
    let mut rig = rig();
    // A vote, and then a load that fills the buffer with what nobody keeps.
    let vote = part(b'.', &message(b"AV", 10));
    let filler = part(b'.', &message(b"TX", 3_000));
    let stream = [vote, filler.repeat(12)].concat();
    let mut kept = Vec::new();
    for round in 1..=20 {
        let (messages, came) = rig.all(&stream, usize::MAX);
        assert!(matches!(came, Came::Hungry), "{came:?}");
        kept.push(messages.into_iter().next().unwrap());
        assert_eq!(kept[0].tag, Tag::AV);
        // Each lies in another buffer, and the smallest has 4 KiB; the last is read to still.
        let pinned = (round - 1) * 4 * 1024;
        assert!(rig.budget.used() >= pinned, "round {round}: {} bytes charged", rig.budget.used());
    }
    let charged = rig.budget.used();
    kept.truncate(10);
    assert!(rig.budget.used() <= charged / 2, "{} of {charged}", rig.budget.used());
    kept.clear();
    assert_eq!(rig.budget.used(), 0);
}

// Issue 10, "Shown by": every peer had a buffer of 4 KiB from the start, and one of 16 KiB after its first burst.
#[test]
fn a_quiet_connection_has_no_buffer() {
    let mut rig = rig();
    let burst = part(b'.', &message(b"TX", 3_000)).repeat(20);
    for bytes in [&[][..], &part(b'.', &message(b"AV", 10)), &burst] {
        let (messages, came) = rig.all(bytes, 16 * 1024);
        assert!(matches!(came, Came::Hungry), "{came:?}");
        drop(messages);
        // The driver asks again once nobody keeps the messages.
        assert!(matches!(rig.assembler.step(), Ok(Step::Need)));
        let (buffer, _room) = rig.assembler.buffer.space();
        assert_eq!(buffer.capacity(), 0, "after {} bytes", bytes.len());
    }
}

#[test]
fn a_buffer_that_nobody_keeps_is_used_again_and_not_charged() {
    let mut rig = rig_with(&ByteBudget::new(0));
    let stream = part(b'.', &message(b"TX", 3_000)).repeat(1_000);
    let mut bytes = stream.into();
    let mut count = 0;
    while let Came::Message(_) = rig.feed(&mut bytes, usize::MAX) {
        count += 1;
    }
    assert_eq!(count, 1_000);
}

#[test]
fn pinned_buffers_without_room_in_the_budget_stop_the_reading() {
    let mut rig = rig_with(&ByteBudget::new(100_000));
    let stream = part(b'.', &message(b"TX", 1_000)).repeat(1_000);
    let mut bytes = stream.into();
    let mut kept = Vec::new();
    let refused = loop {
        match rig.feed(&mut bytes, usize::MAX) {
            Came::Message(message) => kept.push(message),
            came => break came,
        }
    };
    assert!(matches!(refused, Came::Refused(Charge { lane: Lane::Bulk, .. })), "{refused:?}");
    assert!((50..200).contains(&kept.len()), "{}", kept.len());
    assert_eq!(rig.due(), Some(20 * SECOND));
    kept.clear();
    assert!(matches!(rig.feed(&mut bytes, usize::MAX), Came::Message(_)));
}

#[test]
fn a_tag_bounds_its_message_as_soon_as_it_is_known() {
    let over = message(b"AV", 1_229);
    let mut announced = part(b'.', &over);
    ends(&announced, DisconnectReason::Oversized);
    announced.truncate(4 + 2);
    ends(&announced, DisconnectReason::Oversized);
    ends(&[part(b',', &over[..1]), part(b'.', &over[1..])].concat(), DisconnectReason::Oversized);
    let grown = [part(b',', &over[..1_230]), part(b',', &over[1_230..])];
    ends(&grown.concat(), DisconnectReason::Oversized);
}

#[test]
fn a_message_without_a_tag_or_too_long_for_any_ends_the_connection() {
    ends(&part(b'.', b""), DisconnectReason::Protocol);
    ends(&part(b'.', b"T"), DisconnectReason::Protocol);
    ends(&[part(b',', b"T"), part(b'.', b"")].concat(), DisconnectReason::Protocol);
    ends(&[b'.', 0x60, 0, 1], DisconnectReason::Oversized);
    let halves = [part(b',', &message(b"VB", 3 << 20)), vec![b',', 0x30, 0, 0]];
    let (_, came) = rig().all(&halves.concat(), 16 * 1024);
    assert!(matches!(came, Came::End(DisconnectReason::Oversized)), "{came:?}");
}

#[test]
fn a_message_larger_than_the_budget_is_refused_when_it_is_announced() {
    let mut rig = rig_with(&ByteBudget::new(8 << 20));
    let announced = part(b'.', &message(b"VB", 5_000_000));
    let (_, came) = rig.all(&announced[..6], 100);
    assert!(matches!(came, Came::End(DisconnectReason::Oversized)), "{came:?}");
}

// Issue 9, 3.
#[test]
fn a_message_has_one_deadline_however_its_bytes_are_spread() {
    let mut rig = rig();
    let bytes: VecDeque<u8> = part(b'.', &message(b"VB", 1_000)).into();
    let mut waited = Duration::ZERO;
    for byte in bytes {
        rig.feed(&mut VecDeque::from([byte]), 1);
        let left = rig.due().unwrap();
        assert_eq!(left + waited, 30 * SECOND);
        if left < 7 * SECOND {
            assert_eq!(rig.assembler.overdue(), DisconnectReason::Protocol);
            return;
        }
        rig.pass(7 * SECOND);
        waited += 7 * SECOND;
    }
    panic!("it never ended");
}

// Issue 9, 3.
#[test]
fn something_of_the_transport_that_comes_in_two_reads_leaves_no_deadline_behind() {
    let mut rig = rig();
    assert!(matches!(rig.all(b"!\0\0\x02h", 100).1, Came::Hungry));
    assert_eq!(rig.due(), Some(30 * SECOND), "it has begun");
    rig.pass(SECOND);
    assert!(matches!(rig.all(b"i", 100).1, Came::Hungry));
    assert_eq!(rig.due(), None);
    // But within a message it gives the message no more time.
    assert!(matches!(rig.all(&part(b',', b"VBhello"), 100).1, Came::Hungry));
    assert_eq!(rig.due(), Some(30 * SECOND));
    rig.pass(10 * SECOND);
    assert!(matches!(rig.all(&part(b'!', b"hi"), 100).1, Came::Hungry));
    assert_eq!(rig.due(), Some(20 * SECOND));
}

#[test]
fn the_time_in_which_nothing_is_read_is_not_the_peers() {
    let mut rig = rig();
    let whole = part(b'.', b"VBhello");
    let two = [&whole[..], &whole[..5]].concat();
    let (messages, _) = rig.all(&two, 1 << 20);
    assert_eq!(messages.len(), 1);
    // The first is being handled, and the rest of the second waits in the kernel.
    rig.pass(100 * SECOND);
    assert_eq!(rig.due(), Some(30 * SECOND));
    rig.pass(10 * SECOND);
    let (messages, _) = rig.all(&whole[5..], 1 << 20);
    assert_eq!(messages.len(), 1);
    assert_eq!(rig.due(), None);
}

#[test]
fn waiting_for_the_budget_has_a_deadline_of_its_own() {
    let mut rig = rig();
    let all = rig.budget.try_reserve(64 << 20, Lane::Priority).unwrap();
    let mut bytes: VecDeque<u8> = part(b'.', &message(b"VB", 100_000)).into();
    let refused = rig.feed(&mut bytes, 16 * 1024);
    assert!(matches!(refused, Came::Refused(_)), "{refused:?}");
    assert_eq!(rig.due(), Some(20 * SECOND));
    rig.pass(15 * SECOND);
    assert_eq!((rig.due(), rig.assembler.overdue()), (Some(5 * SECOND), DisconnectReason::Stalled));
    drop(all);
    let Ok(Step::Charge(Charge { bytes: more, lane, stage })) = rig.assembler.step() else {
        panic!("it still wants to be charged");
    };
    let held = rig.budget.try_reserve_for(more, lane, stage).unwrap();
    rig.assembler.charged(held, rig.now);
    let rest = bytes.split_off(1_000);
    assert!(matches!(rig.feed(&mut bytes, 1_000), Came::Hungry));
    assert_eq!(rig.due(), Some(30 * SECOND), "it was not the peer who waited");
    bytes.extend(rest);
    assert!(matches!(rig.feed(&mut bytes, 16 * 1024), Came::Message(_)));
}

#[test]
fn garbage_never_panics_and_takes_no_more_memory_than_its_length() {
    let mut rng = SmallRng::seed_from_u64(1);
    let budget = ByteBudget::new(1 << 26);
    for _ in 0..5_000 {
        let mut garbage = vec![0; rng.random_range(0..400)];
        rng.fill_bytes(&mut garbage);
        // Mostly heads that are read, so that it gets further than the first byte.
        for at in (0..garbage.len()).step_by(40) {
            garbage[at] = [b'.', b',', b'!', garbage[at]][rng.random_range(0..4)];
            for high in garbage.iter_mut().skip(at + 1).take(2) {
                *high = 0;
            }
        }
        let chunk = rng.random_range(1..50);
        let (messages, _came) = rig_with(&budget).all(&garbage, chunk);
        let taken: usize = messages.iter().map(|message| message.wire.len()).sum();
        assert!(taken <= garbage.len());
    }
    assert_eq!(budget.used(), 0);
}
