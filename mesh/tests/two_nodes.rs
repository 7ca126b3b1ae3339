//! Two nodes that meet over every combination of transport and direction, in every order.
//!
//! ```text
//!   node 0 ── Ledger ──┐  wire per link and direction, first in first out  ┌── Ledger ── node 1
//!                      └── Hello, Answer, Proof, Data.., HalfClose ────────┘
//! ```
//!
//! A schedule picks, again and again, one of the events that can happen: a delivery, a verification,
//! a dial, a message, a death. Delays are therefore whatever the schedule makes them.

use std::collections::{BTreeMap, VecDeque};

use gossip::{ClaimRule, Identity, LinkId, LinkPath, Transport};
use proptest::prelude::*;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tandem_mesh::{Closer, Ledger, LinkClaim, Ruling};

/// Schedules run per test of a whole configuration.
const SCHEDULES: u64 = 4_000;
/// Events after which a schedule that has not settled is called endless.
const MAX_EVENTS: usize = 5_000;

/// The node that closes the loser.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Conduct {
    /// As `Ledger::closer` says.
    Patient,
    /// The one that learns of it first.
    Hasty,
}

/// When the ends of a link verify it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Verification {
    /// As every handshake of the two transports does.
    DialerFirst,
    /// Independently of each other.
    Either,
}

#[derive(Clone, Debug)]
struct Setup {
    rule: ClaimRule,
    conduct: Conduct,
    verification: Verification,
    dials: Vec<(usize, Transport)>,
    messages: usize,
    deaths: usize,
    restarts: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Wire {
    Hello,
    Answer,
    Proof,
    Data(u32),
    HalfClose,
    Reset,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Deliver { link: usize, to: usize },
    Verify { link: usize, at: usize },
    Transmit { link: usize, from: usize },
    Say(usize),
    ScriptedDial(usize),
    Redial(usize),
    Die(usize),
    Restart(usize),
    PatienceEnds { link: usize, at: usize },
}

struct Link {
    dialer: usize,
    transport: Transport,
    tie: [u8; 32],
    session: u64,
    is_session_known: bool,
    /// Messages on their way to each node.
    wires: [VecDeque<Wire>; 2],
    is_reset: bool,
}

/// One node's end of a link, while it is open there.
struct End {
    peer: LinkId,
    is_verified: bool,
    /// Lost, and left to the peer to close.
    is_benched: bool,
    has_sent_close: bool,
    queue: VecDeque<u32>,
}

struct Node {
    identity: Identity,
    session: u64,
    ledger: Ledger,
    ends: BTreeMap<usize, End>,
    heard: BTreeMap<u32, usize>,
    to_say: usize,
}

struct World {
    setup: Setup,
    nodes: [Node; 2],
    links: Vec<Link>,
    scripted: Vec<(usize, Transport)>,
    next_peer: u64,
    said: u32,
    deaths: usize,
    restarts: usize,
    trace: Vec<String>,
}

impl World {
    fn new(setup: Setup) -> Self {
        let node = |name: u8| Node {
            identity: Identity::from_ed25519([name; 32]),
            session: 2,
            ledger: Ledger::new(setup.rule),
            ends: BTreeMap::new(),
            heard: BTreeMap::new(),
            to_say: setup.messages,
        };
        Self {
            nodes: [node(1), node(2)],
            links: Vec::new(),
            scripted: setup.dials.clone(),
            next_peer: 0,
            said: 0,
            deaths: setup.deaths,
            restarts: setup.restarts,
            trace: Vec::new(),
            setup,
        }
    }

    fn has_no_failures(&self) -> bool {
        self.setup.deaths == 0 && self.setup.restarts == 0
    }

    /// The link by which `at` reaches the other node, by the number both share.
    fn held(&self, at: usize) -> Option<usize> {
        let node = &self.nodes[at];
        let peer = node.ledger.holder(&self.nodes[1 - at].identity)?;
        let (link, _) = node.ends.iter().find(|(_, end)| end.peer == peer).expect("held and gone");
        Some(*link)
    }

