//! The sources of addresses of a node, and the times at which each is asked.
//!
//! # Invariants
//!
//! * A source is asked once at a time, and not again before its time is over, except that a node without peers asks
//!   after a growing wait of 2 s to 60 s. Source: wire facts 11.1.
//! * While there are fewer links than the fan-out, a directory is asked after waits that double from 1 s to 60 s, with
//!   jitter. They begin anew once it was asked with enough links, and not with each link that comes and goes.
//! * A source that fails, takes too long or answers nothing leaves its last addresses as they are (wire facts 10.4).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use mesh::{AddressSource, SourceId};
use rand::Rng;
use runtime::time::Instant;

/// The sources of a node, at most. Chosen: a dozen names in DNS, and some directories.
pub(crate) const MAX_SOURCES: usize = 64;

/// Shortest wait of a node without peers before it asks again. Source: wire facts 11.1.
const LONELY: Duration = Duration::from_secs(2);

/// Longest such wait. Source: wire facts 11.1.
const MAX_LONELY: Duration = Duration::from_secs(60);

/// Factor by which that wait may grow. Source: wire facts 11.1.
const GROWTH: u32 = 3;

/// First wait before a directory is searched again while there are too few links. Chosen: a table of nodes that begin
/// together fills within seconds.
const IN_NEED: Duration = Duration::from_secs(1);

/// Longest such wait. Source: [`mesh::phonebook::REFRESH`].
const MAX_IN_NEED: Duration = mesh::phonebook::REFRESH;

/// Share of a wait that is added by chance, at most, so that nodes which begin together do not search together.
const JITTER: f64 = 0.5;

/// Longest and shortest time between two questions that a source may wish for.
const REFRESHES: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(86_400);

/// All sources.
#[derive(Debug)]
pub(crate) struct Sources {
    by_id: BTreeMap<SourceId, Asked>,
    /// Time after which an answer is given up.
    pub(crate) patience: Duration,
    /// The last wait of a node without peers.
    lonely: Duration,
}

struct Asked {
    source: Arc<dyn AddressSource>,
    /// `None` while it is being asked.
    next: Option<Instant>,
    /// The next wait while there are too few links.
    in_need: Duration,
}

/// The need of a node for addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// It has as many links as it wants.
    None,
    /// It has too few links.
    Links,
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asked").field("next", &self.next).finish_non_exhaustive()
    }
}

impl Sources {
    pub(crate) const fn new(patience: Duration) -> Self {
        Self { by_id: BTreeMap::new(), patience, lonely: LONELY }
    }

    /// Adds a source, to be asked now. Returns `false` if there are too many.
    pub(crate) fn add(&mut self, source: Arc<dyn AddressSource>, now: Instant) -> bool {
        let id = source.id();
        let has_room = self.by_id.len() < MAX_SOURCES || self.by_id.contains_key(&id);
        if has_room {
            self.by_id.insert(id, Asked { source, next: Some(now), in_need: IN_NEED });
        }
        has_room
    }

    /// The sources to ask now. Each is to be answered by [`Sources::answered`].
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Arc<dyn AddressSource>> {
        let due = self.by_id.values_mut().filter(|asked| asked.next.is_some_and(|at| at <= now));
        due.map(|asked| {
            asked.next = None;
            Arc::clone(&asked.source)
        })
        .collect()
    }

    /// The time at which to ask [`Sources::due`] again.
    pub(crate) fn next_wake(&self) -> Option<Instant> {
        self.by_id.values().filter_map(|asked| asked.next).min()
    }

    /// A source has answered, or has failed to.
    pub(crate) fn answered(
        &mut self,
        source: &dyn AddressSource,
        need: Need,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        let id = source.id();
        let mut wait = source.refresh().clamp(*REFRESHES.start(), *REFRESHES.end());
        let Some(asked) = self.by_id.get_mut(&id) else { return };
        match need {
            Need::Links if id.kind().is_searched_in_need() => {
                let more = asked.in_need.mul_f64(JITTER * rng.random::<f64>());
                wait = wait.min(asked.in_need + more);
                asked.in_need = asked.in_need.saturating_mul(2).min(MAX_IN_NEED);
            }
            _ => asked.in_need = IN_NEED,
        }
        asked.next = Some(now + wait);
    }

    /// There are too few links: every directory is asked by the end of its wait.
    pub(crate) fn in_need(&mut self, now: Instant) {
        for (id, asked) in &mut self.by_id {
            if id.kind().is_searched_in_need() {
                asked.next = asked.next.map(|at| at.min(now + asked.in_need));
            }
        }
    }

    /// There is no peer: the sources are asked soon, and less soon each time.
    pub(crate) fn lonely(&mut self, now: Instant, rng: &mut impl Rng) {
        let longest = self.lonely.saturating_mul(GROWTH).min(MAX_LONELY);
        let wait = LONELY + longest.saturating_sub(LONELY).mul_f64(rng.random::<f64>());
        self.lonely = wait;
        self.hurry(now + wait);
    }

    /// There is a peer again.
    pub(crate) const fn in_company(&mut self) {
        self.lonely = LONELY;
    }

    /// Asks every source by then at the latest.
    pub(crate) fn hurry(&mut self, by: Instant) {
        for asked in self.by_id.values_mut() {
            asked.next = asked.next.map(|at| at.min(by));
        }
    }
}
