//! An entry of the phonebook: the listings of an address and its history.

use std::{
    cmp::Reverse,
    collections::VecDeque,
    time::{Duration, SystemTime},
};

use gossip::{Identity, Instant, NodeAddress};

use super::{
    buckets::Place,
    roles::RoleSet,
    source::{SourceId, SourceKind},
};
use crate::door::RateWindow;

/// Sources remembered for one address; of more the most trusted. Chosen: as many as there are kinds, and one.
pub const MAX_LISTINGS: usize = 9;

/// Dials in a row that must have failed before another address may take the place. Source: threats and goals, row 23,
/// the rule of Bitcoin's address manager.
const HOPELESS: u32 = 3;

/// The use of an entry. One in use stays in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    Free,
    /// It is being dialled.
    Dialled {
        since: Instant,
    },
    /// It has a link.
    Linked {
        since: Instant,
    },
}

/// The reason to dial an address before others; the first one is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Turn {
    /// It was connected when the node stopped.
    Anchor,
    /// It must show that it still works, or give its place to another one.
    OnTrial,
    Usual,
}

/// The acquaintance with an address; the first one is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Acquaintance {
    /// A link to it was stable once.
    Worked,
    /// The identity that was found there was connected otherwise.
    Familiar,
    Strange,
}

/// The order in which addresses are dialled: lower ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    turn: Turn,
    is_strange: bool,
    failures: u32,
    is_learnt: bool,
}

impl Rank {
    /// Returns `true` if the address must show that it still works.
    pub(super) fn is_on_trial(self) -> bool {
        self.turn == Turn::OnTrial
    }
}

#[derive(Debug)]
pub(super) struct Entry {
    /// Most trusted source first.
    pub(super) listings: Vec<(SourceId, RoleSet)>,
    pub(super) place: Place,
    /// Greater for those that were listed later.
    pub(super) age: u64,
    /// Since when no source lists it.
    pub(super) unlisted: Option<Instant>,
    pub(super) hold: Hold,
    /// `true` once this node has decided to let the link go, which is no failure of the address.
    pub(super) is_let_go: bool,
    /// In a row.
    pub(super) failures: u32,
    /// Identity that was last found behind the address.
    pub(super) identity: Option<Identity>,
    /// Identity that the address itself names.
    named: Option<Identity>,
    pub(super) acquaintance: Acquaintance,
    pub(super) turn: Turn,
    pub(super) last_seen: Option<SystemTime>,
    /// Until then it is left alone.
    pub(super) retry_at: Option<Instant>,
    pub(super) rtt: Option<Duration>,
    /// Times of its last dials, within one window of the rate.
    dials: VecDeque<Instant>,
}

impl Entry {
    pub(super) fn new(address: &NodeAddress, place: Place, age: u64) -> Self {
        Self {
            named: identity_in(address),
            listings: Vec::new(),
            place,
            age,
            unlisted: None,
            hold: Hold::Free,
            is_let_go: false,
            failures: 0,
            identity: None,
            acquaintance: Acquaintance::Strange,
            turn: Turn::Usual,
            last_seen: None,
            retry_at: None,
            rtt: None,
            dials: VecDeque::new(),
        }
    }

    /// Sets the roles for which a source lists the address.
    pub(super) fn list(&mut self, source: &SourceId, roles: RoleSet) {
        match self.listings.binary_search_by(|(known, _)| known.cmp(source)) {
            Ok(at) => {
                if let Some((_, listed)) = self.listings.get_mut(at) {
                    *listed = roles;
                }
            }
            Err(at) => self.listings.insert(at, (source.clone(), roles)),
        }
        self.listings.truncate(MAX_LISTINGS);
        self.unlisted = None;
    }

    /// Takes the listing of a source back, if there is one. An address that worked is remembered without any source.
    pub(super) fn unlist(&mut self, source: &SourceId, now: Instant) {
        let Ok(at) = self.listings.binary_search_by(|(known, _)| known.cmp(source)) else { return };
        let (_, roles) = self.listings.remove(at);
        if !self.listings.is_empty() {
            return;
        }
        if self.has_worked() && !matches!(source.kind(), SourceKind::Local | SourceKind::Store) {
            self.listings.push((SourceId::of(SourceKind::Store), roles));
        } else {
            self.unlisted = Some(now);
        }
    }

    /// Returns `true` if a source lists the address.
    pub(super) fn is_listed_by(&self, source: &SourceId) -> bool {
        self.listings.iter().any(|(known, _)| known == source)
    }

    /// The kind of the most trusted source that lists it.
    pub(super) fn kind(&self) -> Option<SourceKind> {
        self.listings.first().map(|(source, _)| source.kind())
    }

    /// Returns `true` if another address of a source of this kind may take its place.
    pub(super) fn may_give_way_to(&self, kind: SourceKind) -> bool {
        let is_hopeless = self.failures >= HOPELESS;
        let gives_way = match self.kind() {
            None => true,
            Some(own) => own > kind && !self.has_worked() || own >= kind && is_hopeless,
        };
        self.hold == Hold::Free && gives_way
    }

    /// Entries of a greater rank give way first.
    pub(super) fn rank_of_leaving(&self) -> impl Ord + use<> {
        (self.unlisted.is_some(), self.failures, self.kind(), Reverse(self.age))
    }

    /// Returns `true` if a link to the address was stable once.
    pub(super) fn has_worked(&self) -> bool {
        self.acquaintance == Acquaintance::Worked
    }

    /// Returns `true` if the address worked, or its identity was connected otherwise.
    pub(super) fn is_familiar(&self) -> bool {
        self.acquaintance != Acquaintance::Strange
    }

    /// The place of the entry in the order of dialling.
    pub(super) fn rank(&self) -> Rank {
        Rank {
            turn: self.turn,
            is_strange: !self.is_familiar(),
            failures: self.failures,
            is_learnt: self.place != Place::Persistent,
        }
    }

    /// The identities that a dial of the address leads to, as far as this node knows.
    pub(super) fn identities(&self) -> impl Iterator<Item = Identity> {
        self.identity.into_iter().chain(self.named)
    }

    /// Records a dial.
    pub(super) fn dialled(&mut self, now: Instant, rate: &RateWindow) {
        (self.hold, self.is_let_go) = (Hold::Dialled { since: now }, false);
        if rate.is_on() {
            let is_over = |at: &Instant| now.saturating_duration_since(*at) >= rate.window;
            while self.dials.front().is_some_and(is_over) {
                self.dials.pop_front();
            }
            self.dials.push_back(now);
        }
    }

    /// The time from which the rate allows another dial; `None` if it does now.
    pub(super) fn within_rate(&self, rate: &RateWindow) -> Option<Instant> {
        let count = usize::try_from(rate.count).unwrap_or(usize::MAX);
        if !rate.is_on() || self.dials.len() < count {
            return None;
        }
        let first_that_counts = self.dials.get(self.dials.len() - count)?;
        first_that_counts.checked_add(rate.window)
    }
}

/// The identity that an address names: the last part of a multiaddr.
#[must_use]
pub fn identity_in(address: &NodeAddress) -> Option<Identity> {
    let NodeAddress::Multiaddr(text) = address else { return None };
    let (_, id) = text.rsplit_once("/p2p/")?;
    id.parse().ok()
}
