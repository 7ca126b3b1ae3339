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
//! * At most `concurrent` dials are young, and learnt addresses are dialled only while links and young dials together
//!   are fewer than `fan_out`. A dial that nobody has answered after a while is no longer young: it gives its place to
//!   another address, so that addresses which never answer delay the others by no more than that while.
//! * At most `most` dials are under way, and `concurrent` more to addresses that worked before.
//! * No address is dialled while the identity last found behind it is connected by whatever link, except that a libp2p
//!   address is while there is a link over WebSocket alone.
//! * No address is dialled while it, its host or its identity is banned, nor without a dialer for its transport.
//! * A link that ends within [`STABLE_AFTER`] is a failure of its address, whatever else is connected, unless this node
//!   let it go.
//! * While the fan-out is reached, one untried address at a time is tested beyond it, rarely.
//! * Members are dialled whatever the fan-out is; where members only are admitted, learnt addresses are not dialled.
//! * Every delay is bounded by [`MAX_DELAY`], whatever a peer asks for.
//! * Calls that name an unknown address do nothing: it may have been removed while it was dialled.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant, SystemTime},
};

use gossip::{DisconnectReason, Durations, Identity, NodeAddress, Transport};
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

mod membership;

/// Lifetime of a link from which on its address is dialled again without backoff.
///
/// Chosen: longer than a handshake and the ruling on duplicates take.
pub const STABLE_AFTER: Duration = Duration::from_secs(10);

/// Time for which a dial is young while there is no link. Source: RFC 8305, section 8: an address that has not
/// answered by then is no reason to leave the next one alone.
const PATIENCE_ALONE: Duration = Duration::from_millis(250);

/// Time for which a dial is young while there is a link. Chosen: longer than a handshake takes on most paths.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why a dial came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DialFailure {
    /// No answer came, or not in time, or not in the protocol.
    Unreachable,
    /// The peer answered and does not want us now.
    Refused,
    /// The peer answered 429 and said when to come again. The address is left alone exactly that
    /// long, at most [`MAX_DELAY`]; no time at all counts as [`DialFailure::Refused`]. Source: wire
    /// facts 10.3.
    RetryAfter(Duration),
    /// The address is this node's own. It is left alone for [`MAX_DELAY`]. Source: threats and goals,
    /// row 5.
    Ourselves,
    /// The peer is this one, and another link to it stays. The address is left alone until
    /// [`DialSchedule::identity_gone`], if that identity is connected as far as the schedule was
    /// told; else it is retried with backoff.
    Duplicate(Identity),
}

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

/// The dials and links there are.
#[derive(Debug, Default)]
struct Census {
    /// Since when each of the young dials is under way.
    young: Vec<(Instant, Transport)>,
    dialling: usize,
    /// Links of each transport.
    linked: BTreeMap<Transport, usize>,
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

    /// The untried address to test now. One that must show that it still works comes first.
    fn feeler(&mut self, census: &Census, now: Instant, rng: &mut impl Rng) -> Option<NodeAddress> {
        let every = self.limits.feeler_every.filter(|_| self.is_full(census))?;
        let next = now.checked_add(every + random_part(every, rng));
        if self.feeler_at.is_none_or(|at| at > now) {
            self.feeler_at = self.feeler_at.or(next);
            return None;
        }
        let found = self.first_untried(census, now)?;
        self.feeler_at = next;
        Some(found)
    }

    /// Returns `true` if there are as many links as the fan-out.
    fn is_full(&self, census: &Census) -> bool {
        census.links() >= self.limits.fan_out
    }

    /// The queues of learnt addresses that a feeler may come from.
    fn feeler_queues(&self, census: &Census) -> Vec<QueueId> {
        let mut queues = self.agenda.queues();
        queues.retain(|queue| {
            matches!(queue.class, Class::Learnt(transport) if self.limits.share(transport) > 0)
                && self.has_place(queue.is_familiar, census.dialling)
        });
        queues
    }

