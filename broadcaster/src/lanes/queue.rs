//! One lane of one peer's queue, in which the senders of messages take turns.
//!
//! ```text
//!   greetings, what another link left ──▶ [ahead] ──┐
//!   own messages                      ──▶ [own]   ──┼─ in turns of bytes ─▶ write loop
//!   forwarded, by the link they came on ─▶ [A] [B] ─┘
//! ```
//!
//! # Invariants
//!
//! * A turn is worth [`TURN_BYTES`], so a message waits for a turn of every other sender that has some waiting, however
//!   many those are (deficit round robin).
//! * Messages of one sender leave in the order in which they entered.
//! * A full queue takes a message of a sender with little in place of the newest ones of the sender with most ("drop
//!   from the longest queue", RFC 7567, 4.2). Senders with as much do not take each other's places.
//! * Only forwarded messages that no caller waits for are displaced; this node's own and greetings never are.

use std::collections::{HashMap, VecDeque};

use gossip::LinkId;

use super::Queued;
use crate::{
    frame::{Frame, Origin},
    limits::LaneLimits,
};

/// Bytes that a sender may send before the next one has its turn. Chosen: a few votes, so that a hundred senders delay
/// a vote by less than a millisecond on a fast link.
const TURN_BYTES: usize = 2 * 1024;

/// Bytes that a message is counted larger than it is, for what it costs besides. Chosen: framing and bookkeeping.
const MESSAGE_BYTES: usize = 64;

/// Most messages that make room for one. Chosen: a megabyte of transactions of a kilobyte each, for a block proposal.
const MAX_DISPLACED: usize = 1_024;

/// Vacant places that are kept for senders to come. Chosen: those of the mesh of a topic.
const MAX_VACANT: usize = 16;

/// The place of this node's own messages.
const OWN: usize = 0;

/// A lane of a peer's queue.
#[derive(Debug)]
pub(super) struct Queue {
    /// The link's greeting, and then what another link of the node left.
    ahead: VecDeque<Queued>,
    /// Number of messages in `ahead` that are the greeting.
    greetings: usize,
    /// The messages of each sender, those of this node itself first. Other places without messages are vacant.
    senders: Vec<OfSender>,
    /// The places of the other senders with messages.
    places: HashMap<Sender, usize>,
    vacant: Vec<usize>,
    /// The places of all senders with messages, in the order of their turns.
    turns: VecDeque<usize>,
    count: usize,
    bytes: usize,
}

/// The sender of a forwarded message: a link, or the topics together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Sender(Option<LinkId>);

impl Sender {
    /// The sender of a forwarded message; `None` for this node's own.
    fn of(frame: &Frame) -> Option<Self> {
        (frame.origin() == Origin::Forwarded).then(|| Self(frame.sender()))
    }
}

/// A bound that a queue can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    Messages,
    Bytes,
}

/// The messages of one sender.
#[derive(Debug)]
struct OfSender {
    sender: Option<Sender>,
    messages: VecDeque<Queued>,
    bytes: usize,
    /// The part of the turn that is left; what a large message exceeded it by is paid off by later turns.
    left: usize,
    exceeded: usize,
}

impl OfSender {
    const fn of(sender: Option<Sender>) -> Self {
        Self { sender, messages: VecDeque::new(), bytes: 0, left: TURN_BYTES, exceeded: 0 }
    }

    /// The amount that it has of what a queue is full by.
    fn amount(&self, by: Measure) -> usize {
        match by {
            Measure::Messages => self.messages.len(),
            Measure::Bytes => self.bytes,
        }
    }

    /// Begins another turn.
    fn renew(&mut self) {
        self.left = TURN_BYTES.saturating_sub(self.exceeded);
        self.exceeded = self.exceeded.saturating_sub(TURN_BYTES);
    }

