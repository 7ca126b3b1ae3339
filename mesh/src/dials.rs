//! The states of configured addresses, and the times at which a failure is worth telling.
//!
//! # Invariants
//!
//! * Only configured addresses are kept, so their number is an operator's doing.
//! * A state is told when it begins, once more after [`AGAIN`], and then every [`RARELY`]: an operator hears of
//!   an address that never answers, and no log is filled by it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gossip::{DialOutcome, DialState, Instant, NodeAddress, Transport};

use crate::phonebook::transport_of;

/// Time after the first failure at which it is told a second time. Source: issue 8, 8.
pub const AGAIN: Duration = Duration::from_secs(60);

/// Interval at which it is told from then on. Chosen: twice an hour reminds, and fills nothing.
pub const RARELY: Duration = Duration::from_secs(30 * 60);

/// The decision to tell of a failure.
#[must_use = "an operator waits to hear of it"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    /// Tell it: so many dials in a row have led to nothing.
    Now(u64),
    /// Say nothing: it was told lately.
    NotYet,
}

#[derive(Debug)]
struct Entry {
    state: DialState,
    /// Time of the next telling, once it has been told.
    next_told: Option<Instant>,
}

/// The configured address that leads to a peer, by which its state is found among those of the node.
#[derive(Clone, Debug)]
pub struct ConfiguredAddress {
    /// The states of all addresses of the node.
    pub dials: Dials,
    /// The address.
    pub address: NodeAddress,
}

impl ConfiguredAddress {
    /// The state of the address now; `None` if it is not configured.
    #[must_use]
    pub fn state(&self) -> Option<DialState> {
        self.dials.state(&self.address)
    }
}

/// The states of all configured addresses of a node. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Dials {
    entries: Arc<Mutex<BTreeMap<NodeAddress, Entry>>>,
}

impl Dials {
    /// Adds an address, which has not been dialled yet. An address that is known keeps its state. One host that is
    /// configured with TLS and without has two.
    pub fn add(&self, address: &NodeAddress) {
        let state = DialState::pending(address.shown());
        self.entries().entry(address.clone()).or_insert(Entry { state, next_told: None });
    }

    /// Forgets an address that is no longer configured.
    pub fn remove(&self, address: &NodeAddress) {
        self.entries().remove(address);
    }

    /// Records that a dial led to a link.
    pub fn connected(&self, address: &NodeAddress) {
        self.settle(address, DialOutcome::Connected);
    }

    /// Records that the peer is connected by another link, so the address is not needed.
    pub fn connected_otherwise(&self, address: &NodeAddress) {
        self.settle(address, DialOutcome::ConnectedOtherwise);
    }

    /// Records that the link to an address has ended.
    pub fn ended(&self, address: &NodeAddress) {
        self.settle(address, DialOutcome::Pending);
    }

    /// A dial led to nothing, and the next one is due at `next_try`.
    pub fn failed(
        &self,
        address: &NodeAddress,
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

    /// Returns the state of each that a transport carries, in the order of their texts.
    #[must_use]
    pub fn states(&self, transport: Transport) -> Vec<DialState> {
        let entries = self.entries();
        let carried = entries.iter().filter(|(address, _)| transport_of(address) == transport);
        let mut states: Vec<DialState> = carried.map(|(_, entry)| entry.state.clone()).collect();
        states.sort_by(|one, other| one.address.cmp(&other.address));
        states
    }

    /// The state of one address; `None` if it is not configured.
    #[must_use]
    pub fn state(&self, address: &NodeAddress) -> Option<DialState> {
        self.entries().get(address).map(|entry| entry.state.clone())
    }

    fn settle(&self, address: &NodeAddress, outcome: DialOutcome) {
        if let Some(Entry { state, next_told }) = self.entries().get_mut(address) {
            (state.outcome, state.next_try) = (outcome, None);
            if outcome != DialOutcome::Pending {
                (state.failures, state.told, *next_told) = (0, 0, None);
            }
        }
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<NodeAddress, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> NodeAddress {
        "a.example:4160".parse().unwrap()
    }

    fn states(dials: &Dials) -> Vec<DialState> {
        dials.states(Transport::WebSocket)
    }

    fn fail(dials: &Dials, now: Instant) -> Tell {
        dials.failed(&address(), "no TCP connection".to_owned(), Some(now + AGAIN), now)
    }

    // Issue 8, 8 and 20.
    #[test]
    fn a_failure_is_told_at_once_after_a_minute_and_then_rarely() {
        let (dials, start) = (Dials::default(), Instant::now());
        dials.add(&address());
        let mut told = Vec::new();
        for second in 0..2 * 3_600 {
            if let Tell::Now(failures) = fail(&dials, start + Duration::from_secs(second)) {
                told.push((second, failures));
            }
        }
        assert_eq!(told, [(0, 1), (60, 61), (1_860, 1_861), (3_660, 3_661), (5_460, 5_461)]);
    }

    #[test]
    fn an_address_that_was_connected_and_fails_again_is_told_again() {
        let (dials, now) = (Dials::default(), Instant::now());
        dials.add(&address());
        assert_eq!(states(&dials)[0].outcome, DialOutcome::Pending);
        assert_eq!(fail(&dials, now), Tell::Now(1));
        assert_eq!(fail(&dials, now), Tell::NotYet);
        let state = states(&dials).remove(0);
        assert_eq!((state.outcome, state.failures), (DialOutcome::Failed, 2));
        assert_eq!(state.next_try, Some(now + AGAIN));
        dials.connected(&address());
        let state = states(&dials).remove(0);
        assert_eq!(
            (state.outcome, state.failures, state.next_try),
            (DialOutcome::Connected, 0, None)
        );
        dials.ended(&address());
        assert_eq!(fail(&dials, now), Tell::Now(1));
    }

    #[test]
    fn an_address_that_nobody_configured_is_told_of_never() {
        let (dials, now) = (Dials::default(), Instant::now());
        assert_eq!(fail(&dials, now), Tell::NotYet);
        assert_eq!(states(&dials), []);
    }

    // Issue 10, 6: both were shown as `a.example:4160`.
    #[test]
    fn one_host_with_tls_and_without_has_two_states_that_can_be_told_apart() {
        let (dials, now) = (Dials::default(), Instant::now());
        let secure: NodeAddress = "wss://a.example:4160".parse().unwrap();
        dials.add(&address());
        dials.add(&secure);
        assert_eq!(dials.failed(&secure, "no TLS".to_owned(), None, now), Tell::Now(1));
        dials.connected(&address());
        let seen = states(&dials).into_iter();
        let seen: Vec<_> =
            seen.map(|state| (state.address, state.outcome, state.failures)).collect();
        assert_eq!(
            seen,
            [
                ("a.example:4160".to_owned(), DialOutcome::Connected, 0),
                ("https://a.example:4160".to_owned(), DialOutcome::Failed, 1),
            ]
        );
    }
}
