//! Which addresses to dial now, and which to leave alone for a while.
//!
//! ```text
//!              due            connected
//!   Idle ───────────▶ Dialling ───────────▶ Connected
//!    ▲                   │ failed               │ ended, failed
//!    └── after a delay ──┴──────────────────────┘
//!    ▲
//!    └── after a small delay ── Waiting, while the identity behind it is connected otherwise
//! ```
//!
//! # Invariants
//!
//! * At most `concurrent` dials are young, and at most `target` addresses are connected or young dials. A dial
//!   that nobody has answered after a while is no longer young: it gives its place to another address, so
//!   that addresses which never answer delay the others by no more than that while.
//! * At most `most` dials are under way, and `concurrent` more to addresses that worked before.
//! * No address is dialled while the identity last found behind it is connected by whatever link.
//! * A link that ends within [`STABLE_AFTER`] is a failure of its address, whatever else is connected.
//! * At most [`MAX_ADDRESSES`] are known; configured ones are never evicted.
//! * Every delay is bounded by [`MAX_DELAY`], whatever a peer asks for.
//! * Calls that name an unknown address do nothing: it may have been removed while it was dialled.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use gossip::{Durations, Identity};
use rand::{Rng, seq::SliceRandom};

/// Addresses known at one time, at most.
///
/// Chosen: more than any network of today has relays, and quick to walk through.
pub const MAX_ADDRESSES: usize = 4_096;

/// Longest time an address is left alone, whatever the peer, the limits or chance say.
///
/// Chosen: an hour, after which an address may well be somebody else's.
pub const MAX_DELAY: Duration = Duration::from_secs(3_600);

/// Lifetime of a link from which on its address is dialled again without backoff.
///
/// Chosen: longer than a handshake and the ruling on duplicates take.
pub const STABLE_AFTER: Duration = Duration::from_secs(10);

/// Time for which a dial is young while there is no link. Source: RFC 8305, section 8: an address that has not
/// answered by then is no reason to leave the next one alone.
const PATIENCE_ALONE: Duration = Duration::from_millis(250);

/// Time for which a dial is young while there is a link. Chosen: longer than a handshake takes on most paths.
const PATIENCE: Duration = Duration::from_secs(1);

/// The source of an address, which decides whether it may be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressKind {
    /// An operator named it. Dialled first, never evicted.
    Configured,
    /// The network named it.
    Learnt,
}

/// Bounds of dialling. Times and counts of one network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DialLimits {
    /// Dials begun at one time. One that is not answered within a quarter of a second, or within a second
    /// while there is a link, no longer counts here. Default: 8. Chosen: what a router at home copes with.
    pub concurrent: NonZeroUsize,
    /// Dials under way, answered or not; at least `concurrent`. As many as `concurrent` says are added for
    /// addresses that worked before. Default: 128. Chosen: a few times what a hundred addresses that never
    /// answer take, and a small part of the descriptors that a process may have.
    pub most: NonZeroUsize,
    /// Longest delay after the first failure, and after the end of a link. Default: 500 ms. Chosen.
    pub base: Duration,
    /// Longest delay after any number of failures. Default: 30 s. Chosen: half of what existing
    /// nodes wait between two looks at their mesh (wire facts 11.1).
    pub cap: Duration,
    /// Outgoing links at which dialling stops; `None`, the default: every address is dialled. Dials that are
    /// answered late may lead to a few more.
    pub target: Option<usize>,
}

gossip::setters!(DialLimits {
    with_concurrent => concurrent: NonZeroUsize,
    with_most => most: NonZeroUsize,
    with_base => base: Duration,
    with_cap => cap: Duration,
    with_target => target: Option<usize>,
});

impl Durations for DialLimits {
    fn each_duration(&mut self, visit: &mut dyn FnMut(&'static str, &mut Duration)) {
        visit("DialLimits::base", &mut self.base);
        visit("DialLimits::cap", &mut self.cap);
    }
}

impl Default for DialLimits {
    fn default() -> Self {
        Self {
            concurrent: NonZeroUsize::MIN.saturating_add(7),
            most: NonZeroUsize::MIN.saturating_add(127),
            base: Duration::from_millis(500),
            cap: Duration::from_secs(30),
            target: None,
        }
    }
}

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

/// The result of adding an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Added<A> {
    /// The address will be dialled.
    New,
    /// The address was known. A learnt address that is now configured is configured from now on.
    Known,
    /// The address will be dialled, and this one, the oldest learnt one, was forgotten for it.
    Evicted(A),
    /// The address was not added: there are [`MAX_ADDRESSES`], none of which may be forgotten.
    Full,
}