    /// The first learnt address that is due and was never connected, or must show that it still works.
    fn first_untried(&mut self, census: &Census, now: Instant) -> Option<NodeAddress> {
        let mut first: Option<(Turn, NodeAddress)> = None;
        for queue in self.feeler_queues(census) {
            let Some((turn, address)) = self.first_ready(queue, now) else { continue };
            let is_untried = !queue.is_familiar || turn.0.is_on_trial();
            if is_untried && first.as_ref().is_none_or(|(best, _)| turn < *best) {
                first = Some((turn, address));
            }
        }
        first.map(|(_, address)| address)
    }

    /// The time of the next test of an untried address.
    fn feeler_wake(&mut self, census: &Census, now: Instant) -> Option<Instant> {
        let at = self.feeler_at.filter(|_| self.is_full(census))?;
        let mut next = None;
        for queue in self.feeler_queues(census).into_iter().filter(|queue| !queue.is_familiar) {
            next = next.into_iter().chain(self.first_wake(queue, now)).min();
        }
        next.map(|wake| wake.max(at))
    }

    /// Returns `true` if a learnt address is due that could take the place of a link.
    #[must_use]
    pub fn has_another(&mut self, now: Instant) -> bool {
        self.follow(now);
        let learnt = |queue: &QueueId| matches!(queue.class, Class::Learnt(_));
        let queues = self.agenda.queues().into_iter().filter(learnt).collect::<Vec<_>>();
        queues.into_iter().any(|queue| self.first_wake(queue, now) == Some(now))
    }

    /// Records the round-trip time of a link over a transport, to a peer of this identity or at this address.
    pub fn observed(
        &mut self,
        identity: Option<Identity>,
        address: Option<&NodeAddress>,
        (transport, rtt): (Transport, Duration),
    ) {
        let of_it = identity.map(|identity| self.agenda.of_identity(&identity));
        let all = of_it.into_iter().flatten().chain(address.cloned());
        for address in all.filter(|address| transport_of(address) == transport) {
            self.book.observed(&address, rtt);
        }
    }