    fn enabled(&self) -> Vec<Event> {
        let mut events = Vec::new();
        for (number, link) in self.links.iter().enumerate() {
            let to = (0..2).filter(|to| !link.wires[*to].is_empty());
            events.extend(to.map(|to| Event::Deliver { link: number, to }));
        }
        for (at, node) in self.nodes.iter().enumerate() {
            for (&link, end) in &node.ends {
                if !end.queue.is_empty() && !end.has_sent_close {
                    events.push(Event::Transmit { link, from: at });
                }
                let may_verify = self.setup.verification == Verification::Either
                    && !end.is_verified
                    && self.is_answered(link);
                if may_verify {
                    events.push(Event::Verify { link, at });
                }
            }
            if node.to_say > 0 && self.held(at).is_some() {
                events.push(Event::Say(at));
            }
            let is_alone =
                self.held(at).is_none() && node.ends.values().all(|end| end.has_sent_close);
            if is_alone {
                events.push(Event::Redial(at));
            }
        }
        events.extend((0..self.scripted.len()).map(Event::ScriptedDial));
        if self.deaths > 0 {
            let alive = self.links.iter().enumerate().filter(|(_, link)| !link.is_reset);
            events.extend(alive.map(|(number, _)| Event::Die(number)));
        }
        if self.restarts > 0 {
            events.extend((0..2).map(Event::Restart));
        }
        if events.is_empty() {
            for (at, node) in self.nodes.iter().enumerate() {
                let benched = node.ends.iter().filter(|(_, e)| e.is_benched && !e.has_sent_close);
                events.extend(benched.map(|(&link, _)| Event::PatienceEnds { link, at }));
            }
        }
        events
    }

    /// True once the dialer has the listener's answer; before that nobody can verify anything.
    fn is_answered(&self, link: usize) -> bool {
        let dialer = self.links[link].dialer;
        let is_on_its_way = self.links[link].wires[dialer].contains(&Wire::Answer);
        self.nodes[1 - dialer].ends.contains_key(&link) && !is_on_its_way
    }

    fn run(&mut self, pick: &mut dyn FnMut(usize) -> usize) {
        for _ in 0..MAX_EVENTS {
            let events = self.enabled();
            if events.is_empty() {
                return self.assert_settled();
            }
            let event = events[pick(events.len())];
            self.trace.push(format!("{event:?}"));
            let held_before = [self.held(0), self.held(1)];
            self.apply(event, pick);
            let never_alone = self.setup.conduct == Conduct::Patient && self.has_no_failures();
            for (at, before) in held_before.into_iter().enumerate() {
                let lost = before.is_some() && self.held(at).is_none();
                assert!(!(never_alone && lost), "node {at} had a link and has none: {self}");
            }
        }
        panic!("does not settle: {self}");
    }

    fn apply(&mut self, event: Event, pick: &mut dyn FnMut(usize) -> usize) {
        match event {
            Event::Deliver { link, to } => self.deliver(link, to),
            Event::Verify { link, at } => self.verify(link, at),
            Event::Transmit { link, from } => {
                let message = self.end(link, from).queue.pop_front().expect("enabled");
                self.links[link].wires[1 - from].push_back(Wire::Data(message));
            }
            Event::Say(at) => {
                let (link, message) = (self.held(at).expect("enabled"), self.said);
                self.said += 1;
                self.nodes[at].to_say -= 1;
                self.end(link, at).queue.push_back(message);
            }
            Event::ScriptedDial(number) => {
                let (from, transport) = self.scripted.swap_remove(number);
                self.dial(from, transport, pick);
            }
            Event::Redial(from) => {
                let transport = [Transport::WebSocket, Transport::Libp2p][pick(2)];
                self.dial(from, transport, pick);
            }
            Event::Die(link) => {
                self.deaths -= 1;
                for to in 0..2 {
                    self.cut(link, to, pick);
                }
            }
            Event::Restart(at) => self.restart(at, pick),
            Event::PatienceEnds { link, at } => self.close(link, at),
        }
    }

    fn dial(&mut self, from: usize, transport: Transport, pick: &mut dyn FnMut(usize) -> usize) {
        let number = self.links.len();
        let mut tie = [0; 32];
        tie[0] = u8::try_from(pick(256)).expect("a byte");
        tie[1..9].copy_from_slice(&number.to_be_bytes());
        let mut wires = [VecDeque::new(), VecDeque::new()];
        wires[1 - from].push_back(Wire::Hello);
        self.links.push(Link {
            dialer: from,
            transport,
            tie,
            session: self.nodes[from].session,
            is_session_known: pick(2) == 0,
            wires,
            is_reset: false,
        });
        self.open(number, from);
    }