/// The addresses of one network and when to dial them. `A` is the transport's type of address.
#[derive(Debug)]
pub struct DialSchedule<A> {
    limits: DialLimits,
    entries: BTreeMap<A, Entry>,
    /// Identities connected now, by whatever link.
    identities: BTreeSet<Identity>,
    /// Orders addresses by age.
    next_age: u64,
    dialling: usize,
    connected: usize,
}

#[derive(Debug)]
struct Entry {
    kind: AddressKind,
    age: u64,
    state: State,
    /// In a row.
    failures: u32,
    /// Identity that was last found behind the address.
    identity: Option<Identity>,
    /// `true` if a link to it was stable once, or its identity was connected otherwise.
    worked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be dialled, from that time on if there is one.
    Idle(Option<Instant>),
    Dialling {
        since: Instant,
    },
    Connected {
        since: Instant,
    },
    /// Until the entry's identity is gone, and until that time if there is one.
    Waiting(Option<Instant>),
}

impl Entry {
    /// Addresses of a lower rank are dialled first.
    fn rank(&self) -> (bool, u32, bool) {
        (!self.worked, self.failures, self.kind != AddressKind::Configured)
    }
}

impl State {
    fn is_in_use(self) -> bool {
        matches!(self, Self::Dialling { .. } | Self::Connected { .. })
    }
}

impl<A: Clone + Ord> DialSchedule<A> {
    /// Creates a schedule without addresses.
    #[must_use]
    pub fn new(limits: DialLimits) -> Self {
        Self {
            limits: limits.bounded(),
            entries: BTreeMap::new(),
            identities: BTreeSet::new(),
            next_age: 0,
            dialling: 0,
            connected: 0,
        }
    }

