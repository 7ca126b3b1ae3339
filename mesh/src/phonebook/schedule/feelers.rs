//! Feelers: the part of the dial schedule that tests untried addresses.
//!
//! # Invariants
//!
//! * While the fan-out is reached, one untried address at a time is tested beyond it, rarely.

use gossip::{Instant, NodeAddress};
use rand::Rng;

use super::{Census, Class, DialSchedule, QueueId, Turn, random_part};

impl DialSchedule {
    /// The untried address to test now. One that must show that it still works comes first.
    pub(super) fn feeler(
        &mut self,
        census: &Census,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Option<NodeAddress> {
        let every = self.limits.feeler_every.filter(|_| self.is_full(census))?;
        let next = now.checked_add(every + random_part(every, rng));
        if self.feeler_at.is_none_or(|at| at > now) {
            self.feeler_at = self.feeler_at.or(next);
            return None;
        }
        let found = self.first_untried(census, now)?;
        self.feeler_at = next;
        Some(found)
    }

    /// The queues of learnt addresses that a feeler may come from.
    fn feeler_queues(&self, census: &Census) -> Vec<QueueId> {
        let mut queues = self.agenda.queues();
        queues.retain(|queue| {
            matches!(queue.class, Class::Learnt(transport) if self.limits.share(transport) > 0)
                && self.has_place(queue.is_familiar, census.dialling)
        });
        queues
    }

    /// The first learnt address that is due and was never connected, or must show that it still works.
    fn first_untried(&mut self, census: &Census, now: Instant) -> Option<NodeAddress> {
        let mut first: Option<(Turn, NodeAddress)> = None;
        for queue in self.feeler_queues(census) {
            let Some((turn, address)) = self.first_ready(queue, now) else { continue };
            let is_untried = !queue.is_familiar || turn.0.is_on_trial();
            if is_untried && first.as_ref().is_none_or(|(best, _)| turn < *best) {
                first = Some((turn, address));
            }
        }
        first.map(|(_, address)| address)
    }

    /// The time of the next test of an untried address.
    pub(super) fn feeler_wake(&mut self, census: &Census, now: Instant) -> Option<Instant> {
        let at = self.feeler_at.filter(|_| self.is_full(census))?;
        let mut next = None;
        for queue in self.feeler_queues(census).into_iter().filter(|queue| !queue.is_familiar) {
            next = next.into_iter().chain(self.first_wake(queue, now)).min();
        }
        next.map(|wake| wake.max(at))
    }
}
