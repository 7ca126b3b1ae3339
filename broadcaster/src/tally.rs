//! The count of what went over one link and of what did not, for status pages.
//!
//! # Invariants
//!
//! * Counting is a relaxed addition in the link's own memory: no lock, no allocation.

use std::sync::atomic::{AtomicU64, Ordering};

use gossip::{Lane, LinkId};

use crate::metrics::DropReason;

/// The traffic of one link so far, and its queues. A report of a moment: its numbers are read one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkTraffic {
    /// The link.
    pub link: LinkId,
    /// The lane of votes and proposals.
    pub priority: LaneTraffic,
    /// The lane of everything else.
    pub bulk: LaneTraffic,
    /// Messages of the peer, or for it, that went no further. Only reasons that occurred.
    pub drops: Vec<(DropReason, u64)>,
}

/// The traffic of one lane of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneTraffic {
    /// Messages that wait in this node for the peer.
    pub queued_messages: usize,
    /// Their bytes.
    pub queued_bytes: usize,
    /// Messages that were received over the link.
    pub received: Amount,
    /// Messages that were written to the link.
    pub sent: Amount,
}

/// A number of messages and of their bytes, as they are on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Messages.
    pub messages: u64,
    /// Bytes.
    pub bytes: u64,
}

/// The counters of one link.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    received: [Flow; 2],
    sent: [Flow; 2],
    dropped: [AtomicU64; DropReason::COUNT],
}

#[derive(Debug, Default)]
struct Flow {
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Flow {
    fn add(&self, messages: u64, bytes: u64) {
        self.messages.fetch_add(messages, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn amount(&self) -> Amount {
        Amount {
            messages: self.messages.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

impl Tally {
    /// Counts a message that was received.
    pub(crate) fn received(&self, lane: Lane, bytes: usize) {
        self.received[lane.index()].add(1, bytes as u64);
    }

    /// Counts a batch that was written: messages and bytes of the priority and of the bulk lane.
    pub(crate) fn sent(&self, sums: [(u64, u64); 2]) {
        for (flow, (messages, bytes)) in self.sent.iter().zip(sums) {
            if messages > 0 {
                flow.add(messages, bytes);
            }
        }
    }

    /// Counts a message that went no further.
    pub(crate) fn dropped(&self, reason: DropReason) {
        self.dropped[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The traffic of a lane, which holds so many messages and bytes.
    pub(crate) fn lane(&self, lane: Lane, (messages, bytes): (usize, usize)) -> LaneTraffic {
        LaneTraffic {
            queued_messages: messages,
            queued_bytes: bytes,
            received: self.received[lane.index()].amount(),
            sent: self.sent[lane.index()].amount(),
        }
    }

    /// The reasons that occurred, and how often.
    pub(crate) fn drops(&self) -> Vec<(DropReason, u64)> {
        let counts = self.dropped.iter().map(|count| count.load(Ordering::Relaxed));
        let counted = DropReason::all().zip(counts);
        counted.filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_counts_by_lane_and_by_reason() {
        let tally = Tally::default();
        tally.received(Lane::Priority, 10);
        tally.received(Lane::Priority, 30);
        tally.sent([(1, 10), (2, 20)]);
        tally.sent([(0, 0), (0, 0)]);
        tally.dropped(DropReason::Duplicate);
        tally.dropped(DropReason::PackedVote);
        tally.dropped(DropReason::Duplicate);
        let amount = |messages, bytes| Amount { messages, bytes };
        let priority = tally.lane(Lane::Priority, (3, 4));
        assert_eq!((priority.received, priority.sent), (amount(2, 40), amount(1, 10)));
        assert_eq!((priority.queued_messages, priority.queued_bytes), (3, 4));
        let bulk = tally.lane(Lane::Bulk, (0, 0));
        assert_eq!((bulk.received, bulk.sent), (amount(0, 0), amount(2, 20)));
        assert_eq!(tally.drops(), [(DropReason::Duplicate, 2), (DropReason::PackedVote, 1)]);
    }
}
