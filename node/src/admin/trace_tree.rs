//! The ways of one message through several nodes, put together to a tree.
//!
//! # Invariants
//!
//! * A node stands below the one that it had its first copy from, and once.
//! * Nodes that claim to have a message from each other end in no circle.
//! * Times are those of the nodes' own clocks, since the first step of the root.

use std::{collections::BTreeMap, time::Duration};

use super::traced::{Event, Step, StepPeer, Way};
use crate::printable::printable;

/// Peers of one node that are listed though nobody asked them. Chosen: a mesh.
const MAX_LISTED: usize = 12;

/// Letters of a peer ID that are shown. Chosen: the first ones are the same for all.
const SHOWN_LETTERS: usize = 8;

/// The way through one node.
pub(crate) struct Seen<'a> {
    /// The name of the node for people.
    pub(crate) name: &'a str,
    pub(crate) way: &'a Way,
}

impl Seen<'_> {
    /// The step with which the message came first; `None` if it is the node's own.
    fn first(&self) -> Option<&Step> {
        let first =
            |step: &&Step| matches!(step.event, Event::Came | Event::Heard | Event::Submitted);
        self.way.steps.iter().find(first).filter(|step| step.event != Event::Submitted)
    }

    fn parent(&self) -> Option<&str> {
        self.first()?.peer.as_ref()?.peer_id.as_deref()
    }

    /// The first step of a kind.
    fn at(&self, event: Event) -> Option<&Step> {
        self.way.steps.iter().find(|step| step.event == event)
    }

    fn count(&self, event: Event) -> usize {
        self.way.steps.iter().filter(|step| step.event == event).count()
    }
}

/// The nodes and their places in the tree.
struct Nodes<'a> {
    seen: Vec<Seen<'a>>,
    placed: Vec<bool>,
    /// Time of the first step of all, by the clock of the tree's root.
    began_us: u64,
    lines: Vec<String>,
}

/// The tree as text, a line for each node.
pub(crate) fn tree(mut seen: Vec<Seen<'_>>) -> String {
    seen.sort_by_key(|seen| (seen.first().is_some(), seen.way.began_us));
    // The same node may have been named twice.
    let mut known = Vec::new();
    seen.retain(|seen| {
        let is_new = !known.contains(&seen.way.peer_id);
        known.push(seen.way.peer_id.clone());
        is_new
    });
    let Some(Seen { way, .. }) = seen.first() else { return String::new() };
    let head =
        format!("{} {} B, digest {}", printable(&way.tag), way.bytes, printable(&way.digest));
    let (began_us, placed) = (way.began_us, vec![false; seen.len()]);
    let mut nodes = Nodes { seen, placed, began_us, lines: vec![head] };
    let is_asked =
        |nodes: &Nodes<'_>, id: &str| nodes.seen.iter().any(|seen| seen.way.peer_id == id);
    for at in 0..nodes.seen.len() {
        let parent = nodes.seen[at].parent();
        if !parent.is_some_and(|parent| is_asked(&nodes, parent)) {
            nodes.place(at, "", "");
        }
    }
    // Those that are left have the message from each other.
    for at in 0..nodes.seen.len() {
        nodes.place(at, "", "");
    }
    nodes.lines.join("\n")
}

