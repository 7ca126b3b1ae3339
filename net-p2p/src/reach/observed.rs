//! The addresses under which others see this node, and those that it may have for them.
//!
//! # Invariants
//!
//! * The word of others is a proposal: an address is told as this node's own only once it was confirmed.
//! * At most [`MAX_SEEN`] hosts and addresses are kept, the newest.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use gossip::LinkPath;
use libp2p::{Multiaddr, multiaddr::Protocol};

use super::MAX_TOLD;
use crate::{
    address::{ip_literal, path_of},
    listening::Bound,
};

/// Hosts, and addresses, that are kept. Chosen: more than a node has ways out.
const MAX_SEEN: usize = 8;

/// The addresses of this node that peers have told. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Observed {
    bound: Bound,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    hosts: VecDeque<IpAddr>,
    /// Addresses of connections that this node dialled from the port that it listens on: a translating router uses them
    /// for the next one too.
    whole: VecDeque<Multiaddr>,
    /// Addresses that a router says lead to this node.
    mapped: Vec<Multiaddr>,
}

/// The port of a connection that was observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// The port that the node listens on, as far as the node can tell.
    ListeningPort,
    /// Any other.
    OtherPort,
}

fn push<T: PartialEq>(into: &mut VecDeque<T>, new: T) {
    into.retain(|known| *known != new);
    into.push_front(new);
    into.truncate(MAX_SEEN);
}

impl Observed {
    /// Of a node that listens on `bound`.
    pub(super) fn new(bound: Bound) -> Self {
        Self { bound, seen: Arc::default() }
    }

    /// Notes the address under which a peer sees this node.
    pub(crate) fn note(&self, address: &Multiaddr, from: From) {
        let Some(ip) = ip_literal(address).filter(|_| path_of(address) == LinkPath::Direct) else {
            return;
        };
        let mut seen = self.seen();
        push(&mut seen.hosts, ip);
        if from == From::ListeningPort {
            let bare = address.iter().filter(|part| !matches!(part, Protocol::P2p(_)));
            push(&mut seen.whole, bare.collect());
        }
    }

    /// Replaces the addresses that a router says lead to this node.
    pub(super) fn mapped(&self, addresses: Vec<Multiaddr>) {
        self.seen().mapped = addresses;
    }

    /// Addresses at which others may reach this node, without its peer ID: those that a router has mapped, those that were seen, then those that it listens
    /// on at the hosts that were seen, then those that it listens on.
    pub(super) fn candidates(&self) -> Vec<Multiaddr> {
        let (bound, seen) = (self.bound.addresses(), self.seen());
        let listens = || bound.iter().filter(|address| path_of(address) == LinkPath::Direct);
        let mut candidates: Vec<Multiaddr> = Vec::new();
        let at_hosts = seen
            .hosts
            .iter()
            .flat_map(|host| listens().filter_map(|address| at_host(address, *host)));
        let seen_whole = seen.mapped.iter().chain(&seen.whole).cloned();
        let all = seen_whole.chain(at_hosts).chain(listens().cloned());
        for candidate in all {
            if !candidates.contains(&candidate) {
                candidates.push(candidate);
            }
        }
        candidates.truncate(MAX_TOLD);
        candidates
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same address at another host; `None` if that is of the other family.
fn at_host(address: &Multiaddr, host: IpAddr) -> Option<Multiaddr> {
    let own = ip_literal(address)?;
    (own.is_ipv4() == host.is_ipv4())
        .then(|| Multiaddr::from(host).iter().chain(address.iter().skip(1)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_what_was_seen_and_where_the_node_listens() {
        let bound = Bound::default();
        let observed = Observed::new(bound.clone());
        assert!(observed.candidates().is_empty());
        bound.set_for_test(["/ip4/10.0.0.2/tcp/4190", "/ip4/1.2.3.4/tcp/1/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN/p2p-circuit"]);
        observed.note(&"/ip4/192.0.2.1/tcp/55555".parse().unwrap(), From::OtherPort);
        observed.note(&"/ip4/192.0.2.1/tcp/777".parse().unwrap(), From::ListeningPort);
        observed.note(&"/ip6/::1/tcp/5".parse().unwrap(), From::OtherPort);
        let candidates: Vec<_> = observed.candidates().iter().map(ToString::to_string).collect();
        let expected =
            ["/ip4/192.0.2.1/tcp/777", "/ip4/192.0.2.1/tcp/4190", "/ip4/10.0.0.2/tcp/4190"];
        assert_eq!(candidates, expected);
        let mapped: Multiaddr = "/ip4/192.0.2.1/tcp/999".parse().unwrap();
        observed.mapped(vec![mapped.clone()]);
        assert_eq!(observed.candidates()[0], mapped);
        observed.mapped(Vec::new());
        assert!(!observed.candidates().contains(&mapped), "the router has taken it back");
        for host in 0..100 {
            let text = format!("/ip4/198.51.100.{host}/tcp/{host}");
            observed.note(&text.parse().unwrap(), From::ListeningPort);
        }
        let seen = observed.seen();
        assert_eq!((seen.hosts.len(), seen.whole.len()), (MAX_SEEN, MAX_SEEN));
    }
}
