//! Buckets: places in the phonebook, of which nobody outside can foresee who shares one.
//!
//! # Invariants
//!
//! * An unverified address lies in a bucket that its source and a secret choose: a source that the operator did not
//!   choose reaches [`REACH_OF_SOURCE`] of [`NEW_BUCKETS`], a sixteenth of their places, and crowds out nobody elsewhere.
//! * An address that worked lies in a bucket that the part of the network it is in and the secret choose: one part
//!   of the network reaches [`REACH_OF_NETWORK`] of [`TRIED_BUCKETS`], however many addresses it has.
//!
//! Source: threats and goals, row 23.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
};

use gossip::{Host, NodeAddress, Subnet};

use super::source::{SourceId, SourceKind};

/// Buckets of addresses that are listed and have not worked yet.
pub const NEW_BUCKETS: u64 = 64;

/// Addresses in each of them.
pub const NEW_BUCKET: usize = 32;

/// Buckets of addresses that worked.
pub const TRIED_BUCKETS: u64 = 64;

/// Addresses in each of them.
pub const TRIED_BUCKET: usize = 16;

/// Buckets of unverified addresses that one source reaches: 128 addresses.
pub const REACH_OF_SOURCE: u64 = 4;

/// Buckets that a source of the operator's choice reaches, such as a name in DNS: 512 addresses. Chosen: a few times
/// what the largest of today's networks has relays.
pub const REACH_OF_CHOSEN: u64 = 16;

/// Buckets of addresses that worked that one part of the network reaches.
pub const REACH_OF_NETWORK: u64 = 4;

/// The place of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// An operator named the address.
    Persistent,
    /// A bucket of those that worked.
    Tried(u64),
    /// A bucket of those that are only listed.
    New(u64),
}

impl Place {
    /// Addresses that may lie there.
    pub(super) const fn capacity(self) -> usize {
        match self {
            Self::Persistent => super::MAX_PERSISTENT,
            Self::Tried(_) => TRIED_BUCKET,
            Self::New(_) => NEW_BUCKET,
        }
    }
}

/// Chooses buckets under a secret.
#[derive(Clone, Copy)]
pub(super) struct Buckets {
    secret: [u64; 2],
}

/// The secret is not shown.
impl std::fmt::Debug for Buckets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buckets").finish_non_exhaustive()
    }
}

impl Buckets {
    pub(super) const fn new(secret: [u64; 2]) -> Self {
        Self { secret }
    }

    /// The bucket of an unverified address of a source.
    pub(super) fn unverified(self, address: &NodeAddress, source: &SourceId) -> Place {
        let reach = match source.kind() {
            SourceKind::Configuration
            | SourceKind::Operator
            | SourceKind::Members
            | SourceKind::Dns
            | SourceKind::Store => REACH_OF_CHOSEN,
            SourceKind::Directory | SourceKind::Peer | SourceKind::Local => REACH_OF_SOURCE,
        };
        let share = self.hash(("share", network_of(address), source)) % reach;
        Place::New(self.hash(("new", source, share)) % NEW_BUCKETS)
    }

    /// The bucket of an address that worked.
    pub(super) fn tried(self, address: &NodeAddress) -> Place {
        let share = self.hash(("share", address)) % REACH_OF_NETWORK;
        Place::Tried(self.hash(("tried", network_of(address), share)) % TRIED_BUCKETS)
    }

    fn hash(self, of: impl Hash) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.secret, of).hash(&mut hasher);
        hasher.finish()
    }
}

/// The part of the network that an address is in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Network {
    Subnet(Subnet),
    /// The last two labels of a name, which cost money where more of them cost nothing.
    Domain(String),
}

fn network_of(address: &NodeAddress) -> Network {
    let host = match address {
        NodeAddress::WebSocket(url) => url.host().trim_matches(['[', ']']),
        NodeAddress::Multiaddr(text) => text.split('/').nth(2).unwrap_or_default(),
    };
    match host.parse::<IpAddr>() {
        Ok(ip) => Network::Subnet(Host::of(ip).subnet()),
        Err(_) => {
            let name = host.trim_end_matches('.').to_ascii_lowercase();
            let labels: Vec<&str> = name.rsplit('.').take(2).collect();
            Network::Domain(labels.join("."))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn address(text: &str) -> NodeAddress {
        text.parse().unwrap()
    }

    #[test]
    fn a_source_reaches_a_sixteenth_of_the_buckets_whatever_it_lists() {
        for seed in 0..20 {
            let buckets = Buckets::new([seed, 1]);
            let source = SourceId::named(SourceKind::Peer, "somebody");
            let reached: BTreeSet<Place> = (0..1_000)
                .map(|n| format!("{}.{}.0.1:1", n % 200 + 1, n / 200))
                .map(|text| buckets.unverified(&address(&text), &source))
                .collect();
            assert!(reached.len() as u64 <= REACH_OF_SOURCE, "{}", reached.len());
            assert!(reached.len() as u64 * 16 <= NEW_BUCKETS);
        }
    }

    #[test]
    fn one_part_of_the_network_reaches_few_of_the_buckets_of_those_that_worked() {
        let buckets = Buckets::new([1, 2]);
        let names = (0..500).map(|n| format!("h{n}.evil.example:1"));
        let subnet = (0..250).map(|n| format!("192.0.2.{n}:1"));
        let peers = (0..250).map(|n| format!("/ip4/192.0.2.{n}/tcp/1/p2p/x"));
        for many in [names.collect::<Vec<_>>(), subnet.collect(), peers.collect()] {
            let reached: BTreeSet<Place> =
                many.iter().map(|text| buckets.tried(&address(text))).collect();
            assert!(reached.len() as u64 <= REACH_OF_NETWORK, "{}", reached.len());
        }
    }

    #[test]
    fn the_secret_decides() {
        let place = |secret| Buckets::new([secret, 0]).tried(&address("a.example:1"));
        let places: BTreeSet<Place> = (0..100).map(place).collect();
        assert!(places.len() > 30);
    }
}
