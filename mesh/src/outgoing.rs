//! The outgoing peers of a node, and the choice of those that are let go.
//!
//! # Invariants
//!
//! * A peer that an operator named, or that is a member, is never chosen: it would only be dialled again.
//! * Two links to one node are one peer: which of them stays is decided elsewhere.
//! * Only those that have a throttled slot are let go as the slowest, so that a node keeps some of its peers whatever
//!   the others bring (wire facts 11.2).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use gossip::{Identity, LinkId, Transport};

use crate::{limits::MeshLimits, ranking::MAX_MEASURED};

/// The treatment of a peer when there are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tenure {
    /// It stays: an operator named it, or it is a member.
    Kept,
    /// It may be let go.
    Learnt,
}

/// An outgoing peer.
#[derive(Clone, Copy, Debug)]
pub struct OutgoingPeer {
    /// Its link. Later ones are greater.
    pub link: LinkId,
    /// Transport of the link.
    pub transport: Transport,
    /// Its identity, once it is known.
    pub identity: Option<Identity>,
    /// Its treatment when there are too many.
    pub tenure: Tenure,
}

/// The outgoing peers. See the [module](self).
#[derive(Debug)]
pub struct Outgoing {
    peers: BTreeMap<LinkId, OutgoingPeer>,
    slots: usize,
    throttled: BTreeSet<LinkId>,
    /// The mean delay of each peer in the last ranking.
    delays: BTreeMap<LinkId, Duration>,
}

/// A node, by its identity if it has one.
type Node = Result<Identity, LinkId>;

impl Outgoing {
    /// No peers, with so many throttled slots.
    #[must_use]
    pub const fn new(slots: usize) -> Self {
        Self { peers: BTreeMap::new(), slots, throttled: BTreeSet::new(), delays: BTreeMap::new() }
    }

    /// A peer has come, or its identity has become known.
    pub fn joined(&mut self, peer: OutgoingPeer) {
        let is_new = self.peers.insert(peer.link, peer).is_none();
        if is_new && self.throttled.len() < self.slots {
            self.throttled.insert(peer.link);
        }
    }

    /// A link has ended, or is about to. Others are ignored.
    pub fn left(&mut self, link: LinkId) {
        self.peers.remove(&link);
        self.throttled.remove(&link);
        self.delays.remove(&link);
    }

    /// The links.
    pub fn links(&self) -> impl Iterator<Item = LinkId> {
        self.peers.keys().copied()
    }

    /// The peers to measure: all of them, once there are as many as the fan-out. Source: wire facts 11.3.
    #[must_use]
    pub fn measured(&self, limits: &MeshLimits) -> BTreeSet<LinkId> {
        let is_full = self.nodes(|_| true).len() >= limits.fan_out.max(2);
        if is_full { self.links().take(MAX_MEASURED).collect() } else { BTreeSet::new() }
    }

    /// The links to let go because there are more than the fan-out, or than the share of their transport: those that
    /// were not ranked yet, the newest first, then the slowest.
    #[must_use]
    pub fn surplus(&self, limits: &MeshLimits) -> Vec<LinkId> {
        let mut gone: Vec<LinkId> = Vec::new();
        let every = [None, Some(Transport::WebSocket), Some(Transport::Libp2p)];
        for of in every {
            let counts = |peer: &OutgoingPeer| of.is_none_or(|of| of == peer.transport);
            let bound = of.map_or(limits.fan_out, |of| limits.share(of));
            let nodes = self.nodes(|peer| counts(peer) && !gone.contains(&peer.link));
            let over = nodes.len().saturating_sub(bound);
            let all = self.nodes(|_| true);
            let goes = |node: &&Node| {
                all.get(*node).is_some_and(|links| {
                    links.len() == 1 && links.iter().all(|only| only.tenure == Tenure::Learnt)
                })
            };
            let leaving = nodes.keys().filter(goes).filter_map(|node| nodes.get(node)).flatten();
            let mut leaving: Vec<LinkId> = leaving.map(|peer| peer.link).collect();
            // Those without a delay are greater than every other one.
            leaving.sort_by_key(|link| {
                (self.delays.get(link).copied().unwrap_or(Duration::MAX), *link)
            });
            gone.extend(leaving.into_iter().rev().take(over));
        }
        gone
    }

    /// Notes a ranking, the slowest first, and returns the link to let go: the slowest that has a throttled slot and may
    /// go, if the fastest peer of all is faster by the margin.
    pub fn slowest(
        &mut self,
        ranked: &[(LinkId, Duration)],
        limits: &MeshLimits,
    ) -> Option<LinkId> {
        self.delays =
            ranked.iter().copied().filter(|(link, _)| self.peers.contains_key(link)).collect();
        let (_, best) = ranked.last()?;
        let goes = |link: &LinkId| {
            let tenure = self.peers.get(link).map(|peer| peer.tenure);
            self.throttled.contains(link) && tenure == Some(Tenure::Learnt)
        };
        let (slowest, delay) = ranked.iter().find(|(link, _)| goes(link))?;
        (delay.saturating_sub(*best) >= limits.performance_margin).then_some(*slowest)
    }

