//! The promises of the dial schedule.

use std::num::NonZeroUsize;

mod feelers;
mod storm;

use gossip::DisconnectReason;
use proptest::prelude::*;
use rand::{SeedableRng, rngs::StdRng};

use super::{
    super::{Added, Listed, RoleSet, SourceId, SourceKind},
    room::{PATIENCE, PATIENCE_ALONE},
    *,
};

const THEM: Identity = Identity::from_ed25519([7; 32]);
const SECOND: Duration = Duration::from_secs(1);

/// A schedule, its randomness, and its clock. Addresses are numbers.
struct Bench {
    schedule: DialSchedule,
    rng: StdRng,
    now: Instant,
}

/// The address of a number; each is in a part of the network of its own.
fn address(number: u32) -> NodeAddress {
    format!("h.e{number}.example{number}:1").parse().unwrap()
}

fn number(address: &NodeAddress) -> u32 {
    let text = address.to_string();
    text.trim_end_matches(":1").rsplit_once("example").unwrap().1.parse().unwrap()
}

impl Bench {
    fn with(limits: MeshLimits, configured: &[u32]) -> Self {
        let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        let mut schedule = DialSchedule::new(limits, now, SystemTime::UNIX_EPOCH, &mut rng);
        schedule.carry(Transport::WebSocket);
        schedule.carry(Transport::Libp2p);
        let mut bench = Self { schedule, rng, now };
        for number in configured {
            assert_eq!(bench.configure(*number), Added::New);
        }
        bench
    }

    fn new(configured: &[u32]) -> Self {
        Self::with(MeshLimits::default(), configured)
    }

    fn list(&mut self, address: NodeAddress, kind: SourceKind) -> Added {
        let listed = Listed::new(address, []);
        self.schedule.book_mut().add(listed, &SourceId::of(kind), self.now)
    }

    fn configure(&mut self, number: u32) -> Added {
        self.list(address(number), SourceKind::Configuration)
    }

    fn learn(&mut self, number: u32) -> Added {
        self.list(address(number), SourceKind::Dns)
    }

    fn due(&mut self) -> Vec<u32> {
        let due = self.schedule.due(self.now, &mut self.rng);
        let mut due: Vec<u32> = due.iter().map(number).collect();
        due.sort_unstable();
        due
    }

    fn failed(&mut self, number: u32, why: DialFailure) {
        self.schedule.failed(&address(number), why, self.now, &mut self.rng);
    }

    fn connected(&mut self, number: u32) {
        self.schedule.connected(&address(number), Some(THEM), self.now);
    }

    fn ended(&mut self, number: u32) {
        self.schedule.ended(&address(number), self.now, &mut self.rng);
    }

    fn gone(&mut self) {
        self.schedule.identity_gone(&THEM, Transport::WebSocket, self.now, &mut self.rng);
    }

    fn failures(&self, number: u32) -> u32 {
        self.schedule.book.entries[&address(number)].failures
    }