    fn open(&mut self, link: usize, at: usize) {
        let end = End {
            peer: LinkId(self.next_peer),
            is_verified: false,
            is_benched: false,
            has_sent_close: false,
            queue: VecDeque::new(),
        };
        self.next_peer += 1;
        self.nodes[at].ends.insert(link, end);
    }

    /// Breaks one direction of a link: some of what is on its way still arrives, then a reset.
    fn cut(&mut self, link: usize, to: usize, pick: &mut dyn FnMut(usize) -> usize) {
        let link = &mut self.links[link];
        link.is_reset = true;
        let wire = &mut link.wires[to];
        wire.truncate(pick(wire.len() + 1));
        wire.push_back(Wire::Reset);
    }

    /// The process dies and starts again at once. Its links stay at the other end until it notices.
    fn restart(&mut self, at: usize, pick: &mut dyn FnMut(usize) -> usize) {
        self.restarts -= 1;
        for link in 0..self.links.len() {
            self.links[link].is_reset = true;
            self.links[link].wires[at].clear();
            if self.nodes[1 - at].ends.contains_key(&link) {
                self.cut(link, 1 - at, pick);
            } else {
                self.links[link].wires[1 - at].clear(); // never accepted
            }
        }
        let node = &mut self.nodes[at];
        // Like a random name: the second run's is smaller than the first's, the third's is greater.
        node.session = [3, 1, 2][usize::try_from(node.session).expect("small") - 1];
        node.ledger = Ledger::new(self.setup.rule);
        node.ends.clear();
    }

    fn end(&mut self, link: usize, at: usize) -> &mut End {
        self.nodes[at].ends.get_mut(&link).expect("an open end")
    }

    fn deliver(&mut self, link: usize, to: usize) {
        let wire = self.links[link].wires[to].pop_front().expect("enabled");
        if wire == Wire::Hello {
            self.open(link, to);
            self.links[link].wires[1 - to].push_back(Wire::Answer);
            return;
        }
        if !self.nodes[to].ends.contains_key(&link) {
            return;
        }
        let waits_its_turn = self.setup.verification == Verification::DialerFirst;
        match wire {
            Wire::Hello => unreachable!("handled above"),
            Wire::Answer if waits_its_turn => {
                self.links[link].wires[1 - to].push_back(Wire::Proof);
                self.verify(link, to);
            }
            Wire::Proof => self.verify(link, to),
            Wire::Answer => {}
            Wire::Data(message) => *self.nodes[to].heard.entry(message).or_default() += 1,
            Wire::HalfClose => self.half_closed(link, to),
            Wire::Reset => self.gone(link, to),
        }
    }

    fn half_closed(&mut self, link: usize, at: usize) {
        let end = self.end(link, at);
        if !end.has_sent_close {
            // The other end still reads: nothing queued here needs to be lost.
            end.has_sent_close = true;
            let rest: Vec<Wire> = end.queue.drain(..).map(Wire::Data).collect();
            let wire = &mut self.links[link].wires[1 - at];
            wire.extend(rest);
            wire.push_back(Wire::HalfClose);
        }
        self.gone(link, at);
    }

    fn gone(&mut self, link: usize, at: usize) {
        let end = self.nodes[at].ends.remove(&link).expect("an open end");
        let Some(successor) = self.nodes[at].ledger.release(end.peer) else { return };
        let link = self.link_of(successor, at);
        let end = self.end(link, at);
        assert!(end.is_benched && !end.has_sent_close, "{self}");
        end.is_benched = false;
        self.close_losers(at);
    }

    fn link_of(&self, peer: LinkId, at: usize) -> usize {
        let ends = &self.nodes[at].ends;
        *ends.iter().find(|(_, end)| end.peer == peer).expect("open").0
    }

    fn verify(&mut self, link: usize, at: usize) {
        self.end(link, at).is_verified = true;
        self.claim(link, at);
        self.close_losers(at);
    }