    /// Moves messages to `batch`, `most` of them at most: those of one turn, or all that there is room for if nobody else
    /// waits. Returns their number and their bytes.
    fn take(
        &mut self,
        most: usize,
        turn: Turn,
        room: &mut Room,
        batch: &mut Vec<Queued>,
    ) -> (usize, usize) {
        let (mut taken, mut taken_bytes) = (0, 0);
        for message in self.messages.iter().take(most) {
            let len = len(message);
            if self.left == 0 || !room.take(len) {
                break;
            }
            (taken, taken_bytes) = (taken + 1, taken_bytes + len);
            if turn == Turn::OneOfMany {
                let cost = len + MESSAGE_BYTES;
                self.exceeded += cost.saturating_sub(self.left);
                self.left = self.left.saturating_sub(cost);
            }
        }
        // In one go: this is for every message to every peer.
        batch.extend(self.messages.drain(..taken));
        self.bytes -= taken_bytes;
        (taken, taken_bytes)
    }
}

/// The turn of a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// No other sender waits, so its messages cost it nothing.
    Alone,
    /// Others wait for theirs.
    OneOfMany,
}

/// The room that is left in a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    messages: usize,
    bytes: usize,
    /// `true` before the first message, which may be longer than a batch.
    is_whole: bool,
}

impl Room {
    /// Room for so many messages of so many bytes together.
    pub(super) const fn new(messages: usize, bytes: usize) -> Self {
        Self { messages, bytes, is_whole: true }
    }

    /// Takes room for a message of `len` bytes; `false` if there is none.
    #[inline]
    const fn take(&mut self, len: usize) -> bool {
        let fits = self.messages > 0 && (len <= self.bytes || self.is_whole);
        if fits {
            self.messages -= 1;
            self.bytes = self.bytes.saturating_sub(len);
            self.is_whole = false;
        }
        fits
    }
}

fn len(message: &Queued) -> usize {
    message.frame.wire().len()
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            ahead: VecDeque::new(),
            greetings: 0,
            senders: vec![OfSender::of(None)],
            places: HashMap::new(),
            vacant: Vec::new(),
            turns: VecDeque::new(),
            count: 0,
            bytes: 0,
        }
    }
}

impl Queue {
    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Messages that wait.
    pub(super) const fn count(&self) -> usize {
        self.count
    }

    /// Bytes that wait.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns `true` if there is no room for a message of `len` bytes. One longer than the whole bound may still pass
    /// alone.
    pub(super) fn is_full(&self, limits: LaneLimits, len: usize) -> bool {
        self.full_by(limits, len).is_some()
    }

    fn full_by(&self, limits: LaneLimits, len: usize) -> Option<Measure> {
        if self.count >= limits.messages {
            Some(Measure::Messages)
        } else {
            (self.count > 0 && self.bytes + len > limits.bytes).then_some(Measure::Bytes)
        }
    }

    /// Adds a message behind those of its sender.
    #[inline]
    pub(super) fn push(&mut self, message: Queued) {
        let place = match Sender::of(&message.frame) {
            None => OWN,
            Some(sender) => self.place_of(sender),
        };
        let len = len(&message);
        let Some(sender) = self.senders.get_mut(place) else { return };
        if sender.messages.is_empty() {
            (sender.left, sender.exceeded) = (TURN_BYTES, 0);
            self.turns.push_back(place);
        }
        sender.messages.push_back(message);
        sender.bytes += len;
        self.count += 1;
        self.bytes += len;
    }

    fn place_of(&mut self, sender: Sender) -> usize {
        if let Some(&place) = self.places.get(&sender) {
            return place;
        }
        let place = self.vacant.pop().unwrap_or(self.senders.len());
        match self.senders.get_mut(place) {
            Some(vacant) => vacant.sender = Some(sender),
            None => self.senders.push(OfSender::of(Some(sender))),
        }
        self.places.insert(sender, place);
        place
    }

    /// Notes that a sender has no more messages.
    fn vacate(&mut self, place: usize) {
        let Some(sender) = self.senders.get_mut(place).and_then(|vacant| vacant.sender.take())
        else {
            return;
        };
        self.places.remove(&sender);
        self.vacant.push(place);
        if self.places.is_empty() && self.senders.len() > MAX_VACANT {
            self.senders.truncate(OWN + 1);
            self.vacant.clear();
        }
    }

