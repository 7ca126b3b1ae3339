//! The account of a demo: what was lost, what was handled twice, and what a killed node missed.
//!
//! # Invariants
//!
//! * Every message is judged once for each node but its sender, as one of: heard, missed while down,
//!   died with its sender, lost.
//! * An excuse is narrow. A node missed what was sent while it was down, and what was on its way to it
//!   when it was killed: sent less than [`FLIGHT_NS`] before and after everything else that it heard of
//!   the same source. What a killed node sent died with it only if it was sent in that time, and
//!   nobody heard it or anything after it.
//! * Twice is counted within one life: a node that was started again cannot know what it had heard.

use super::{
    body::Class,
    ledger::{Fate, Ledger, Listener, Source},
};

/// Longest time for which a message can have been in transit when its receiver was killed.
/// Chosen: far more than the latency of a node under full load.
const FLIGHT_NS: u64 = 2_000_000_000;

/// A node that was killed and started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outage {
    /// Its place.
    pub(crate) node: usize,
    /// The life that was ended.
    pub(crate) life: u8,
    /// When it was killed, in nanoseconds since 1970.
    pub(crate) killed_ns: u64,
    /// When everybody heard it again, and it everybody.
    pub(crate) back_ns: u64,
}

/// Messages of each class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally([u64; 3]);

impl Tally {
    /// Number of messages of a class.
    pub(crate) fn of(&self, class: Class) -> u64 {
        self.0.get(usize::from(class.code())).copied().unwrap_or(0)
    }

    /// Number of messages of all classes.
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    fn add(&mut self, class: Class, messages: u64) {
        if let Some(count) = self.0.get_mut(usize::from(class.code())) {
            *count += messages;
        }
    }
}

/// The fate of the messages that one node should have heard, and the number that it sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeAccount {
    pub(crate) sent: Tally,
    /// Heard, each message once.
    pub(crate) heard: Tally,
    pub(crate) lost: Tally,
    /// Handled more than once in one life, counted for each time too many.
    pub(crate) duplicated: Tally,
    pub(crate) missed_while_down: Tally,
    /// Not heard because their sender was killed before they had left it.
    pub(crate) died_with_sender: Tally,
    /// Heard again after the node had been started again.
    pub(crate) heard_again: Tally,
    /// Heard, although nobody sent them.
    pub(crate) unknown: Tally,
}

/// The account of every node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) nodes: Vec<NodeAccount>,
}

impl Account {
    /// Judges every message.
    pub(crate) fn of(ledger: &Ledger, nodes: usize, outage: Option<Outage>) -> Self {
        let mut account = Self { nodes: vec![NodeAccount::default(); nodes] };
        for (source, fates) in ledger.messages() {
            let judge = Judge::new(ledger.listeners(), *source, fates, outage);
            for (number, fate) in fates.iter().enumerate() {
                account.judge(&judge, number, fate);
            }
        }
        account
    }

    fn judge(&mut self, judge: &Judge<'_>, number: usize, fate: &Fate) {
        let class = judge.source.class;
        for (node, account) in self.nodes.iter_mut().enumerate() {
            if node == usize::from(judge.source.sender) {
                account.sent.add(class, u64::from(fate.sent_ns.is_some()));
                continue;
            }
            let times = judge.times(node, fate);
            let lives = times.clone().filter(|times| *times > 0).count() as u64;
            let doubles = times.map(|times| u64::from(times.saturating_sub(1))).sum();
            account.duplicated.add(class, doubles);
            account.heard_again.add(class, lives.saturating_sub(1));
            let kind = match (fate.sent_ns, lives) {
                (None, 0) => continue,
                (None, _) => &mut account.unknown,
                (Some(_), 1..) => &mut account.heard,
                (Some(sent_ns), 0) if judge.was_down(node, number, sent_ns) => {
                    &mut account.missed_while_down
                }
                (Some(sent_ns), 0) if judge.died_with_sender(number, sent_ns) => {
                    &mut account.died_with_sender
                }
                (Some(_), 0) => &mut account.lost,
            };
            kind.add(class, 1);
        }
    }

    /// The messages that all nodes lost together; before the end, those that are still on their way.
    pub(crate) fn lost(&self) -> u64 {
        self.nodes.iter().map(|node| node.lost.total()).sum()
    }

    /// The messages that all nodes handled too often, together with those that nobody sent.
    pub(crate) fn duplicated(&self) -> u64 {
        self.nodes.iter().map(|node| node.duplicated.total() + node.unknown.total()).sum()
    }
}

/// The facts by which the messages of one source are judged.
struct Judge<'a> {
    listeners: &'a [Listener],
    source: Source,
    outage: Option<Outage>,
    /// Messages of the source up to the last that the killed node heard before.
    known_to_killed: usize,
    /// Messages of the source up to the last that anybody heard.
    known: usize,
}

