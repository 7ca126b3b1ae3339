//! The phonebook against a plain model of it, step by step.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Fewer than a bucket holds, so that nothing has to give way, which has tests of its own.
const ADDRESSES: usize = 24;

const DAY: Duration = Duration::from_secs(86_400);

/// One address as the model has it.
#[derive(Debug, Default)]
struct Known {
    listings: BTreeMap<SourceId, RoleSet>,
    has_worked: bool,
    is_held: bool,
    failures: u32,
    unlisted: Option<Instant>,
    seen: Option<Instant>,
}

impl Known {
    fn kind(&self) -> Option<SourceKind> {
        self.listings.keys().next().map(SourceId::kind)
    }
}

#[derive(Debug)]
struct Model {
    known: BTreeMap<NodeAddress, Known>,
    pruned: Instant,
}

impl Model {
    fn add(&mut self, at: &NodeAddress, roles: RoleSet, source: &SourceId) {
        let is_local = |known: &&Known| known.kind() == Some(SourceKind::Local);
        let local = self.known.values().filter(is_local).count();
        if !self.known.contains_key(at) && source.kind() == SourceKind::Local && local >= MAX_LOCAL
        {
            return;
        }
        let known = self.known.entry(at.clone()).or_default();
        known.listings.insert(source.clone(), roles);
        known.unlisted = None;
    }

    fn unlist(&mut self, at: &NodeAddress, source: &SourceId, now: Instant) {
        let Some(known) = self.known.get_mut(at) else { return };
        let Some(roles) = known.listings.remove(source) else { return };
        if !known.listings.is_empty() {
            return;
        }
        let is_remembered = !matches!(source.kind(), SourceKind::Local | SourceKind::Store);
        if known.has_worked && is_remembered {
            known.listings.insert(one(SourceKind::Store), roles);
        } else {
            known.unlisted = Some(now);
        }
    }

    fn prune(&mut self, now: Instant) {
        self.pruned = now;
        self.known.retain(|_, known| {
            let is_over = match known.unlisted {
                Some(since) => now - since >= HISTORY,
                None => {
                    known.kind() == Some(SourceKind::Store)
                        && known.seen.is_some_and(|seen| now - seen >= LONGEST_ABSENCE)
                }
            };
            known.is_held || !is_over
        });
    }
}

#[derive(Clone, Debug)]
enum Step {
    Add(usize, SourceId, Vec<Role>),
    Replace(SourceId, Vec<(usize, Vec<Role>)>),
    Unlist(usize, SourceId),
    Remove(usize),
    Hold(usize),
    Link(usize),
    Release(usize),
    Works(usize),
    Fails(usize),
    Pass(Duration),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let number = 0..ADDRESSES;
    let sources = vec![
        one(SourceKind::Configuration),
        one(SourceKind::Operator),
        dns(),
        one(SourceKind::Directory),
        peer(1),
        peer(2),
        one(SourceKind::Local),
    ];
    let source = proptest::sample::select(sources);
    let role = proptest::sample::select(vec![Role::relay(), Role::archival()]);
    let roles = proptest::collection::vec(role, 0..3);
    let listed = proptest::collection::vec((number.clone(), roles.clone()), 0..8);
    let step = prop_oneof![
        3 => (number.clone(), source.clone(), roles).prop_map(|(n, s, r)| Step::Add(n, s, r)),
        2 => (source.clone(), listed).prop_map(|(source, listed)| Step::Replace(source, listed)),
        2 => (number.clone(), source).prop_map(|(number, source)| Step::Unlist(number, source)),
        1 => number.clone().prop_map(Step::Remove),
        1 => number.clone().prop_map(Step::Hold),
        1 => number.clone().prop_map(Step::Link),
        2 => number.clone().prop_map(Step::Release),
        1 => number.clone().prop_map(Step::Works),
        1 => number.prop_map(Step::Fails),
        1 => (0_u64..7_200).prop_map(|seconds| Step::Pass(Duration::from_secs(seconds))),
        1 => (0_u32..40).prop_map(|days| Step::Pass(days * DAY)),
    ];
    proptest::collection::vec(step, 0..80)
}

fn at(number: usize) -> NodeAddress {
    address(&format!("h.n{number}.e{number}:1"))
}

