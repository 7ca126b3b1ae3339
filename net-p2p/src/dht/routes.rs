//! The places in the routing table, which no subnet takes all.
//!
//! # Invariants
//!
//! * One subnet of the internet has at most [`MAX_IN_BUCKET`] places in a bucket, and [`MAX_IN_TABLE`] in the table.
//!   Source: threats and goals, row 24. Addresses of private networks are not counted: there a subnet is the network.

use gossip::{Host, Subnet};
use libp2p::{
    Multiaddr, PeerId,
    kad::{Addresses, Behaviour, store::RecordStore},
};

use super::scope::AddressScope;
use crate::address::ip_of;

/// Places of one subnet in a bucket. Source: threats and goals, row 24: Kubo.
const MAX_IN_BUCKET: usize = 2;

/// Places of one subnet in the table. Chosen: those in eight buckets, which are all of a network of 256 nodes.
const MAX_IN_TABLE: usize = 16;

/// The subnet of an address; `None` if it is a name, or belongs to a private network.
fn subnet(address: &Multiaddr) -> Option<Subnet> {
    let has_ip = address.iter().next().is_some_and(|part| {
        matches!(part, libp2p::multiaddr::Protocol::Ip4(_) | libp2p::multiaddr::Protocol::Ip6(_))
    });
    let is_counted = has_ip && AddressScope::Public.admits(address);
    is_counted.then(|| Host::of(ip_of(address)).subnet())
}

fn has(addresses: &Addresses, of: Subnet) -> bool {
    addresses.iter().any(|address| subnet(address) == Some(of))
}

/// Returns `true` if `peer` may be in the routing table with this address.
pub(super) fn have_room<Store: RecordStore + Send + 'static>(
    table: &mut Behaviour<Store>,
    peer: PeerId,
    address: &Multiaddr,
) -> bool {
    let Some(of) = subnet(address) else { return true };
    let mut in_table = 0;
    for bucket in table.kbuckets() {
        let others = bucket.iter().filter(|entry| *entry.node.key.preimage() != peer);
        in_table += others.filter(|entry| has(entry.node.value, of)).count();
    }
    let in_bucket = table.kbucket(peer).map_or(0, |bucket| {
        let others = bucket.iter().filter(|entry| *entry.node.key.preimage() != peer);
        others.filter(|entry| has(entry.node.value, of)).count()
    });
    in_bucket < MAX_IN_BUCKET && in_table < MAX_IN_TABLE
}

#[cfg(test)]
mod tests {
    use libp2p::kad::{Config, K_VALUE, store::MemoryStore};

    use super::*;
    const PROTOCOL: libp2p::StreamProtocol = libp2p::StreamProtocol::new("/test/kad/1.0.0");

    fn table() -> Behaviour<MemoryStore> {
        let local = PeerId::random();
        Behaviour::with_config(local, MemoryStore::new(local), Config::new(PROTOCOL))
    }

    /// Offers `count` nodes at addresses of `host`, and returns the number of those taken in.
    fn offer(
        table: &mut Behaviour<MemoryStore>,
        count: usize,
        host: impl Fn(usize) -> String,
    ) -> usize {
        let mut taken = 0;
        for number in 0..count {
            let peer = PeerId::random();
            let address: Multiaddr =
                format!("/ip4/{}/tcp/{}", host(number), 1_000 + number).parse().unwrap();
            if have_room(table, peer, &address) {
                table.add_address(&peer, address.clone());
                taken += 1;
                assert!(have_room(table, peer, &address), "it has its place already");
            }
        }
        taken
    }

    // Threats and goals, row 24.
    #[test]
    fn a_subnet_of_the_internet_fills_neither_a_bucket_nor_the_table() {
        let mut table = table();
        offer(&mut table, 4_000, |number| format!("9.9.9.{}", number % 250));
        let most = table.kbuckets().map(|bucket| bucket.num_entries()).max();
        assert_eq!(most, Some(MAX_IN_BUCKET));
        let all: usize = table.kbuckets().map(|bucket| bucket.num_entries()).sum();
        assert_eq!(all, MAX_IN_TABLE);
        // The others find their places.
        offer(&mut table, 200, |number| format!("9.8.{number}.1"));
        let most = table.kbuckets().map(|bucket| bucket.num_entries()).max();
        assert_eq!(most, Some(K_VALUE.get()));
    }

    #[test]
    fn the_nodes_of_a_private_network_are_not_counted_by_subnet() {
        for host in ["10.1.1.1", "127.0.0.1", "192.168.1.1"] {
            assert_eq!(offer(&mut table(), 100, |_| host.to_owned()), 100, "{host}");
        }
    }
}
