//! Which addresses of the phonebook to dial now, and which to leave alone for a while.
//!
//! ```text
//!              due            connected
//!   Free ───────────▶ Dialled ───────────▶ Linked
//!    ▲                   │ failed             │ ended, failed
//!    └── after a delay ──┴────────────────────┘
//!        and once the identity behind it is not connected otherwise
//! ```
//!
//! # Invariants
//!
//! * No address is dialled while the identity last found behind it is connected by whatever link, except that a libp2p
//!   address is while there is a link over WebSocket alone.
//! * No address is dialled while it, its host or its identity is banned, nor without a dialer for its transport.
//! * Members are dialled whatever the fan-out is; where members only are admitted, learnt addresses are not dialled.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use gossip::{Durations, Identity, Instant, NodeAddress, Transport};
use rand::Rng;

use super::{
    MAX_DELAY, Phonebook,
    agenda::{Agenda, Class, QueueId, State, Turn},
    buckets::Place,
    entries::Changes,
    entry::{Acquaintance, Entry, Hold},
    roles::Role,
    source::SourceKind,
};
use crate::{
    bans::{BanCause, BanSubject, Bans, ip_of},
    door::AccessList,
    hosts::LearntHosts,
    limits::MeshLimits,
    members::{Admit, Members},
};

mod feelers;
mod membership;
mod outcomes;
mod room;

pub use self::outcomes::{DialFailure, STABLE_AFTER};
use self::room::Census;

/// The dial schedule of a node: its phonebook, its bans and its links.
#[derive(Debug)]
pub struct DialSchedule {
    limits: MeshLimits,
    book: Phonebook,
    bans: Bans,
    members: Members,
    /// The identity of this node, once a network has told it.
    own: Option<Identity>,
    /// Version of the last access list.
    access: u64,
    /// Identities connected now, each with the transports of its links.
    identities: BTreeMap<Identity, BTreeSet<Transport>>,
    /// Transports that have a dialer.
    carried: BTreeSet<Transport>,
    /// Time of the next test of an untried address; `None` until the fan-out was reached.
    feeler_at: Option<Instant>,
    /// Follows the phonebook; see [`DialSchedule::follow`].
    agenda: Agenda,
}

/// The transport that carries an address.
#[must_use]
pub const fn transport_of(address: &NodeAddress) -> Transport {
    match address {
        NodeAddress::WebSocket(_) => Transport::WebSocket,
        NodeAddress::Multiaddr(_) => Transport::Libp2p,
    }
}

/// Returns `true` if a link over one transport makes the dial of an address needless: libp2p is preferred, so a link
/// over WebSocket leaves libp2p addresses to be dialled.
fn replaces(linked: Transport, address: &NodeAddress) -> bool {
    linked == transport_of(address) || linked != Transport::WebSocket
}

impl DialSchedule {
    /// Creates a schedule without addresses and dialers. The times and `rng` are those of [`Phonebook::new`].
    #[must_use]
    pub fn new(limits: MeshLimits, now: Instant, wall: SystemTime, rng: &mut impl Rng) -> Self {
        Self {
            limits: limits.bounded(),
            book: Phonebook::new(now, wall, rng),
            bans: Bans::new(now, wall),
            members: Members::default(),
            own: None,
            access: 0,
            identities: BTreeMap::new(),
            carried: BTreeSet::new(),
            feeler_at: None,
            agenda: Agenda::default(),
        }
    }

    /// The values by which it goes.
    #[must_use]
    pub const fn limits(&self) -> &MeshLimits {
        &self.limits
    }

    /// The phonebook.
    #[must_use]
    pub const fn book(&self) -> &Phonebook {
        &self.book
    }

    /// The phonebook, to list addresses in it. An address that is removed from it is dialled no more; a link to it is
    /// not touched, and no longer counts.
    pub const fn book_mut(&mut self) -> &mut Phonebook {
        &mut self.book
    }

    /// The bans.
    #[must_use]
    pub const fn bans(&self) -> &Bans {
        &self.bans
    }

    /// The bans, to add to them and to take from them.
    pub fn bans_mut(&mut self) -> &mut Bans {
        // A ban that is taken back makes addresses due.
        self.book.entries.touch_all();
        &mut self.bans
    }

    /// There is a dialer for addresses of this transport from now on.
    pub fn carry(&mut self, transport: Transport) {
        self.carried.insert(transport);
        self.book.entries.touch_all();
    }