    fn claim(&mut self, link: usize, at: usize) {
        let known = &self.links[link];
        let is_own = known.dialer == at;
        let claim = LinkClaim {
            link: self.nodes[at].ends[&link].peer,
            identity: self.nodes[1 - at].identity,
            transport: known.transport,
            path: LinkPath::Direct,
            dialer: self.nodes[known.dialer].identity,
            session: (is_own || known.is_session_known).then_some(known.session),
            run: None,
            tie: known.tie,
        };
        match self.nodes[at].ledger.claim(claim) {
            Ruling::Keep => {}
            Ruling::Replace { loser } => {
                let loser = self.link_of(loser, at);
                let queue = std::mem::take(&mut self.end(loser, at).queue);
                self.end(link, at).queue.extend(queue);
                self.end(loser, at).is_benched = true;
            }
            Ruling::Refuse { winner, .. } => {
                let held = self.held(at).map(|held| self.nodes[at].ends[&held].peer);
                assert_eq!(held, Some(winner), "{self}");
                self.end(link, at).is_benched = true;
            }
        }
    }

    fn close_losers(&mut self, at: usize) {
        let closer = self.nodes[at].ledger.closer(&self.nodes[1 - at].identity);
        if closer == Some(Closer::ThisEnd) || self.setup.conduct == Conduct::Hasty {
            let ends = self.nodes[at].ends.iter();
            let lost = ends.filter(|(_, end)| end.is_benched && !end.has_sent_close);
            for link in lost.map(|(&link, _)| link).collect::<Vec<_>>() {
                self.close(link, at);
            }
        }
    }

    /// Closes a loser, and checks that this was right.
    fn close(&mut self, link: usize, at: usize) {
        let held = self.held(at).unwrap_or_else(|| panic!("closes its last link: {self}"));
        let winner = &self.nodes[at].ends[&held];
        assert!(
            held != link && winner.is_verified && !winner.has_sent_close,
            "node {at} closes {link} for {held}, which is no better: {self}"
        );
        let (lost, kept) = (&self.links[link], &self.links[held]);
        let is_same_way = (lost.transport, lost.dialer) == (kept.transport, kept.dialer);
        let are_known = lost.is_session_known && kept.is_session_known;
        if self.setup.rule == ClaimRule::Ranked && is_same_way && are_known {
            let is_old = |link: &Link| link.session != self.nodes[link.dialer].session;
            assert!(is_old(lost) || !is_old(kept), "a dead run pushed out a living one: {self}");
        }
        if self.setup.conduct == Conduct::Patient && self.has_no_failures() {
            let theirs = self.held(1 - at);
            assert!(
                theirs.is_some() && theirs != Some(link),
                "node {at} closes {link}, by which the other end reaches it: {self}"
            );
        }
        let end = self.end(link, at);
        assert!(end.queue.is_empty(), "messages left behind");
        end.has_sent_close = true;
        // A link that is being closed takes over no more.
        let peer = end.peer;
        assert_eq!(self.nodes[at].ledger.release(peer), None);
        self.links[link].wires[1 - at].push_back(Wire::HalfClose);
    }

    fn assert_settled(&self) {
        let held = [self.held(0), self.held(1)];
        assert!(held[0].is_some() && held[0] == held[1], "not one link: {held:?} {self}");
        for node in &self.nodes {
            assert_eq!(node.ends.len(), 1, "more than the one link is open: {self}");
            assert_eq!(node.ledger.len(), 1, "{self}");
            assert!(node.heard.values().all(|times| *times == 1), "heard twice: {self}");
        }
        let heard: usize = self.nodes.iter().map(|node| node.heard.len()).sum();
        if self.has_no_failures() {
            assert_eq!(heard, self.said as usize, "a priority message was lost: {self}");
            assert_eq!(heard, 2 * self.setup.messages, "{self}");
        }
    }
}

impl std::fmt::Display for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{:?}", self.setup)?;
        for (number, link) in self.links.iter().enumerate() {
            writeln!(f, "  link {number}: {:?} dialled by {}", link.transport, link.dialer)?;
        }
        writeln!(f, "  held {:?}", [self.nodes[0].ledger.len(), self.nodes[1].ledger.len()])?;
        f.write_str(&self.trace.join("\n  "))
    }
}

