//! GossipSub's messages to one peer that its connection does not take yet.
//!
//! The library has a queue for each peer too, but bounds it by number only: thousands of messages of any size.
//! So its stream takes every message at once, and what the connection has no room for waits here.
//!
//! # Invariants
//!
//! * Messages wait with at most [`MAX_WAITING_BYTES`]. Beyond that they are dropped whole and counted; the peer
//!   hears of them by IHAVE and can ask for them.
//! * Control messages that must not be lost (GRAFT, PRUNE, IDONTWANT, subscriptions) may use as much again. Beyond
//!   that the connection ends.
//! * A message of which a part was sent is sent whole.

use std::collections::VecDeque;

use super::FRAME_BYTES;

/// Largest size of the messages that wait for one peer, in bytes. Chosen: as much as waits in the bulk lane of a
/// gossip link, and twenty blocks of 1,000 transactions.
pub(crate) const MAX_WAITING_BYTES: usize = 8 * 1024 * 1024;

/// Tags of the fields of an RPC. Source: GossipSub 1.0, `rpc.proto`: `publish` is field 2, `control` field 3; in
/// `control`, `ihave` is field 1 and `iwant` field 2.
const PUBLISH: u8 = 2 << 3 | 2;
const CONTROL: u8 = 3 << 3 | 2;
const IHAVE: u8 = 1 << 3 | 2;
const IWANT: u8 = 2 << 3 | 2;

/// The result of adding a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// The message waits, and costs this many bytes.
    Waits(usize),
    /// The message was dropped: there is no room.
    Dropped,
    /// There is no room for a message that must not be lost.
    Exceeded,
}

/// The messages that wait, and the part of the first one that was sent.
#[derive(Debug, Default)]
pub(crate) struct TopicQueue {
    rpcs: VecDeque<Vec<u8>>,
    sent: usize,
    bytes: usize,
}

/// Memory of a waiting message, in bytes.
const fn cost(rpc: &[u8]) -> usize {
    rpc.len() + FRAME_BYTES
}

/// Splits the length off a length-delimited field.
pub(crate) fn delimited(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut length = 0_usize;
    for (at, &byte) in bytes.iter().enumerate().take(4) {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((length, bytes.get(at + 1..)?));
        }
    }
    None
}

/// Returns `true` for a whole RPC that may be dropped: a message, IHAVE or IWANT. The library queues each in an RPC
/// of its own, and writes each RPC at once.
fn may_be_dropped(rpc: &[u8]) -> bool {
    let Some((length, body)) = delimited(rpc) else { return false };
    if length != body.len() {
        return false;
    }
    match body {
        [PUBLISH, ..] => true,
        [CONTROL, control @ ..] => {
            matches!(delimited(control), Some((_, [IHAVE | IWANT, ..])))
        }
        _ => false,
    }
}

impl TopicQueue {
    /// Returns `true` if nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.rpcs.is_empty()
    }

    /// Adds an RPC behind those that wait. Without room beside other connections only what must not be lost is added.
    pub(crate) fn offer(&mut self, rpc: &[u8], has_room: bool) -> Offer {
        let (bytes, droppable) = (self.bytes + cost(rpc), may_be_dropped(rpc));
        if droppable && (bytes > MAX_WAITING_BYTES || !has_room) {
            return Offer::Dropped;
        }
        if bytes > 2 * MAX_WAITING_BYTES {
            return Offer::Exceeded;
        }
        Offer::Waits(self.push(rpc))
    }

    /// Adds the rest of an RPC whose first part was sent. Returns its cost in bytes.
    pub(crate) fn push(&mut self, rpc: &[u8]) -> usize {
        self.bytes += cost(rpc);
        self.rpcs.push_back(rpc.to_vec());
        cost(rpc)
    }

    /// The bytes to send next.
    pub(crate) fn front(&self) -> Option<&[u8]> {
        self.rpcs.front()?.get(self.sent..)
    }

    /// Removes bytes that were sent from the front. Returns the cost of the RPC, if it was sent whole.
    pub(crate) fn advance(&mut self, bytes: usize) -> Option<usize> {
        self.sent += bytes;
        let front = self.rpcs.front().filter(|rpc| rpc.len() <= self.sent)?;
        let cost = cost(front);
        self.rpcs.pop_front();
        (self.sent, self.bytes) = (0, self.bytes - cost);
        Some(cost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{control::control, rpc};

    #[test]
    fn only_whole_messages_and_gossip_may_be_dropped() {
        let message = rpc::request(&[rpc::message("t", &[7; 1_000])]);
        assert!(may_be_dropped(&message));
        assert!(!may_be_dropped(&message[..500]) && !may_be_dropped(&message[500..]));
        assert!(!may_be_dropped(&rpc::request(&[rpc::subscription("t")])));
        assert!(!may_be_dropped(&[]) && !may_be_dropped(&[0xff; 9]));
        for (kind, droppable) in [(1, true), (2, true), (3, false), (4, false), (5, false)] {
            let control = rpc::request(&[control(kind, &[])]);
            assert_eq!(may_be_dropped(&control), droppable, "{kind}");
        }
    }

    // Issue 8, 22. Before, 8,192 messages of any size could wait for each peer.
    #[test]
    fn messages_wait_up_to_a_bound_in_bytes_and_the_rest_of_one_is_kept() {
        let mut queue = TopicQueue::default();
        let message = rpc::request(&[rpc::message("t", &[7; 100_000])]);
        queue.push(&message[50..]);
        let mut waits = 0;
        while let Offer::Waits(_) = queue.offer(&message, true) {
            waits += 1;
        }
        assert_eq!((waits, queue.offer(&message, true)), (82, Offer::Dropped));
        let graft = rpc::request(&[control(3, &[7; 10_000])]);
        assert_eq!(queue.offer(&graft, false), Offer::Waits(cost(&graft)), "it must not be lost");
        while let Offer::Waits(_) = queue.offer(&graft, false) {}
        assert_eq!(queue.offer(&graft, false), Offer::Exceeded);
        assert!(queue.bytes <= 2 * MAX_WAITING_BYTES);
        assert_eq!(queue.front().unwrap(), &message[50..]);
        assert_eq!(queue.advance(10), None);
        assert_eq!(queue.front().unwrap(), &message[60..]);
        assert_eq!(queue.advance(message.len() - 60), Some(cost(&message[50..])));
        assert_eq!(queue.front().unwrap(), &message[..]);
        while let Some(front) = queue.front().map(<[u8]>::len) {
            assert!(queue.advance(front).is_some());
        }
        assert!(queue.is_empty() && queue.bytes == 0);
    }
}