    /// The nodes with the links of each that count.
    fn nodes(&self, counts: impl Fn(&OutgoingPeer) -> bool) -> BTreeMap<Node, Vec<OutgoingPeer>> {
        let mut nodes: BTreeMap<Node, Vec<OutgoingPeer>> = BTreeMap::new();
        for peer in self.peers.values().filter(|peer| counts(peer)) {
            let node = peer.identity.ok_or(peer.link);
            nodes.entry(node).or_default().push(*peer);
        }
        nodes
    }
}

/// The links over which no message went for longer than `limit`, of all links with the time since the last message of
/// each. Empty if none carried any: then there was nothing to say.
#[must_use]
pub fn idle(quiet: &[(LinkId, Duration)], limit: Duration) -> Vec<LinkId> {
    if quiet.iter().all(|(_, time)| *time > limit) {
        return Vec::new();
    }
    quiet.iter().filter(|(_, time)| *time > limit).map(|(link, _)| *link).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn peer(link: u64, tenure: Tenure) -> OutgoingPeer {
        let (link, transport) = (LinkId(link), Transport::WebSocket);
        OutgoingPeer { link, transport, identity: None, tenure }
    }

    fn outgoing(learnt: std::ops::RangeInclusive<u64>) -> Outgoing {
        let mut outgoing = Outgoing::new(4);
        learnt.for_each(|link| outgoing.joined(peer(link, Tenure::Learnt)));
        outgoing
    }

    fn limits() -> MeshLimits {
        MeshLimits::default()
    }

    fn links(numbers: &[u64]) -> Vec<LinkId> {
        numbers.iter().copied().map(LinkId).collect()
    }

    // Issue 10, 5: sixteen links stayed where four are the fan-out.
    #[test]
    fn the_newest_links_above_the_fan_out_are_let_go() {
        assert_eq!(outgoing(1..=4).surplus(&limits()), []);
        assert_eq!(outgoing(1..=7).surplus(&limits()), links(&[7, 6, 5]));
    }

    #[test]
    fn peers_that_an_operator_named_stay_and_count() {
        let mut outgoing = outgoing(1..=3);
        (10..=12).for_each(|link| outgoing.joined(peer(link, Tenure::Kept)));
        assert_eq!(outgoing.surplus(&limits()), links(&[3, 2]));
        (13..=20).for_each(|link| outgoing.joined(peer(link, Tenure::Kept)));
        assert_eq!(outgoing.surplus(&limits()), links(&[3, 2, 1]));
    }

    #[test]
    fn two_links_to_one_node_are_one_peer_and_neither_is_chosen() {
        let mut outgoing = outgoing(1..=3);
        for (link, transport) in [(4, Transport::WebSocket), (5, Transport::Libp2p)] {
            let identity = Some(Identity::from_ed25519([7; 32]));
            outgoing.joined(OutgoingPeer { transport, identity, ..peer(link, Tenure::Learnt) });
        }
        assert_eq!(outgoing.surplus(&limits()), []);
        outgoing.joined(peer(6, Tenure::Learnt));
        assert_eq!(outgoing.surplus(&limits()), links(&[6]));
        outgoing.left(LinkId(6));
        let none = limits().with_fan_out(0);
        assert_eq!(outgoing.surplus(&none), links(&[3, 2, 1]));
    }

    #[test]
    fn a_transport_has_its_share() {
        let limits = limits().with_fan_out_websocket(Some(2));
        assert_eq!(outgoing(1..=3).surplus(&limits), links(&[3]));
    }

    // Source: wire facts 11.2 and 11.3.
    #[test]
    fn the_slowest_with_a_slot_is_let_go_if_another_is_faster_by_the_margin() {
        let mut all = outgoing(1..=5);
        let ranked = [(5, 900), (2, 200), (1, 120), (3, 100), (4, 90)];
        let ranked = ranked.map(|(link, delay)| (LinkId(link), delay * MS));
        assert_eq!(all.slowest(&ranked, &limits()), Some(LinkId(2)), "the fifth has no slot");
        assert_eq!(all.slowest(&ranked[2..], &limits()), None, "30 ms are no reason");
        assert_eq!(Outgoing::new(0).slowest(&ranked, &limits()), None);
    }

    #[test]
    fn the_slowest_is_let_go_first_when_there_are_too_many_that_were_ranked() {
        let mut outgoing = outgoing(1..=5);
        let ranked = [(3, 300), (1, 90), (2, 80), (4, 70), (5, 60)];
        let ranked = ranked.map(|(link, delay)| (LinkId(link), delay * MS));
        let _ = outgoing.slowest(&ranked, &limits());
        outgoing.joined(peer(6, Tenure::Learnt));
        assert_eq!(outgoing.surplus(&limits()), links(&[6, 3]));
    }

    #[test]
    fn peers_are_measured_once_the_fan_out_is_reached() {
        assert!(outgoing(1..=3).measured(&limits()).is_empty());
        assert_eq!(outgoing(1..=4).measured(&limits()).len(), 4);
    }

    // Source: wire facts 11.4.
    #[test]
    fn links_that_carry_nothing_while_others_do_are_idle() {
        let minute = Duration::from_secs(60);
        let quiet = [(LinkId(1), 6 * minute), (LinkId(2), minute)];
        assert_eq!(idle(&quiet, 5 * minute), [LinkId(1)]);
        assert_eq!(idle(&quiet[..1], 5 * minute), [], "nobody had anything to say");
        assert_eq!(idle(&[], 5 * minute), []);
    }
}
