//! Searches for providers that are under way. Pure bookkeeping: the swarm task runs the queries.
//!
//! # Invariants
//!
//! * A search is ended when it has heard [`MAX_ANSWERS`] nodes or has taken too long, or when it has found enough and has
//!   heard [`ENOUGH_ANSWERS`]: the nodes closest to a key can be somebody's sybils, which answer first.
//! * Each node that answered has an equal share in the result, however many providers it named. So nodes that lie make
//!   an honest record rarer, and do not hide it. Source: threats and goals, row 24.
//! * At most [`MAX_SEARCHES`] searches are under way.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    time::Instant,
};

use rand::{Rng, seq::SliceRandom};
use tokio::sync::oneshot;

use super::{Provider, REPLICATION, scope::MAX_ADDRESSES};
use crate::address::PeerAddress;
use libp2p::{PeerId, kad};

/// Searches under way, at most. Chosen: a few callers, and the sources of the mesh loop.
pub(super) const MAX_SEARCHES: usize = 32;

/// Answers heard in one search, at most. An honest search of a million nodes needs about twenty rounds of ten; each
/// answer costs up to 16 KiB until the search has ended. Chosen.
const MAX_ANSWERS: usize = 256;

/// Answers after which a search ends that has found enough. Chosen: as many as a record has places, so that the sybils of
/// row 24 are half of them.
const ENOUGH_ANSWERS: usize = REPLICATION.get();

/// Providers that one answer may name. Source: an honest answer names this many.
const MAX_NAMED: usize = kad::K_VALUE.get();

/// Providers whose addresses are kept in one search, at most. Chosen: half a megabyte.
const MAX_FOUND: usize = 1_024;

/// One search.
#[derive(Debug)]
pub(super) struct Search {
    wanted: usize,
    until: Instant,
    found: HashMap<PeerId, Vec<PeerAddress>>,
    /// The providers that each node named.
    answers: Vec<Vec<PeerId>>,
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
    pub(super) fn new(
        wanted: usize,
        until: Instant,
        reply: oneshot::Sender<Vec<Provider>>,
    ) -> Self {
        Self { wanted, until, found: HashMap::new(), answers: Vec::new(), reply }
    }

    fn note(
        &mut self,
        providers: impl IntoIterator<Item = (PeerId, Vec<PeerAddress>)>,
        random: &mut impl Rng,
    ) {
        let mut named = Vec::new();
        for (peer, addresses) in providers.into_iter().take(MAX_NAMED) {
            if self.found.len() >= MAX_FOUND && !self.found.contains_key(&peer) {
                continue;
            }
            let known = self.found.entry(peer).or_default();
            known.extend(addresses);
            known.sort_unstable();
            known.dedup();
            // By chance, so that addresses which somebody forged push the true ones out in some searches at most.
            while known.len() > MAX_ADDRESSES {
                known.swap_remove(random.random_range(0..known.len()));
            }
            named.push(peer);
        }
        self.answers.push(named);
    }

    fn is_over(&self, now: Instant) -> bool {
        let has_enough = || self.found.values().filter(|known| !known.is_empty()).count();
        let heard = self.answers.len();
        heard >= MAX_ANSWERS
            || (heard >= ENOUGH_ANSWERS && has_enough() >= self.wanted)
            || self.until <= now
            || self.reply.is_closed()
    }

    /// The providers that the caller gets: one of each answer in turn, those with addresses first.
    fn chosen(&mut self, random: &mut impl Rng) -> Vec<(PeerId, Vec<PeerAddress>)> {
        self.answers.shuffle(random);
        self.answers.iter_mut().for_each(|named| named.shuffle(random));
        let (mut chosen, mut taken) = (Vec::new(), HashSet::new());
        for has_addresses in [true, false] {
            let is_wanted = |peer: &PeerId| {
                self.found.get(peer).is_some_and(|known| known.is_empty() != has_addresses)
            };
            let mut left: Vec<Vec<PeerId>> = self
                .answers
                .iter()
                .map(|named| named.iter().copied().filter(is_wanted).collect())
                .collect();
            while chosen.len() < self.wanted && !left.is_empty() {
                for named in &mut left {
                    let next =
                        std::iter::from_fn(|| named.pop()).find(|peer| !taken.contains(peer));
                    if let Some(peer) = next.filter(|_| chosen.len() < self.wanted) {
                        taken.insert(peer);
                        chosen.push(peer);
                    }
                }
                left.retain(|named| !named.is_empty());
            }
        }
        let found = &mut self.found;
        chosen.into_iter().filter_map(|peer| found.remove_entry(&peer)).collect()
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
        random: &mut impl Rng,
    ) -> bool {
        let Some(search) = self.open.get_mut(id) else { return false };
        search.note(providers, random);
        search.is_over(now)
    }