impl<'a> Judge<'a> {
    fn new(
        listeners: &'a [Listener],
        source: Source,
        fates: &[Fate],
        outage: Option<Outage>,
    ) -> Self {
        let after_last = |heard: &dyn Fn(&Fate) -> bool| {
            fates.iter().rposition(heard).map_or(0, |number| number + 1)
        };
        let killed = outage.and_then(|outage| {
            let killed = Listener { node: outage.node, life: outage.life };
            listeners.iter().position(|listener| *listener == killed)
        });
        Self {
            listeners,
            source,
            outage,
            known_to_killed: killed
                .map_or(0, |killed| after_last(&|fate: &Fate| fate.handled_by(killed) > 0)),
            known: after_last(&Fate::was_heard),
        }
    }

    /// Number of times that a node handled a message, for each of its runs.
    fn times(&self, node: usize, fate: &Fate) -> impl Iterator<Item = u8> + Clone {
        let listeners = self.listeners.iter().enumerate();
        listeners
            .filter(move |(_, listener)| listener.node == node)
            .map(|(index, _)| fate.handled_by(index))
    }

    /// `true` if a node missed a message because it was down.
    fn was_down(&self, node: usize, number: usize, sent_ns: u64) -> bool {
        let Some(outage) = self.outage.filter(|outage| outage.node == node) else { return false };
        if sent_ns >= outage.killed_ns {
            return sent_ns <= outage.back_ns;
        }
        outage.killed_ns - sent_ns < FLIGHT_NS && number >= self.known_to_killed
    }

    /// `true` if a message never left the node that sent it.
    fn died_with_sender(&self, number: usize, sent_ns: u64) -> bool {
        let Source { sender, life, .. } = self.source;
        let killed = self.outage.filter(|it| it.node == usize::from(sender) && it.life == life);
        let Some(outage) = killed else { return false };
        outage.killed_ns.saturating_sub(sent_ns) < FLIGHT_NS && number >= self.known
    }
}

#[cfg(test)]
mod tests {
    use gossip::Transport;

    use super::*;
    use crate::demo::{
        body::Stamp,
        journal::{Deed, Record},
    };

    const SECOND: u64 = 1_000_000_000;

    fn record(deed: Deed, stamp: Stamp) -> Record {
        Record { deed, stamp, at_ns: stamp.sent_ns + 1_000_000 }
    }

    fn vote(sender: u8, number: u32, sent_ns: u64) -> Stamp {
        Stamp { class: Class::Vote, sender, life: 0, number, sent_ns }
    }

    const HEARD: Deed = Deed::Heard(Transport::WebSocket);

    /// Three nodes, the last of which is in its second life from its sixth vote on. Node 0 sends a
    /// vote every second from 1 s on; `heard` says who heard which how often.
    fn votes(count: u32, heard: impl Fn(usize, u32) -> u32) -> Ledger {
        let mut ledger = Ledger::new(3);
        let reborn = ledger.reborn(2, 1);
        for number in 0..count {
            let stamp = vote(0, number, u64::from(number + 1) * SECOND);
            ledger.take(0, record(Deed::Sent, stamp));
            for node in 1..3 {
                let listener = if node == 2 && number > 4 { reborn } else { node };
                for _ in 0..heard(node, number) {
                    ledger.take(listener, record(HEARD, stamp));
                }
            }
        }
        ledger
    }

    const OUTAGE: Outage =
        Outage { node: 2, life: 0, killed_ns: 5 * SECOND + 1, back_ns: 8 * SECOND };

    #[test]
    fn nothing_is_lost_when_everybody_heard_everything_once() {
        let account = Account::of(&votes(10, |_, _| 1), 3, None);
        assert_eq!((account.lost(), account.duplicated()), (0, 0));
        assert_eq!(account.nodes[0].sent.of(Class::Vote), 10);
        assert_eq!(account.nodes[1].heard.of(Class::Vote), 10);
    }

    #[test]
    fn a_message_that_one_node_did_not_hear_is_lost_once() {
        let account =
            Account::of(&votes(10, |node, number| u32::from((node, number) != (2, 9))), 3, None);
        assert_eq!((account.lost(), account.duplicated()), (1, 0));
        assert_eq!(account.nodes[2].lost.of(Class::Vote), 1);
    }

    #[test]
    fn a_message_handled_three_times_is_two_times_too_many() {
        let account = Account::of(
            &votes(3, |node, number| if (node, number) == (1, 0) { 3 } else { 1 }),
            3,
            None,
        );
        assert_eq!((account.lost(), account.duplicated()), (0, 2));
        assert_eq!(account.nodes[1].heard.of(Class::Vote), 3);
    }

    #[test]
    fn a_message_taken_back_by_its_sender_is_missed_by_nobody() {
        let mut ledger = votes(2, |_, _| 1);
        let stamp = vote(0, 2, 3 * SECOND);
        ledger.take(0, record(Deed::Sent, stamp));
        ledger.take(0, record(Deed::Withdrawn, stamp));
        let account = Account::of(&ledger, 3, None);
        assert_eq!((account.lost(), account.nodes[0].sent.total()), (0, 2));
        assert_eq!(ledger.sent(), 2);
    }

