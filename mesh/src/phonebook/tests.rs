//! The promises of the phonebook.

use rand::{SeedableRng, rngs::StdRng};

use super::*;

mod model;

const SECOND: Duration = Duration::from_secs(1);
const WALL: SystemTime = SystemTime::UNIX_EPOCH;

struct Bench {
    book: Phonebook,
    now: Instant,
}

impl Bench {
    fn seeded(seed: u64) -> Self {
        let now = Instant::now();
        let mut rng = StdRng::seed_from_u64(seed);
        let wall = WALL + 100 * LONGEST_ABSENCE;
        Self { book: Phonebook::new(now, wall, &mut rng), now }
    }

    fn new() -> Self {
        Self::seeded(1)
    }

    fn add(&mut self, text: &str, source: &SourceId) -> Added {
        self.book.add(Listed::new(address(text), [Role::relay()]), source, self.now)
    }

    fn replace(&mut self, source: &SourceId, texts: &[&str]) -> Replaced {
        let listed = texts.iter().map(|text| Listed::new(address(text), [Role::relay()]));
        self.book.replace(source, listed, self.now)
    }

    fn listed(&self) -> Vec<String> {
        let records = self.book.records(self.now);
        records.iter().map(|record| record.address.to_string()).collect()
    }

    fn record(&self, text: &str) -> Record {
        let records = self.book.records(self.now);
        let found = records.into_iter().find(|record| record.address == address(text));
        found.unwrap_or_else(|| panic!("{text} is not listed"))
    }
}

fn fail_three_times(bench: &mut Bench, text: &str) {
    for _ in 0..3 {
        bench.book.failed(&address(text));
    }
}

fn address(text: &str) -> NodeAddress {
    text.parse().unwrap()
}

fn dns() -> SourceId {
    SourceId::named(SourceKind::Dns, "example.org")
}

fn peer(name: usize) -> SourceId {
    SourceId::named(SourceKind::Peer, &format!("peer{name}"))
}

fn one(kind: SourceKind) -> SourceId {
    SourceId::of(kind)
}

// Source: wire facts 10.1, ReplacePeerList.
#[test]
fn the_answer_of_a_source_replaces_its_last_one_and_nothing_of_others() {
    let mut bench = Bench::new();
    bench.add("kept:1", &one(SourceKind::Configuration));
    bench.replace(&dns(), &["kept:1", "both:1", "gone:1"]);
    bench.replace(&peer(1), &["both:1", "other:1"]);
    let replaced = bench.replace(&dns(), &["new:1"]);
    assert_eq!((replaced.added, replaced.unlisted, replaced.refused), (1, 3, 0));
    assert_eq!(bench.listed(), ["both:1", "kept:1", "new:1", "other:1"]);
    assert!(bench.book.is_persistent(&address("kept:1")));
    assert!(!bench.book.is_persistent(&address("new:1")));
}

