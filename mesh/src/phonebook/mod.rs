//! The phonebook: every address that the node knows, the source that listed it, and its history.
//!
//! ```text
//!   configuration, DNS, peers … ──replace, add──▶ ┌──────────────────────────────┐
//!   mDNS                      ──add, unlist────▶  │ persistent │ tried │ new     │ ──▶ the dial schedule
//!   store on disk             ──restore───────▶   │  1,024     │ 1,024 │ 2,048   │ ──records──▶ store
//!                                                 └──────────────────────────────┘
//!                                                       ▲ history: failures, last seen, retry-after
//! ```
//!
//! # Invariants
//!
//! * There is one entry for an address, whoever lists it, and its history outlives any listing.
//! * At most [`MAX_ADDRESSES`] are known, and those in use besides. Persistent ones are never evicted.
//! * A source that the operator did not choose has at most a sixteenth of the places of unverified addresses
//!   ([`REACH_OF_SOURCE`]), and takes a place from another source's address only if that is listed by nobody or has
//!   failed three times in a row.
//! * An address that worked leaves its place to another one only after it was dialled in vain since.
//! * An address that is being dialled or has a link stays.
//! * Calls that name an unknown address do nothing: it may have been removed while it was dialled.
//! * Nothing here reads a clock: `now` and the chance come in as arguments.

mod agenda;
mod buckets;
mod counts;
mod entries;
mod entry;
mod record;
mod roles;
mod schedule;
mod source;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use gossip::{Identity, Instant, NodeAddress};
use rand::{Rng, seq::IteratorRandom};

use buckets::{Buckets, Place};
use entries::Entries;
use entry::{Acquaintance, Entry, Hold, Turn};

use crate::door::RateWindow;

pub use buckets::{
    NEW_BUCKET, NEW_BUCKETS, REACH_OF_CHOSEN, REACH_OF_NETWORK, REACH_OF_SOURCE, TRIED_BUCKET,
    TRIED_BUCKETS,
};
pub use counts::BookCounts;
pub use entry::MAX_LISTINGS;
pub use entry::identity_in;
pub use record::Record;
pub use roles::{MAX_ROLE_BYTES, MAX_ROLES, Role, RoleError, RoleSet};
pub use schedule::{DialFailure, DialSchedule, STABLE_AFTER, transport_of};
pub use source::{
    AddressSource, Listed, MAX_SOURCE_BYTES, REFRESH, SourceError, SourceId, SourceKind,
};

/// Persistent addresses, at most. Chosen: more than anybody writes down by hand.
pub const MAX_PERSISTENT: usize = 1_024;

/// Addresses that only the local network announces, at most. Source: threats and goals, row 25.
pub const MAX_LOCAL: usize = 8;

/// Addresses known at one time, at most. Source: threats and goals, row 23.
pub const MAX_ADDRESSES: usize = 4_096;

const _: () = assert!(
    MAX_PERSISTENT + TRIED_BUCKETS as usize * TRIED_BUCKET + NEW_BUCKETS as usize * NEW_BUCKET
        == MAX_ADDRESSES
);

/// Longest time an address is left alone, whatever the peer, the limits or chance say.
///
/// Chosen: an hour, after which an address may well be somebody else's.
pub const MAX_DELAY: Duration = Duration::from_secs(3_600);

/// Time for which the history of an address is remembered that no source lists and that never worked. Chosen: as long
/// as an address may be left alone, so that leaving a list and coming back shortens no wait.
pub const HISTORY: Duration = MAX_DELAY;

/// Time after which an address that worked is forgotten, if nobody lists it and it was not seen since.
/// Source: threats and goals, row 23; Bitcoin's address manager has 30 days.
pub const LONGEST_ABSENCE: Duration = Duration::from_secs(30 * 86_400);

/// Time after which the phonebook looks again for what it may forget. Chosen: it goes through all addresses for that.
const PRUNE: Duration = Duration::from_secs(60);

/// The longest round-trip time that is believed. Chosen: longer than any handshake may take.
const MAX_RTT: Duration = Duration::from_secs(60);

/// The outcome of listing one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Added {
    /// The address was not known.
    New,
    /// The address was known, and keeps its history.
    Known,
    /// The address was not known, and this one was forgotten for it.
    Evicted(NodeAddress),
    /// The address was not added: nothing in its place may be forgotten.
    Full,
}

/// The outcome of replacing the addresses of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replaced {
    /// Addresses that were not known before.
    pub added: usize,
    /// Addresses that were known, from this source or another one.
    pub known: usize,
    /// Addresses that the source lists no more.
    pub unlisted: usize,
    /// Addresses of others that were forgotten to make room.
    pub evicted: usize,
    /// Addresses of the source that found no place.
    pub refused: usize,
}