    /// The searches that have taken too long, or whose callers are gone.
    pub(super) fn overdue(&self, now: Instant) -> Vec<Id> {
        self.open.iter().filter(|(_, search)| search.is_over(now)).map(|(id, _)| *id).collect()
    }

    /// Gives the caller of a search a part of what was found.
    pub(super) fn finished(&mut self, id: &Id, random: &mut impl Rng) {
        let Some(mut search) = self.open.remove(id) else { return };
        let providers = search.chosen(random).into_iter().filter_map(Provider::of).collect();
        // The send fails only if the caller has stopped waiting.
        let _ = search.reply.send(providers);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    fn provider(port: u16) -> (PeerId, Vec<PeerAddress>) {
        let peer = libp2p::identity::Keypair::generate_ed25519().public().to_peer_id();
        let address = format!("/ip4/127.0.0.1/tcp/{port}/p2p/{peer}").parse().unwrap();
        (peer, vec![PeerAddress::new(address).unwrap()])
    }

    fn random() -> StdRng {
        StdRng::seed_from_u64(1)
    }

    fn begun(wanted: usize) -> (Lookups<u8>, oneshot::Receiver<Vec<Provider>>, Instant) {
        let (mut lookups, now) = (Lookups::default(), Instant::now());
        let (reply, found) = oneshot::channel();
        lookups.begin(7, Search::new(wanted, now + Duration::from_secs(5), reply));
        (lookups, found, now)
    }

    fn finished(
        mut lookups: Lookups<u8>,
        mut found: oneshot::Receiver<Vec<Provider>>,
    ) -> Vec<Provider> {
        lookups.finished(&7, &mut random());
        found.try_recv().unwrap()
    }

    #[test]
    fn a_search_ends_when_it_has_found_enough_and_heard_enough() {
        let (mut lookups, found, now) = begun(2);
        let nowhere = (provider(1).0, Vec::new());
        assert!(!lookups.answered(&7, [nowhere.clone(), provider(1)], now, &mut random()));
        let heard = (1..).find(|_| lookups.answered(&7, [provider(2)], now, &mut random()));
        assert_eq!(heard, Some(ENOUGH_ANSWERS - 1));
        let found = finished(lookups, found);
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|provider| !provider.addresses.is_empty()));
    }

    #[test]
    fn a_provider_without_addresses_is_named_if_there_is_no_other() {
        let (mut lookups, found, now) = begun(3);
        let nowhere = provider(1).0;
        lookups.answered(&7, [(nowhere, Vec::new()), provider(1)], now, &mut random());
        let found = finished(lookups, found);
        assert_eq!(found.len(), 2);
        assert!(found[1].addresses.is_empty());
    }

    #[test]
    fn a_search_ends_in_time_and_after_a_number_of_answers() {
        let (lookups, _found, now) = begun(2);
        assert!(lookups.overdue(now).is_empty());
        assert_eq!(lookups.overdue(now + Duration::from_secs(5)), [7]);
        let (mut lookups, _found, now) = begun(2);
        let ends = (0..MAX_ANSWERS).position(|_| lookups.answered(&7, [], now, &mut random()));
        assert_eq!(ends, Some(MAX_ANSWERS - 1));
        let (lookups, found, now) = begun(2);
        drop(found);
        assert_eq!(lookups.overdue(now), [7]);
    }

    #[test]
    fn a_node_that_names_endless_providers_costs_a_bounded_amount() {
        let (mut lookups, found, now) = begun(4);
        for _ in 0..100 {
            lookups.answered(
                &7,
                (0..1_000).map(|_| (PeerId::random(), Vec::new())),
                now,
                &mut random(),
            );
        }
        assert_eq!(lookups.open[&7].found.len(), MAX_FOUND);
        assert_eq!(finished(lookups, found).len(), 4);
    }

    // Threats and goals, row 24: the providers of the node that lied most came first.
    #[test]
    fn a_node_that_names_many_has_no_larger_share_than_one_that_names_one() {
        let (mut lookups, found, now) = begun(4);
        let honest = provider(9);
        for _ in 0..3 {
            lookups.answered(&7, (0..20).map(|_| provider(1)), now, &mut random());
        }
        lookups.answered(&7, [honest.clone()], now, &mut random());
        let named: Vec<_> = finished(lookups, found).iter().map(|each| each.identity).collect();
        assert!(named.contains(&honest.1[0].identity));
    }
}
