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
//! * At most `concurrent` addresses are being dialled, and at most `target` are connected or being
//!   dialled.
//! * No address is dialled while the identity last found behind it is connected by whatever link.
//! * At most [`MAX_ADDRESSES`] are known; configured ones are never evicted.
//! * Every delay is bounded by [`MAX_DELAY`], whatever a peer asks for.
//! * Calls that name an unknown address do nothing: it may have been removed while it was dialled.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use gossip::Identity;
use rand::{Rng, seq::SliceRandom};

/// Addresses known at one time, at most.
///
/// Chosen: more than any network of today has relays, and quick to walk through.
pub const MAX_ADDRESSES: usize = 4_096;

/// Longest time an address is left alone, whatever the peer, the limits or chance say.
///
/// Chosen: an hour, after which an address may well be somebody else's.
pub const MAX_DELAY: Duration = Duration::from_secs(3_600);

/// How long a link must have lived for its address to be dialled again without backoff.
///
/// Chosen: longer than a handshake and the ruling on duplicates take.
pub const STABLE_AFTER: Duration = Duration::from_secs(10);

/// How an address became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressKind {
    /// An operator named it. Dialled first, never evicted.
    Configured,
    /// The network named it.
    Learnt,
}

/// How much to dial, and how eagerly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialLimits {
    /// Dials under way at one time. Default: 8. Chosen: enough to get past dead addresses.
    pub concurrent: NonZeroUsize,
    /// Longest delay after the first failure, and after the end of a link. Default: 500 ms. Chosen.
    pub base: Duration,
    /// Longest delay after any number of failures. Default: 30 s. Chosen: half of what existing nodes
    /// wait between two looks at their mesh (wire facts 11.1).
    pub cap: Duration,
    /// Outgoing links at which dialling stops; `None`, the default: every address is dialled.
    pub target: Option<usize>,
}

impl Default for DialLimits {
    fn default() -> Self {
        Self {
            concurrent: NonZeroUsize::MIN.saturating_add(7),
            base: Duration::from_millis(500),
            cap: Duration::from_secs(30),
            target: None,
        }
    }
}

/// Why a dial came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialFailure {
    /// Nobody answered, or not in time, or not in the protocol.
    Unreachable,
    /// The peer answered and does not want us now.
    Refused,
    /// The peer answered 429 and said when to come again. The address is left alone exactly that
    /// long, at most [`MAX_DELAY`]; no time at all counts as [`DialFailure::Refused`]. Source: wire
    /// facts 10.3.
    RetryAfter(Duration),
    /// It was this node. The address is left alone for [`MAX_DELAY`]. Source: threats and goals, row 5.
    Ourselves,
    /// The peer is this one, and another link to it stays. The address is left alone until
    /// [`DialSchedule::identity_gone`], if that identity is connected as far as the schedule was
    /// told; else it is retried with backoff.
    Duplicate(Identity),
}

/// What became of an address that was added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Added<A> {
    /// It will be dialled.
    New,
    /// It was known. A learnt address that is now configured is configured from now on.
    Known,
    /// It will be dialled, and this one, the oldest learnt one, was forgotten for it.
    Evicted(A),
    /// It was not added: there are [`MAX_ADDRESSES`], none of which may be forgotten.
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
    /// Who was last found behind the address.
    identity: Option<Identity>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be dialled, from that time on if there is one.
    Idle(Option<Instant>),
    Dialling,
    Connected {
        since: Instant,
    },
    /// Until the entry's identity is gone.
    Waiting,
}

impl State {
    fn is_in_use(self) -> bool {
        matches!(self, Self::Dialling | Self::Connected { .. })
    }
}

