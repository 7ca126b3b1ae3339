//! The message that makes room for another when a queue is full: one of the sender that fills it.
//!
//! The senders that share a queue are many and come and go, and the queue is on the path of every message, so nothing
//! is counted while there is room. A full queue is sampled at [`SAMPLES`] places; a sender that holds most of them
//! holds most of the queue, give or take. It is the rule "drop from the longest queue" (RFC 7567, 4.2) without the
//! queues.
//!
//! # Invariants
//!
//! * Only forwarded messages that no caller waits for are displaced; this node's own and greetings never are.
//! * A sender displaces messages of a sender that has more than twice as much in the queue as itself, and no other: two
//!   senders of equal rate do not take each other's places.
//! * The newest sampled message of the sender goes, so what is about to be sent is not touched.

use std::collections::VecDeque;

use gossip::LinkId;

use super::Queued;
use crate::frame::{Frame, Origin};

/// Number of places that are looked at. Chosen: a sender with a tenth of the queue is taken for one that fills it in
/// six of 100,000 looks.
const SAMPLES: usize = 16;

/// Least number of samples of a sender that may be displaced. Chosen: half of them.
const MOST: usize = SAMPLES / 2;

/// The place of the message that is to make room for `newcomer` in a full queue; `None` if it finds no room. The first
/// `greetings` messages are not considered.
pub(super) fn victim(
    messages: &VecDeque<Queued>,
    greetings: usize,
    newcomer: &Frame,
) -> Option<usize> {
    let rest = messages.len().checked_sub(greetings)?;
    let place = |sample: usize| greetings + rest * (2 * sample + 1) / (2 * SAMPLES);
    let senders: [Option<Sender>; SAMPLES] =
        std::array::from_fn(|sample| messages.get(place(sample)).and_then(Sender::of));
    let count = |of: Sender| senders.iter().filter(|sender| **sender == Some(of)).count();
    let (greediest, held) = senders
        .iter()
        .flatten()
        .map(|&sender| (sender, count(sender)))
        .max_by_key(|(_, held)| *held)?;
    let own = Sender::of_frame(newcomer).map_or(0, count);
    let makes_room = held >= MOST && held > 2 * own;
    let newest = senders.iter().rposition(|sender| *sender == Some(greediest)).map(place);
    newest.filter(|_| makes_room)
}

/// The sender of a forwarded message: a link, or the topics together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sender(Option<LinkId>);

impl Sender {
    /// The sender of a message that may be displaced.
    fn of(message: &Queued) -> Option<Self> {
        if message.receipt.is_some() { None } else { Self::of_frame(&message.frame) }
    }

    fn of_frame(frame: &Frame) -> Option<Self> {
        (frame.origin() == Origin::Forwarded).then(|| Self(frame.sender()))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use gossip::{Admission, Lane, Tag};

    use super::{
        super::{Lanes, Serves},
        *,
    };
    use crate::{
        frame::FrameParts,
        limits::{LaneLimits, Limits},
    };

    const FLOODER: Option<LinkId> = Some(LinkId(1));
    const HONEST: Option<LinkId> = Some(LinkId(2));

    fn message(origin: Origin, sender: Option<LinkId>) -> Queued {
        let wire = Bytes::from_static(b"AVvote");
        let (tag, lane) = (Tag::AV, Lane::Priority);
        let parts = FrameParts { tag, lane, wire, digest: None, origin, sender, held: None };
        Queued { frame: Frame::new(parts), receipt: None }
    }

    fn forwarded(sender: Option<LinkId>) -> Queued {
        message(Origin::Forwarded, sender)
    }

    fn lanes(messages: usize) -> Lanes {
        let peer_priority = LaneLimits { messages, bytes: 1 << 20 };
        Lanes::shared(&Limits { peer_priority, batch_messages: messages, ..Limits::default() })
    }

    fn held(lanes: &Lanes, by: Option<LinkId>) -> usize {
        let mut batch = Vec::new();
        lanes.fill(Serves::Both, &mut batch);
        batch.iter().filter(|queued| queued.frame.sender() == by).count()
    }

    // Issue 8, 24. Without this a vote of an honest peer found the queue full nearly always.
    #[test]
    fn a_flood_of_one_sender_displaces_nothing_of_another() {
        let lanes = lanes(1_000);
        let mut refused = [0, 0];
        for round in 0..20_000 {
            let sender = if round % 100 == 0 { HONEST } else { FLOODER };
            let _late = lanes.offer_all(std::iter::once(forwarded(sender)), |frame, admission| {
                if admission == Admission::Full {
                    refused[usize::from(frame.sender() == HONEST)] += 1;
                }
            });
        }
        assert_eq!(refused, [19_000, 0], "what is refused is counted as the flooder's");
        assert_eq!(held(&lanes, HONEST), 200);
    }

    #[test]
    fn equal_senders_do_not_take_each_others_places() {
        let lanes = lanes(100);
        for round in 0..100 {
            let sender = if round % 2 == 0 { HONEST } else { FLOODER };
            assert_eq!(lanes.offer(forwarded(sender)), Admission::Queued);
        }
        for sender in [HONEST, FLOODER] {
            assert_eq!(lanes.offer(forwarded(sender)), Admission::Full);
        }
        assert_eq!(held(&lanes, HONEST), 50);
    }

    #[test]
    fn own_messages_are_not_displaced_and_take_the_place_of_forwarded_ones() {
        let own = || message(Origin::Own, None);
        let lanes = lanes(50);
        for _ in 0..50 {
            assert_eq!(lanes.offer(own()), Admission::Queued);
        }
        assert_eq!(lanes.offer(forwarded(FLOODER)), Admission::Full);
        assert_eq!(lanes.offer(own()), Admission::Full);
        let lanes = self::lanes(50);
        for _ in 0..50 {
            assert_eq!(lanes.offer(forwarded(None)), Admission::Queued, "over a topic");
        }
        assert_eq!(lanes.offer(own()), Admission::Queued);
        assert_eq!(lanes.offer(forwarded(None)), Admission::Full);
    }
}
