//! The groups of a file, divided among peers.
//!
//! ```text
//!   missing ──▶ asked of one peer, at the end of two ──▶ held
//!      ▲                    │ the peers failed
//!      └────────────────────┘
//! ```
//!
//! # Invariants
//!
//! * A group that is held is asked of nobody.
//! * No group is asked of more than [`MAX_ASKED`] peers at a time, and of two only when none is missing.

use std::ops::Range;

/// Groups that one peer is asked for at a time. Chosen: enough for a request to be worth its round trip, and a slow peer
/// holds no more than that.
const SPAN: usize = 4;

/// Peers that are asked for one group at a time. Chosen: a second one, so that the slowest does not hold up the end.
const MAX_ASKED: usize = 2;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Group {
    Missing,
    /// The peers that are asked for it, by their numbers.
    Asked(Vec<usize>),
    Held,
}

/// The groups of a file.
#[derive(Debug)]
pub(super) struct Plan {
    groups: Vec<Group>,
}

impl Plan {
    /// A plan of a file of which these groups are held.
    pub(super) fn new(held: &[bool]) -> Self {
        let group = |held: &bool| if *held { Group::Held } else { Group::Missing };
        Self { groups: held.iter().map(group).collect() }
    }

    /// The groups that a peer is to be asked for next; `None` if there are none for it at present.
    pub(super) fn next(&mut self, peer: usize) -> Option<Range<usize>> {
        if let Some(first) = self.groups.iter().position(|group| *group == Group::Missing) {
            let missing = self.groups[first..].iter().take(SPAN);
            let count = missing.take_while(|group| **group == Group::Missing).count();
            let span = first..first + count;
            self.groups[span.clone()].fill(Group::Asked(vec![peer]));
            return Some(span);
        }
        let (at, peers) =
            self.groups.iter_mut().enumerate().find_map(|(at, group)| match group {
                Group::Asked(peers) if peers.len() < MAX_ASKED && !peers.contains(&peer) => {
                    Some((at, peers))
                }
                _ => None,
            })?;
        peers.push(peer);
        Some(at..at + 1)
    }

    /// A group has come. Returns `true` if it was not held before.
    pub(super) fn hold(&mut self, group: usize) -> bool {
        let before = std::mem::replace(&mut self.groups[group], Group::Held);
        before != Group::Held
    }

    /// A peer is not asked for these any more.
    pub(super) fn give_back(&mut self, peer: usize, span: Range<usize>) {
        for group in &mut self.groups[span] {
            if let Group::Asked(peers) = group {
                peers.retain(|other| *other != peer);
                if peers.is_empty() {
                    *group = Group::Missing;
                }
            }
        }
    }

    /// `true` if nothing of these groups is to come.
    pub(super) fn holds(&self, span: Range<usize>) -> bool {
        self.groups[span].iter().all(|group| *group == Group::Held)
    }

    /// `true` if the file is whole.
    pub(super) fn is_whole(&self) -> bool {
        self.holds(0..self.groups.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn missing_groups_go_to_one_peer_each_and_the_last_ones_to_two() {
        let mut plan = Plan::new(&[true, false, false, true, false, false, false, false, false]);
        assert_eq!(plan.next(0), Some(1..3));
        assert_eq!(plan.next(1), Some(4..8));
        assert_eq!(plan.next(2), Some(8..9));
        assert_eq!(plan.next(2), Some(1..2), "the first one is helped out");
        assert_eq!(plan.next(2), Some(2..3));
        assert_eq!((plan.next(0), plan.next(3)), (Some(4..5), Some(5..6)));
        plan.give_back(0, 1..3);
        assert!(plan.hold(2) && !plan.hold(2));
        plan.give_back(2, 1..3);
        assert_eq!(plan.next(5), Some(1..2), "nobody is asked for it any more");
        assert!(!plan.is_whole());
    }

    proptest! {
        #[test]
        fn every_plan_ends_whatever_peers_do(
            held in proptest::collection::vec(any::<bool>(), 0..40),
            steps in proptest::collection::vec((0..3_usize, any::<bool>()), 0..400),
        ) {
            let mut plan = Plan::new(&held);
            for (peer, succeeds) in steps {
                let Some(span) = plan.next(peer) else { continue };
                prop_assert!(!span.is_empty() && !plan.holds(span.clone()));
                if succeeds {
                    prop_assert!(span.clone().filter(|group| plan.hold(*group)).count() > 0);
                }
                plan.give_back(peer, span);
            }
            while let Some(span) = plan.next(9) {
                prop_assert!(span.filter(|group| plan.hold(*group)).count() > 0);
            }
            prop_assert!(plan.is_whole());
        }
    }
}