#[test]
fn a_source_names_roles_anew_and_those_of_other_sources_stay() {
    let mut bench = Bench::new();
    let listed = |roles: &[&str]| {
        Listed::new(address("a:1"), roles.iter().map(|role| role.parse().unwrap()))
    };
    let now = bench.now;
    bench.book.replace(&dns(), [listed(&["relay"]), listed(&["archival"])], now);
    bench.book.replace(&peer(1), [listed(&["bridge"])], now);
    let roles = |bench: &Bench| {
        let roles = bench.book.roles(&address("a:1"));
        roles.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(roles(&bench), ["archival", "bridge", "relay"]);
    bench.book.replace(&dns(), [listed(&["archival"])], now);
    assert_eq!(roles(&bench), ["archival", "bridge"]);
}

#[test]
fn an_address_that_leaves_a_list_and_comes_back_has_its_history() {
    let mut bench = Bench::new();
    bench.replace(&dns(), &["a:1"]);
    for failures in 0..5 {
        assert_eq!(bench.book.failed(&address("a:1")), failures);
    }
    bench.replace(&dns(), &[]);
    assert_eq!((bench.listed(), bench.book.len()), (vec![], 0));
    bench.now += HISTORY - SECOND;
    bench.replace(&dns(), &["a:1"]);
    assert_eq!(bench.record("a:1").failures, 5);
    bench.replace(&dns(), &[]);
    bench.now += HISTORY;
    bench.replace(&dns(), &["a:1"]);
    assert_eq!(bench.record("a:1").failures, 0);
}

#[test]
fn an_address_that_worked_stays_when_nobody_lists_it_until_it_was_away_for_a_month() {
    let mut bench = Bench::new();
    bench.replace(&dns(), &["a:1", "b:1"]);
    bench.book.linked(&address("a:1"), None, bench.now);
    bench.book.release(&address("a:1"), None, bench.now);
    bench.book.works(&address("a:1"));
    bench.replace(&dns(), &[]);
    assert_eq!(bench.listed(), ["a:1"]);
    let record = bench.record("a:1");
    assert_eq!(record.listings[0].0, one(SourceKind::Store));
    assert!(record.listings[0].1.contains(&Role::relay()));
    bench.now += LONGEST_ABSENCE;
    bench.replace(&dns(), &["b:1"]);
    assert_eq!(bench.listed(), ["b:1"]);
}

#[test]
fn an_address_is_sampled_by_its_role_unless_it_is_to_be_left_alone() {
    let mut bench = Bench::new();
    bench.replace(&dns(), &["a:1", "b:1", "c:1"]);
    bench.book.add(Listed::new(address("d:1"), [Role::archival()]), &dns(), bench.now);
    let later = bench.now + SECOND;
    bench.book.release(&address("b:1"), Some(later), bench.now);
    let mut rng = StdRng::seed_from_u64(1);
    let mut sample = |role: &Role, count, now| {
        let found = bench.book.sample(role, count, now, &mut rng);
        let mut texts = found.iter().map(ToString::to_string).collect::<Vec<_>>();
        texts.sort();
        texts
    };
    assert_eq!(sample(&Role::relay(), 9, bench.now), ["a:1", "c:1"]);
    assert_eq!(sample(&Role::relay(), 9, later), ["a:1", "b:1", "c:1"]);
    assert_eq!(sample(&Role::relay(), 2, later).len(), 2);
    assert_eq!(sample(&Role::archival(), 9, later), ["d:1"]);
}

#[test]
fn persistent_addresses_are_bounded_and_stay() {
    let mut bench = Bench::new();
    let configuration = one(SourceKind::Configuration);
    for n in 0..MAX_PERSISTENT {
        assert_eq!(bench.add(&format!("c{n}:1"), &configuration), Added::New);
    }
    assert_eq!(bench.add("more:1", &configuration), Added::Full);
    bench.add("learnt:1", &dns());
    assert_eq!(bench.add("learnt:1", &configuration), Added::Full);
    assert!(bench.book.contains(&address("learnt:1")), "it stays as an address of DNS");
    for source in 0..300 {
        for n in 0..50 {
            bench.add(&format!("p{source}-{n}.example:1"), &peer(source));
        }
    }
    let is_kept = |n| bench.book.is_persistent(&address(&format!("c{n}:1")));
    assert!((0..MAX_PERSISTENT).all(is_kept));
    assert!(bench.book.len() <= MAX_ADDRESSES);
}

#[test]
fn a_source_lists_a_sixteenth_of_all_and_takes_no_place_of_others() {
    let mut bench = Bench::new();
    let honest: Vec<String> = (0..30).map(|n| format!("10.{n}.0.1:1")).collect();
    for (source, text) in honest.iter().enumerate() {
        assert_eq!(bench.add(text, &peer(source)), Added::New);
    }
    let flood: Vec<String> =
        (0..50_000).map(|n| format!("10.{}.{}.2:1", n / 250, n % 250)).collect();
    for text in &flood {
        bench.add(text, &peer(1_000));
    }
    let listed = bench.listed();
    assert!(honest.iter().all(|text| listed.contains(text)));
    assert!(listed.len() - honest.len() <= MAX_ADDRESSES / 16, "{}", listed.len());
}

#[test]
fn an_address_that_failed_three_times_gives_way_and_others_do_not() {
    let mut bench = Bench::new();
    let mut full = Vec::new();
    let mut n = 0;
    let refused = loop {
        let text = format!("10.{}.{}.1:1", n / 250, n % 250);
        n += 1;
        if bench.add(&text, &peer(1)) == Added::Full {
            break text;
        }
        full.push(text);
    };
    assert_eq!(bench.add(&refused, &peer(1)), Added::Full);
    for text in &full {
        fail_three_times(&mut bench, text);
    }
    assert!(matches!(bench.add(&refused, &peer(1)), Added::Evicted(_)));
    // An operator's own sources go before what anybody may say.
    let mut bench = Bench::new();
    for source in 0..1_000 {
        bench.add(&format!("10.{}.{}.1:1", source / 250, source % 250), &peer(source));
        bench.add(&format!("11.{}.{}.1:1", source / 250, source % 250), &peer(source));
        bench.add(&format!("12.{}.{}.1:1", source / 250, source % 250), &peer(source));
    }
    let names: Vec<String> = (0..100).map(|n| format!("r{n}.example{n}.org:1")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let replaced = bench.replace(&dns(), &names);
    assert_eq!((replaced.added, replaced.refused), (100, 0));
}

#[test]
fn an_address_in_use_stays_whatever_comes() {
    let mut bench = Bench::new();
    bench.add("10.0.0.1:1", &peer(1));
    bench.book.hold(&address("10.0.0.1:1"), bench.now, &RateWindow::default());
    fail_three_times(&mut bench, "10.0.0.1:1");
    for source in 0..600 {
        for n in 0..20 {
            bench.add(&format!("11.{}.{}.{n}:1", source / 250, source % 250), &peer(source));
        }
    }
    bench.replace(&peer(1), &[]);
    bench.now += 2 * HISTORY;
    bench.add("12.0.0.1:1", &peer(1));
    assert!(bench.book.entries.contains_key(&address("10.0.0.1:1")));
    bench.book.release(&address("10.0.0.1:1"), None, bench.now);
    bench.replace(&peer(2), &[]);
    assert!(!bench.book.entries.contains_key(&address("10.0.0.1:1")));
}

// Source: threats and goals, row 23.
#[test]
fn an_address_that_worked_gives_way_only_after_it_was_dialled_in_vain() {
    let mut bench = Bench::new();
    let texts: Vec<String> = (0..2_000).map(|n| format!("h{n}.one.example:1")).collect();
    for (source, text) in texts.iter().enumerate() {
        bench.add(text, &peer(source));
        bench.book.linked(&address(text), None, bench.now);
        bench.book.release(&address(text), None, bench.now);
        bench.book.works(&address(text));
        bench.now += Duration::from_millis(1);
    }
    let tried = |bench: &Bench| {
        let is_tried = |entry: &&Entry| matches!(entry.place, Place::Tried(_));
        bench.book.entries.values().filter(is_tried).count()
    };
    let reach = usize::try_from(REACH_OF_NETWORK).unwrap() * TRIED_BUCKET;
    assert!((reach / 2..=reach).contains(&tried(&bench)), "one domain has few places of those");
    let trials: Vec<NodeAddress> = bench
        .book
        .entries
        .iter()
        .filter(|(_, entry)| entry.turn == Turn::OnTrial)
        .map(|(address, _)| address.clone())
        .collect();
    assert!(!trials.is_empty());
    let before = tried(&bench);
    bench.book.works(&trials[0]);
    assert!(matches!(bench.book.entries[&trials[0]].place, Place::Tried(_)), "it stood the trial");
    bench.book.failed(&trials[1]);
    assert_eq!(tried(&bench), before - 1);
}

// Source: threats and goals, row 25.
#[test]
fn the_local_network_has_eight_places_and_none_among_those_that_worked() {
    let mut bench = Bench::new();
    for n in 0..10_000 {
        let added =
            bench.add(&format!("/ip4/10.0.{}.{}/tcp/1", n / 250, n % 250), &one(SourceKind::Local));
        assert_eq!(added == Added::New, n < MAX_LOCAL);
    }
    for entry in bench.book.entries.keys().cloned().collect::<Vec<_>>() {
        bench.book.works(&entry);
    }
    assert!(bench.book.entries.values().all(|entry| matches!(entry.place, Place::New(_))));
    let records = bench.book.records(bench.now);
    assert_eq!(records.len(), MAX_LOCAL, "an operator sees them");
    assert!(!records.iter().any(Record::is_kept), "nothing of it is stored");
    let forged = address("/ip4/10.0.0.0/tcp/1");
    let now = bench.now;
    bench.book.unlist(&forged, &one(SourceKind::Local), now);
    assert!(!bench.book.contains(&forged));
}

#[test]
fn records_restore_the_listings_and_the_history() {
    let mut bench = Bench::new();
    bench.replace(&dns(), &["a:1", "b:1"]);
    bench.add("c:1", &one(SourceKind::Configuration));
    bench.add("o:1", &one(SourceKind::Operator));
    let identity = Identity::from_ed25519([7; 32]);
    bench.book.linked(&address("a:1"), Some(identity), bench.now);
    bench.book.release(&address("a:1"), None, bench.now);
    bench.book.works(&address("a:1"));
    bench.book.failed(&address("b:1"));
    bench.book.release(&address("b:1"), Some(bench.now + 60 * SECOND), bench.now);
    bench.book.observed(&address("b:1"), SECOND);
    let records = bench.book.records(bench.now);

    let mut again = Bench::seeded(2);
    again.now += 20 * SECOND;
    again.add("b:1", &one(SourceKind::Configuration));
    assert_eq!(again.book.restore(records, again.now), 4);
    let (a, b) = (again.record("a:1"), again.record("b:1"));
    assert_eq!((a.worked, a.identity, a.failures), (true, Some(identity), 0));
    assert_eq!((b.failures, b.rtt), (1, Some(SECOND)));
    let wall = WALL + 100 * LONGEST_ABSENCE;
    assert_eq!(b.retry_at, Some(wall + 60 * SECOND));
    let sources =
        |record: Record| record.listings.into_iter().map(|(source, _)| source).collect::<Vec<_>>();
    assert_eq!(sources(b), [one(SourceKind::Configuration), dns()]);
    assert_eq!(sources(again.record("c:1")), [one(SourceKind::Store)]);
    assert_eq!(sources(again.record("o:1")), [one(SourceKind::Operator)]);
    assert!(
        !again.book.is_persistent(&address("c:1")) && again.book.is_persistent(&address("o:1"))
    );
}

#[test]
fn records_that_lie_are_not_believed_beyond_their_bounds() {
    let mut bench = Bench::new();
    let far = WALL + 1_000 * LONGEST_ABSENCE;
    let forged = |n: usize| Record {
        listings: vec![(dns(), RoleSet::new()); 100],
        failures: u32::MAX,
        last_seen: Some(far),
        retry_at: Some(far),
        rtt: Some(Duration::MAX),
        ..Record::new(address(&format!("10.{}.{}.1:1", n / 250, n % 250)))
    };
    let restored = bench.book.restore((0..20_000).map(forged), bench.now);
    assert!(restored > 200 && restored <= MAX_ADDRESSES / 4, "{restored}");
    let records = bench.book.records(bench.now);
    assert_eq!(records.len(), restored);
    let record = &records[0];
    assert_eq!(bench.book.failed(&record.address), u32::MAX);
    let wall = WALL + 100 * LONGEST_ABSENCE;
    assert_eq!((record.last_seen, record.retry_at), (Some(wall), Some(wall + MAX_DELAY)));
    assert_eq!((record.rtt, record.listings.len()), (Some(MAX_RTT), 1));
    // An address that nobody lists and that never worked is not worth a place.
    assert_eq!(bench.book.restore([Record::new(address("x:1"))], bench.now), 0);
}

// Source: threats and goals, row 23: anchors.
#[test]
fn an_address_is_an_anchor_if_it_was_linked_when_the_records_were_made() {
    let mut bench = Bench::new();
    bench.replace(&dns(), &["a:1", "b:1"]);
    bench.book.linked(&address("a:1"), None, bench.now);
    bench.book.hold(&address("b:1"), bench.now, &RateWindow::default());
    assert!(bench.record("a:1").anchor && !bench.record("b:1").anchor);
    bench.now += SECOND;
    bench.book.release(&address("a:1"), None, bench.now);
    assert_eq!(bench.record("a:1").last_seen, Some(WALL + 100 * LONGEST_ABSENCE + SECOND));
    assert!(!bench.record("a:1").anchor);
}

// Source: threats and goals, row 23.
#[test]
fn two_hundred_honest_addresses_are_not_crowded_out_by_a_thousand_poisoned_sources() {
    for sources in [10, 100, 1_000] {
        for seed in 0..2 {
            let mut bench = Bench::seeded(seed);
            let honest: Vec<String> = (0..200).map(|n| format!("h.honest{n}.e{n}:1")).collect();
            let honest: Vec<&str> = honest.iter().map(String::as_str).collect();
            // Half are listed before the attack, and half in the middle of it.
            bench.replace(&dns(), &honest[..100]);
            bench.book.works(&address(honest[0]));
            for source in 0..sources {
                for n in 0..(20_000 / sources).min(200) {
                    bench.add(&format!("h.evil{source}-{n}.e{n}:1"), &peer(source));
                }
                if source == sources / 2 {
                    bench.replace(&dns(), &honest);
                }
            }
            let kept = honest.iter().filter(|text| bench.book.contains(&address(text))).count();
            assert!(kept >= 190, "{kept} of 200 are left after {sources} sources, seed {seed}");
            let evil = bench.book.len() - kept;
            assert!(evil <= sources * MAX_ADDRESSES / 16, "{evil} of {sources} sources");
        }
    }
}
