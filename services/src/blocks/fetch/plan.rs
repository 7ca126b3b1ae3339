//! The order in which rounds are asked of sources: a pure state machine that takes `now`.
//!
//! ```text
//!   add ─▶ ready ─▶ next ─▶ (asked) ─┬─ got ─▶ done
//!            ▲                       ├─ lacks: another source; all lack it: once more later, then a gap
//!            └─── later ◀────────────┴─ failed, busy: another source, or this one after a pause
//! ```
//!
//! # Invariants
//!
//! * A round is asked of one source at a time, and of a source at most [`TRIES`] times.
//! * A source that fails is put aside, longer each time; after [`STRIKES`] failures in a row it is out. Requests
//!   that were under way together fail once.
//! * Every round that was added ends as got or as a gap.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    FetchLimits, Gap, Why,
    source::{Failure, Source},
};

/// Most times that a source is asked for one round, and failures in a row that put it out. Chosen: 5, which
/// with the pauses between gives a source 7.5 s to come back.
const TRIES: u8 = 5;
const STRIKES: u32 = 5;

/// Rounds that no source has, none coming between, which end a fetch. Chosen: a wide gap in a history,
/// and few needless requests at its end.
const MAX_LACKED: u32 = 64;

/// Most times in a row that a source may be busy. Chosen: 10, half a minute with the pause of existing nodes.
const MAX_BUSY: u32 = 10;

/// The first pause of a source that fails; doubled each time. Chosen: a second lost connection shows by then.
const PAUSE: Duration = Duration::from_millis(500);

/// Pause of a source that is busy and does not say for how long. Source: wire facts 9.4, `Retry-After: 3`.
const BUSY_PAUSE: Duration = Duration::from_secs(3);

/// Longest pause that a source may ask for. Chosen: longer would be as good as no source.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// A request to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) round: u64,
    /// Index of the source.
    pub(super) source: usize,
    /// Number of the stretch between two pauses of the source in which it was made.
    stretch: u32,
}

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Make this request.
    Ask(Ask),
    /// Nothing until then, unless an answer comes first.
    Wait(Instant),
    /// Nothing until an answer comes.
    Listen,
    /// Every round that was added has ended.
    Done,
}

pub(super) struct Plan {
    sources: Vec<Standing>,
    ready: BTreeSet<u64>,
    /// Rounds that every source lacked once, and when to look again.
    later: BTreeSet<(Instant, u64)>,
    /// Rounds that were asked for in vain, and what is known of them.
    tried: HashMap<u64, Tried>,
    in_flight: usize,
    gaps: Vec<Gap>,
    /// Number of rounds in the gaps.
    missing: u64,
    /// Rounds that no source had, since one gave a block.
    lacked: u32,
    limits: FetchLimits,
}

/// A source as the plan sees it.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) source: Source,
    pub(super) blocks: u64,
    pub(super) failures: u64,
    pub(super) last: Option<Failure>,
    in_flight: usize,
    strikes: u32,
    busy: u32,
    stretch: u32,
    aside_until: Option<Instant>,
    out: bool,
    /// The newest round it claimed to have, as long as it gave no newer one.
    claim: Option<u64>,
}

#[derive(Debug)]
struct Tried {
    /// Number of times that each source was asked, [`TRIES`] when it need not be asked any more.
    times: Vec<u8>,
    /// Every source lacked it once already.
    again: bool,
    latest: Option<u64>,
    last: Option<Failure>,
}

impl Plan {
    pub(super) fn new(sources: Vec<Source>, limits: FetchLimits) -> Self {
        let standing = |source| Standing {
            source,
            blocks: 0,
            failures: 0,
            last: None,
            in_flight: 0,
            strikes: 0,
            busy: 0,
            stretch: 0,
            aside_until: None,
            out: false,
            claim: None,
        };
        Self {
            sources: sources.into_iter().map(standing).collect(),
            ready: BTreeSet::new(),
            later: BTreeSet::new(),
            tried: HashMap::new(),
            in_flight: 0,
            gaps: Vec::new(),
            missing: 0,
            lacked: 0,
            limits,
        }
    }

    /// Adds rounds to be fetched.
    pub(super) fn add(&mut self, rounds: impl IntoIterator<Item = u64>) {
        self.ready.extend(rounds);
    }

