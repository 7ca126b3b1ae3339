//! The messages that one node sends, and their times.
//!
//! ```text
//!   Schedule ─▶ due(now) ─▶ note in the journal ─▶ broadcast ──Full?──▶ try again a little later
//! ```
//!
//! # Invariants
//!
//! * A message is noted before it is given to the node, so none is ever heard that nobody sent.
//! * A full queue delays; it loses nothing. What is not taken by the deadline is noted as withdrawn.

use std::{sync::Arc, time::Duration};

use gossip::{Admission, GossipNode, Outbound};
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::{
    body::{Class, Stamp},
    control::{Schedule, nanos, now_ns},
    journal::{Deed, Journal, Record},
};

/// Votes, and also transactions, that each node sends in a second. Source: issue 3, part 8.
pub(crate) const PER_SECOND: f64 = 100.0;

/// Interval at which a sender checks which messages are due. Chosen: a fraction of the time of a message.
const TICK: Duration = Duration::from_millis(5);

/// Longest wait for a full queue after the last message was due.
const OVERTIME: Duration = Duration::from_secs(5);

impl Schedule {
    /// Number of messages of a class that the node at this place should have sent by now.
    fn due(&self, class: Class, place: u8, now_ns: u64) -> u32 {
        let total_ns = nanos(Duration::from_secs(self.seconds));
        let elapsed_ns = now_ns.saturating_sub(self.start_ns).min(total_ns);
        // Whole messages, so that the last of a second is sent in it.
        let share = |per_second: f64| (elapsed_ns as f64 / 1e9 * per_second * self.rate) as u32;
        match class {
            Class::Vote | Class::Transaction => share(PER_SECOND),
            Class::Proposal => {
                // Of all proposals, those with this place as the remainder.
                let (all, nodes) = (share(1.0), self.nodes.max(1));
                all.saturating_add(nodes - 1).saturating_sub(u32::from(place)) / nodes
            }
            Class::ProbeVote | Class::ProbeTransaction => 0,
        }
    }

    /// When nothing is due any more and no queue is waited for.
    fn deadline_ns(&self) -> u64 {
        self.start_ns.saturating_add(nanos(Duration::from_secs(self.seconds) + OVERTIME))
    }
}

/// Sends the messages of one node.
#[derive(Clone)]
pub(crate) struct Sender {
    pub(crate) node: Arc<dyn GossipNode>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) place: u8,
    pub(crate) life: u8,
}

impl Sender {
    /// Sends what is due until nothing is, and notes that nothing more will come.
    ///
    /// # Cancel safety
    ///
    /// A message may have been noted as sent and not been given to the node.
    pub(crate) async fn run(&self, schedule: Schedule, cancel: CancellationToken) {
        self.send_all(schedule, &cancel).await;
        self.note(Deed::Done, self.stamp(Class::Vote, 0));
    }

    async fn send_all(&self, schedule: Schedule, cancel: &CancellationToken) {
        // A node that joins late does not make up for what it did not send.
        let skipped: Vec<u32> = Class::COUNTED
            .into_iter()
            .map(|class| schedule.due(class, self.place, now_ns()))
            .collect();
        let mut sent = skipped.clone();
        let mut tick = time::interval(TICK);
        tick.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                _ = tick.tick() => {}
            }
            let now = now_ns();
            let mut complete = true;
            for ((class, sent), skipped) in Class::COUNTED.into_iter().zip(&mut sent).zip(&skipped)
            {
                while *sent < schedule.due(class, self.place, now) {
                    let number = *sent - skipped;
                    if !self.send(class, number, schedule.deadline_ns(), cancel).await {
                        return;
                    }
                    *sent += 1;
                }
                complete &= *sent >= schedule.due(class, self.place, u64::MAX);
            }
            if complete {
                return;
            }
        }
    }

    /// Sends a probe of each kind. Nobody misses one: another follows.
    pub(crate) fn probe(&self, round: u32) {
        for class in Class::PROBES {
            let stamp = self.stamp(class, round);
            // A full queue loses it.
            let _ = self.node.broadcast(Outbound::new(class.tag(), stamp.body()));
        }
    }

    /// Sends one message. `false` when the node has stopped, or its queues stay full.
    async fn send(
        &self,
        class: Class,
        number: u32,
        deadline_ns: u64,
        cancel: &CancellationToken,
    ) -> bool {
        let stamp = self.stamp(class, number);
        let body = stamp.body();
        self.note(Deed::Sent, stamp);
        loop {
            match self.node.broadcast(Outbound::new(class.tag(), body.clone())) {
                Ok(Admission::Queued) => return true,
                Ok(Admission::Full) if now_ns() < deadline_ns && !cancel.is_cancelled() => {
                    time::sleep(TICK).await;
                }
                Ok(Admission::Full | Admission::Closed) | Err(_) => {
                    self.note(Deed::Withdrawn, stamp);
                    return false;
                }
            }
        }
    }

    fn stamp(&self, class: Class, number: u32) -> Stamp {
        let Self { place: sender, life, .. } = *self;
        Stamp { class, sender, life, number, sent_ns: now_ns() }
    }

    fn note(&self, deed: Deed, stamp: Stamp) {
        self.journal.note(Record { deed, stamp, at_ns: now_ns() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: Schedule = Schedule { start_ns: 1_000, seconds: 10, rate: 1.0, nodes: 5 };

    #[test]
    fn a_node_sends_a_hundred_votes_a_second() {
        let due = |ns: u64| SCHEDULE.due(Class::Vote, 3, ns);
        assert_eq!(due(0), 0);
        assert_eq!(due(1_000), 0);
        assert_eq!(due(1_000 + 10_000_000), 1);
        assert_eq!(due(1_000 + 1_000_000_000), 100);
        assert_eq!(due(u64::MAX), 1_000);
    }

    #[test]
    fn one_node_after_the_other_sends_a_proposal() {
        for second in 0..=12_u64 {
            let now = 1_000 + second * 1_000_000_000;
            let due: Vec<u32> = (0..5).map(|n| SCHEDULE.due(Class::Proposal, n, now)).collect();
            assert_eq!(u64::from(due.iter().sum::<u32>()), second.min(10));
            assert!(due.is_sorted_by(|a, b| a >= b) && due[0] - due[4] <= 1, "{due:?}");
        }
    }

    #[test]
    fn the_rate_multiplies_everything() {
        let fast = Schedule { rate: 2.5, ..SCHEDULE };
        assert_eq!(fast.due(Class::Transaction, 0, u64::MAX), 2_500);
        let proposals: u32 = (0..5).map(|n| fast.due(Class::Proposal, n, u64::MAX)).sum();
        assert_eq!(proposals, 25);
    }
}