    /// Adds a message of the link's greeting.
    pub(super) fn greet(&mut self, message: Queued) {
        self.count += 1;
        self.bytes += len(&message);
        self.ahead.insert(self.greetings, message);
        self.greetings += 1;
    }

    /// Adds a message of the link's greeting, in the place of one with its tag, which is returned.
    pub(super) fn renew(&mut self, message: Queued) -> Option<Queued> {
        let tag = message.frame.tag();
        let mut greeting = self.ahead.iter_mut().take(self.greetings);
        let Some(earlier) = greeting.find(|earlier| earlier.frame.tag() == tag) else {
            self.greet(message);
            return None;
        };
        self.bytes = self.bytes + len(&message) - len(earlier);
        Some(std::mem::replace(earlier, message))
    }

    /// Adds a message of the link itself ahead of the greeting.
    pub(super) fn urge(&mut self, message: Queued) {
        self.count += 1;
        self.bytes += len(&message);
        self.ahead.push_front(message);
        self.greetings += 1;
    }

    /// Adds messages that another link left, behind the greeting and ahead of everything else, and returns those for
    /// which there is no room.
    pub(super) fn inherit(&mut self, messages: Vec<Queued>, limits: LaneLimits) -> Vec<Queued> {
        let rest = self.ahead.split_off(self.greetings);
        let mut refused = Vec::new();
        for message in messages {
            let len = len(&message);
            if self.is_full(limits, len) {
                refused.push(message);
                continue;
            }
            self.count += 1;
            self.bytes += len;
            self.ahead.push_back(message);
        }
        self.ahead.extend(rest);
        refused
    }

    /// Moves on to the sender whose turn it is, and returns its place.
    #[inline]
    fn turn(&mut self) -> Option<usize> {
        loop {
            let place = *self.turns.front()?;
            let sender = self.senders.get_mut(place)?;
            if sender.left > 0 {
                return Some(place);
            }
            if self.turns.len() == 1 {
                sender.exceeded = 0;
                sender.renew();
            } else {
                sender.renew();
                self.turns.rotate_left(1);
            }
        }
    }

    /// Moves messages to `batch`, `run` of them at most, as long as there is room. Returns their number.
    ///
    /// In one go, because this is for every message to every peer.
    pub(super) fn take_many(
        &mut self,
        run: usize,
        room: &mut Room,
        batch: &mut Vec<Queued>,
    ) -> usize {
        let (mut taken, mut bytes) = (0, 0);
        while taken < run
            && let Some(next) = self.ahead.front()
            && room.take(len(next))
            && let Some(message) = self.ahead.pop_front()
        {
            self.greetings = self.greetings.saturating_sub(1);
            taken += 1;
            bytes += len(&message);
            batch.push(message);
        }
        while taken < run
            && self.ahead.is_empty()
            && let Some(place) = self.turn()
            && let Some(sender) = self.senders.get_mut(place)
        {
            let turn = if self.turns.len() == 1 { Turn::Alone } else { Turn::OneOfMany };
            let (moved, moved_bytes) = sender.take(run - taken, turn, room, batch);
            (taken, bytes) = (taken + moved, bytes + moved_bytes);
            if sender.messages.is_empty() {
                self.turns.pop_front();
                self.vacate(place);
            }
            if moved == 0 {
                break;
            }
        }
        self.count -= taken;
        self.bytes -= bytes;
        taken
    }

    /// Makes room for `frame`, if the limits leave none, at the cost of the senders with most. Returns `false` if there
    /// is no room.
    #[inline]
    pub(super) fn make_room(
        &mut self,
        frame: &Frame,
        limits: LaneLimits,
        displaced: impl FnMut(Queued),
    ) -> bool {
        !self.is_full(limits, frame.wire().len()) || self.displace(frame, limits, displaced)
    }

    /// Makes room in a queue that has none.
    fn displace(
        &mut self,
        frame: &Frame,
        limits: LaneLimits,
        mut displaced: impl FnMut(Queued),
    ) -> bool {
        let len = frame.wire().len();
        for _ in 0..MAX_DISPLACED {
            let Some(by) = self.full_by(limits, len) else { return true };
            let Some(place) = self.place_with_more(frame, by) else { return false };
            let Some(message) = self.remove_newest(place) else { return false };
            displaced(message);
        }
        !self.is_full(limits, len)
    }