    /// Number of rounds that wait to be asked for.
    pub(super) fn waiting(&self) -> usize {
        self.ready.len() + self.later.len()
    }

    /// Number of rounds that are being asked for.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Why there is no sense in asking for rounds from `next` on, if so.
    pub(super) fn end(&self, next: u64) -> Option<Why> {
        let mut open = self.sources.iter().filter(|source| !source.out).peekable();
        if open.peek().is_none() {
            return Some(Why::NoSource);
        }
        if self.lacked == 0 {
            return None;
        }
        let latest = self.sources.iter().filter_map(|source| source.claim).max();
        let behind = open.all(|source| source.claim.is_some_and(|claim| claim < next));
        (behind || self.lacked >= MAX_LACKED).then_some(Why::Unavailable { latest })
    }

    pub(super) fn source(&self, ask: Ask) -> Option<Source> {
        self.sources.get(ask.source).map(|standing| standing.source.clone())
    }

    pub(super) fn into_parts(self) -> (Vec<Standing>, Vec<Gap>) {
        (self.sources, self.gaps)
    }

    /// Number of rounds that were given up.
    pub(super) fn missing(&self) -> u64 {
        self.missing
    }

    /// Says what to do, and notes that it is done.
    pub(super) fn next(&mut self, now: Instant) -> Step {
        while let Some(&(at, round)) = self.later.first().filter(|(at, _)| *at <= now) {
            self.later.remove(&(at, round));
            self.ready.insert(round);
        }
        let mut ended = Vec::new();
        let mut chosen = None;
        if self.in_flight < self.limits.parallel.get() {
            for &round in &self.ready {
                match self.choose(round, now) {
                    Choice::Ask(source) => {
                        chosen = Some((round, source));
                        break;
                    }
                    // Only some sources are left for a round that was tried; another may do.
                    Choice::Wait if self.tried.contains_key(&round) => {}
                    Choice::Wait => break,
                    Choice::Nobody => ended.push(round),
                }
            }
        }
        for round in ended {
            self.ready.remove(&round);
            self.give_up(round);
        }
        if let Some((round, index)) = chosen
            && let Some(source) = self.sources.get_mut(index)
        {
            self.ready.remove(&round);
            source.in_flight += 1;
            self.in_flight += 1;
            return Step::Ask(Ask { round, source: index, stretch: source.stretch });
        }
        if self.in_flight == 0 && self.ready.is_empty() && self.later.is_empty() {
            return Step::Done;
        }
        let asides = self.sources.iter().filter(|source| !source.out);
        let asides = asides.filter_map(|source| source.aside_until.filter(|&until| until > now));
        let wake = asides.chain(self.later.first().map(|&(at, _)| at)).min();
        wake.map_or(Step::Listen, Step::Wait)
    }

    /// The source for a round: the one with the least to do.
    fn choose(&self, round: u64, now: Instant) -> Choice {
        let tried = self.tried.get(&round);
        let (mut choice, mut least) = (Choice::Nobody, usize::MAX);
        for (index, source) in self.sources.iter().enumerate() {
            let times = tried.and_then(|tried| tried.times.get(index)).copied().unwrap_or(0);
            if source.out || times >= TRIES {
                continue;
            }
            let aside = source.aside_until.is_some_and(|until| now < until);
            if aside || source.in_flight >= self.limits.per_source.get() {
                if matches!(choice, Choice::Nobody) {
                    choice = Choice::Wait;
                }
            } else if source.in_flight < least {
                (choice, least) = (Choice::Ask(index), source.in_flight);
            }
        }
        choice
    }

    /// The source gave the block.
    pub(super) fn got(&mut self, ask: Ask) {
        self.tried.remove(&ask.round);
        if let Some(source) = self.ended(ask) {
            source.blocks += 1;
            (source.strikes, source.busy) = (0, 0);
            source.claim = source.claim.filter(|&claim| claim >= ask.round);
        }
        self.lacked = 0;
    }