    /// This node lets a link go, to a peer of this identity or at this address. Its end is no failure of the address,
    /// which has shown that it works.
    pub fn let_go(
        &mut self,
        identity: Option<Identity>,
        address: Option<&NodeAddress>,
        now: Instant,
    ) {
        self.follow(now);
        let of_it = identity.map(|identity| self.agenda.of_identity(&identity));
        for address in of_it.into_iter().flatten().chain(address.cloned()) {
            if let Some(entry) = self.book.entries.get_mut(&address) {
                entry.is_let_go = matches!(entry.hold, Hold::Linked { .. });
            }
        }
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

    /// A dial led to a link to `identity`, if that is known. An address may also be connected that
    /// was not due, because an operator asked for it.
    pub fn connected(&mut self, address: &NodeAddress, identity: Option<Identity>, now: Instant) {
        self.book.linked(address, identity, now);
    }

    /// A dial came to nothing, or a link just made was ended for this reason.
    pub fn failed(
        &mut self,
        address: &NodeAddress,
        why: DialFailure,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        let delay = match why {
            DialFailure::RetryAfter(delay) if !delay.is_zero() => Some(delay),
            DialFailure::Ourselves => Some(MAX_DELAY),
            DialFailure::Duplicate(identity) => {
                self.book.found(address, identity);
                if self.is_connected(address) {
                    // A peer that calls every link a duplicate must not be dialled without backoff.
                    self.after_short_link(address, now, rng)
                } else {
                    // Possibly the peer alone knows of the other link: never retry in a tight loop.
                    Some(self.backoff(address, rng))
                }
            }
            DialFailure::Unreachable | DialFailure::Refused | DialFailure::RetryAfter(_) => {
                Some(self.backoff(address, rng))
            }
        };
        self.release(address, delay, now);
    }

    /// The link to an address ended. One that was stable is dialled again soon, any other with
    /// backoff; neither while its identity is connected by another link.
    pub fn ended(&mut self, address: &NodeAddress, now: Instant, rng: &mut impl Rng) {
        let Some(entry) = self.book.entries.get(address) else { return };
        let Hold::Linked { since } = entry.hold else { return };
        let is_let_go = entry.is_let_go;
        if is_let_go || is_stable(since, now) {
            self.book.works(address);
        }
        let mut delay = if is_let_go { None } else { self.after_short_link(address, now, rng) };
        if delay.is_none() && !self.is_connected(address) {
            delay = Some(random_part(self.limits.base, rng));
        }
        self.release(address, delay, now);
    }

    /// A link to `identity` is in use on a transport, whoever dialled.
    pub fn identity_connected(&mut self, identity: Identity, transport: Transport) {
        self.identities.entry(identity).or_default().insert(transport);
    }

    /// No link to `identity` is in use on a transport any more: the addresses that waited for that are due soon,
    /// each after a small random delay, so that two nodes do not keep dialling each other at once.
    pub fn identity_gone(
        &mut self,
        identity: &Identity,
        transport: Transport,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        let Some(linked) = self.identities.get_mut(identity) else { return };
        if !linked.remove(&transport) {
            return;
        }
        if linked.is_empty() {
            self.identities.remove(identity);
        }
        self.follow(now);
        for address in self.agenda.of_identity(identity) {
            let Some(entry) = self.book.entries.get_mut(&address) else { continue };
            // An address that was connected is dialled before strangers.
            entry.acquaintance = entry.acquaintance.min(Acquaintance::Familiar);
            if entry.hold == Hold::Free {
                let soon = now.checked_add(random_part(self.limits.base, rng));
                entry.retry_at = entry.retry_at.max(soon);
            }
        }
    }

    /// Notes why a link has ended, by the identity of the peer and by the address at which it was dialled, as far as they
    /// are known. A peer that broke the rules is banned for as long as the limits say: its identity, or, if it has none,
    /// the address. A learnt address whose peer was replaced by another one is left alone for a while.
    pub fn parted(
        &mut self,
        identity: Option<Identity>,
        address: Option<&NodeAddress>,
        reason: DisconnectReason,
        now: Instant,
    ) {
        self.punish(identity, address, reason, now);
        use DisconnectReason::{CliqueResolving, Idle, LeastPerforming};
        if !matches!(reason, LeastPerforming | CliqueResolving | Idle) {
            return;
        }
        let until = now.checked_add(self.limits.replaced_for.min(MAX_DELAY));
        self.follow(now);
        let of_it = identity.map(|identity| self.agenda.of_identity(&identity));
        for address in of_it.into_iter().flatten().chain(address.cloned()) {
            let Some(entry) = self.book.entries.get_mut(&address) else { continue };
            if entry.place != Place::Persistent {
                entry.retry_at = entry.retry_at.max(until);
            }
        }
    }

    fn punish(
        &mut self,
        identity: Option<Identity>,
        address: Option<&NodeAddress>,
        reason: DisconnectReason,
        now: Instant,
    ) {
        let time = match reason {
            DisconnectReason::Application(_) => self.limits.misbehaviour_ban,
            DisconnectReason::BadData | DisconnectReason::Flood => self.limits.malformed_ban,
            _ => return,
        };
        let by_address = || address.map(|address| BanSubject::Address(address.clone()));
        let Some(subject) = identity.map(BanSubject::Identity).or_else(by_address) else { return };
        let why = (BanCause::Misbehaviour, &*reason.to_string());
        // There is room unless operators took all of it, and then this peer is left to the back-off.
        let _ = self.bans.ban(subject, time, why, now);
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

    fn release(&mut self, address: &NodeAddress, delay: Option<Duration>, now: Instant) {
        let until = delay.and_then(|delay| now.checked_add(delay.min(MAX_DELAY)));
        self.book.release(address, until, now);
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

    /// Counts a link that has just ended as a failure, if it was short-lived, and says how long its address
    /// is left alone for that.
    fn after_short_link(
        &mut self,
        address: &NodeAddress,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Option<Duration> {
        match self.book.entries.get(address)?.hold {
            Hold::Linked { since } if !is_stable(since, now) => Some(self.backoff(address, rng)),
            _ => None,
        }
    }

    fn census(&self, now: Instant) -> Census {
        let mut census = Census { linked: self.agenda.linked(), ..Census::default() };
        let mut dials: Vec<_> = self.agenda.dials().collect();
        census.dialling = dials.len();
        let patience = census.patience();
        dials.retain(|(since, _)| now.saturating_duration_since(*since) < patience);
        dials.sort_unstable();
        census.young = dials;
        census
    }

    /// The bounds of young dials for a class: over all, and of its own transport.
    fn bounds(&self, class: Class, census: &Census) -> [(usize, Option<Transport>); 2] {
        let concurrent = self.limits.concurrent.get();
        match class {
            Class::Persistent => [(concurrent, None); 2],
            Class::Learnt(transport) => {
                let left = self.limits.fan_out.saturating_sub(census.links());
                let own = census.linked.get(&transport).copied().unwrap_or_default();
                let share = self.limits.share(transport).saturating_sub(own);
                [(concurrent.min(left), None), (concurrent.min(share), Some(transport))]
            }
        }
    }

    /// Dials that may be begun now for a class.
    fn room(&self, class: Class, census: &Census) -> usize {
        let room = |(bound, of): (usize, Option<Transport>)| {
            bound.saturating_sub(census.young_of(of).count())
        };
        self.bounds(class, census).map(room).into_iter().min().unwrap_or_default()
    }

    /// The time at which another dial may be begun for a class; `None` if time alone will not allow it.
    fn opens(&self, class: Class, census: &Census, now: Instant) -> Option<Instant> {
        let mut latest = now;
        for (bound, of) in self.bounds(class, census) {
            if bound == 0 {
                return None;
            }
            let young: Vec<Instant> = census.young_of(of).collect();
            let Some(in_the_way) = young.len().checked_sub(bound) else { continue };
            latest = latest.max(young.get(in_the_way)?.checked_add(census.patience())?);
        }
        Some(latest)
    }

    /// Returns `true` if the dials under way leave room for another address.
    fn has_place(&self, is_familiar: bool, dialling: usize) -> bool {
        let concurrent = self.limits.concurrent.get();
        let most = self.limits.most.get().max(concurrent);
        let kept = if is_familiar { concurrent } else { 0 };
        dialling < most.saturating_add(kept)
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

    /// Counts one more failure and draws a delay: full jitter, up to a bound that doubles.
    fn backoff(&mut self, address: &NodeAddress, rng: &mut impl Rng) -> Duration {
        let factor = 2_u32.saturating_pow(self.book.failed(address));
        let bound = self.limits.base.saturating_mul(factor).min(self.limits.cap).min(MAX_DELAY);
        random_part(bound, rng)
    }
}

impl Census {
    /// The time for which a dial is young: the less there is to lose, the shorter.
    fn patience(&self) -> Duration {
        if self.links() == 0 { PATIENCE_ALONE } else { PATIENCE }
    }

    /// Links over all transports.
    fn links(&self) -> usize {
        self.linked.values().sum()
    }

    /// Since when the young dials are under way, the oldest first, of one transport or of all.
    fn young_of(&self, of: Option<Transport>) -> impl Iterator<Item = Instant> {
        let of_it =
            self.young.iter().filter(move |(_, carries)| of.is_none_or(|of| of == *carries));
        of_it.map(|(since, _)| *since)
    }
}

fn class_of(address: &NodeAddress, entry: &Entry) -> Class {
    match entry.place {
        Place::Persistent => Class::Persistent,
        Place::Tried(_) | Place::New(_) => Class::Learnt(transport_of(address)),
    }
}

/// Returns `true` if a link has lived long enough for its end to be no failure.
fn is_stable(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) >= STABLE_AFTER
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