    /// There is no dialer for addresses of this transport any more.
    pub fn cease(&mut self, transport: Transport) {
        self.carried.remove(&transport);
    }

    /// The addresses to dial now: first those that were connected when the node stopped, then those that worked before,
    /// then those that failed least often, of these the persistent ones, otherwise in random order. They count as being
    /// dialled until [`DialSchedule::connected`] or [`DialSchedule::failed`].
    pub fn due(&mut self, now: Instant, rng: &mut impl Rng) -> Vec<NodeAddress> {
        self.follow(now);
        self.agenda.ripen(now, rng);
        let (mut census, mut begun) = (self.census(now), Vec::new());
        while let Some(address) = self.first_due(&census, now) {
            self.book.hold(&address, now, &self.limits.rate);
            self.follow(now);
            census.dialling += 1;
            census.young.push((now, transport_of(&address)));
            begun.push(address);
        }
        if let Some(address) = self.feeler(&census, now, rng) {
            self.book.hold(&address, now, &self.limits.rate);
            begun.push(address);
        }
        begun
    }

    /// Returns `true` if a learnt address is due that could take the place of a link.
    #[must_use]
    pub fn has_another(&mut self, now: Instant) -> bool {
        self.follow(now);
        let learnt = |queue: &QueueId| matches!(queue.class, Class::Learnt(_));
        let queues = self.agenda.queues().into_iter().filter(learnt).collect::<Vec<_>>();
        queues.into_iter().any(|queue| self.first_wake(queue, now) == Some(now))
    }

    /// The address to dial before all others, if there is room for it.
    fn first_due(&mut self, census: &Census, now: Instant) -> Option<NodeAddress> {
        let mut first: Option<(Turn, NodeAddress)> = None;
        for queue in self.agenda.queues() {
            if self.room(queue.class, census) == 0
                || !self.has_place(queue.is_familiar, census.dialling)
            {
                continue;
            }
            let Some((turn, address)) = self.first_ready(queue, now) else { continue };
            if first.as_ref().is_none_or(|(best, _)| turn < *best) {
                first = Some((turn, address));
            }
        }
        first.map(|(_, address)| address)
    }

    /// The first of a queue that is ready and still due.
    fn first_ready(&mut self, queue: QueueId, now: Instant) -> Option<(Turn, NodeAddress)> {
        loop {
            let (turn, address) = self.agenda.ready(queue)?;
            let address = address.clone();
            if self.next_try(&address, now) == Some(now) {
                return Some((turn, address));
            }
            // It was put off since it became ready.
            self.set(&address, now);
        }
    }

    /// The first time at which one of a queue is due.
    fn first_wake(&mut self, queue: QueueId, now: Instant) -> Option<Instant> {
        if self.first_ready(queue, now).is_some() {
            return Some(now);
        }
        loop {
            let (at, address) = self.agenda.waiting(queue)?;
            let address = address.clone();
            if self.next_try(&address, now) == Some(at.max(now)) {
                return Some(at.max(now));
            }
            // It was put off since it began to wait.
            self.set(&address, now);
        }
    }

    /// Brings the agenda up to the phonebook.
    fn follow(&mut self, now: Instant) {
        match self.book.entries.take_changes() {
            Changes::Of(changed) => changed.iter().for_each(|address| self.set(address, now)),
            Changes::All => {
                let gone = self.agenda.addresses().into_iter();
                let known = self.book.entries.keys().cloned();
                gone.chain(known)
                    .collect::<BTreeSet<_>>()
                    .iter()
                    .for_each(|one| self.set(one, now));
            }
        }
    }

    /// Notes the state of an address in the agenda.
    fn set(&mut self, address: &NodeAddress, now: Instant) {
        let Some(entry) = self.book.entries.get(address) else { return self.agenda.take(address) };
        let transport = transport_of(address);
        let state = match entry.hold {
            Hold::Dialled { since } => State::Dialled { since, transport },
            Hold::Linked { .. } => State::Linked { transport },
            Hold::Free => match self.wake(address, entry, now) {
                None => State::Asleep,
                Some(at) => {
                    let (class, is_familiar) = (class_of(address, entry), entry.is_familiar());
                    let queue = QueueId { class, is_familiar };
                    State::Waiting { queue, rank: entry.rank(), at }
                }
            },
        };
        self.agenda.set(address, state, entry.identity);
    }