    /// The place of the sender of forwarded messages with most, if that is more than the sender of `frame` would have.
    fn place_with_more(&self, frame: &Frame, by: Measure) -> Option<usize> {
        let would_have = Sender::of(frame).map_or(0, |sender| {
            let place = self.places.get(&sender);
            let own = place.and_then(|place| self.senders.get(*place));
            let more = match by {
                Measure::Messages => 1,
                Measure::Bytes => frame.wire().len(),
            };
            own.map_or(0, |own| own.amount(by)) + more
        });
        let all = match by {
            Measure::Messages => self.count,
            Measure::Bytes => self.bytes,
        };
        // A sender beyond its fair share makes room itself, so that a flood costs no search.
        if would_have.saturating_mul(self.turns.len()) > all {
            return None;
        }
        let others = self.turns.iter().filter(|place| **place != OWN);
        let amounts =
            others.filter_map(|&place| Some((place, self.senders.get(place)?.amount(by))));
        let (heaviest, amount) = amounts.max_by_key(|(_, amount)| *amount)?;
        (amount > would_have).then_some(heaviest)
    }

    /// Removes the newest message of a sender that no caller waits for.
    fn remove_newest(&mut self, place: usize) -> Option<Queued> {
        let sender = self.senders.get_mut(place)?;
        let newest = sender.messages.iter().rposition(|message| message.receipt.is_none())?;
        let message = sender.messages.remove(newest)?;
        sender.bytes -= len(&message);
        self.count -= 1;
        self.bytes -= len(&message);
        if sender.messages.is_empty() {
            self.turns.retain(|turn| *turn != place);
            self.vacate(place);
        }
        Some(message)
    }