impl<A: Clone + Ord> DialSchedule<A> {
    /// A schedule without addresses.
    #[must_use]
    pub fn new(limits: DialLimits) -> Self {
        Self {
            limits,
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
        self.entries.insert(address, Entry { kind, age, state, failures: 0, identity: None });
        evicted.map_or(Added::New, Added::Evicted)
    }

    /// Forgets an address. A link to it is not touched, and no longer counts.
    pub fn remove(&mut self, address: &A) {
        if let Some(entry) = self.entries.remove(address) {
            self.uncount(entry.state);
        }
    }

    /// The addresses to dial now: configured ones first, otherwise in random order. They count as
    /// being dialled until [`DialSchedule::connected`] or [`DialSchedule::failed`].
    pub fn due(&mut self, now: Instant, rng: &mut impl Rng) -> Vec<A> {
        let room = self.room();
        if room == 0 {
            return Vec::new();
        }
        let due = self.entries.iter().filter(|(_, entry)| self.wake(entry, now) == Some(now));
        let mut due: Vec<(AddressKind, A)> =
            due.map(|(address, entry)| (entry.kind, address.clone())).collect();
        due.shuffle(rng);
        due.sort_by_key(|(kind, _)| *kind != AddressKind::Configured);
        due.truncate(room);
        for (_, address) in &due {
            self.enter(address, State::Dialling);
        }
        due.into_iter().map(|(_, address)| address).collect()
    }

    /// When to ask [`DialSchedule::due`] again; `None` if time alone will make nothing due.
    #[must_use]
    pub fn next_wake(&self, now: Instant) -> Option<Instant> {
        if self.room() == 0 {
            return None;
        }
        self.entries.values().filter_map(|entry| self.wake(entry, now)).min()
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
                if self.identities.contains(&identity) {
                    State::Waiting
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

    /// The link to an address ended. One that was stable is dialled again soon, any other with backoff;
    /// neither while its identity is connected by another link.
    pub fn ended(&mut self, address: &A, now: Instant, rng: &mut impl Rng) {
        let Some(entry) = self.entries.get_mut(address) else { return };
        let State::Connected { since } = entry.state else { return };
        let is_stable = now.saturating_duration_since(since) >= STABLE_AFTER;
        if is_stable {
            entry.failures = 0;
        }
        let state = if entry.identity.is_some_and(|identity| self.identities.contains(&identity)) {
            State::Waiting
        } else if is_stable {
            self.soon(now, rng)
        } else {
            let delay = self.backoff(address, rng);
            State::Idle(now.checked_add(delay))
        };
        self.enter(address, state);
    }

    /// A link to `identity` is in use, whoever dialled and on whatever transport.
    pub fn identity_connected(&mut self, identity: Identity) {
        self.identities.insert(identity);
    }

    /// No link to `identity` is in use any more: the addresses that waited for that are due soon, each
    /// after a small random delay, so that two nodes do not keep dialling each other at once.
    pub fn identity_gone(&mut self, identity: &Identity, now: Instant, rng: &mut impl Rng) {
        if !self.identities.remove(identity) {
            return;
        }
        for entry in self.entries.values_mut() {
            if entry.identity != Some(*identity) {
                continue;
            }
            match entry.state {
                State::Waiting => entry.state = State::Idle(later(now, self.limits.base, rng)),
                State::Idle(at) if at.is_none_or(|at| at <= now) => {
                    entry.state = State::Idle(later(now, self.limits.base, rng));
                }
                State::Idle(_) | State::Dialling | State::Connected { .. } => {}
            }
        }
    }

    /// How many addresses are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no address is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many addresses are being dialled.
    #[must_use]
    pub fn dialling(&self) -> usize {
        self.dialling
    }

    /// How many addresses have a link.
    #[must_use]
    pub fn outgoing(&self) -> usize {
        self.connected
    }

    /// How many dials may be started.
    fn room(&self) -> usize {
        let free = self.limits.concurrent.get().saturating_sub(self.dialling);
        let wanted = self
            .limits
            .target
            .map_or(usize::MAX, |target| target.saturating_sub(self.connected + self.dialling));
        free.min(wanted)
    }

    /// When an entry may be dialled, `now` if it is due.
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
            State::Dialling => self.dialling += 1,
            State::Connected { .. } => self.connected += 1,
            State::Idle(_) | State::Waiting => {}
        }
    }

    fn uncount(&mut self, state: State) {
        match state {
            State::Dialling => self.dialling -= 1,
            State::Connected { .. } => self.connected -= 1,
            State::Idle(_) | State::Waiting => {}
        }
    }

    /// The address to forget for a new one of this kind: one that is not in use, if there is any; for
    /// a configured one, even one that is.
    fn oldest_learnt(&self, newcomer: AddressKind) -> Option<A> {
        let learnt = self.entries.iter().filter(|(_, entry)| entry.kind == AddressKind::Learnt);
        let (address, entry) =
            learnt.min_by_key(|(_, entry)| (entry.state.is_in_use(), entry.age))?;
        let may_go = !entry.state.is_in_use() || newcomer == AddressKind::Configured;
        may_go.then(|| address.clone())
    }
}

/// A random time at most `within` from `now`.
fn later(now: Instant, within: Duration, rng: &mut impl Rng) -> Option<Instant> {
    now.checked_add(within.min(MAX_DELAY).mul_f64(rng.random::<f64>()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    const THEM: Identity = Identity([7; 32]);
    const SECOND: Duration = Duration::from_secs(1);

    /// A schedule, its randomness, and its clock.
    struct Bench {
        schedule: DialSchedule<u32>,
        rng: StdRng,
        now: Instant,
    }

    impl Bench {
        fn with(limits: DialLimits, configured: &[u32]) -> Self {
            let mut schedule = DialSchedule::new(limits);
            for address in configured {
                assert_eq!(schedule.add(*address, AddressKind::Configured), Added::New);
            }
            Self { schedule, rng: StdRng::seed_from_u64(1), now: Instant::now() }
        }

        fn new(configured: &[u32]) -> Self {
            Self::with(DialLimits::default(), configured)
        }

        fn due(&mut self) -> Vec<u32> {
            let mut due = self.schedule.due(self.now, &mut self.rng);
            due.sort_unstable();
            due
        }

        fn failed(&mut self, address: u32, why: DialFailure) {
            self.schedule.failed(&address, why, self.now, &mut self.rng);
        }

        fn connected(&mut self, address: u32) {
            self.schedule.connected(&address, Some(THEM), self.now);
        }

        fn ended(&mut self, address: u32) {
            self.schedule.ended(&address, self.now, &mut self.rng);
        }

        fn gone(&mut self) {
            self.schedule.identity_gone(&THEM, self.now, &mut self.rng);
        }

        /// How long until something is due.
        fn wait(&self) -> Option<Duration> {
            self.schedule.next_wake(self.now).map(|at| at - self.now)
        }

        /// Goes to the next wake and dials what is due then.
        #[track_caller]
        fn next(&mut self) -> Vec<u32> {
            self.now = self.schedule.next_wake(self.now).expect("something to wake for");
            self.due()
        }
    }

    #[test]
    fn a_new_address_is_due_at_once_and_only_once() {
        let mut bench = Bench::new(&[1, 2]);
        assert_eq!(bench.wait(), Some(Duration::ZERO));
        assert_eq!(bench.due(), [1, 2]);
        assert_eq!((bench.due(), bench.wait()), (vec![], None));
    }

    #[test]
    fn configured_addresses_are_dialled_before_learnt_ones() {
        let limits = DialLimits { concurrent: NonZeroUsize::MIN, ..DialLimits::default() };
        let mut bench = Bench::with(limits, &[]);
        for learnt in 1..20 {
            assert_eq!(bench.schedule.add(learnt, AddressKind::Learnt), Added::New);
        }
        assert_eq!(bench.schedule.add(20, AddressKind::Configured), Added::New);
        assert_eq!(bench.due(), [20]);
    }

    #[test]
    fn at_most_as_many_dials_as_allowed_are_under_way() {
        let mut bench = Bench::new(&(0..20).collect::<Vec<_>>());
        let first = bench.due();
        assert_eq!((first.len(), bench.due().len(), bench.wait()), (8, 0, None));
        bench.failed(first[0], DialFailure::Unreachable);
        bench.connected(first[1]);
        assert_eq!(bench.wait(), Some(Duration::ZERO));
        assert_eq!((bench.due().len(), bench.schedule.outgoing()), (2, 1));
    }

    #[test]
    fn dialling_stops_at_the_target_and_goes_on_when_a_link_ends() {
        let limits = DialLimits { target: Some(2), ..DialLimits::default() };
        let mut bench = Bench::with(limits, &[1, 2, 3]);
        let first = bench.due();
        assert_eq!(first.len(), 2);
        first.iter().for_each(|address| bench.connected(*address));
        assert_eq!((bench.due(), bench.wait()), (vec![], None));
        bench.ended(first[0]);
        assert_eq!(bench.due().len(), 1);
    }

    #[test]
    fn failures_back_off_with_full_jitter_up_to_the_cap() {
        let mut longest = [Duration::ZERO; 12];
        for seed in 0..300 {
            let mut bench = Bench::new(&[1]);
            bench.rng = StdRng::seed_from_u64(seed);
            for longest in &mut longest {
                assert_eq!(bench.next(), [1]);
                bench.failed(1, DialFailure::Unreachable);
                *longest = (*longest).max(bench.wait().unwrap());
            }
        }
        for (failures, longest) in longest.into_iter().enumerate() {
            let bound = Duration::from_millis(500 << failures).min(30 * SECOND);
            assert!(longest <= bound && longest > bound.mul_f64(0.9), "{failures}: {longest:?}");
        }
    }

    #[test]
    fn a_link_that_lived_ten_seconds_resets_the_backoff_and_a_shorter_one_does_not() {
        for (lived, is_reset) in [(STABLE_AFTER, true), (9 * SECOND, false)] {
            let mut bench = Bench::new(&[1]);
            for _ in 0..8 {
                assert_eq!(bench.next(), [1]);
                bench.failed(1, DialFailure::Refused);
            }
            assert_eq!(bench.next(), [1]);
            bench.connected(1);
            bench.now += lived;
            bench.ended(1);
            let waits = if is_reset { 0 } else { 9 };
            assert_eq!(bench.schedule.entries[&1].failures, waits);
            let bound = if is_reset { Duration::from_millis(500) } else { 30 * SECOND };
            assert!(bench.wait().unwrap() <= bound);
            assert_eq!(bench.next(), [1]);
        }
    }

    #[track_caller]
    fn hides_for(why: DialFailure, expected: Duration) {
        let mut bench = Bench::new(&[1]);
        assert_eq!(bench.due(), [1]);
        bench.failed(1, why);
        assert_eq!(bench.wait(), Some(expected));
        bench.now += expected - Duration::from_nanos(1);
        assert_eq!(bench.due(), []);
        bench.now += Duration::from_nanos(1);
        assert_eq!(bench.due(), [1]);
    }

    #[test]
    fn retry_after_hides_an_address_exactly_so_long_and_an_hour_at_most() {
        hides_for(DialFailure::RetryAfter(7 * SECOND), 7 * SECOND);
        hides_for(DialFailure::RetryAfter(MAX_DELAY), MAX_DELAY);
        hides_for(DialFailure::RetryAfter(Duration::MAX), MAX_DELAY);
    }

    #[test]
    fn retry_after_no_time_backs_off() {
        let mut bench = Bench::new(&[1]);
        assert_eq!(bench.due(), [1]);
        bench.failed(1, DialFailure::RetryAfter(Duration::ZERO));
        assert_eq!(bench.schedule.entries[&1].failures, 1);
        assert!(bench.wait().unwrap() > Duration::ZERO);
    }

    #[test]
    fn our_own_address_is_left_alone_for_an_hour() {
        hides_for(DialFailure::Ourselves, MAX_DELAY);
    }

    #[test]
    fn a_duplicate_waits_for_its_identity_and_is_dialled_soon_after() {
        let mut bench = Bench::new(&[1, 2]);
        assert_eq!(bench.due(), [1, 2]);
        bench.schedule.identity_connected(THEM);
        bench.failed(1, DialFailure::Duplicate(THEM));
        bench.failed(2, DialFailure::Duplicate(THEM));
        assert_eq!(bench.wait(), None);
        bench.now += 1_000 * SECOND;
        assert_eq!(bench.due(), []);
        bench.gone();
        let wait = bench.wait().unwrap();
        assert!(wait > Duration::ZERO && wait <= Duration::from_millis(500));
        bench.now += Duration::from_millis(500);
        assert_eq!(bench.due(), [1, 2]);
        assert_eq!(bench.schedule.entries[&1].failures, 0, "being a duplicate is no failure");
    }

    #[test]
    fn a_duplicate_of_a_link_nobody_knows_of_backs_off() {
        let mut bench = Bench::new(&[1]);
        for failures in 1..10 {
            assert_eq!(bench.next(), [1]);
            bench.failed(1, DialFailure::Duplicate(THEM));
            assert_eq!(bench.schedule.entries[&1].failures, failures);
        }
    }

    #[test]
    fn a_link_that_lost_against_another_waits_for_the_identity_without_a_failure() {
        let mut bench = Bench::new(&[1]);
        assert_eq!(bench.due(), [1]);
        bench.connected(1);
        bench.schedule.identity_connected(THEM);
        bench.ended(1);
        assert_eq!((bench.wait(), bench.schedule.entries[&1].failures), (None, 0));
        bench.gone();
        assert_eq!(bench.next(), [1]);
    }

    #[test]
    fn an_address_is_not_dialled_while_its_identity_is_connected_otherwise() {
        let mut bench = Bench::new(&[1]);
        assert_eq!(bench.due(), [1]);
        bench.connected(1);
        bench.now += STABLE_AFTER;
        bench.ended(1);
        bench.schedule.identity_connected(THEM);
        bench.now += 60 * SECOND;
        assert_eq!((bench.due(), bench.wait()), (vec![], None));
        bench.gone();
        assert_eq!(bench.due(), [], "not at the very moment at which the peer may dial too");
        assert_eq!(bench.next(), [1]);
    }

    #[test]
    fn the_end_of_an_identity_does_not_shorten_what_the_peer_asked_for() {
        let mut bench = Bench::new(&[1]);
        assert_eq!(bench.due(), [1]);
        bench.connected(1);
        bench.failed(1, DialFailure::RetryAfter(60 * SECOND));
        bench.schedule.identity_connected(THEM);
        bench.gone();
        assert_eq!(bench.wait(), Some(60 * SECOND));
    }

    #[test]
    fn the_oldest_learnt_address_makes_room_and_configured_ones_stay() {
        let mut bench = Bench::new(&[0]);
        let max = u32::try_from(MAX_ADDRESSES).unwrap();
        for learnt in 1..max {
            assert_eq!(bench.schedule.add(learnt, AddressKind::Learnt), Added::New);
        }
        assert_eq!(bench.schedule.add(1, AddressKind::Learnt), Added::Known);
        assert_eq!(bench.schedule.add(max, AddressKind::Learnt), Added::Evicted(2));
        assert_eq!(bench.schedule.add(max + 1, AddressKind::Configured), Added::Evicted(3));
        assert_eq!(bench.schedule.len(), MAX_ADDRESSES);
    }

    #[test]
    fn an_address_in_use_makes_room_for_a_configured_one_only() {
        let everything = NonZeroUsize::MIN.saturating_add(MAX_ADDRESSES);
        let limits = DialLimits { concurrent: everything, ..DialLimits::default() };
        let mut bench = Bench::with(limits, &[]);
        let max = u32::try_from(MAX_ADDRESSES).unwrap();
        for learnt in 0..max {
            assert_eq!(bench.schedule.add(learnt, AddressKind::Learnt), Added::New);
        }
        assert_eq!(bench.due().len(), MAX_ADDRESSES);
        assert_eq!(bench.schedule.add(max, AddressKind::Learnt), Added::Full);
        assert_eq!(bench.schedule.add(max, AddressKind::Configured), Added::Evicted(0));
        assert_eq!(bench.schedule.dialling(), MAX_ADDRESSES - 1);
        bench.connected(0); // forgotten, so nothing happens
        assert_eq!(bench.schedule.outgoing(), 0);
    }

    #[test]
    fn a_learnt_address_that_becomes_configured_is_not_evicted() {
        let mut bench = Bench::new(&[]);
        let max = u32::try_from(MAX_ADDRESSES).unwrap();
        assert_eq!(bench.schedule.add(0, AddressKind::Learnt), Added::New);
        assert_eq!(bench.schedule.add(0, AddressKind::Configured), Added::Known);
        for other in 1..max {
            assert_eq!(bench.schedule.add(other, AddressKind::Configured), Added::New);
        }
        assert_eq!(bench.schedule.add(max, AddressKind::Configured), Added::Full);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Due,
        Connected(u32),
        Ended(u32),
        Failed(u32, DialFailure),
        Identity(Identity),
        Gone(Identity),
        Remove(u32),
        Add(u32),
        Pass(Duration),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let address = 0_u32..12;
        let identity = (0_u8..3).prop_map(|name| Identity([name; 32]));
        let why = prop_oneof![
            Just(DialFailure::Unreachable),
            Just(DialFailure::Refused),
            any::<Duration>().prop_map(DialFailure::RetryAfter),
            Just(DialFailure::Ourselves),
            identity.clone().prop_map(DialFailure::Duplicate),
        ];
        let step = prop_oneof![
            3 => Just(Step::Due),
            1 => address.clone().prop_map(Step::Connected),
            1 => address.clone().prop_map(Step::Ended),
            2 => (address.clone(), why).prop_map(|(address, why)| Step::Failed(address, why)),
            1 => identity.clone().prop_map(Step::Identity),
            1 => identity.prop_map(Step::Gone),
            1 => address.clone().prop_map(Step::Remove),
            2 => address.prop_map(Step::Add),
            2 => (0_u64..100_000).prop_map(|ms| Step::Pass(Duration::from_millis(ms))),
        ];
        proptest::collection::vec(step, 0..120)
    }

    proptest! {
        #[test]
        fn whatever_happens_the_bounds_hold_and_every_address_has_a_future(steps in steps()) {
            let concurrent = NonZeroUsize::MIN.saturating_add(2);
            let limits = DialLimits { concurrent, target: Some(5), ..DialLimits::default() };
            let mut bench = Bench::with(limits, &[]);
            for step in steps {
                match step {
                    Step::Due => {
                        let before = bench.schedule.next_wake(bench.now);
                        let due = bench.due();
                        prop_assert_eq!(before == Some(bench.now), !due.is_empty());
                        for address in due {
                            let entry = &bench.schedule.entries[&address];
                            let connected = |who| bench.schedule.identities.contains(&who);
                            prop_assert!(!entry.identity.is_some_and(connected));
                        }
                    }
                    Step::Connected(address) => {
                        let dials = |entry: &Entry| entry.state == State::Dialling;
                        if bench.schedule.entries.get(&address).is_some_and(dials) {
                            bench.connected(address);
                        }
                    }
                    Step::Ended(address) => bench.ended(address),
                    Step::Failed(address, why) => bench.failed(address, why),
                    Step::Identity(identity) => bench.schedule.identity_connected(identity),
                    Step::Gone(who) => {
                        bench.schedule.identity_gone(&who, bench.now, &mut bench.rng);
                    }
                    Step::Remove(address) => bench.schedule.remove(&address),
                    Step::Add(address) => {
                        bench.schedule.add(address, AddressKind::Learnt);
                    }
                    Step::Pass(time) => bench.now += time,
                }
                let schedule = &bench.schedule;
                let states = || schedule.entries.values().map(|entry| entry.state);
                let dialling = states().filter(|state| *state == State::Dialling).count();
                let outgoing =
                    states().filter(|state| matches!(state, State::Connected { .. })).count();
                prop_assert_eq!((schedule.dialling(), schedule.outgoing()), (dialling, outgoing));
                prop_assert!(dialling <= 3 && dialling + outgoing <= 5);
                for entry in schedule.entries.values() {
                    match entry.state {
                        State::Idle(Some(at)) => prop_assert!(at <= bench.now + MAX_DELAY),
                        State::Waiting => {
                            let who = entry.identity.expect("waits for somebody");
                            prop_assert!(schedule.identities.contains(&who));
                        }
                        State::Idle(None) | State::Dialling | State::Connected { .. } => {}
                    }
                }
            }
        }
    }
}