/// Takes a step in the phonebook and in the model.
fn take(step: Step, bench: &mut Bench, model: &mut Model) {
    let now = bench.now;
    let book = &mut bench.book;
    match step {
        Step::Add(number, source, roles) => {
            if now - model.pruned >= PRUNE {
                model.prune(now);
            }
            let roles: RoleSet = roles.into_iter().collect();
            model.add(&at(number), roles.clone(), &source);
            book.add(Listed { address: at(number), roles }, &source, now);
        }
        Step::Replace(source, listed) => {
            model.prune(now);
            let mut merged: BTreeMap<NodeAddress, RoleSet> = BTreeMap::new();
            for (number, roles) in &listed {
                let known = merged.entry(at(*number)).or_default();
                roles.iter().for_each(|role| assert!(known.insert(role.clone())));
            }
            for number in (0..ADDRESSES).filter(|number| !merged.contains_key(&at(*number))) {
                model.unlist(&at(number), &source, now);
            }
            merged.into_iter().for_each(|(address, roles)| model.add(&address, roles, &source));
            let listed = listed.into_iter().map(|(number, roles)| Listed::new(at(number), roles));
            book.replace(&source, listed, now);
        }
        Step::Unlist(number, source) => {
            model.unlist(&at(number), &source, now);
            book.unlist(&at(number), &source, now);
        }
        Step::Remove(number) => {
            assert_eq!(book.remove(&at(number)), model.known.remove(&at(number)).is_some());
        }
        Step::Hold(number) => {
            book.hold(&at(number), now, &RateWindow::default());
            model.known.entry(at(number)).and_modify(|known| known.is_held = true);
        }
        Step::Link(number) => {
            book.linked(&at(number), None, now);
            model.known.entry(at(number)).and_modify(|known| {
                (known.is_held, known.seen) = (true, Some(now));
            });
        }
        Step::Release(number) => {
            let is_linked = book.entries.get(&at(number)).map(|entry| entry.hold);
            book.release(&at(number), None, now);
            model.known.entry(at(number)).and_modify(|known| {
                known.is_held = false;
                if matches!(is_linked, Some(Hold::Linked { .. })) {
                    known.seen = Some(now);
                }
            });
        }
        Step::Works(number) => {
            book.works(&at(number));
            model.known.entry(at(number)).and_modify(|known| {
                (known.has_worked, known.failures) = (true, 0);
            });
        }
        Step::Fails(number) => {
            book.failed(&at(number));
            model.known.entry(at(number)).and_modify(|known| known.failures += 1);
        }
        Step::Pass(time) => bench.now += time,
    }
}

proptest! {
    // Issue 10, 13.
    #[test]
    fn the_phonebook_knows_what_a_plain_model_of_it_knows(steps in steps()) {
        let mut bench = Bench::new();
        let mut model = Model { known: BTreeMap::new(), pruned: bench.now };
        for step in steps {
            take(step, &mut bench, &mut model);
            let book = &bench.book;
            prop_assert_eq!(book.entries.len(), model.known.len());
            for (address, known) in &model.known {
                prop_assert_eq!(book.contains(address), !known.listings.is_empty());
                let roles: RoleSet = known.listings.values().flat_map(RoleSet::iter).cloned().collect();
                prop_assert_eq!(book.roles(address), roles);
                let is_persistent = known.kind().is_some_and(SourceKind::is_persistent);
                prop_assert_eq!(book.is_persistent(address), is_persistent);
                prop_assert_eq!(book.entries[address].failures, known.failures);
            }
            let listed = model.known.iter().filter(|(_, known)| known.kind().is_some());
            let listed: Vec<(&NodeAddress, bool)> =
                listed.map(|(address, known)| (address, known.kind() != Some(SourceKind::Local))).collect();
            let records = book.records(bench.now);
            prop_assert_eq!(records.iter().map(|record| (&record.address, record.is_kept())).collect::<Vec<_>>(), listed);
            let mut population: BTreeMap<Place, usize> = BTreeMap::new();
            book.entries.values().for_each(|entry| *population.entry(entry.place).or_default() += 1);
            let counted = book.population.iter().filter(|(_, there)| !there.is_empty());
            prop_assert_eq!(counted.map(|(place, there)| (*place, there.len())).collect::<BTreeMap<_, _>>(), population);
        }
        // Stored records come back.
        let mut records = bench.book.records(bench.now);
        records.retain(Record::is_kept);
        let mut again = Bench::seeded(2);
        prop_assert_eq!(again.book.restore(records.clone(), again.now), records.len());
    }
}