    /// The source does not have the block.
    pub(super) fn lacks(&mut self, ask: Ask, latest: Option<u64>, now: Instant) {
        if let Some(source) = self.ended(ask) {
            (source.strikes, source.busy) = (0, 0);
            source.claim = latest;
        }
        let out: Vec<bool> = self.sources.iter().map(|source| source.out).collect();
        let tried = self.tried(ask.round);
        tried.latest = tried.latest.max(latest);
        if let Some(times) = tried.times.get_mut(ask.source) {
            *times = TRIES;
        }
        let left = tried.times.iter().zip(&out).any(|(&times, out)| !out && times < TRIES);
        if left || tried.again || tried.last.is_some() {
            self.ready.insert(ask.round);
            return;
        }
        // A relay may have found nobody to ask just now, and a block may just be made.
        tried.again = true;
        tried.times.fill(0);
        self.later.insert((now + self.limits.second_look, ask.round));
    }

    /// The source failed.
    pub(super) fn failed(&mut self, ask: Ask, failure: Failure, now: Instant) {
        let tried = self.tried(ask.round);
        tried.last = Some(failure.clone());
        if let Some(times) = tried.times.get_mut(ask.source) {
            *times = times.saturating_add(1);
        }
        self.ready.insert(ask.round);
        if let Some(source) = self.ended(ask) {
            source.failures += 1;
            source.last = Some(failure);
            if source.stretch == ask.stretch {
                let pause = PAUSE.saturating_mul(1 << source.strikes.min(10));
                source.strikes += 1;
                source.out |= source.strikes >= STRIKES;
                source.pause(pause, now);
            }
        }
    }

    /// The source has no time.
    pub(super) fn busy(&mut self, ask: Ask, after: Option<Duration>, now: Instant) {
        self.ready.insert(ask.round);
        if let Some(source) = self.ended(ask)
            && source.stretch == ask.stretch
        {
            source.busy += 1;
            if source.busy >= MAX_BUSY {
                source.out = true;
                source.last = Some(Failure::Busy);
            }
            // A second at least, so that nobody can make us ask without pause.
            source.pause(after.unwrap_or(BUSY_PAUSE).max(Duration::from_secs(1)), now);
        }
    }

    fn ended(&mut self, ask: Ask) -> Option<&mut Standing> {
        self.in_flight = self.in_flight.saturating_sub(1);
        let source = self.sources.get_mut(ask.source)?;
        source.in_flight = source.in_flight.saturating_sub(1);
        Some(source)
    }

    fn tried(&mut self, round: u64) -> &mut Tried {
        let sources = self.sources.len();
        let untried = || Tried { times: vec![0; sources], again: false, latest: None, last: None };
        self.tried.entry(round).or_insert_with(untried)
    }

    /// Makes a gap of a round.
    fn give_up(&mut self, round: u64) {
        let tried = self.tried.remove(&round);
        let why = match tried {
            Some(Tried { last: Some(last), .. }) => Why::Failed { last },
            Some(Tried { latest, .. }) => {
                self.lacked = self.lacked.saturating_add(1);
                Why::Unavailable { latest }
            }
            None => Why::NoSource,
        };
        self.gap(round, round, why);
    }

    /// Notes rounds that were not got.
    pub(super) fn gap(&mut self, first: u64, last: u64, why: Why) {
        self.missing = self.missing.saturating_add((last - first).saturating_add(1));
        match self.gaps.last_mut() {
            Some(gap) if gap.last.checked_add(1) == Some(first) && gap.why.is_like(&why) => {
                gap.last = last;
            }
            _ => self.gaps.push(Gap { first, last, why }),
        }
    }
}

enum Choice {
    Ask(usize),
    /// The sources that may have it have no time.
    Wait,
    /// No source is left that may have it.
    Nobody,
}

impl Standing {
    fn pause(&mut self, pause: Duration, now: Instant) {
        self.stretch = self.stretch.wrapping_add(1);
        self.aside_until = Some(now + pause.min(MAX_PAUSE));
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, num::NonZeroUsize};

    use gossip::{NetworkId, http::HttpClient};
    use proptest::prelude::*;

    use super::*;

    /// Sources that nobody asks.
    fn plan(sources: usize, parallel: usize) -> Plan {
        let client = HttpClient::new(tower::service_fn(|_| std::future::pending()));
        let genesis = NetworkId::new("test-v1").unwrap();
        let source = Source::http("a", client, genesis);
        let parallel = NonZeroUsize::new(parallel).unwrap();
        Plan::new(vec![source; sources], FetchLimits { parallel, ..FetchLimits::default() })
    }

