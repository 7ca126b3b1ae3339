//! Searches for providers that are under way. Pure bookkeeping: the swarm task runs the queries.
//!
//! # Invariants
//!
//! * A search that has found enough, has heard [`MAX_ANSWERS`] nodes, or has taken too long is ended.
//! * At most [`MAX_SEARCHES`] searches are under way.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    time::Instant,
};

use tokio::sync::oneshot;

use super::Provider;
use crate::address::PeerAddress;
use libp2p::PeerId;

/// Searches under way, at most. Chosen: a few callers, and the sources of the mesh loop.
pub(super) const MAX_SEARCHES: usize = 32;

/// Answers heard in one search, at most. An honest search of a million nodes needs about twenty rounds of ten; each
/// answer costs up to 16 KiB until the search has ended. Chosen.
const MAX_ANSWERS: usize = 256;

/// One search.
#[derive(Debug)]
pub(super) struct Search {
    wanted: usize,
    until: Instant,
    found: BTreeMap<PeerId, Vec<PeerAddress>>,
    answers: usize,
    reply: oneshot::Sender<Vec<Provider>>,
}

/// The searches under way, by the number of their query.
#[derive(Debug)]
pub(super) struct Lookups<Id> {
    open: HashMap<Id, Search>,
}

impl<Id> Default for Lookups<Id> {
    fn default() -> Self {
        Self { open: HashMap::new() }
    }
}

impl Search {
    /// A search for `wanted` providers, whose result goes to `reply`.
    pub(super) const fn new(
        wanted: usize,
        until: Instant,
        reply: oneshot::Sender<Vec<Provider>>,
    ) -> Self {
        Self { wanted, until, found: BTreeMap::new(), answers: 0, reply }
    }

    fn is_over(&self, now: Instant) -> bool {
        let has_enough = self.found.values().filter(|known| !known.is_empty()).count();
        has_enough >= self.wanted
            || self.answers >= MAX_ANSWERS
            || self.until <= now
            || self.reply.is_closed()
    }
}

impl<Id: Copy + Eq + Hash> Lookups<Id> {
    /// Returns `true` if another search may begin.
    pub(super) fn has_room(&self) -> bool {
        self.open.len() < MAX_SEARCHES
    }

    pub(super) fn begin(&mut self, id: Id, search: Search) {
        self.open.insert(id, search);
    }

    /// Records the answer of one node. Returns `true` if the search is over, and the query is to be finished.
    pub(super) fn answered(
        &mut self,
        id: &Id,
        providers: impl IntoIterator<Item = (PeerId, Vec<PeerAddress>)>,
        now: Instant,
    ) -> bool {
        let Some(search) = self.open.get_mut(id) else { return false };
        search.answers += 1;
        for (peer, addresses) in providers {
            let is_known = search.found.get(&peer).is_some_and(|known| !known.is_empty());
            if !is_known && (search.found.len() < search.wanted || !addresses.is_empty()) {
                search.found.insert(peer, addresses);
            }
        }
        search.is_over(now)
    }

    /// The searches that have taken too long, or whose callers are gone.
    pub(super) fn overdue(&self, now: Instant) -> Vec<Id> {
        self.open.iter().filter(|(_, search)| search.is_over(now)).map(|(id, _)| *id).collect()
    }

    /// Gives the caller of a search what was found.
    pub(super) fn finished(&mut self, id: &Id) {
        let Some(Search { wanted, found, reply, .. }) = self.open.remove(id) else { return };
        let (with, without): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|(_, addresses)| !addresses.is_empty());
        let providers = with.into_iter().chain(without).take(wanted);
        // The send fails only if the caller has stopped waiting.
        let _ = reply.send(providers.filter_map(Provider::of).collect());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn provider(port: u16) -> (PeerId, Vec<PeerAddress>) {
        let peer = libp2p::identity::Keypair::generate_ed25519().public().to_peer_id();
        let address = format!("/ip4/127.0.0.1/tcp/{port}/p2p/{peer}").parse().unwrap();
        (peer, vec![PeerAddress::new(address).unwrap()])
    }

    fn begun(wanted: usize) -> (Lookups<u8>, oneshot::Receiver<Vec<Provider>>, Instant) {
        let (mut lookups, now) = (Lookups::default(), Instant::now());
        let (reply, found) = oneshot::channel();
        lookups.begin(7, Search::new(wanted, now + Duration::from_secs(5), reply));
        (lookups, found, now)
    }

    #[test]
    fn a_search_ends_when_it_has_found_enough() {
        let (mut lookups, mut found, now) = begun(2);
        let nowhere = (provider(1).0, Vec::new());
        assert!(!lookups.answered(&7, [nowhere.clone(), provider(1)], now));
        assert!(lookups.answered(&7, [provider(2)], now), "two have addresses");
        lookups.finished(&7);
        let found = found.try_recv().unwrap();
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|provider| !provider.addresses.is_empty()));
    }

    #[test]
    fn a_search_ends_in_time_and_after_a_number_of_answers() {
        let (lookups, _found, now) = begun(2);
        assert!(lookups.overdue(now).is_empty());
        assert_eq!(lookups.overdue(now + Duration::from_secs(5)), [7]);
        let (mut lookups, _found, now) = begun(2);
        let ends = (0..MAX_ANSWERS).position(|_| lookups.answered(&7, [], now));
        assert_eq!(ends, Some(MAX_ANSWERS - 1));
        let (lookups, found, now) = begun(2);
        drop(found);
        assert_eq!(lookups.overdue(now), [7]);
    }

    #[test]
    fn a_node_that_names_endless_providers_costs_a_bounded_amount() {
        let (mut lookups, mut found, now) = begun(4);
        lookups.answered(&7, (0..1_000).map(|_| (provider(1).0, Vec::new())), now);
        lookups.finished(&7);
        assert_eq!(found.try_recv().unwrap().len(), 4);
    }
}
