//! The promises of the dial schedule.

use proptest::prelude::*;
use rand::{SeedableRng, rngs::StdRng};

use super::*;

const THEM: Identity = Identity::from_ed25519([7; 32]);
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

    /// The time until something is due.
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
    assert_eq!((first.len(), bench.due().len(), bench.wait()), (8, 0, Some(PATIENCE_ALONE)));
    bench.failed(first[0], DialFailure::Unreachable);
    bench.connected(first[1]);
    assert_eq!(bench.wait(), Some(Duration::ZERO));
    assert_eq!((bench.due().len(), bench.schedule.outgoing()), (2, 1));
}

// Issue 8, 13.
#[test]
fn a_dial_that_is_not_answered_gives_its_place_to_another_up_to_a_bound() {
    let most = NonZeroUsize::MIN.saturating_add(19);
    let limits = DialLimits { most, ..DialLimits::default() };
    let mut bench = Bench::with(limits, &(0..100).collect::<Vec<_>>());
    assert_eq!(bench.due().len(), 8);
    assert_eq!((bench.next().len(), bench.schedule.dialling()), (8, 16));
    assert_eq!((bench.next().len(), bench.schedule.dialling()), (4, 20));
    assert_eq!(bench.wait(), None);
    // With a link there is less of a hurry, and six of the first and two of the second have to be given time.
    bench.connected(0);
    bench.failed(1, DialFailure::Unreachable);
    assert_eq!(bench.wait(), Some(PATIENCE - PATIENCE_ALONE));
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
fn a_link_that_lost_against_another_waits_for_the_identity() {
    let mut bench = Bench::new(&[1]);
    assert_eq!(bench.due(), [1]);
    bench.connected(1);
    bench.schedule.identity_connected(THEM);
    bench.ended(1);
    assert_eq!(bench.wait(), None);
    bench.now += 60 * SECOND;
    assert_eq!(bench.due(), []);
    bench.gone();
    assert!(bench.wait().unwrap() <= Duration::from_millis(500));
    assert_eq!(bench.next(), [1]);
}

// Issue 8, 15: over WebSocket the identity is still registered when its link ends, so a link that was
// closed each time it came up was dialled again 34 times in 10 s.
#[test]
fn a_link_that_is_closed_each_time_it_comes_up_backs_off_whatever_the_registry_says() {
    let ends: [fn(&mut Bench); 3] = [
        |bench| bench.ended(1),
        |bench| bench.failed(1, DialFailure::Duplicate(THEM)),
        |bench| {
            bench.gone();
            bench.ended(1);
        },
    ];
    for end in ends {
        let mut bench = Bench::new(&[1]);
        let began = bench.now;
        let mut dials = 0;
        loop {
            let dialled = bench.next();
            if bench.now > began + 100 * SECOND {
                break;
            }
            assert_eq!(dialled, [1]);
            dials += 1;
            bench.connected(1);
            bench.schedule.identity_connected(THEM);
            bench.now += Duration::from_millis(10);
            end(&mut bench);
            bench.gone();
        }
        assert!(dials < 25, "{dials} dials in 100 s");
    }
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
fn an_address_in_use_is_not_evicted_while_there_is_an_idle_one() {
    let mut bench = Bench::new(&[]);
    assert_eq!(bench.schedule.add(0, AddressKind::Learnt), Added::New);
    assert_eq!(bench.due(), [0]);
    let max = u32::try_from(MAX_ADDRESSES).unwrap();
    for learnt in 1..max {
        assert_eq!(bench.schedule.add(learnt, AddressKind::Learnt), Added::New);
    }
    assert_eq!(bench.schedule.add(max, AddressKind::Configured), Added::Evicted(1));
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
    let identity = (0_u8..3).prop_map(|name| Identity::from_ed25519([name; 32]));
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
    fn bounds_hold_and_every_address_has_a_future_after_any_steps(steps in steps()) {
        let concurrent = NonZeroUsize::MIN.saturating_add(2);
        let most = concurrent.saturating_add(3);
        let limits = DialLimits { concurrent, most, target: Some(5), ..DialLimits::default() };
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
                    let dials = |entry: &Entry| matches!(entry.state, State::Dialling { .. });
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
            let dialling =
                states().filter(|state| matches!(state, State::Dialling { .. })).count();
            let outgoing =
                states().filter(|state| matches!(state, State::Connected { .. })).count();
            prop_assert_eq!((schedule.dialling(), schedule.outgoing()), (dialling, outgoing));
            prop_assert!(schedule.young(bench.now).count() <= 3 && dialling <= 6 + 3);
            for entry in schedule.entries.values() {
                match entry.state {
                    State::Idle(Some(at)) => prop_assert!(at <= bench.now + MAX_DELAY),
                    State::Waiting(_) => {
                        let who = entry.identity.expect("waits for somebody");
                        prop_assert!(schedule.identities.contains(&who));
                    }
                    State::Idle(None) | State::Dialling { .. } | State::Connected { .. } => {}
                }
            }
        }
    }
}

/// The duration of a dial that nobody answers, as over either transport.
const UNANSWERED: Duration = Duration::from_secs(10);

/// One address that answers among many that never do.
struct Crowd {
    bench: Bench,
    /// Dials under way, and when they are given up.
    under_way: Vec<(Instant, u32)>,
}

/// The address that answers.
const LIVE: u32 = 1_000;

impl Crowd {
    fn new(dead: u32, limits: DialLimits, seed: u64) -> Self {
        let mut bench = Bench::with(limits, &(0..dead).collect::<Vec<_>>());
        assert_eq!(bench.schedule.add(LIVE, AddressKind::Configured), Added::New);
        bench.rng = StdRng::seed_from_u64(seed);
        Self { bench, under_way: Vec::new() }
    }

    /// Goes on until the live address is dialled, and tells how long that took.
    fn until_reached(&mut self) -> Duration {
        let began = self.bench.now;
        loop {
            assert!(self.bench.now - began < 300 * SECOND, "not reached in five minutes");
            let due = self.bench.due();
            let given_up = self.bench.now + UNANSWERED;
            self.under_way.extend(due.iter().map(|address| (given_up, *address)));
            if due.contains(&LIVE) {
                self.under_way.retain(|(_, address)| *address != LIVE);
                self.bench.connected(LIVE);
                return self.bench.now - began;
            }
            self.go_on();
        }
    }

    /// Goes to whatever comes next: somebody is due, or a dial is given up.
    fn go_on(&mut self) {
        let wake = self.bench.schedule.next_wake(self.bench.now);
        let given_up = self.under_way.iter().map(|(at, _)| *at).min();
        let next = wake.into_iter().chain(given_up).min().expect("something comes next");
        self.bench.now = self.bench.now.max(next);
        for at in (0..self.under_way.len()).rev() {
            if self.under_way[at].0 <= self.bench.now {
                let (_, address) = self.under_way.swap_remove(at);
                self.bench.failed(address, DialFailure::Unreachable);
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.bench.now + time;
        while self.bench.now < until {
            let due = self.bench.due();
            let given_up = self.bench.now + UNANSWERED;
            self.under_way.extend(due.iter().map(|address| (given_up, *address)));
            self.go_on();
        }
    }
}

// Issue 8, 13.
#[test]
fn a_hundred_dead_addresses_do_not_hide_the_one_that_lives() {
    // Four at a time take twice as long as eight.
    for (target, limit) in [(None, 4 * SECOND), (Some(4), 7 * SECOND)] {
        for seed in 0..30 {
            let mut crowd = Crowd::new(100, DialLimits { target, ..DialLimits::default() }, seed);
            let took = crowd.until_reached();
            assert!(took <= limit, "first link after {took:?}, seed {seed}, {target:?}");
        }
    }
}

// Issue 8, 13.
#[test]
fn an_address_that_worked_is_dialled_first_however_many_others_are_due() {
    for dead in [100, 500] {
        for seed in 0..20 {
            let mut crowd = Crowd::new(dead, DialLimits::default(), seed);
            crowd.until_reached();
            crowd.pass(60 * SECOND);
            crowd.bench.ended(LIVE);
            let took = crowd.until_reached();
            assert!(took <= SECOND, "again after {took:?}, seed {seed}, {dead} dead ones");
        }
    }
}
