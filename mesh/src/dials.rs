//! What became of dialling each configured address, and when that is worth telling.
//!
//! # Invariants
//!
//! * Only configured addresses are kept, so their number is an operator's doing.
//! * A state is told when it begins, once more after [`AGAIN`], and then every [`RARELY`]: an operator hears of
//!   an address that never answers, and no log is filled by it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// When a failure is told a second time. Source: issue 8, 8.
pub const AGAIN: Duration = Duration::from_secs(60);

/// How often it is told from then on. Chosen: twice an hour reminds, and fills nothing.
pub const RARELY: Duration = Duration::from_secs(30 * 60);

/// How it stands with a configured address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialState {
    /// The address as it was configured.
    pub address: String,
    /// What its last dial led to.
    pub outcome: DialOutcome,
    /// Dials in a row that led to nothing.
    pub failures: u64,
    /// Why the last of them did; kept after a success.
    pub last_error: Option<String>,
    /// When it will be dialled again, if that is known.
    pub next_try: Option<Instant>,
    /// How often its failing was told since it was last connected.
    pub told: u32,
}

/// What the last dial of an address led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialOutcome {
    /// Nothing yet: it is being dialled, or soon will be.
    Pending,
    /// A link, which is up.
    Connected,
    /// The peer is connected by another link.
    ConnectedOtherwise,
    /// Nothing; it will be dialled again.
    Failed,
}

impl DialOutcome {
    /// Its name in output for programs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Connected => "connected",
            Self::ConnectedOtherwise => "connected_otherwise",
            Self::Failed => "failed",
        }
    }
}

/// Whether a failure is to be told now.
#[must_use = "an operator waits to hear of it"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    /// It is: so many dials in a row have led to nothing.
    Now(u64),
    /// It was told lately.
    NotYet,
}

#[derive(Debug)]
struct Entry {
    state: DialState,
    /// When it is told next, once it has been told.
    next_told: Option<Instant>,
}

/// How it stands with every configured address of one network. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Dials {
    entries: Arc<Mutex<BTreeMap<String, Entry>>>,
}

impl Dials {
    /// Keeps account of one more address.
    pub fn add(&self, address: &str) {
        let state = DialState {
            address: address.to_owned(),
            outcome: DialOutcome::Pending,
            failures: 0,
            last_error: None,
            next_try: None,
            told: 0,
        };
        self.entries().entry(address.to_owned()).or_insert(Entry { state, next_told: None });
    }

    /// A dial led to a link.
    pub fn connected(&self, address: &str) {
        self.settle(address, DialOutcome::Connected);
    }

    /// The peer is connected by another link.
    pub fn connected_otherwise(&self, address: &str) {
        self.settle(address, DialOutcome::ConnectedOtherwise);
    }

    /// The link to an address has ended.
    pub fn ended(&self, address: &str) {
        self.settle(address, DialOutcome::Pending);
    }

    /// A dial led to nothing, and the next one is due at `next_try`.
    pub fn failed(
        &self,
        address: &str,
        error: String,
        next_try: Option<Instant>,
        now: Instant,
    ) -> Tell {
        let mut entries = self.entries();
        // An address that was learnt is nobody's concern.
        let Some(entry) = entries.get_mut(address) else { return Tell::NotYet };
        let state = &mut entry.state;
        state.outcome = DialOutcome::Failed;
        state.failures += 1;
        state.last_error = Some(error);
        state.next_try = next_try;
        if entry.next_told.is_some_and(|next| now < next) {
            return Tell::NotYet;
        }
        state.told += 1;
        entry.next_told = now.checked_add(if state.told == 1 { AGAIN } else { RARELY });
        Tell::Now(state.failures)
    }

    /// How it stands with each of them, in the order of their texts.
    #[must_use]
    pub fn states(&self) -> Vec<DialState> {
        self.entries().values().map(|entry| entry.state.clone()).collect()
    }

    fn settle(&self, address: &str, outcome: DialOutcome) {
        if let Some(Entry { state, next_told }) = self.entries().get_mut(address) {
            (state.outcome, state.next_try) = (outcome, None);
            if outcome != DialOutcome::Pending {
                (state.failures, state.told, *next_told) = (0, 0, None);
            }
        }
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: &str = "a.example:4160";

    fn fail(dials: &Dials, now: Instant) -> Tell {
        dials.failed(ADDRESS, "no TCP connection".to_owned(), Some(now + AGAIN), now)
    }

    // Issue 8, 8 and 20.
    #[test]
    fn a_failure_is_told_at_once_after_a_minute_and_then_rarely() {
        let (dials, start) = (Dials::default(), Instant::now());
        dials.add(ADDRESS);
        let mut told = Vec::new();
        for second in 0..2 * 3_600 {
            if let Tell::Now(failures) = fail(&dials, start + Duration::from_secs(second)) {
                told.push((second, failures));
            }
        }
        assert_eq!(told, [(0, 1), (60, 61), (1_860, 1_861), (3_660, 3_661), (5_460, 5_461)]);
    }

    #[test]
    fn what_was_connected_and_fails_again_is_told_again() {
        let (dials, now) = (Dials::default(), Instant::now());
        dials.add(ADDRESS);
        assert_eq!(dials.states()[0].outcome, DialOutcome::Pending);
        assert_eq!(fail(&dials, now), Tell::Now(1));
        assert_eq!(fail(&dials, now), Tell::NotYet);
        let state = dials.states().remove(0);
        assert_eq!((state.outcome, state.failures), (DialOutcome::Failed, 2));
        assert_eq!(state.next_try, Some(now + AGAIN));
        dials.connected(ADDRESS);
        let state = dials.states().remove(0);
        assert_eq!(
            (state.outcome, state.failures, state.next_try),
            (DialOutcome::Connected, 0, None)
        );
        dials.ended(ADDRESS);
        assert_eq!(fail(&dials, now), Tell::Now(1));
    }

    #[test]
    fn an_address_that_nobody_configured_is_told_of_never() {
        let (dials, now) = (Dials::default(), Instant::now());
        assert_eq!(fail(&dials, now), Tell::NotYet);
        assert_eq!(dials.states(), []);
    }
}
