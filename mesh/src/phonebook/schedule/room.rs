//! The room for dials: how many may be under way, of each class and over all.
//!
//! # Invariants
//!
//! * At most `concurrent` dials are young, and learnt addresses are dialled only while links and young dials together
//!   are fewer than `fan_out`. A dial that nobody has answered after a while is no longer young: it gives its place to
//!   another address, so that addresses which never answer delay the others by no more than that while.
//! * At most `most` dials are under way, and `concurrent` more to addresses that worked before.

use std::{collections::BTreeMap, time::Duration};

use gossip::{Instant, Transport};

use super::{Class, DialSchedule};

/// Time for which a dial is young while there is no link. Source: RFC 8305, section 8: an address that has not
/// answered by then is no reason to leave the next one alone.
pub(super) const PATIENCE_ALONE: Duration = Duration::from_millis(250);

/// Time for which a dial is young while there is a link. Chosen: longer than a handshake takes on most paths.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// The dials and links there are.
#[derive(Debug, Default)]
pub(super) struct Census {
    /// Since when each of the young dials is under way.
    pub(super) young: Vec<(Instant, Transport)>,
    pub(super) dialling: usize,
    /// Links of each transport.
    linked: BTreeMap<Transport, usize>,
}

impl DialSchedule {
    /// Returns `true` if there are fewer links than the fan-out, so that further addresses are of use.
    #[must_use]
    pub fn has_too_few_links(&self) -> bool {
        self.agenda.links() < self.limits.fan_out
    }

    /// Returns `true` if there are as many links as the fan-out.
    pub(super) fn is_full(&self, census: &Census) -> bool {
        census.links() >= self.limits.fan_out
    }

    pub(super) fn census(&self, now: Instant) -> Census {
        let mut census = Census { linked: self.agenda.linked(), ..Census::default() };
        let mut dials: Vec<_> = self.agenda.dials().collect();
        census.dialling = dials.len();
        let patience = census.patience();
        dials.retain(|(since, _)| now.saturating_duration_since(*since) < patience);
        dials.sort_unstable();
        census.young = dials;
        census
    }

    /// The bounds of young dials for a class: over all, and of its own transport.
    fn bounds(&self, class: Class, census: &Census) -> [(usize, Option<Transport>); 2] {
        let concurrent = self.limits.concurrent.get();
        match class {
            Class::Persistent => [(concurrent, None); 2],
            Class::Learnt(transport) => {
                let left = self.limits.fan_out.saturating_sub(census.links());
                let own = census.linked.get(&transport).copied().unwrap_or_default();
                let share = self.limits.share(transport).saturating_sub(own);
                [(concurrent.min(left), None), (concurrent.min(share), Some(transport))]
            }
        }
    }

    /// Dials that may be begun now for a class.
    pub(super) fn room(&self, class: Class, census: &Census) -> usize {
        let room = |(bound, of): (usize, Option<Transport>)| {
            bound.saturating_sub(census.young_of(of).count())
        };
        self.bounds(class, census).map(room).into_iter().min().unwrap_or_default()
    }

    /// The time at which another dial may be begun for a class; `None` if time alone will not allow it.
    pub(super) fn opens(&self, class: Class, census: &Census, now: Instant) -> Option<Instant> {
        let mut latest = now;
        for (bound, of) in self.bounds(class, census) {
            if bound == 0 {
                return None;
            }
            let young: Vec<Instant> = census.young_of(of).collect();
            let Some(in_the_way) = young.len().checked_sub(bound) else { continue };
            latest = latest.max(young.get(in_the_way)?.checked_add(census.patience())?);
        }
        Some(latest)
    }

    /// Returns `true` if the dials under way leave room for another address.
    pub(super) fn has_place(&self, is_familiar: bool, dialling: usize) -> bool {
        let concurrent = self.limits.concurrent.get();
        let most = self.limits.most.get().max(concurrent);
        let kept = if is_familiar { concurrent } else { 0 };
        dialling < most.saturating_add(kept)
    }
}

impl Census {
    /// The time for which a dial is young: the less there is to lose, the shorter.
    fn patience(&self) -> Duration {
        if self.links() == 0 { PATIENCE_ALONE } else { PATIENCE }
    }

    /// Links over all transports.
    pub(super) fn links(&self) -> usize {
        self.linked.values().sum()
    }

    /// Since when the young dials are under way, the oldest first, of one transport or of all.
    fn young_of(&self, of: Option<Transport>) -> impl Iterator<Item = Instant> {
        let of_it =
            self.young.iter().filter(move |(_, carries)| of.is_none_or(|of| of == *carries));
        of_it.map(|(since, _)| *since)
    }
}