    /// The time at which an address is to be dialled next; `None` while it is in use, and where nothing but the end of
    /// another link makes it due.
    #[must_use]
    pub fn next_try(&self, address: &NodeAddress, now: Instant) -> Option<Instant> {
        self.wake(address, self.book.entries.get(address)?, now)
    }

    /// The time at which to ask [`DialSchedule::due`] again; `None` if time alone will make nothing due.
    #[must_use]
    pub fn next_wake(&mut self, now: Instant) -> Option<Instant> {
        self.follow(now);
        let (census, mut next) = (self.census(now), None);
        for queue in self.agenda.queues() {
            if !self.has_place(queue.is_familiar, census.dialling) {
                continue;
            }
            let Some(opens) = self.opens(queue.class, &census, now) else { continue };
            let wake = self.first_wake(queue, now).map(|wake| wake.max(opens));
            next = next.into_iter().chain(wake).min();
        }
        next.into_iter().chain(self.feeler_wake(&census, now)).min()
    }

    /// Returns the number of addresses that are being dialled.
    #[must_use]
    pub fn dialling(&self) -> usize {
        let is_dialled = |entry: &&Entry| matches!(entry.hold, Hold::Dialled { .. });
        self.book.entries.values().filter(is_dialled).count()
    }

    /// Returns the number of addresses that have a link.
    #[must_use]
    pub fn outgoing(&self) -> usize {
        let is_linked = |entry: &&Entry| matches!(entry.hold, Hold::Linked { .. });
        self.book.entries.values().filter(is_linked).count()
    }

    /// Returns `true` if the identity last found behind an address is connected, so that a dial is needless.
    fn is_connected(&self, address: &NodeAddress) -> bool {
        let entry = self.book.entries.get(address);
        entry.is_some_and(|entry| self.is_needless(address, entry))
    }

    fn is_needless(&self, address: &NodeAddress, entry: &Entry) -> bool {
        let linked = entry.identity.and_then(|identity| self.identities.get(&identity));
        linked.into_iter().flatten().any(|linked| replaces(*linked, address))
    }

    /// The hosts that the dial of an address may lead to, also where its name hides them.
    #[must_use]
    pub fn hosts(&self, address: &NodeAddress) -> LearntHosts {
        self.book
            .entries
            .get(address)
            .map_or_else(LearntHosts::default, |entry| self.hosts_of(entry))
    }

    fn hosts_of(&self, entry: &Entry) -> LearntHosts {
        let is_local = entry.listings.iter().any(|(id, _)| id.kind() == SourceKind::Local);
        match entry.place {
            Place::Persistent => LearntHosts::Any,
            _ if is_local => LearntHosts::Any,
            Place::Tried(_) | Place::New(_) => self.limits.learnt_hosts,
        }
    }

    /// The time at which an entry may be dialled, `now` if it is due.
    fn wake(&self, address: &NodeAddress, entry: &Entry, now: Instant) -> Option<Instant> {
        let may_be_learnt = self.limits.admit == Admit::Everybody;
        let is_candidate = entry.place == Place::Persistent || may_be_learnt && entry.relays();
        if entry.hold != Hold::Free
            || !is_candidate
            || !self.carried.contains(&transport_of(address))
            || self.is_needless(address, entry)
            || ip_of(address).is_some_and(|ip| !self.hosts_of(entry).allow(ip))
        {
            return None;
        }
        let banned = entry.identities().map(Some).chain([None]);
        let banned = banned.filter_map(|who| self.bans.until_dial(address, who, now)).max();
        let at = entry.retry_at.max(banned).max(entry.within_rate(&self.limits.rate));
        Some(at.map_or(now, |at| at.max(now)))
    }
}

fn class_of(address: &NodeAddress, entry: &Entry) -> Class {
    match entry.place {
        Place::Persistent => Class::Persistent,
        Place::Tried(_) | Place::New(_) => Class::Learnt(transport_of(address)),
    }
}

/// A random part of a duration.
fn random_part(of: Duration, rng: &mut impl Rng) -> Duration {
    of.min(MAX_DELAY).mul_f64(rng.random::<f64>())
}

impl Entry {
    /// Returns `true` if the address is listed as one of a relay, or without any role.
    fn relays(&self) -> bool {
        let fits = |roles: &super::RoleSet| roles.is_empty() || roles.contains(&Role::relay());
        self.listings.iter().any(|(_, roles)| fits(roles))
    }
}

#[cfg(test)]
mod tests;