/// Every combination of transport and direction.
const WAYS: [(usize, Transport); 4] = [
    (0, Transport::WebSocket),
    (1, Transport::WebSocket),
    (0, Transport::Libp2p),
    (1, Transport::Libp2p),
];

/// A fault besides the meeting itself.
#[derive(Clone, Copy, Debug)]
struct Failures {
    deaths: usize,
    restarts: usize,
}

const NONE: Failures = Failures { deaths: 0, restarts: 0 };

/// Runs many seeded schedules of one configuration to their end.
#[track_caller]
fn settles(rule: ClaimRule, conduct: Conduct, verification: Verification, failures: Failures) {
    for seed in 0..SCHEDULES {
        let mut rng = StdRng::seed_from_u64(seed);
        // Often all four ways at once, sometimes fewer, or one of them twice.
        let dials = match rng.random_range(0..3) {
            0 => WAYS.to_vec(),
            _ => (0..rng.random_range(1..6)).map(|_| WAYS[rng.random_range(0..4)]).collect(),
        };
        let Failures { deaths, restarts } = failures;
        let setup = Setup { rule, conduct, verification, dials, messages: 4, deaths, restarts };
        World::new(setup).run(&mut |bound| rng.random_range(0..bound));
    }
}

#[test]
fn patient_ends_settle_on_one_link_and_never_close_the_one_the_other_end_uses() {
    settles(ClaimRule::Ranked, Conduct::Patient, Verification::DialerFirst, NONE);
}

#[test]
fn hasty_ends_settle_on_one_link_and_lose_no_message() {
    settles(ClaimRule::Ranked, Conduct::Hasty, Verification::DialerFirst, NONE);
    settles(ClaimRule::Ranked, Conduct::Hasty, Verification::Either, NONE);
}

#[test]
fn ends_settle_on_one_link_although_links_die_at_any_point() {
    for failures in [Failures { deaths: 1, ..NONE }, Failures { deaths: 4, ..NONE }] {
        settles(ClaimRule::Ranked, Conduct::Patient, Verification::DialerFirst, failures);
        settles(ClaimRule::Ranked, Conduct::Hasty, Verification::Either, failures);
    }
}

#[test]
fn ends_settle_on_one_link_although_a_node_restarts() {
    let failures = Failures { deaths: 1, restarts: 2 };
    settles(ClaimRule::Ranked, Conduct::Patient, Verification::DialerFirst, failures);
    settles(ClaimRule::Ranked, Conduct::Hasty, Verification::Either, failures);
}

#[test]
fn first_verified_settles_on_one_link_by_redialling() {
    settles(ClaimRule::FirstVerified, Conduct::Hasty, Verification::DialerFirst, NONE);
    let failures = Failures { deaths: 2, restarts: 1 };
    settles(ClaimRule::FirstVerified, Conduct::Hasty, Verification::Either, failures);
}

fn setups() -> impl Strategy<Value = Setup> {
    let conduct = prop_oneof![
        Just((ClaimRule::Ranked, Conduct::Patient, Verification::DialerFirst)),
        Just((ClaimRule::Ranked, Conduct::Hasty, Verification::DialerFirst)),
        Just((ClaimRule::Ranked, Conduct::Hasty, Verification::Either)),
        Just((ClaimRule::FirstVerified, Conduct::Hasty, Verification::DialerFirst)),
    ];
    let dials = proptest::collection::vec(proptest::sample::select(WAYS.to_vec()), 1..6);
    let failures = prop_oneof![2 => Just((0, 0)), 1 => (0..4_usize, 0..2_usize)];
    (conduct, dials, 0..4_usize, failures).prop_map(
        |((rule, conduct, verification), dials, messages, (deaths, restarts))| Setup {
            rule,
            conduct,
            verification,
            dials,
            messages,
            deaths,
            restarts,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn any_schedule_settles_on_one_link(
        setup in setups(),
        picks in proptest::collection::vec(any::<u16>(), 0..200),
    ) {
        let mut picks = picks.into_iter();
        let mut rng = StdRng::seed_from_u64(0);
        World::new(setup).run(&mut |bound| match picks.next() {
            Some(pick) => usize::from(pick) % bound,
            None => rng.random_range(0..bound),
        });
    }
}