    #[test]
    fn a_message_that_nobody_sent_is_no_good_account() {
        let mut ledger = votes(1, |_, _| 1);
        ledger.take(1, record(HEARD, vote(0, 7, SECOND)));
        assert_eq!(Account::of(&ledger, 3, None).duplicated(), 1);
    }

    #[test]
    fn a_killed_node_missed_what_was_sent_while_it_was_down() {
        // Sent at 6, 7 and 8 s; at 8 s it was back.
        let ledger = votes(10, |node, number| u32::from(node != 2 || !(5..8).contains(&number)));
        let account = Account::of(&ledger, 3, Some(OUTAGE));
        assert_eq!(account.lost(), 0);
        assert_eq!(account.nodes[2].missed_while_down.of(Class::Vote), 3);
        let without = Account::of(&ledger, 3, None);
        assert_eq!(without.lost(), 3, "the same is a loss where nobody was killed");
    }

    #[test]
    fn a_killed_node_missed_what_was_on_its_way_to_it_and_nothing_before() {
        // Sent at 5 s, just before the end; and at 3 s, which was not on its way any more.
        let ledger = votes(10, |node, number| u32::from(node != 2 || ![2, 4, 5].contains(&number)));
        let account = Account::of(&ledger, 3, Some(OUTAGE));
        assert_eq!(account.nodes[2].missed_while_down.total(), 2);
        assert_eq!(account.nodes[2].lost.total(), 1);
        // A gap before something that it did hear was not on its way either.
        let ledger = votes(10, |node, number| u32::from(node != 2 || number != 3));
        let account = Account::of(&ledger, 3, Some(OUTAGE));
        assert_eq!(account.nodes[2].lost.total(), 1);
    }

    #[test]
    fn a_message_lost_after_a_node_is_back_is_lost() {
        let ledger = votes(10, |node, number| u32::from(node != 2 || number != 8));
        assert_eq!(Account::of(&ledger, 3, Some(OUTAGE)).lost(), 1);
    }

    #[test]
    fn nobody_else_is_excused_by_the_end_of_a_node() {
        let ledger = votes(10, |node, number| u32::from(node != 1 || number != 6));
        let account = Account::of(&ledger, 3, Some(OUTAGE));
        assert_eq!(account.nodes[1].lost.total(), 1);
    }

    #[test]
    fn the_last_messages_of_a_killed_node_died_with_it_if_nobody_heard_them() {
        let outage = Outage { node: 0, ..OUTAGE };
        // Sent at 4 and 5 s, the last of its life.
        let ledger = votes(5, |_, number| u32::from(number < 3));
        let account = Account::of(&ledger, 3, Some(outage));
        assert_eq!((account.lost(), account.nodes[1].died_with_sender.total()), (0, 2));
        // One that somebody heard had left it.
        let ledger = votes(5, |node, number| u32::from(number < 3 || (node, number) == (1, 3)));
        let account = Account::of(&ledger, 3, Some(outage));
        assert_eq!(account.nodes[2].lost.total(), 1);
        assert_eq!(account.nodes[2].died_with_sender.total(), 1);
    }

    #[test]
    fn a_message_heard_in_two_lives_was_not_handled_twice_in_one() {
        let mut ledger = votes(10, |_, _| 1);
        ledger.take(3, record(HEARD, vote(0, 4, 5 * SECOND)));
        let account = Account::of(&ledger, 3, Some(OUTAGE));
        assert_eq!((account.lost(), account.duplicated()), (0, 0));
        assert_eq!(account.nodes[2].heard_again.total(), 1);
    }

    #[test]
    fn nodes_are_strangers_until_each_has_heard_the_other_on_both_lanes() {
        let mut ledger = Ledger::new(2);
        let probe = |class, sender| Stamp { class, sender, life: 0, number: 0, sent_ns: 1 };
        assert_eq!(ledger.strangers(), 2);
        for class in Class::PROBES {
            ledger.take(0, record(HEARD, probe(class, 1)));
        }
        ledger.take(1, record(HEARD, probe(Class::ProbeVote, 0)));
        assert_eq!(ledger.strangers(), 1);
        ledger.take(1, record(HEARD, probe(Class::ProbeTransaction, 0)));
        assert_eq!(ledger.strangers(), 0);
        ledger.reborn(1, 1);
        assert_eq!(ledger.strangers(), 2, "a node that was started again knows nobody");
    }

    #[test]
    fn all_is_sent_when_the_newest_life_of_every_node_says_so() {
        let mut ledger = Ledger::new(2);
        for listener in 0..2 {
            assert!(!ledger.is_all_sent());
            ledger.take(listener, record(Deed::Done, vote(0, 0, 1)));
        }
        assert!(ledger.is_all_sent());
        let reborn = ledger.reborn(1, 1);
        assert!(!ledger.is_all_sent());
        ledger.take(reborn, record(Deed::Done, vote(0, 0, 1)));
        assert!(ledger.is_all_sent());
    }
}
