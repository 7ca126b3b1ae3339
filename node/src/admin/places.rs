//! The places for connections to a port, and who has to give one up.
//!
//! ```text
//!   newcomer ──a place free?──▶ waiting ──its request is let in──▶ served
//!        └─ none: the oldest waiting one of the host with most of them makes room
//! ```
//!
//! # Invariants
//!
//! * There are never more connections than places.
//! * A connection whose request was let in keeps its place until it ends. Strangers, whose requests are not, therefore
//!   keep nobody out who names the token, however many connections they open.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use gossip::Host;
use tokio_util::sync::CancellationToken;

/// The places of a port. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    shared: Arc<Mutex<Taken>>,
}

#[derive(Debug)]
struct Taken {
    most: usize,
    next: u64,
    /// Connections whose request was not let in so far, the oldest first.
    waiting: VecDeque<Waiting>,
    served: usize,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    /// `None` for this machine's own users, who come over a socket.
    host: Option<Host>,
    evicted: CancellationToken,
}

/// The outcome for a newcomer.
#[derive(Debug)]
pub(crate) enum Newcomer {
    /// It has a place.
    Placed(Place),
    /// It has the place of a connection that waited.
    Replaced(Place),
    /// Every place is that of a connection that is served.
    Full,
}

/// The place of one connection, given back on drop.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    number: u64,
    evicted: CancellationToken,
}

impl Places {
    /// So many, all free.
    pub(crate) fn new(most: usize) -> Self {
        let taken = Taken { most, next: 0, waiting: VecDeque::new(), served: 0 };
        Self { shared: Arc::new(Mutex::new(taken)) }
    }

    /// Takes a place for a connection from there.
    pub(super) fn take(&self, from: Option<IpAddr>) -> Newcomer {
        let mut taken = self.taken();
        let is_full = taken.waiting.len() + taken.served >= taken.most;
        if is_full && !taken.evict() {
            return Newcomer::Full;
        }
        let (number, evicted) = (taken.next, CancellationToken::new());
        taken.next += 1;
        let host = from.map(Host::of);
        taken.waiting.push_back(Waiting { number, host, evicted: evicted.clone() });
        drop(taken);
        let place = Place { places: self.clone(), number, evicted };
        if is_full { Newcomer::Replaced(place) } else { Newcomer::Placed(place) }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// Ends the oldest waiting connection of the host that has most of them. Returns `false` if none waits.
    fn evict(&mut self) -> bool {
        let mut counts: HashMap<Option<Host>, usize> = HashMap::new();
        for waiting in &self.waiting {
            *counts.entry(waiting.host).or_default() += 1;
        }
        let most = counts.values().max().copied();
        let is_of_most = |waiting: &Waiting| counts.get(&waiting.host).copied() == most;
        let oldest = self.waiting.iter().position(is_of_most);
        let evicted = oldest.and_then(|at| self.waiting.remove(at));
        evicted.inspect(|waiting| waiting.evicted.cancel()).is_some()
    }

    fn remove(&mut self, number: u64) -> Option<Waiting> {
        let at = self.waiting.binary_search_by_key(&number, |waiting| waiting.number).ok()?;
        self.waiting.remove(at)
    }
}

impl Place {
    /// Keeps the place, as the request was let in. One that was given up meanwhile stays so.
    pub(super) fn keep(&self) {
        let mut taken = self.places.taken();
        if taken.remove(self.number).is_some() {
            taken.served += 1;
        }
    }

    /// Cancelled when another connection takes the place.
    pub(super) fn evicted(&self) -> &CancellationToken {
        &self.evicted
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        // It waits, was given up, or is served.
        if taken.remove(self.number).is_none() && !self.evicted.is_cancelled() {
            taken.served -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(number: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, number]))
    }

    fn placed(newcomer: Newcomer) -> Place {
        match newcomer {
            Newcomer::Placed(place) | Newcomer::Replaced(place) => place,
            Newcomer::Full => panic!("no place"),
        }
    }

    // Issue 12: 64 connections of a stranger who says nothing shut the admin port for ten seconds.
    #[test]
    fn silent_connections_make_room() {
        let places = Places::new(3);
        let served = placed(places.take(ip(1)));
        served.keep();
        let silent = [2, 2].map(|host| placed(places.take(ip(host))));
        let newcomer = places.take(ip(1));
        assert!(matches!(newcomer, Newcomer::Replaced(_)));
        let newcomer = placed(newcomer);
        assert!(silent[0].evicted().is_cancelled() && !silent[1].evicted().is_cancelled());
        newcomer.keep();
        let last = placed(places.take(ip(3)));
        last.keep();
        assert!(matches!(places.take(ip(4)), Newcomer::Full));
        drop(served);
        assert!(matches!(places.take(ip(4)), Newcomer::Placed(_)));
    }

    #[test]
    fn a_host_with_many_gives_up_its_own() {
        let places = Places::new(4);
        let quiet = placed(places.take(ip(1)));
        let loud: Vec<_> = (0..10).map(|_| placed(places.take(ip(2)))).collect();
        assert!(!quiet.evicted().is_cancelled());
        assert_eq!(loud.iter().filter(|place| !place.evicted().is_cancelled()).count(), 3);
    }

    proptest! {
        #[test]
        fn there_are_never_more_than_places(steps in prop::collection::vec((0_u8..3, 0_u8..4, 0_usize..8), 0..200)) {
            let places = Places::new(5);
            let mut held: Vec<Place> = Vec::new();
            for (step, host, at) in steps {
                match step {
                    0 => match places.take(ip(host)) {
                        Newcomer::Placed(place) | Newcomer::Replaced(place) => held.push(place),
                        Newcomer::Full => {}
                    },
                    1 if at < held.len() => held[at].keep(),
                    _ if at < held.len() => drop(held.swap_remove(at)),
                    _ => {}
                }
                let there = held.iter().filter(|place| !place.evicted().is_cancelled()).count();
                let taken = places.taken();
                prop_assert_eq!(taken.waiting.len() + taken.served, there);
                prop_assert!(there <= 5);
            }
            held.clear();
            let taken = places.taken();
            prop_assert_eq!(taken.waiting.len() + taken.served, 0);
        }
    }
}