    /// Adds an address, due at once. A learnt address that is heard of again counts as young again.
    pub fn add(&mut self, address: A, kind: AddressKind) -> Added<A> {
        let age = self.next_age;
        self.next_age += 1;
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.age = age;
            if kind == AddressKind::Configured {
                entry.kind = kind;
            }
            return Added::Known;
        }
        let mut evicted = None;
        if self.entries.len() >= MAX_ADDRESSES {
            let Some(oldest) = self.oldest_learnt(kind) else { return Added::Full };
            self.remove(&oldest);
            evicted = Some(oldest);
        }
        let state = State::Idle(None);
        let entry = Entry { kind, age, state, failures: 0, identity: None, worked: false };
        self.entries.insert(address, entry);
        evicted.map_or(Added::New, Added::Evicted)
    }

    /// Forgets an address. A link to it is not touched, and no longer counts.
    pub fn remove(&mut self, address: &A) {
        if let Some(entry) = self.entries.remove(address) {
            self.uncount(entry.state);
        }
    }

    /// The addresses to dial now: first those that worked before, then those that failed least often, of
    /// these the configured ones, otherwise in random order. They count as being dialled until
    /// [`DialSchedule::connected`] or [`DialSchedule::failed`].
    pub fn due(&mut self, now: Instant, rng: &mut impl Rng) -> Vec<A> {
        let room = self.allowed().saturating_sub(self.young(now).count());
        if room == 0 {
            return Vec::new();
        }
        let due = self.entries.iter().filter(|(_, entry)| self.wake(entry, now) == Some(now));
        let mut due: Vec<_> = due.map(|(address, entry)| (entry.rank(), address.clone())).collect();
        due.shuffle(rng);
        due.sort_by_key(|(rank, _)| *rank);
        let mut begun = Vec::new();
        for (_, address) in due {
            let has_place = self.entries.get(&address).is_some_and(|entry| self.has_place(entry));
            if begun.len() < room && has_place {
                self.enter(&address, State::Dialling { since: now });
                begun.push(address);
            }
        }
        begun
    }

    /// The time at which an address is to be dialled next; `None` while it is in use, and where nothing but the end of
    /// another link makes it due.
    #[must_use]
    pub fn next_try(&self, address: &A, now: Instant) -> Option<Instant> {
        self.wake(self.entries.get(address)?, now)
    }

    /// The time at which to ask [`DialSchedule::due`] again; `None` if time alone will make nothing due.
    #[must_use]
    pub fn next_wake(&self, now: Instant) -> Option<Instant> {
        let opens = self.opens(now)?;
        let waiting = self.entries.values().filter(|entry| self.has_place(entry));
        let due = waiting.filter_map(|entry| self.wake(entry, now)).min()?;
        Some(due.max(opens))
    }

    /// A dial led to a link to `identity`, if that is known. An address may also be connected that
    /// was not due, because an operator asked for it.
    pub fn connected(&mut self, address: &A, identity: Option<Identity>, now: Instant) {
        self.enter(address, State::Connected { since: now });
        if let Some(entry) = self.entries.get_mut(address) {
            entry.identity = identity.or(entry.identity);
        }
    }

    /// A dial came to nothing, or a link just made was ended for this reason.
    pub fn failed(&mut self, address: &A, why: DialFailure, now: Instant, rng: &mut impl Rng) {
        let until = |delay: Duration| State::Idle(now.checked_add(delay.min(MAX_DELAY)));
        let state = match why {
            DialFailure::RetryAfter(delay) if !delay.is_zero() => until(delay),
            DialFailure::Ourselves => until(MAX_DELAY),
            DialFailure::Duplicate(identity) => {
                if let Some(entry) = self.entries.get_mut(address) {
                    entry.identity = Some(identity);
                }
                if self.is_connected(address) {
                    // A peer that calls every link a duplicate must not be dialled without backoff.
                    State::Waiting(self.not_before(address, now, rng))
                } else {
                    // Possibly the peer alone knows of the other link: never retry in a tight loop.
                    until(self.backoff(address, rng))
                }
            }
            DialFailure::Unreachable | DialFailure::Refused | DialFailure::RetryAfter(_) => {
                until(self.backoff(address, rng))
            }
        };
        self.enter(address, state);
    }

    /// The link to an address ended. One that was stable is dialled again soon, any other with
    /// backoff; neither while its identity is connected by another link.
    pub fn ended(&mut self, address: &A, now: Instant, rng: &mut impl Rng) {
        let Some(entry) = self.entries.get_mut(address) else { return };
        let State::Connected { since } = entry.state else { return };
        if is_stable(since, now) {
            (entry.failures, entry.worked) = (0, true);
        }
        let at = self.not_before(address, now, rng);
        let state = if self.is_connected(address) {
            State::Waiting(at)
        } else if at.is_some() {
            State::Idle(at)
        } else {
            self.soon(now, rng)
        };
        self.enter(address, state);
    }

    /// Returns `true` if the identity last found behind an address is connected, by whatever link.
    fn is_connected(&self, address: &A) -> bool {
        let identity = self.entries.get(address).and_then(|entry| entry.identity);
        identity.is_some_and(|identity| self.identities.contains(&identity))
    }

    /// Counts a link that has just ended as a failure, if it was short-lived, and says how long its address
    /// is left alone for that.
    fn not_before(&mut self, address: &A, now: Instant, rng: &mut impl Rng) -> Option<Instant> {
        match self.entries.get(address)?.state {
            State::Connected { since } if !is_stable(since, now) => {
                let delay = self.backoff(address, rng);
                now.checked_add(delay)
            }
            _ => None,
        }
    }

    /// A link to `identity` is in use, whoever dialled and on whatever transport.
    pub fn identity_connected(&mut self, identity: Identity) {
        self.identities.insert(identity);
    }

    /// No link to `identity` is in use any more: the addresses that waited for that are due soon,
    /// each after a small random delay, so that two nodes do not keep dialling each other at once.
    pub fn identity_gone(&mut self, identity: &Identity, now: Instant, rng: &mut impl Rng) {
        if !self.identities.remove(identity) {
            return;
        }
        for entry in self.entries.values_mut() {
            if entry.identity != Some(*identity) {
                continue;
            }
            // An address that was connected is dialled before strangers.
            entry.worked = true;
            match entry.state {
                State::Waiting(until) => {
                    entry.state = State::Idle(later(now, self.limits.base, rng).max(until));
                }
                State::Idle(at) if at.is_none_or(|at| at <= now) => {
                    entry.state = State::Idle(later(now, self.limits.base, rng));
                }
                State::Idle(_) | State::Dialling { .. } | State::Connected { .. } => {}
            }
        }
    }

    /// Returns the number of addresses that are known, at most [`MAX_ADDRESSES`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns `true` if no address is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the number of addresses that are being dialled.
    #[must_use]
    pub fn dialling(&self) -> usize {
        self.dialling
    }

    /// Returns the number of addresses that have a link.
    #[must_use]
    pub fn outgoing(&self) -> usize {
        self.connected
    }

    /// The largest number of young dials.
    fn allowed(&self) -> usize {
        let target = self.limits.target.unwrap_or(usize::MAX);
        self.limits.concurrent.get().min(target.saturating_sub(self.connected))
    }

    /// The time for which a dial is young: the less there is to lose, the shorter.
    fn patience(&self) -> Duration {
        if self.connected == 0 { PATIENCE_ALONE } else { PATIENCE }
    }

    /// Since when each of the young dials is under way.
    fn young(&self, now: Instant) -> impl Iterator<Item = Instant> {
        let patience = self.patience();
        self.entries.values().filter_map(move |entry| match entry.state {
            State::Dialling { since } if now.saturating_duration_since(since) < patience => {
                Some(since)
            }
            _ => None,
        })
    }

    /// The time at which another dial may be begun; `None` if time alone will not allow it.
    fn opens(&self, now: Instant) -> Option<Instant> {
        let allowed = self.allowed();
        if allowed == 0 {
            return None;
        }
        let mut young: Vec<Instant> = self.young(now).collect();
        let Some(in_the_way) = young.len().checked_sub(allowed) else { return Some(now) };
        young.sort_unstable();
        young.get(in_the_way)?.checked_add(self.patience())
    }

    /// Returns `true` if the dials under way leave room for this address.
    fn has_place(&self, entry: &Entry) -> bool {
        let concurrent = self.limits.concurrent.get();
        let most = self.limits.most.get().max(concurrent);
        let kept = if entry.worked { concurrent } else { 0 };
        self.dialling < most.saturating_add(kept)
    }

    /// The time at which an entry may be dialled, `now` if it is due.
    fn wake(&self, entry: &Entry, now: Instant) -> Option<Instant> {
        let State::Idle(at) = entry.state else { return None };
        let is_blocked = entry.identity.is_some_and(|identity| self.identities.contains(&identity));
        if is_blocked { None } else { Some(at.map_or(now, |at| at.max(now))) }
    }

    /// Counts one more failure and draws a delay: full jitter, up to a bound that doubles.
    fn backoff(&mut self, address: &A, rng: &mut impl Rng) -> Duration {
        let failures = self.entries.get_mut(address).map_or(0, |entry| {
            entry.failures = entry.failures.saturating_add(1);
            entry.failures - 1
        });
        let factor = 2_u32.saturating_pow(failures);
        let bound = self.limits.base.saturating_mul(factor).min(self.limits.cap).min(MAX_DELAY);
        bound.mul_f64(rng.random::<f64>())
    }

    fn soon(&self, now: Instant, rng: &mut impl Rng) -> State {
        State::Idle(later(now, self.limits.base, rng))
    }

    /// Puts an address into another state, keeping count.
    fn enter(&mut self, address: &A, state: State) {
        let Some(entry) = self.entries.get_mut(address) else { return };
        let before = std::mem::replace(&mut entry.state, state);
        self.uncount(before);
        match state {
            State::Dialling { .. } => self.dialling += 1,
            State::Connected { .. } => self.connected += 1,
            State::Idle(_) | State::Waiting(_) => {}
        }
    }

    fn uncount(&mut self, state: State) {
        match state {
            State::Dialling { .. } => self.dialling -= 1,
            State::Connected { .. } => self.connected -= 1,
            State::Idle(_) | State::Waiting(_) => {}
        }
    }

    /// The address to forget for a new one of this kind: one that is not in use, if there is any;
    /// for a configured one, even one that is.
    fn oldest_learnt(&self, newcomer: AddressKind) -> Option<A> {
        let learnt = self.entries.iter().filter(|(_, entry)| entry.kind == AddressKind::Learnt);
        let (address, entry) =
            learnt.min_by_key(|(_, entry)| (entry.state.is_in_use(), entry.age))?;
        let may_go = !entry.state.is_in_use() || newcomer == AddressKind::Configured;
        may_go.then(|| address.clone())
    }
}

/// Returns `true` if a link has lived long enough for its end to be no failure.
fn is_stable(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) >= STABLE_AFTER
}

/// A random time at most `within` from `now`.
fn later(now: Instant, within: Duration, rng: &mut impl Rng) -> Option<Instant> {
    now.checked_add(within.min(MAX_DELAY).mul_f64(rng.random::<f64>()))
}

#[cfg(test)]
mod tests;
