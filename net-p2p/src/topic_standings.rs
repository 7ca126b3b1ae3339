//! The part of a peer's score on topics that does not come from its messages: many peers of one subnet count less than
//! peers of many.
//!
//! Identities cost nothing, and addresses of one subnet cost little. A network that scores strongly gives every peer a
//! bonus, which those of a crowded subnet lose. When a mesh has too many peers, those with the best scores keep their places,
//! and a mesh of low scores takes in better ones.
//!
//! # Invariants
//!
//! * No peer's score falls below its [`CREDIT`] by where it connects from: an honest peer behind a crowded gateway is never
//!   muted, pruned or left out for that.
//! * Peers of this machine are not told apart by address.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use gossip::{Host, Subnet, TopicScoring};
use libp2p::PeerId;

use crate::pubsub::CREDIT;

/// Score of a peer from a subnet that is not crowded. Source: threats and goals, row 22.
const BONUS: f64 = 10.0;

/// Peers of one subnet that do not crowd it. Source: threats and goals, row 22.
const ALLOWED: usize = 4;

/// Weight of the square of the number of peers beyond that. Source: threats and goals, row 22.
const WEIGHT: f64 = 5.0;

/// The connected peers by the subnets that they connect from.
#[derive(Debug)]
pub(crate) struct TopicStandings {
    scoring: TopicScoring,
    subnets: HashMap<PeerId, Subnet>,
    peers: HashMap<Subnet, HashSet<PeerId>>,
}

impl TopicStandings {
    /// The standings of a network with this scoring, without peers.
    pub(crate) fn new(scoring: TopicScoring) -> Self {
        Self { scoring, subnets: HashMap::new(), peers: HashMap::new() }
    }

    /// Notes the address of a connected peer.
    pub(crate) fn connected(&mut self, peer: PeerId, from: IpAddr) {
        let host = Host::of(from);
        if self.scoring == TopicScoring::Plain || host.is_loopback() {
            return;
        }
        self.forget(&peer);
        self.subnets.insert(peer, host.subnet());
        self.peers.entry(host.subnet()).or_default().insert(peer);
    }

    /// Removes the record of a peer that has disconnected.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        let Some(subnet) = self.subnets.remove(peer) else { return };
        if let Some(peers) = self.peers.get_mut(&subnet) {
            peers.remove(peer);
            if peers.is_empty() {
                self.peers.remove(&subnet);
            }
        }
    }

    /// The part of a peer's score that does not come from its messages.
    pub(crate) fn of(&self, peer: &PeerId) -> f64 {
        if self.scoring == TopicScoring::Plain {
            return CREDIT;
        }
        let peers = self.subnets.get(peer).and_then(|subnet| self.peers.get(subnet));
        let beyond = peers.map_or(0, |peers| peers.len().saturating_sub(ALLOWED));
        // A node has far fewer than four billion peers.
        let beyond = f64::from(u32::try_from(beyond).unwrap_or(u32::MAX));
        (WEIGHT * beyond).mul_add(-beyond, BONUS).max(CREDIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(standings: &mut TopicStandings, from: &str) -> PeerId {
        let peer = PeerId::random();
        standings.connected(peer, from.parse().unwrap());
        peer
    }

    #[track_caller]
    fn check(standings: &TopicStandings, peer: &PeerId, expected: f64) {
        assert!((standings.of(peer) - expected).abs() < f64::EPSILON, "{}", standings.of(peer));
    }

    // Issue 11, 3; threats and goals, row 22. Without muting anybody: issue 8, 11 and 22.
    #[test]
    fn peers_of_a_crowded_subnet_lose_their_bonus_and_no_more() {
        let mut standings = TopicStandings::new(TopicScoring::Strong);
        let alone = joined(&mut standings, "192.0.2.1");
        let sybils: Vec<_> =
            (1..=4).map(|host| joined(&mut standings, &format!("198.51.100.{host}"))).collect();
        check(&standings, &sybils[0], BONUS);
        let fifth = joined(&mut standings, "198.51.100.5");
        check(&standings, &sybils[0], BONUS - WEIGHT);
        let others: Vec<_> = (0..1_000).map(|_| joined(&mut standings, "198.51.100.77")).collect();
        for peer in sybils.iter().chain([&fifth, &others[0]]) {
            check(&standings, peer, CREDIT);
        }
        check(&standings, &alone, BONUS);
        others.iter().for_each(|peer| standings.forget(peer));
        standings.forget(&fifth);
        check(&standings, &sybils[0], BONUS);
        let spread = joined(&mut standings, "2001:db8:1:1::1");
        for host in 2..=6 {
            joined(&mut standings, &format!("2001:db8:1:{host}::1"));
        }
        check(&standings, &spread, CREDIT);
    }

    #[test]
    fn peers_of_this_machine_and_of_networks_with_plain_scores_are_alike() {
        let mut standings = TopicStandings::new(TopicScoring::Strong);
        let peers: Vec<_> = (0..20).map(|_| joined(&mut standings, "127.0.0.1")).collect();
        check(&standings, &peers[0], BONUS);
        assert!(standings.subnets.is_empty());
        let mut standings = TopicStandings::new(TopicScoring::Plain);
        let peers: Vec<_> = (0..20).map(|_| joined(&mut standings, "192.0.2.1")).collect();
        check(&standings, &peers[0], CREDIT);
        assert!(standings.subnets.is_empty());
    }
}