    /// The time until something is due.
    fn wait(&mut self) -> Option<Duration> {
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
    let limits = MeshLimits { concurrent: NonZeroUsize::MIN, ..MeshLimits::default() };
    let mut bench = Bench::with(limits, &[]);
    for learnt in 1..20 {
        assert_eq!(bench.learn(learnt), Added::New);
    }
    assert_eq!(bench.configure(20), Added::New);
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
    let limits = MeshLimits { most, ..MeshLimits::default() };
    let mut bench = Bench::with(limits, &(0..100).collect::<Vec<_>>());
    let first = bench.due();
    assert_eq!(first.len(), 8);
    assert_eq!((bench.next().len(), bench.schedule.dialling()), (8, 16));
    assert_eq!((bench.next().len(), bench.schedule.dialling()), (4, 20));
    assert_eq!(bench.wait(), None);
    // With a link there is less of a hurry, and six of the first and two of the second have to be given time.
    bench.connected(first[0]);
    bench.failed(first[1], DialFailure::Unreachable);
    assert_eq!(bench.wait(), Some(PATIENCE - PATIENCE_ALONE));
}

#[test]
fn learnt_addresses_are_dialled_up_to_the_fan_out_and_again_when_a_link_ends() {
    let limits = MeshLimits::default().with_fan_out(2).with_feeler_every(None);
    let mut bench = Bench::with(limits, &[]);
    for number in [1, 2, 3] {
        assert_eq!(bench.learn(number), Added::New);
    }
    let first = bench.due();
    assert_eq!(first.len(), 2);
    first.iter().for_each(|number| bench.connected(*number));
    assert_eq!((bench.due(), bench.wait()), (vec![], None));
    bench.ended(first[0]);
    assert!(bench.wait().is_some());
}

#[test]
fn addresses_that_an_operator_named_are_all_dialled_and_count_in_the_fan_out() {
    let mut bench = Bench::with(MeshLimits::default().with_fan_out(2), &[1, 2, 3]);
    bench.learn(4);
    assert_eq!(bench.due(), [1, 2, 3]);
    bench.connected(1);
    bench.failed(2, DialFailure::Unreachable);
    bench.failed(3, DialFailure::RetryAfter(60 * SECOND));
    // One link, no young dial: the learnt one and the second one compete, and there is room for both.
    bench.now += SECOND;
    assert_eq!(bench.due(), [2, 4]);
    bench.connected(2);
    bench.failed(4, DialFailure::Unreachable);
    bench.now += SECOND;
    assert_eq!(bench.due(), [], "two links are the fan-out");
    bench.now += 60 * SECOND;
    assert_eq!(bench.due(), [3], "an operator's own is dialled all the same");
}

// Source: wire facts 13: a hybrid has one total.
#[test]
fn the_transports_share_one_fan_out_and_may_have_a_bound_each() {
    let multiaddr = |n: u8| {
        let id = Identity::from_ed25519([n; 32]);
        format!("/ip4/10.{n}.0.1/tcp/1/p2p/{id}").parse::<NodeAddress>().unwrap()
    };
    let started = |limits: MeshLimits| {
        let mut bench = Bench::with(limits, &[]);
        for n in 1..=9 {
            bench.learn(u32::from(n));
            bench.list(multiaddr(n), SourceKind::Dns);
        }
        let due = bench.schedule.due(bench.now, &mut bench.rng);
        let ws = due.iter().filter(|at| transport_of(at) == Transport::WebSocket).count();
        (ws, due.len() - ws)
    };
    let (ws, p2p) = started(MeshLimits::default());
    assert_eq!(ws + p2p, 4);
    let limits = MeshLimits::default().with_fan_out_libp2p(Some(1)).with_fan_out_websocket(Some(2));
    assert_eq!(started(limits), (2, 1));
    assert_eq!(started(MeshLimits::default().with_fan_out_websocket(Some(0))), (0, 4));
}

// Issue 10, 2: records that lead to the local network were dialled like all others.
#[test]
fn a_learnt_address_that_is_not_public_is_dialled_unless_public_ones_alone_are_asked_for() {
    for (hosts, dialled) in [(LearntHosts::Any, 3), (LearntHosts::Public, 2)] {
        let mut bench = Bench::with(MeshLimits::default().with_learnt_hosts(hosts), &[]);
        let at = |text: &str| text.parse::<NodeAddress>().unwrap();
        bench.list(at("10.0.0.1:4160"), SourceKind::Dns);
        bench.list(at("10.0.0.2:4160"), SourceKind::Configuration);
        bench.list(at("192.168.0.1:4160"), SourceKind::Local);
        let due = bench.schedule.due(bench.now, &mut bench.rng);
        assert_eq!(due.len(), dialled, "{hosts:?}: {due:?}");
        assert_eq!(bench.schedule.hosts(&at("10.0.0.1:4160")), hosts);
        assert_eq!(bench.schedule.hosts(&at("10.0.0.2:4160")), LearntHosts::Any);
    }
}

#[test]
fn an_address_without_a_dialer_waits_for_one() {
    let mut bench = Bench::new(&[1]);
    bench.schedule.cease(Transport::WebSocket);
    assert_eq!((bench.due(), bench.wait()), (vec![], None));
    bench.schedule.carry(Transport::WebSocket);
    assert_eq!(bench.due(), [1]);
}

#[test]
fn a_learnt_address_that_is_listed_for_other_roles_only_is_not_dialled() {
    let mut bench = Bench::new(&[]);
    let now = bench.now;
    for (number, role) in [(1, Role::archival()), (2, Role::relay())] {
        let listed = Listed { address: address(number), roles: RoleSet::from_iter([role]) };
        bench.schedule.book_mut().add(listed, &SourceId::of(SourceKind::Dns), now);
    }
    assert_eq!(bench.due(), [2]);
}

// Source: wire facts 10.2.
#[test]
fn an_address_is_dialled_so_often_in_a_window_and_no_more() {
    let limits = MeshLimits::default().with_base(Duration::from_millis(1));
    let mut bench = Bench::with(limits.with_cap(Duration::from_millis(1)), &[1]);
    let began = bench.now;
    for _ in 0..60 {
        assert_eq!(bench.next(), [1]);
        bench.failed(1, DialFailure::Unreachable);
    }
    assert!(bench.now < began + SECOND);
    assert_eq!(bench.next(), [1]);
    assert_eq!(bench.now, began + SECOND);
}

// Issue 10, 4: the node dialled an equivocator 45 times in 10 s.
#[test]
fn a_peer_that_misbehaved_is_not_dialled_until_its_ban_ends() {
    for identity in [Some(THEM), None] {
        let mut bench = Bench::new(&[1]);
        assert_eq!(bench.due(), [1]);
        bench.schedule.connected(&address(1), identity, bench.now);
        bench.now += STABLE_AFTER;
        let reason = DisconnectReason::Application("equivocated");
        bench.schedule.parted(identity, Some(&address(1)), reason, bench.now);
        bench.ended(1);
        assert_eq!(bench.wait(), Some(Duration::from_secs(600)));
        let bans = bench.schedule.bans().bans(bench.now);
        assert_eq!(bans[0].reason, "application (equivocated)");
        let subject = bans[0].subject.clone();
        assert!(bench.schedule.bans_mut().unban(&subject, bench.now));
        assert!(bench.wait().unwrap() <= SECOND);
    }
}

#[test]
fn an_address_that_names_a_banned_identity_was_never_dialled() {
    let mut bench = Bench::new(&[]);
    let at: NodeAddress = format!("/ip4/10.0.0.1/tcp/1/p2p/{THEM}").parse().unwrap();
    bench.list(at.clone(), SourceKind::Configuration);
    bench.schedule.parted(Some(THEM), None, DisconnectReason::Flood, bench.now);
    assert_eq!(bench.schedule.due(bench.now, &mut bench.rng), []);
    bench.now += Duration::from_secs(30);
    assert_eq!(bench.schedule.due(bench.now, &mut bench.rng), [at]);
}

#[test]
fn a_reason_that_is_no_misbehaviour_bans_nobody() {
    use DisconnectReason as Reason;
    let mut bench = Bench::new(&[1]);
    for reason in [Reason::Requested, Reason::RemoteClosed, Reason::Slow, Reason::Duplicate] {
        bench.schedule.parted(Some(THEM), None, reason, bench.now);
    }
    assert_eq!(bench.schedule.bans().bans(bench.now), []);
}

// Found by the test of a hundred pairs: libp2p is preferred, so that link has to be tried for.
#[test]
fn a_libp2p_address_is_dialled_beside_a_link_over_websocket_and_not_the_other_way_round() {
    let at: NodeAddress = format!("/ip4/10.0.0.1/tcp/1/p2p/{THEM}").parse().unwrap();
    for (linked, due) in [(Transport::WebSocket, true), (Transport::Libp2p, false)] {
        let mut bench = Bench::new(&[1]);
        bench.list(at.clone(), SourceKind::Configuration);
        assert_eq!(bench.schedule.due(bench.now, &mut bench.rng).len(), 2);
        for address in [address(1), at.clone()] {
            bench.schedule.connected(&address, Some(THEM), bench.now);
        }
        bench.now += STABLE_AFTER;
        bench.schedule.identity_connected(THEM, linked);
        for address in [address(1), at.clone()] {
            bench.schedule.ended(&address, bench.now, &mut bench.rng);
        }
        bench.now += SECOND;
        let expected = if due { vec![at.clone()] } else { vec![] };
        assert_eq!(bench.schedule.due(bench.now, &mut bench.rng), expected);
    }
}

// Source: threats and goals, row 23: anchors are dialled first after a restart.
#[test]
fn the_addresses_that_were_linked_at_the_stop_are_dialled_first_after_a_restart() {
    let mut bench = Bench::with(MeshLimits::default().with_fan_out(2), &[]);
    (1..=30).for_each(|number| drop(bench.learn(number)));
    let first = bench.due();
    first.iter().for_each(|number| bench.connected(*number));
    let records = bench.schedule.book().records(bench.now);
    for seed in 0..20 {
        let mut again = Bench::with(MeshLimits::default().with_fan_out(2), &[]);
        again.rng = StdRng::seed_from_u64(seed);
        assert_eq!(again.schedule.book_mut().restore(records.clone(), again.now), 30);
        assert_eq!(again.due(), first);
    }
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
        assert_eq!(bench.failures(1), waits);
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
    assert_eq!(bench.failures(1), 1);
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
    bench.schedule.identity_connected(THEM, Transport::WebSocket);
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
    assert_eq!(bench.failures(1), 0, "being a duplicate is no failure");
}

#[test]
fn a_duplicate_of_a_link_nobody_knows_of_backs_off() {
    let mut bench = Bench::new(&[1]);
    for failures in 1..10 {
        assert_eq!(bench.next(), [1]);
        bench.failed(1, DialFailure::Duplicate(THEM));
        assert_eq!(bench.failures(1), failures);
    }
}

#[test]
fn a_link_that_lost_against_another_waits_for_the_identity() {
    let mut bench = Bench::new(&[1]);
    assert_eq!(bench.due(), [1]);
    bench.connected(1);
    bench.schedule.identity_connected(THEM, Transport::WebSocket);
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
            bench.schedule.identity_connected(THEM, Transport::WebSocket);
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
    bench.schedule.identity_connected(THEM, Transport::WebSocket);
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
    bench.schedule.identity_connected(THEM, Transport::WebSocket);
    bench.gone();
    assert_eq!(bench.wait(), Some(60 * SECOND));
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
    Ban(u32, Duration),
    Unban(u32),
    Restore,
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
        1 => (address.clone(), 1_u64..600).prop_map(|(at, s)| Step::Ban(at, Duration::from_secs(s))),
        1 => address.clone().prop_map(Step::Unban),
        1 => Just(Step::Restore),
        2 => address.prop_map(Step::Add),
        2 => (0_u64..100_000).prop_map(|ms| Step::Pass(Duration::from_millis(ms))),
    ];
    proptest::collection::vec(step, 0..120)
}

