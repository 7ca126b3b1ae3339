//! An entry of the phonebook: the listings of an address and its history.

use std::time::{Duration, Instant, SystemTime};

use gossip::Identity;

use super::{
    buckets::Place,
    roles::RoleSet,
    source::{SourceId, SourceKind},
};

/// Sources remembered for one address; of more the most trusted. Chosen: as many as there are kinds, and one.
pub const MAX_LISTINGS: usize = 8;

/// Dials in a row that must have failed before another address may take the place. Source: threats and goals, row 23,
/// the rule of Bitcoin's address manager.
const HOPELESS: u32 = 3;

/// Whether something depends on an entry, so that it must stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    Free,
    /// It is being dialled.
    Dialled,
    /// It has a link.
    Linked,
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
    /// In a row.
    pub(super) failures: u32,
    /// Identity that was last found behind the address.
    pub(super) identity: Option<Identity>,
    pub(super) worked: bool,
    /// It was connected when the node stopped.
    pub(super) anchor: bool,
    /// It must show that it still works, or give its place to another one.
    pub(super) on_trial: bool,
    pub(super) last_seen: Option<SystemTime>,
    /// Until then it is left alone.
    pub(super) retry_at: Option<Instant>,
    pub(super) rtt: Option<Duration>,
}

impl Entry {
    pub(super) const fn new(place: Place, age: u64) -> Self {
        Self {
            listings: Vec::new(),
            place,
            age,
            unlisted: None,
            hold: Hold::Free,
            failures: 0,
            identity: None,
            worked: false,
            anchor: false,
            on_trial: false,
            last_seen: None,
            retry_at: None,
            rtt: None,
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
        if self.worked && !matches!(source.kind(), SourceKind::Local | SourceKind::Store) {
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
            Some(own) => own > kind && !self.worked || own >= kind && is_hopeless,
        };
        self.hold == Hold::Free && gives_way
    }

    /// Entries of a greater rank give way first.
    pub(super) fn rank_of_leaving(&self) -> impl Ord + use<> {
        (self.unlisted.is_some(), self.failures, self.kind(), std::cmp::Reverse(self.age))
    }
}