    /// Takes everything out, in the order in which it would have gone.
    pub(super) fn drain(&mut self) -> Vec<Queued> {
        let mut all = Vec::with_capacity(self.count);
        self.take_many(usize::MAX, &mut Room::new(usize::MAX, usize::MAX), &mut all);
        all
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use gossip::{Lane, Tag};

    use super::*;
    use crate::frame::FrameParts;

    const FLOODER: Option<LinkId> = Some(LinkId(1));
    const HONEST: Option<LinkId> = Some(LinkId(2));

    fn message(origin: Origin, sender: Option<LinkId>, bytes: usize) -> Queued {
        let wire = Bytes::from(vec![b'v'; bytes]);
        let (tag, lane) = (Tag::AV, Lane::Priority);
        let parts = FrameParts { tag, lane, wire, digest: None, origin, sender, held: None };
        Queued { frame: Frame::new(parts), receipt: None }
    }

    fn forwarded(sender: Option<LinkId>, bytes: usize) -> Queued {
        message(Origin::Forwarded, sender, bytes)
    }

    /// Offers a message as the router does, and returns the senders of those that were dropped.
    fn offer(queue: &mut Queue, limits: LaneLimits, message: Queued) -> Vec<Option<LinkId>> {
        let mut dropped = Vec::new();
        if queue.make_room(&message.frame, limits, |other| dropped.push(other.frame.sender())) {
            queue.push(message);
        } else {
            dropped.push(message.frame.sender());
        }
        dropped
    }

    fn senders(queue: &mut Queue) -> Vec<Option<LinkId>> {
        queue.drain().iter().map(|message| message.frame.sender()).collect()
    }

    // Issue 8, 24. Without this a vote of an honest peer found the queue full nearly always.
    #[test]
    fn a_flood_of_one_sender_displaces_nothing_of_another() {
        let limits = LaneLimits { messages: 1_000, bytes: 1 << 20 };
        let (mut queue, mut dropped) = (Queue::default(), Vec::new());
        for round in 0..20_000 {
            let sender = if round % 100 == 0 { HONEST } else { FLOODER };
            dropped.extend(offer(&mut queue, limits, forwarded(sender, 10)));
        }
        assert_eq!(dropped.len(), 19_000);
        assert!(dropped.iter().all(|sender| *sender == FLOODER), "counted as the flooder's");
        assert_eq!(senders(&mut queue).iter().filter(|sender| **sender == HONEST).count(), 200);
    }

    // Issue 8, 24: with one order for all, an honest vote waited for every vote of a flood before it.
    #[test]
    fn a_message_waits_for_a_turn_of_every_other_sender_at_most() {
        let mut queue = Queue::default();
        for _ in 0..1_000 {
            queue.push(forwarded(FLOODER, 448));
        }
        for bytes in [448, 448] {
            queue.push(forwarded(HONEST, bytes));
        }
        queue.push(message(Origin::Own, None, 100));
        let order = senders(&mut queue);
        let turn = [FLOODER; 4];
        assert_eq!(order[..4], turn);
        assert_eq!(order[4..7], [HONEST, HONEST, None]);
        assert!(order[7..].iter().all(|sender| *sender == FLOODER));
    }

    #[test]
    fn a_large_message_is_paid_off_by_later_turns() {
        let mut queue = Queue::default();
        queue.push(forwarded(FLOODER, 10 * TURN_BYTES));
        queue.push(forwarded(FLOODER, 10));
        for _ in 0..100 {
            queue.push(forwarded(HONEST, 448));
        }
        let order = senders(&mut queue);
        assert_eq!(order[0], FLOODER);
        let next = order.iter().skip(1).position(|sender| *sender == FLOODER).unwrap();
        assert!((36..=44).contains(&next), "ten turns of the other: {next}");
    }

    #[test]
    fn equal_senders_do_not_take_each_others_places() {
        let limits = LaneLimits { messages: 100, bytes: 1 << 20 };
        let mut queue = Queue::default();
        for round in 0..100 {
            let sender = if round % 2 == 0 { HONEST } else { FLOODER };
            assert_eq!(offer(&mut queue, limits, forwarded(sender, 10)), []);
        }
        for sender in [HONEST, FLOODER] {
            assert_eq!(offer(&mut queue, limits, forwarded(sender, 10)), [sender]);
        }
        assert_eq!(senders(&mut queue).len(), 100);
    }

    #[test]
    fn own_messages_are_not_displaced_and_take_the_place_of_forwarded_ones() {
        let limits = LaneLimits { messages: 50, bytes: 1 << 20 };
        let own = || message(Origin::Own, None, 10);
        let mut queue = Queue::default();
        for _ in 0..50 {
            assert_eq!(offer(&mut queue, limits, own()), []);
        }
        assert_eq!(offer(&mut queue, limits, forwarded(FLOODER, 10)), [FLOODER]);
        assert_eq!(offer(&mut queue, limits, own()), [None]);
        let mut queue = Queue::default();
        for number in 0..50 {
            assert_eq!(offer(&mut queue, limits, forwarded(Some(LinkId(number)), 10)), []);
        }
        assert_eq!(offer(&mut queue, limits, own()).len(), 1, "although nobody has much");
    }

    // Issue 8, 24.
    #[test]
    fn a_large_message_finds_room_beside_a_flood_of_small_ones_and_of_large_ones() {
        let limits = LaneLimits { messages: 1_000, bytes: 1 << 20 };
        for flood_bytes in [10, 10_000] {
            let mut queue = Queue::default();
            for _ in 0..2_000 {
                let _ = offer(&mut queue, limits, forwarded(FLOODER, flood_bytes));
            }
            let dropped = offer(&mut queue, limits, forwarded(HONEST, 100_000));
            assert!(dropped.iter().all(|sender| *sender == FLOODER), "{dropped:?}");
            assert!(dropped.len() <= 10);
        }
    }

    #[test]
    fn places_of_senders_that_left_are_bounded() {
        let mut queue = Queue::default();
        for number in 0..1_000 {
            queue.push(forwarded(Some(LinkId(number)), 10));
        }
        assert_eq!(senders(&mut queue).len(), 1_000);
        assert!(queue.places.is_empty() && queue.turns.is_empty() && queue.bytes == 0);
        assert!(queue.senders.len() + queue.vacant.len() <= 2 * MAX_VACANT);
    }
}