/// The addresses of a node, on whatever transport. See the [module](self).
#[derive(Debug)]
pub struct Phonebook {
    entries: Entries,
    buckets: Buckets,
    /// The same moment on both clocks.
    origin: (Instant, SystemTime),
    next_age: u64,
    /// The addresses in each place.
    population: BTreeMap<Place, BTreeSet<NodeAddress>>,
    pruned: Instant,
}

impl Phonebook {
    /// An empty phonebook. `now` and `wall` are the same moment on the two clocks; `rng` gives the secret that chooses
    /// buckets, so it must not be foreseeable.
    #[must_use]
    pub fn new(now: Instant, wall: SystemTime, rng: &mut impl Rng) -> Self {
        let buckets = Buckets::new(rng.random());
        Self {
            entries: Entries::new(),
            buckets,
            origin: (now, wall),
            next_age: 0,
            population: BTreeMap::new(),
            pruned: now,
        }
    }

    /// Lists one address for one source. The roles replace those that the source named before.
    pub fn add(&mut self, listed: Listed, source: &SourceId, now: Instant) -> Added {
        if now.saturating_duration_since(self.pruned) >= PRUNE {
            self.prune(now);
        }
        self.list(listed, source)
    }

    fn list(&mut self, listed: Listed, source: &SourceId) -> Added {
        let Listed { address, roles } = listed;
        let age = self.next_age;
        self.next_age += 1;
        if let Some(entry) = self.entries.get_mut(&address) {
            let was_persistent = entry.place == Place::Persistent;
            entry.list(source, roles);
            entry.age = age;
            let is_placed = self.settle(&address);
            let is_persistent =
                self.entries.get(&address).is_some_and(|entry| entry.place == Place::Persistent);
            let found_no_place = source.kind().is_persistent() && !was_persistent && !is_persistent;
            return if is_placed && !found_no_place { Added::Known } else { Added::Full };
        }
        if source.kind() == SourceKind::Local && self.local() >= MAX_LOCAL {
            return Added::Full;
        }
        let place = match source.kind().is_persistent() {
            true => Place::Persistent,
            false => self.buckets.unverified(&address, source),
        };
        let room = self.room(place, source.kind());
        let evicted = match room {
            Room::Free => None,
            Room::Instead(other) => {
                self.remove(&other);
                Some(other)
            }
            Room::None => return Added::Full,
        };
        let mut entry = Entry::new(&address, place, age);
        entry.list(source, roles);
        self.population.entry(place).or_default().insert(address.clone());
        self.entries.insert(address, entry);
        evicted.map_or(Added::New, Added::Evicted)
    }

    /// Replaces the addresses of a source by those that it lists now. Addresses that stay keep their history; an
    /// address that the source lists no more stays as long as another source lists it, or if it worked once. One that
    /// is listed twice has the roles of both. Source: wire facts 10.1.
    ///
    /// An empty answer empties the source's list. Where that may be a mistake of the source, the caller keeps the old
    /// list instead (wire facts 10.4).
    pub fn replace(
        &mut self,
        source: &SourceId,
        listed: impl IntoIterator<Item = Listed>,
        now: Instant,
    ) -> Replaced {
        let mut merged: BTreeMap<NodeAddress, RoleSet> = BTreeMap::new();
        for Listed { address, roles } in listed.into_iter().take(2 * MAX_ADDRESSES) {
            let known = merged.entry(address).or_default();
            for role in roles.iter() {
                // A role beyond the bound of a set is left out.
                let _ = known.insert(role.clone());
            }
        }
        self.prune(now);
        let mut replaced = Replaced::default();
        let gone: Vec<NodeAddress> = self
            .entries
            .iter()
            .filter(|(address, entry)| entry.is_listed_by(source) && !merged.contains_key(*address))
            .map(|(address, _)| address.clone())
            .collect();
        for address in gone {
            self.unlist(&address, source, now);
            replaced.unlisted += 1;
        }
        for (address, roles) in merged {
            match self.list(Listed { address, roles }, source) {
                Added::New => replaced.added += 1,
                Added::Known => replaced.known += 1,
                Added::Evicted(_) => {
                    replaced.added += 1;
                    replaced.evicted += 1;
                }
                Added::Full => replaced.refused += 1,
            }
        }
        replaced
    }