/// The time of the next wake by a look at every address.
fn plain_next_wake(schedule: &DialSchedule, now: Instant) -> Option<Instant> {
    let census = schedule.census(now);
    let wakes = schedule.book.entries.iter().filter_map(|(address, entry)| {
        let wake = schedule.wake(address, entry, now)?;
        let has_place = schedule.has_place(entry.is_familiar(), census.dialling);
        has_place.then_some(wake.max(schedule.opens(class_of(address, entry), &census, now)?))
    });
    wakes.min()
}

proptest! {
    #[test]
    fn bounds_hold_and_every_address_has_a_future_after_any_steps(steps in steps()) {
        let concurrent = NonZeroUsize::MIN.saturating_add(2);
        let most = concurrent.saturating_add(3);
        let limits = MeshLimits { concurrent, most, fan_out: 5, feeler_every: None, ..MeshLimits::default() };
        let mut bench = Bench::with(limits, &[]);
        for step in steps {
            match step {
                Step::Due => {
                    let before = bench.schedule.next_wake(bench.now);
                    let due = bench.due();
                    prop_assert_eq!(before == Some(bench.now), !due.is_empty());
                    for number in due {
                        let entry = &bench.schedule.book.entries[&address(number)];
                        let connected = |who| bench.schedule.identities.contains_key(&who);
                        prop_assert!(!entry.identity.is_some_and(connected));
                    }
                }
                Step::Connected(number) => {
                    let dials = |entry: &Entry| matches!(entry.hold, Hold::Dialled { .. });
                    if bench.schedule.book.entries.get(&address(number)).is_some_and(dials) {
                        bench.connected(number);
                    }
                }
                Step::Ended(number) => bench.ended(number),
                Step::Failed(number, why) => bench.failed(number, why),
                Step::Identity(identity) => bench.schedule.identity_connected(identity, Transport::WebSocket),
                Step::Gone(who) => {
                    bench.schedule.identity_gone(&who, Transport::WebSocket, bench.now, &mut bench.rng);
                }
                Step::Remove(number) => {
                    bench.schedule.book_mut().remove(&address(number));
                }
                Step::Add(number) if number % 2 == 0 => {
                    bench.configure(number);
                }
                Step::Add(number) => {
                    bench.learn(number);
                }
                Step::Ban(number, time) => {
                    let subject = BanSubject::Address(address(number));
                    let why = (BanCause::Misbehaviour, "it did");
                    bench.schedule.bans.ban(subject, time, why, bench.now).unwrap();
                }
                Step::Unban(number) => {
                    let subject = BanSubject::Address(address(number));
                    // Some steps take back a ban that nobody made.
                    let _ = bench.schedule.bans_mut().unban(&subject, bench.now);
                }
                Step::Restore => {
                    let records = bench.schedule.book().records(bench.now);
                    bench.schedule.book_mut().restore(records, bench.now);
                }
                Step::Pass(time) => bench.now += time,
            }
            let schedule = &mut bench.schedule;
            prop_assert_eq!(schedule.next_wake(bench.now), plain_next_wake(schedule, bench.now));
            let census = schedule.census(bench.now);
            prop_assert_eq!((census.dialling, census.links()), (schedule.dialling(), schedule.outgoing()));
            prop_assert!(census.young.len() <= 3 && census.dialling <= 6 + 3);
            for entry in schedule.book.entries.values() {
                prop_assert!(entry.retry_at.is_none_or(|at| at <= bench.now + MAX_DELAY));
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
    fn new(dead: u32, kind: SourceKind, seed: u64) -> Self {
        let mut bench = Bench::new(&[]);
        for number in (0..dead).chain([LIVE]) {
            assert_eq!(bench.list(address(number), kind), Added::New);
        }
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
    for (kind, limit) in [(SourceKind::Configuration, 4 * SECOND), (SourceKind::Dns, 7 * SECOND)] {
        for seed in 0..30 {
            let mut crowd = Crowd::new(100, kind, seed);
            let took = crowd.until_reached();
            assert!(took <= limit, "first link after {took:?}, seed {seed}, {kind:?}");
        }
    }
}

// Issue 8, 13.
#[test]
fn an_address_that_worked_is_dialled_first_however_many_others_are_due() {
    for (dead, seeds) in [(100, 20), (500, 4)] {
        for seed in 0..seeds {
            let mut crowd = Crowd::new(dead, SourceKind::Configuration, seed);
            crowd.until_reached();
            crowd.pass(60 * SECOND);
            crowd.bench.ended(LIVE);
            let took = crowd.until_reached();
            assert!(took <= SECOND, "again after {took:?}, seed {seed}, {dead} dead ones");
        }
    }
}

// Source: wire facts 11.3 and 11.4: a new one is connected in its place.
#[test]
fn a_peer_that_was_replaced_leaves_its_place_to_another_one_unless_an_operator_named_it() {
    for identity in [Some(THEM), None] {
        for reason in [DisconnectReason::LeastPerforming, DisconnectReason::CliqueResolving] {
            let mut bench = Bench::with(MeshLimits::default().with_fan_out(1), &[]);
            bench.learn(1);
            assert_eq!(bench.due(), [1]);
            bench.schedule.connected(&address(1), identity, bench.now);
            bench.learn(2);
            bench.now += STABLE_AFTER;
            bench.schedule.parted(identity, Some(&address(1)), reason, bench.now);
            bench.ended(1);
            bench.now += SECOND;
            assert_eq!(bench.due(), [2]);
            bench.failed(2, DialFailure::Ourselves);
            bench.now += Duration::from_secs(299);
            assert_eq!(bench.due(), [1]);
        }
    }
    let mut bench = Bench::new(&[1]);
    assert_eq!(bench.due(), [1]);
    bench.connected(1);
    bench.now += STABLE_AFTER;
    bench.schedule.parted(Some(THEM), None, DisconnectReason::CliqueResolving, bench.now);
    bench.ended(1);
    bench.now += SECOND;
    assert_eq!(bench.due(), [1]);
}
