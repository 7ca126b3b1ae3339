//! A million identities that come and go leave nothing behind, measured in a process of its own.

use std::time::Instant;

use gossip::NetworkProfile;
use libp2p::{
    Multiaddr, PeerId,
    core::ConnectedPoint,
    swarm::{
        ConnectionClosed, ConnectionId, FromSwarm, NetworkBehaviour,
        behaviour::ConnectionEstablished,
    },
};
use tokio_util::sync::CancellationToken;

use super::alone::{self, resident};
use crate::{
    metrics::P2pMetrics, own_topics::TopicPolicies, pubsub, topic_debts::TopicDebts,
    topic_gate::TopicGate,
};

/// The name of the test, as the test program knows it.
const NAME: &str = "tests::identities::a_million_identities_that_left_cost_no_memory";

const IDENTITIES: usize = 1_000_000;

/// Identities that are connected at one time.
const CONNECTED: usize = 1_000;

/// The growth of the process that is allowed after the first identities, in bytes. Chosen: noise of the allocator; a
/// single byte more for each identity is a megabyte, and the library kept 200 to 700 of each.
const GROWTH_BYTES: usize = 8 * 1024 * 1024;

/// Lets every identity connect, say something, and leave.
fn come_and_go() {
    let gate = TopicGate::new(64 << 20, P2pMetrics::default());
    let debts = TopicDebts::new(1 << 20);
    let profile = &NetworkProfile::TANDEM;
    let mut gossipsub =
        pubsub::build(PeerId::random(), 4, profile, (gate.clone(), TopicPolicies::default()))
            .unwrap();
    let address: Multiaddr = "/ip4/192.0.2.1/tcp/1".parse().unwrap();
    let endpoint =
        ConnectedPoint::Listener { local_addr: address.clone(), send_back_addr: address.clone() };
    let (mut before, mut number, began) = (0, 0, Instant::now());
    while number < IDENTITIES {
        let guests: Vec<_> = (number..number + CONNECTED)
            .map(|number| {
                let (peer_id, connection_id) =
                    (PeerId::random(), ConnectionId::new_unchecked(number));
                let handler = gossipsub.handle_established_inbound_connection(
                    connection_id,
                    peer_id,
                    &address,
                    &address,
                );
                gossipsub.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                    peer_id,
                    connection_id,
                    endpoint: &endpoint,
                    failed_addresses: &[],
                    other_established: 0,
                }));
                pubsub::welcome(&mut gossipsub, &peer_id);
                assert!(gossipsub.peer_score(&peer_id).is_some_and(|score| score > 0.0));
                let debt = debts.open(peer_id, CancellationToken::new());
                debts.charge(&peer_id, 100, tokio::time::Instant::now());
                (peer_id, connection_id, handler.unwrap(), debt)
            })
            .collect();
        for (peer_id, connection_id, handler, debt) in guests {
            drop((handler, debt));
            gossipsub.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id,
                connection_id,
                endpoint: &endpoint,
                cause: None,
                remaining_established: 0,
            }));
            gate.forget(&peer_id);
            assert_eq!(gossipsub.peer_score(&peer_id), Some(0.0), "it is remembered");
        }
        number += CONNECTED;
        if number == 50 * CONNECTED {
            before = resident();
        }
    }
    assert!(debts.has_room());
    let growth = resident().saturating_sub(before);
    println!("{growth} bytes more after {IDENTITIES} identities, in {:?}", began.elapsed());
    assert!(growth < GROWTH_BYTES, "{growth} bytes");
}

// Issue 8, 29. Before, each identity cost 0.2 to 0.7 KiB for an hour.
#[tokio::test]
async fn a_million_identities_that_left_cost_no_memory() {
    if alone::is_alone() {
        return come_and_go();
    }
    let told = alone::run(NAME);
    assert!(told.contains("identities, in"), "the child has done nothing: {told}");
}