    /// Takes back the listing of an address by one source. Its history is remembered for a while
    /// ([`HISTORY`]), and an address that worked stays.
    pub fn unlist(&mut self, address: &NodeAddress, source: &SourceId, now: Instant) {
        let Some(entry) = self.entries.get_mut(address) else { return };
        entry.unlist(source, now);
        self.settle(address);
    }

    /// Forgets an address and its history, whoever lists it, as an operator may ask. A source that lists it again
    /// brings it back. Returns `false` if it was not known.
    pub fn remove(&mut self, address: &NodeAddress) -> bool {
        let removed = self.entries.remove(address);
        if let Some(entry) = &removed {
            self.left(address, entry.place);
        }
        removed.is_some()
    }

    /// Returns the number of addresses that are known and listed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.values().filter(|entry| !entry.listings.is_empty()).count()
    }

    /// Returns `true` if no address is listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns `true` if a source lists the address.
    #[must_use]
    pub fn contains(&self, address: &NodeAddress) -> bool {
        self.entries.get(address).is_some_and(|entry| !entry.listings.is_empty())
    }

    /// Returns `true` if an operator named the address.
    #[must_use]
    pub fn is_persistent(&self, address: &NodeAddress) -> bool {
        self.entries.get(address).is_some_and(|entry| entry.place == Place::Persistent)
    }

    /// The identity that was last found behind an address.
    #[must_use]
    pub fn identity(&self, address: &NodeAddress) -> Option<Identity> {
        self.entries.get(address)?.identity
    }

    /// The roles of an address, whoever named them; at most [`MAX_ROLES`].
    #[must_use]
    pub fn roles(&self, address: &NodeAddress) -> RoleSet {
        let listings = self.entries.get(address).map(|entry| &entry.listings);
        listings.into_iter().flatten().flat_map(|(_, roles)| roles.iter().cloned()).collect()
    }

    /// At most `count` addresses that are listed for a role and not to be left alone now, by chance.
    /// Source: wire facts 10.1, `GetAddresses`.
    pub fn sample(
        &self,
        role: &Role,
        count: usize,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Vec<NodeAddress> {
        let has_role = |entry: &Entry| entry.listings.iter().any(|(_, roles)| roles.contains(role));
        let is_due = |entry: &Entry| entry.retry_at.is_none_or(|at| at <= now);
        let fit = self.entries.iter().filter(|(_, entry)| has_role(entry) && is_due(entry));
        fit.map(|(address, _)| address.clone()).choose_multiple(rng, count)
    }

    /// Every address that somebody lists, at the moment `now`, in the order of the addresses. Those for which
    /// [`Record::is_kept`] holds are worth keeping on disk.
    #[must_use]
    pub fn records(&self, now: Instant) -> Vec<Record> {
        let listed = self.entries.iter().filter(|(_, entry)| entry.kind().is_some());
        listed
            .map(|(address, entry)| Record {
                address: address.clone(),
                listings: entry.listings.clone(),
                identity: entry.identity,
                worked: entry.has_worked(),
                anchor: matches!(entry.hold, Hold::Linked { .. }),
                failures: entry.failures,
                last_seen: entry.last_seen,
                retry_at: entry
                    .retry_at
                    .filter(|at| *at > now)
                    .and_then(|at| self.wall(now)?.checked_add(at - now)),
                rtt: entry.rtt,
            })
            .collect()
    }

    /// Takes back what was kept, and returns the number of addresses that found a place. Nothing in a record is
    /// believed beyond its bounds. An address that is known already keeps its listings and gets the history.
    ///
    /// A listing by the configuration, or by the members of an earlier run, counts as this node's own experience, since
    /// the configuration and the application of this run say themselves what they list.
    pub fn restore(&mut self, records: impl IntoIterator<Item = Record>, now: Instant) -> usize {
        let mut records: Vec<Record> = records.into_iter().take(2 * MAX_ADDRESSES).collect();
        records.sort_by_key(|record| (!record.anchor, !record.worked, record.failures));
        for record in &records {
            self.restore_one(record, now);
        }
        self.prune(now);
        records.iter().filter(|record| self.contains(&record.address)).count()
    }

    fn restore_one(&mut self, record: &Record, now: Instant) {
        let address = &record.address;
        for (source, roles) in record.listings.iter().take(MAX_LISTINGS) {
            let source = match source.kind() {
                SourceKind::Configuration | SourceKind::Members => SourceId::of(SourceKind::Store),
                SourceKind::Local => continue,
                _ => source.clone(),
            };
            // A place that is not there is missed below.
            let _ = self.list(Listed { address: address.clone(), roles: roles.clone() }, &source);
        }
        let wall = self.wall(now);
        let Some(entry) = self.entries.get_mut(address) else { return };
        entry.identity = entry.identity.or(record.identity);
        if record.worked {
            entry.acquaintance = Acquaintance::Worked;
        }
        if record.anchor {
            entry.turn = Turn::Anchor;
        }
        entry.failures = entry.failures.max(record.failures);
        entry.last_seen = entry.last_seen.max(record.last_seen.min(wall));
        entry.rtt = entry.rtt.or(record.rtt.map(|rtt| rtt.min(MAX_RTT)));
        let left = record.retry_at.zip(wall).and_then(|(at, wall)| at.duration_since(wall).ok());
        let retry_at = left.and_then(|left| now.checked_add(left.min(MAX_DELAY)));
        entry.retry_at = entry.retry_at.max(retry_at);
        self.settle(address);
    }

    /// Records that the address is being dialled: its entry stays until [`Phonebook::release`].
    fn hold(&mut self, address: &NodeAddress, now: Instant, rate: &RateWindow) {
        if let Some(entry) = self.entries.get_mut(address) {
            entry.dialled(now, rate);
        }
    }

    /// Records that a link to the address is up, and the identity at its other end if that is known. The entry stays
    /// until [`Phonebook::release`].
    fn linked(&mut self, address: &NodeAddress, identity: Option<Identity>, now: Instant) {
        let wall = self.wall(now);
        if let Some(entry) = self.entries.get_mut(address) {
            (entry.hold, entry.is_let_go) = (Hold::Linked { since: now }, false);
            entry.last_seen = wall;
            entry.identity = identity.or(entry.identity);
        }
    }

    /// Records the identity that was found behind the address.
    fn found(&mut self, address: &NodeAddress, identity: Identity) {
        if let Some(entry) = self.entries.get_mut(address) {
            entry.identity = Some(identity);
        }
    }

    /// Makes an address due at once, whatever it did before.
    fn renew(&mut self, address: &NodeAddress) {
        if let Some(entry) = self.entries.get_mut(address) {
            (entry.retry_at, entry.failures) = (None, 0);
        }
    }

    /// Records that the address is neither dialled nor linked any more, and is left alone until then.
    fn release(&mut self, address: &NodeAddress, until: Option<Instant>, now: Instant) {
        let wall = self.wall(now);
        let Some(entry) = self.entries.get_mut(address) else { return };
        if let Hold::Linked { .. } = std::mem::replace(&mut entry.hold, Hold::Free) {
            entry.last_seen = wall;
        }
        entry.retry_at = entry.retry_at.max(until);
        self.settle(address);
    }

    /// Records that the address works: a link to it was stable.
    fn works(&mut self, address: &NodeAddress) {
        if let Some(entry) = self.entries.get_mut(address) {
            (entry.acquaintance, entry.failures) = (Acquaintance::Worked, 0);
            entry.turn = Turn::Usual;
            self.settle(address);
        }
    }

    /// Records that the address, or a link to it that was short-lived, failed; and returns how often it had failed in a
    /// row before.
    fn failed(&mut self, address: &NodeAddress) -> u32 {
        let Some(entry) = self.entries.get_mut(address) else { return 0 };
        let before = entry.failures;
        entry.failures = before.saturating_add(1);
        let turn = std::mem::replace(&mut entry.turn, Turn::Usual);
        if turn == Turn::OnTrial && matches!(entry.place, Place::Tried(_)) {
            entry.acquaintance = Acquaintance::Familiar;
            self.settle(address);
        }
        before
    }

    /// Records a round-trip time that was observed on the way to the address.
    pub fn observed(&mut self, address: &NodeAddress, rtt: Duration) {
        if let Some(entry) = self.entries.get_mut(address) {
            entry.rtt = Some(rtt.min(MAX_RTT));
        }
    }

    /// Addresses that only the local network announces.
    fn local(&self) -> usize {
        self.entries.values().filter(|entry| entry.kind() == Some(SourceKind::Local)).count()
    }

    fn wall(&self, now: Instant) -> Option<SystemTime> {
        let (instant, wall) = self.origin;
        wall.checked_add(now.saturating_duration_since(instant))
    }

    /// Forgets what nobody lists and nobody needs any more.
    fn prune(&mut self, now: Instant) {
        let wall = self.wall(now);
        let is_over = |entry: &Entry| match entry.unlisted {
            Some(since) => now.saturating_duration_since(since) >= HISTORY,
            None => {
                let seen = entry.last_seen.zip(wall);
                let absence = seen.and_then(|(seen, wall)| wall.duration_since(seen).ok());
                entry.kind() == Some(SourceKind::Store)
                    && absence.is_some_and(|absence| absence >= LONGEST_ABSENCE)
            }
        };
        let gone =
            self.entries.iter().filter(|(_, entry)| entry.hold == Hold::Free && is_over(entry));
        for address in gone.map(|(address, _)| address.clone()).collect::<Vec<_>>() {
            self.remove(&address);
        }
        self.pruned = now;
    }

    /// Brings an entry to the place where it belongs. Forgets it, if that has no room and nobody needs the entry; and
    /// returns whether it is still there.
    fn settle(&mut self, address: &NodeAddress) -> bool {
        let Some(entry) = self.entries.get(address) else { return false };
        let (current, kind) = (entry.place, entry.kind());
        for place in self.places(address, entry) {
            if place == current {
                return true;
            }
            match self.room(place, kind.unwrap_or(SourceKind::Store)) {
                Room::None => self.test_one(place),
                Room::Free => return self.put(address, place),
                Room::Instead(other) => {
                    self.remove(&other);
                    return self.put(address, place);
                }
            }
        }
        if self.entries.get(address).is_some_and(|entry| entry.hold != Hold::Free) {
            return true;
        }
        self.remove(address);
        false
    }

    fn put(&mut self, address: &NodeAddress, place: Place) -> bool {
        let Some(entry) = self.entries.get_mut(address) else { return false };
        let before = std::mem::replace(&mut entry.place, place);
        self.left(address, before);
        self.population.entry(place).or_default().insert(address.clone());
        true
    }

    fn left(&mut self, address: &NodeAddress, place: Place) {
        if let Some(there) = self.population.get_mut(&place) {
            there.remove(address);
        }
    }

    /// The entries in a place.
    fn there(&self, place: Place) -> impl Iterator<Item = (&NodeAddress, &Entry)> {
        let there = self.population.get(&place).into_iter().flatten();
        there.filter_map(|address| self.entries.get_key_value(address))
    }

    /// The places where an entry may be, the best one first.
    fn places(&self, address: &NodeAddress, entry: &Entry) -> Vec<Place> {
        let kind = entry.kind();
        let mut places = Vec::new();
        if kind.is_some_and(SourceKind::is_persistent) {
            places.push(Place::Persistent);
        }
        if entry.has_worked() && kind.is_some_and(|kind| kind != SourceKind::Local) {
            places.push(self.buckets.tried(address));
        }
        let learnt = entry.listings.iter().filter(|(source, _)| !source.kind().is_persistent());
        places.extend(learnt.map(|(source, _)| self.buckets.unverified(address, source)));
        match entry.place {
            // An entry that nobody lists stays where its last source had it.
            Place::New(_) if entry.listings.is_empty() => places.push(entry.place),
            // An entry that only an operator lists, for whom there are too many, needs a place all the same.
            Place::Persistent | Place::Tried(_) => {
                places.push(self.buckets.unverified(address, &SourceId::of(SourceKind::Store)));
            }
            Place::New(_) => {}
        }
        places
    }

    /// Room in a place for an address that a source of this kind lists.
    fn room(&self, place: Place, kind: SourceKind) -> Room {
        if self.population.get(&place).map_or(0, BTreeSet::len) < place.capacity() {
            return Room::Free;
        }
        if !matches!(place, Place::New(_)) {
            return Room::None;
        }
        let leaving = self.there(place).filter(|(_, entry)| entry.may_give_way_to(kind));
        let first = leaving.max_by_key(|(_, entry)| entry.rank_of_leaving());
        first.map_or(Room::None, |(address, _)| Room::Instead(address.clone()))
    }

    /// Puts one address of a full bucket on trial, for another one that worked: the one that was not seen for longest.
    fn test_one(&mut self, place: Place) {
        if !matches!(place, Place::Tried(_))
            || self.there(place).any(|(_, entry)| entry.turn == Turn::OnTrial)
        {
            return;
        }
        let free = self.there(place).filter(|(_, entry)| entry.hold == Hold::Free);
        let oldest =
            free.min_by_key(|(_, entry)| entry.last_seen).map(|(address, _)| address.clone());
        if let Some(entry) = oldest.and_then(|address| self.entries.get_mut(&address)) {
            entry.turn = Turn::OnTrial;
        }
    }
}

/// Room in a place.
enum Room {
    Free,
    /// For whom this address is forgotten.
    Instead(NodeAddress),
    None,
}

#[cfg(test)]
mod tests;