    #[track_caller]
    fn asked(plan: &mut Plan, now: Instant) -> Ask {
        match plan.next(now) {
            Step::Ask(ask) => ask,
            other => panic!("nothing is asked: {other:?}"),
        }
    }

    fn failure() -> Failure {
        Failure::TimedOut { within: Duration::ZERO }
    }

    #[test]
    fn requests_that_were_under_way_together_fail_once() {
        let (mut plan, now) = (plan(1, 16), Instant::now());
        plan.add(0..16);
        let asks: Vec<_> = (0..16).map(|_| asked(&mut plan, now)).collect();
        assert_eq!(plan.next(now), Step::Listen);
        for ask in asks {
            plan.failed(ask, failure(), now);
        }
        assert_eq!(plan.next(now), Step::Wait(now + PAUSE));
        assert_eq!(asked(&mut plan, now + PAUSE).round, 0);
    }

    #[test]
    fn a_round_that_waits_for_one_source_does_not_hold_up_the_others() {
        let (mut plan, now) = (plan(2, 2), Instant::now());
        plan.add([1]);
        let first = asked(&mut plan, now);
        plan.failed(first, failure(), now);
        let second = asked(&mut plan, now);
        assert_eq!((second.round, second.source == first.source), (1, false));
        plan.lacks(second, Some(0), now);
        plan.add([2]);
        let next = asked(&mut plan, now);
        assert_eq!((next.round, next.source), (2, second.source));
        assert_eq!(plan.next(now), Step::Wait(now + PAUSE));
    }

    #[test]
    fn a_claim_that_was_wrong_does_not_end_a_fetch() {
        let (mut plan, now) = (plan(1, 1), Instant::now());
        plan.add([1, 2]);
        for at in [now, now + Duration::from_secs(2)] {
            let ask = asked(&mut plan, at);
            plan.lacks(ask, Some(0), at);
            if at == now {
                let ask = asked(&mut plan, at);
                assert_eq!(ask.round, 2);
                plan.failed(ask, failure(), at);
            }
        }
        let later = now + Duration::from_secs(2);
        let ask = asked(&mut plan, later);
        assert!(matches!(plan.end(3), Some(Why::Unavailable { latest: Some(0) })));
        plan.got(ask);
        assert!(plan.end(3).is_none(), "it gave a newer block than it claimed to have");
    }

    proptest! {
        /// Every round ends once, as fetched or as a gap, and the plan ends, whatever the sources answer.
        #[test]
        fn every_round_ends(
            outcomes in prop::collection::vec(0..8_u8, 1..200),
            sources in 1..4_usize,
            parallel in 1..6_usize,
        ) {
            let (mut plan, mut now) = (plan(sources, parallel), Instant::now());
            let mut ended: BTreeMap<u64, u32> = BTreeMap::new();
            let mut running: Vec<Ask> = Vec::new();
            let mut outcomes = outcomes.into_iter().cycle();
            plan.add(0..40);
            let mut steps = 0;
            loop {
                steps += 1;
                prop_assert!(steps < 100_000, "no end");
                match plan.next(now) {
                    Step::Ask(ask) => {
                        prop_assert!(running.iter().all(|other| other.round != ask.round));
                        running.push(ask);
                        prop_assert!(running.len() <= parallel);
                        continue;
                    }
                    Step::Done => break,
                    Step::Wait(until) if running.is_empty() => {
                        prop_assert!(until > now);
                        now = until;
                        continue;
                    }
                    Step::Listen => prop_assert!(!running.is_empty(), "waits for nothing"),
                    Step::Wait(_) => {}
                }
                let outcome = outcomes.next().unwrap();
                let ask = running.swap_remove(usize::from(outcome) % running.len());
                match outcome {
                    0..4 => {
                        *ended.entry(ask.round).or_default() += 1;
                        plan.got(ask);
                    }
                    4 => plan.lacks(ask, Some(7), now),
                    5 => plan.lacks(ask, None, now),
                    6 => plan.busy(ask, None, now),
                    _ => plan.failed(ask, failure(), now),
                }
                now += Duration::from_millis(u64::from(outcome) * 10);
            }
            for gap in plan.into_parts().1 {
                for round in gap.first..=gap.last {
                    *ended.entry(round).or_default() += 1;
                }
            }
            prop_assert!((0..40).all(|round| ended.get(&round) == Some(&1)), "{ended:?}");
        }
    }
}
