//! Forged answers of the local network.

use std::{collections::BTreeSet, num::NonZeroUsize, time::Duration};

use broadcaster::{Broadcaster, Setup, Ticket};
use gossip::{NetworkProfile, NodeAddress, Transport};
use libp2p::{Multiaddr, PeerId, mdns};
use mesh::{DialFailure, MeshLimits};
use tokio_util::sync::CancellationToken;

use super::host::new_key;
use crate::{
    dial_hosts::DialHosts,
    dialing::{Dialing, Work},
    metrics::P2pMetrics,
    trees::Trees,
};

/// Addresses of the local network that a node dials at most. Source: threats and goals, row 25.
const MOST: usize = 8;

const FORGED: u32 = 10_000;

fn forged(number: u32) -> (PeerId, Multiaddr) {
    let [_, _, high, low] = number.to_be_bytes();
    (PeerId::random(), format!("/ip4/192.168.{high}.{low}/tcp/4161").parse().unwrap())
}

/// The orders to dial that come within a second.
async fn ordered(dialing: &mut Dialing) -> Vec<Ticket> {
    let mut orders = Vec::new();
    while let Ok(Some(Work::Ordered(ticket))) =
        tokio::time::timeout(Duration::from_secs(1), dialing.next()).await
    {
        orders.push(ticket);
    }
    orders
}

// Issue 8, 31; threats and goals, row 25. It held before.
#[tokio::test(start_paused = true)]
async fn forged_answers_of_the_local_network_lead_to_eight_dials_at_most() {
    let many = NonZeroUsize::new(2 * FORGED as usize).unwrap();
    let limits = MeshLimits::default().with_concurrent(many).with_most(many);
    let setup = Setup::new(&NetworkProfile::TANDEM).mesh(limits.with_fan_out(many.get()));
    let node = Broadcaster::start(setup, &CancellationToken::new());
    let mesh = node.mesh();
    let dialer = Some(mesh.attach(Transport::Libp2p));
    let mut dialing = Dialing::new(
        dialer,
        Trees::new(None),
        DialHosts::default(),
        (new_key().identity(), P2pMetrics::default()),
    );
    // Addresses elsewhere, and names, are none of the local network (issue 11, 4).
    for place in ["/ip4/9.9.9.9/tcp/1", "/ip6/2620:fe::9/tcp/1", "/dns4/h.example/tcp/1"] {
        let elsewhere = (PeerId::random(), place.parse().unwrap());
        dialing.on_mdns(mesh, mdns::Event::Discovered(vec![elsewhere]));
    }
    assert_eq!(ordered(&mut dialing).await.len(), 0);
    let poison: Vec<_> = (0..FORGED).map(forged).collect();
    for part in poison.chunks(100) {
        dialing.on_mdns(mesh, mdns::Event::Discovered(part.to_vec()));
        // The same again, and addresses that name no peer or no port.
        dialing.on_mdns(mesh, mdns::Event::Discovered(part.to_vec()));
        let odd = |(peer, _): &(PeerId, _)| (*peer, Multiaddr::empty());
        dialing.on_mdns(mesh, mdns::Event::Discovered(part.iter().map(odd).collect()));
    }
    let due = ordered(&mut dialing).await;
    assert_eq!(due.len(), MOST);
    let known: BTreeSet<NodeAddress> = due.iter().map(|ticket| ticket.address().clone()).collect();
    for ticket in due {
        ticket.failed(DialFailure::Ourselves, "it is this node");
    }
    // An hour later, the failed ones are tried again, and none besides.
    tokio::time::advance(Duration::from_secs(3_601)).await;
    let again = ordered(&mut dialing).await;
    assert!(again.len() <= MOST && again.iter().all(|ticket| known.contains(ticket.address())));
    drop(again);
    // When they expire, others may come.
    dialing.on_mdns(mesh, mdns::Event::Expired(poison));
    assert_eq!(ordered(&mut dialing).await.len(), 0);
    dialing.on_mdns(mesh, mdns::Event::Discovered((0..20).map(forged).collect()));
    assert_eq!(ordered(&mut dialing).await.len(), MOST);
}
