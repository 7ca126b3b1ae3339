//! The refresh of the routing table, which the library begins by itself: a lookup of the node's own key, then one in each
//! bucket beyond its closest neighbour's.
//!
//! # Invariants
//!
//! * A bucket is passed over only if the refresh can add nothing to it: it is full of connected nodes, or all nodes that
//!   belong into it are among the [`REPLICATION`] closest ones, which the lookup of the own key has just asked.

use libp2p::{
    PeerId,
    kad::{Behaviour, K_VALUE, NodeStatus, QueryId, QueryInfo, store::RecordStore},
};

use super::REPLICATION;

/// Ends the lookup in a bucket that has just begun, before it asks anybody, if it can add nothing.
pub(super) fn pass_over<Store: RecordStore + Send + 'static>(
    table: &mut Behaviour<Store>,
    id: &QueryId,
) {
    let target = table.query(id).and_then(|query| match query.info() {
        QueryInfo::Bootstrap { peer, remaining: Some(_), .. } => Some(*peer),
        _ => None,
    });
    if target.is_some_and(|target| !may_add(table, target))
        && let Some(mut query) = table.query_mut(id)
    {
        query.finish();
    }
}

/// Returns `true` if a lookup of `target` may find nodes for its bucket that are not there.
fn may_add<Store: RecordStore + Send + 'static>(
    table: &mut Behaviour<Store>,
    target: PeerId,
) -> bool {
    let Some(bucket) = table.kbucket(target) else { return false };
    let connected = bucket.iter().filter(|entry| entry.status == NodeStatus::Connected).count();
    let farthest = bucket.range().1;
    // The buckets come in the order of their distance.
    let up_to_it = table.kbuckets().take_while(|other| other.range().1 <= farthest);
    let known: usize = up_to_it.map(|bucket| bucket.num_entries()).sum();
    connected < K_VALUE.get() && known >= REPLICATION.get()
}

#[cfg(test)]
mod tests {
    use libp2p::{
        Multiaddr,
        kad::{Config, KBucketKey, store::MemoryStore},
    };

    use super::*;

    const PROTOCOL: libp2p::StreamProtocol = libp2p::StreamProtocol::new("/test/kad/1.0.0");

    /// A table of a node in a network of `count`, of which it has met all, and the distance bits of its buckets.
    fn table(count: usize) -> (Behaviour<MemoryStore>, PeerId) {
        let local = PeerId::random();
        let mut table =
            Behaviour::with_config(local, MemoryStore::new(local), Config::new(PROTOCOL));
        for number in 0..count {
            let address: Multiaddr =
                format!("/ip4/10.0.0.1/tcp/{}", 1_000 + number).parse().unwrap();
            table.add_address(&PeerId::random(), address);
        }
        (table, local)
    }

    /// Some key in the bucket that is `below` the farthest one.
    fn key_in(local: PeerId, below: u32) -> PeerId {
        let own = KBucketKey::from(local);
        let is_there =
            |key: &PeerId| own.distance(&KBucketKey::from(*key)).ilog2() == Some(255 - below);
        std::iter::repeat_with(PeerId::random).find(is_there).unwrap()
    }

    #[test]
    fn the_buckets_of_a_network_that_one_lookup_asks_as_a_whole_are_passed_over() {
        let (mut table, local) = table(REPLICATION.get() - 1);
        for below in 0..4 {
            assert!(!may_add(&mut table, key_in(local, below)), "{below}");
        }
    }

    #[test]
    fn the_far_buckets_of_a_large_network_are_refreshed_and_the_near_ones_are_not() {
        let (mut table, local) = table(4_000);
        for below in 0..4 {
            assert!(may_add(&mut table, key_in(local, below)), "{below}");
        }
        // Of 4,000 nodes, about eight lie in this one, and as many closer.
        assert!(!may_add(&mut table, key_in(local, 8)));
    }
}