impl Nodes<'_> {
    /// Adds a node and those below it; `lead` stands before its line, `below` before the lines of those.
    fn place(&mut self, at: usize, lead: &str, below: &str) {
        if std::mem::replace(&mut self.placed[at], true) {
            return;
        }
        let id = self.seen[at].way.peer_id.clone();
        self.lines.push(format!("{lead}{}", self.line(at)));
        let others = self.others(at);
        let of_it = |(place, seen): (usize, &Seen<'_>)| {
            (!self.placed[place] && seen.parent() == Some(&id)).then_some(place)
        };
        let children: Vec<usize> = self.seen.iter().enumerate().filter_map(of_it).collect();
        let last = children.len() + others.len();
        let branch =
            |number: usize| if number == last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        for (number, child) in (1..).zip(&children) {
            let (lead, next) = branch(number);
            self.place(*child, &format!("{below}{lead}"), &format!("{below}{next}"));
        }
        for (number, other) in (children.len() + 1..).zip(others) {
            self.lines.push(format!("{below}{}{other}", branch(number).0));
        }
    }

    /// A node's own line.
    fn line(&self, at: usize) -> String {
        let seen = &self.seen[at];
        let mut parts = vec![match seen.first() {
            None => format!("sent {}", self.time(seen, 0)),
            Some(step) => {
                let peer = step.peer.as_ref();
                let is_below = seen
                    .parent()
                    .is_some_and(|id| self.seen.iter().any(|seen| seen.way.peer_id == id));
                let from = if is_below {
                    String::new()
                } else {
                    format!(" from {}", peer.map_or_else(|| "somebody".to_owned(), named))
                };
                let over = peer.map_or("", |peer| peer.transport.as_str());
                let on = if step.event == Event::Heard { " topic" } else { "" };
                format!(
                    "came{from} over {}{on} {}",
                    printable(over),
                    self.time(seen, step.after_us)
                )
            }
        }];
        let done = [(Event::Handled, "handled"), (Event::Accepted, "accepted")];
        let done = done.into_iter().find_map(|(event, word)| Some((seen.at(event)?, word)));
        if let Some((step, word)) = done {
            parts.push(format!("{word} {}", self.time(seen, step.after_us)));
        }
        if let Some(published) = seen.at(Event::Published) {
            parts.push(format!("published on its topic {}", self.time(seen, published.after_us)));
        }
        let copies = seen.count(Event::Came) + seen.count(Event::Heard);
        if copies > 1 {
            parts.push(format!("{copies} copies"));
        }
        let written = seen.count(Event::Written);
        if written > 0 {
            parts.push(format!("written to {written}"));
        }
        let mut drops: BTreeMap<&str, usize> = BTreeMap::new();
        for step in seen.way.steps.iter().filter(|step| step.event == Event::Dropped) {
            *drops.entry(step.reason.as_deref().unwrap_or("unknown")).or_default() += 1;
        }
        if !drops.is_empty() {
            let drops: Vec<String> = drops
                .iter()
                .map(|(reason, count)| format!("{} {count}", printable(reason)))
                .collect();
            parts.push(format!("dropped: {}", drops.join(", ")));
        }
        if seen.way.left_out > 0 {
            parts.push(format!("{} further steps", seen.way.left_out));
        }
        format!("{} ({})  {}", printable(seen.name), short(&seen.way.peer_id), parts.join(", "))
    }

    /// The peers that a node wrote to, or not, and that were not asked.
    fn others(&self, at: usize) -> Vec<String> {
        let seen = &self.seen[at];
        let is_asked = |peer: &StepPeer| {
            let id = peer.peer_id.as_deref();
            id.is_some_and(|id| self.seen.iter().any(|seen| seen.way.peer_id == id))
        };
        let mut lines = Vec::new();
        for step in &seen.way.steps {
            let Some(peer) = step.peer.as_ref().filter(|peer| !is_asked(peer)) else { continue };
            let over = printable(&peer.transport);
            match (step.event, &step.reason) {
                (Event::Written, _) => lines.push(format!(
                    "{} was not asked  written over {over} {}",
                    named(peer),
                    self.time(seen, step.after_us)
                )),
                (Event::Dropped, Some(reason)) if reason != "duplicate" => lines.push(format!(
                    "{} was not asked  not written: {}",
                    named(peer),
                    printable(reason)
                )),
                _ => {}
            }
        }
        if lines.len() > MAX_LISTED {
            let more = lines.len() - MAX_LISTED;
            lines.truncate(MAX_LISTED);
            lines.push(format!("and {more} others"));
        }
        lines
    }

    /// The time of a step of a node, since the tree began.
    fn time(&self, seen: &Seen<'_>, after_us: u64) -> String {
        let at = seen.way.began_us.saturating_add(after_us);
        if at >= self.began_us {
            format!("+{}", time(Duration::from_micros(at - self.began_us)))
        } else {
            // Its clock is behind that of the root.
            format!("-{}", time(Duration::from_micros(self.began_us - at)))
        }
    }
}

