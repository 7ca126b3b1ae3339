//! The times at which this node announces what it offers. Pure: it takes the time, and gives what is due.
//!
//! # Invariants
//!
//! * At most [`MAX_ANNOUNCED`] capabilities are announced.
//! * One announcement of a capability is under way at a time.
//! * A failed one is tried again after a wait that grows with jitter, up to [`MAX_RETRY`].

use std::time::{Duration, Instant};

use rand::Rng;

use super::capability::Capability;

/// Time from one announcement to the next. Source: wire facts 8.7: the library of existing nodes returns 3 h.
const AGAIN: Duration = Duration::from_secs(3 * 3_600);

/// Shortest wait after a failure. Source: wire facts 8.7.
const MIN_RETRY: Duration = Duration::from_secs(1);

/// Longest wait after a failure. Source: wire facts 8.7.
const MAX_RETRY: Duration = Duration::from_secs(100);

/// Factor by which a wait may exceed the last one. Source: wire facts 8.7.
const GROWTH: u32 = 3;

/// Capabilities of one node, at most. Source: `store.rs`: other nodes store as many of one peer.
const MAX_ANNOUNCED: usize = super::store::MAX_KEYS_PER_PEER;

#[derive(Debug)]
struct Announcement {
    capability: Capability,
    /// `None` while it is under way.
    due: Option<Instant>,
    /// The last wait.
    wait: Duration,
}

/// The capabilities that this node announces.
#[derive(Debug, Default)]
pub(super) struct Announcements(Vec<Announcement>);

impl Announcements {
    /// Announces `capabilities`, for the first time at `now`.
    pub(super) fn new(capabilities: impl IntoIterator<Item = Capability>, now: Instant) -> Self {
        let due = |capability| Announcement { capability, due: Some(now), wait: MIN_RETRY };
        Self(capabilities.into_iter().map(due).collect())
    }

    /// Announces another one from now on. Returns `false` if there are too many.
    pub(super) fn add(&mut self, capability: Capability, now: Instant) -> bool {
        if let Some(known) = self.0.iter_mut().find(|each| each.capability == capability) {
            known.due = known.due.map(|_| now);
            return true;
        }
        let has_room = self.0.len() < MAX_ANNOUNCED;
        if has_room {
            self.0.push(Announcement { capability, due: Some(now), wait: MIN_RETRY });
        }
        has_room
    }

    /// Takes a capability to announce now. The caller must call [`Announcements::done`].
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Capability> {
        let due = self.0.iter_mut().find(|each| each.due.is_some_and(|due| due <= now))?;
        due.due = None;
        Some(due.capability.clone())
    }

    /// Makes every announcement due at `at`, unless it is under way or due before.
    pub(super) fn hurry(&mut self, at: Instant) {
        for due in self.0.iter_mut().filter_map(|each| each.due.as_mut()) {
            *due = at.min(*due);
        }
    }

    /// Records that `capability` was announced to `nodes` nodes.
    pub(super) fn done(
        &mut self,
        capability: &Capability,
        nodes: usize,
        now: Instant,
        random: &mut impl Rng,
    ) {
        let Some(each) = self.0.iter_mut().find(|each| each.capability == *capability) else {
            return;
        };
        if nodes > 0 {
            each.wait = MIN_RETRY;
            each.due = Some(now + AGAIN);
        } else {
            let longest = each.wait.saturating_mul(GROWTH).min(MAX_RETRY);
            let more = longest.saturating_sub(MIN_RETRY).mul_f64(random.random::<f64>());
            each.wait = MIN_RETRY + more;
            each.due = Some(now + each.wait);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn a_capability_is_announced_at_once_and_then_every_three_hours() {
        let (now, mut random) = (Instant::now(), StdRng::seed_from_u64(1));
        let mut all = Announcements::new([Capability::gossip(), Capability::archival()], now);
        assert_eq!(all.take_due(now), Some(Capability::gossip()));
        assert_eq!(all.take_due(now), Some(Capability::archival()));
        assert_eq!(all.take_due(now), None, "both are under way");
        all.done(&Capability::gossip(), 3, now, &mut random);
        assert_eq!(all.take_due(now + AGAIN - Duration::from_secs(1)), None);
        assert_eq!(all.take_due(now + AGAIN), Some(Capability::gossip()));
    }

    #[test]
    fn a_node_announces_as_many_capabilities_as_others_store_of_it() {
        let now = Instant::now();
        let mut all = Announcements::new([Capability::gossip()], now);
        let name = |number: usize| format!("c{number}").parse().unwrap();
        let added = (0..100).filter(|number| all.add(name(*number), now)).count();
        assert_eq!(added, MAX_ANNOUNCED - 1);
        assert!(all.add(Capability::gossip(), now), "one that is there is announced again");
    }

    #[test]
    fn failures_are_tried_again_after_bounded_waits() {
        let (mut now, mut random) = (Instant::now(), StdRng::seed_from_u64(2));
        let mut all = Announcements::new([Capability::gossip()], now);
        let mut waits = Vec::new();
        for _ in 0..1_000 {
            assert_eq!(all.take_due(now), Some(Capability::gossip()));
            all.done(&Capability::gossip(), 0, now, &mut random);
            let due = all.0[0].due.unwrap();
            waits.push(due - now);
            now = due;
        }
        assert!(waits.iter().all(|wait| (MIN_RETRY..=MAX_RETRY).contains(wait)));
        assert!(waits.iter().max().unwrap() > &Duration::from_secs(50), "the waits grow");
    }
}