/// A peer, by what is known of it.
fn named(peer: &StepPeer) -> String {
    match (&peer.peer_id, &peer.address, peer.peer) {
        (Some(id), _, _) => short(id),
        (None, Some(address), _) => printable(address),
        (None, None, Some(number)) => format!("#{number}"),
        (None, None, None) => "somebody".to_owned(),
    }
}

fn short(id: &str) -> String {
    let letters = printable(id);
    let skipped = letters.chars().count().saturating_sub(SHOWN_LETTERS);
    let end: String = letters.chars().skip(skipped).collect();
    if skipped == 0 { end } else { format!("…{end}") }
}

/// A time of a message, in three digits.
pub(crate) fn time(time: Duration) -> String {
    let us = time.as_micros();
    match us {
        ..1_000 => format!("{us} us"),
        1_000..10_000 => format!("{:.2} ms", us as f64 / 1e3),
        10_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(after_us: u64, event: Event, peer: Option<(&str, &str)>) -> Step {
        let peer = peer.map(|(id, transport)| StepPeer {
            peer: Some(7),
            peer_id: Some(id.to_owned()),
            transport: transport.to_owned(),
            address: None,
        });
        let reason = (event == Event::Dropped).then(|| "duplicate".to_owned());
        Step { after_us, event, reason, peer }
    }

    fn way(id: &str, began_us: u64, steps: Vec<Step>) -> Way {
        Way {
            peer_id: id.to_owned(),
            digest: "d1".to_owned(),
            tag: "TX".to_owned(),
            bytes: 5,
            began_us,
            steps,
            left_out: 0,
        }
    }

    fn drawn(ways: &[Way]) -> String {
        tree(ways.iter().map(|way| Seen { name: "n", way }).collect())
    }

    // Issue 12, 3.
    #[test]
    fn a_path_is_a_tree_below_the_node_that_sent() {
        let ways = [
            way(
                "c",
                1_003_000,
                vec![step(0, Event::Heard, Some(("b", "p2p"))), step(40, Event::Handled, None)],
            ),
            way(
                "a",
                1_000_000,
                vec![step(0, Event::Submitted, None), step(90, Event::Written, Some(("b", "ws")))],
            ),
            way(
                "b",
                1_000_500,
                vec![
                    step(0, Event::Came, Some(("a", "ws"))),
                    step(10, Event::Came, Some(("c", "ws"))),
                    step(10, Event::Dropped, Some(("c", "ws"))),
                    step(20, Event::Written, Some(("x", "ws"))),
                ],
            ),
        ];
        let expected = "\
TX 5 B, digest d1
n (a)  sent +0 us, written to 1
└─ n (b)  came over ws +500 us, 2 copies, written to 1, dropped: duplicate 1
   ├─ n (c)  came over p2p topic +3.00 ms, handled +3.04 ms
   └─ x was not asked  written over ws +520 us";
        assert_eq!(drawn(&ways), expected);
    }

    #[test]
    fn nodes_that_name_each_other_and_hostile_words_end_in_no_circle() {
        let ways = [
            way("a", 5, vec![step(0, Event::Came, Some(("b", "ws")))]),
            way("b", 3, vec![step(0, Event::Came, Some(("a", "\u{1b}[2J")))]),
            way("b", 3, vec![step(0, Event::Came, Some(("a", "ws")))]),
            way("c", 3, vec![step(0, Event::Came, Some(("c", "ws")))]),
            way("d", 1, Vec::new()),
        ];
        let text = drawn(&ways);
        assert_eq!(text.lines().count(), 5, "a head and four nodes: {text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}
