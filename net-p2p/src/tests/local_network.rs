//! Forged answers of the local network.

use std::num::NonZeroUsize;

use libp2p::{Multiaddr, PeerId, mdns};
use mesh::{DialLimits, Dials};
use runtime::Random;

use super::host::new_key;
use crate::{dialing::Dialing, metrics::P2pMetrics};

/// Addresses of the local network that a node dials at most. Source: threats and goals, row 25.
const MOST: usize = 8;

const FORGED: u32 = 10_000;

fn forged(number: u32) -> (PeerId, Multiaddr) {
    let [_, _, high, low] = number.to_be_bytes();
    (PeerId::random(), format!("/ip4/192.168.{high}.{low}/tcp/4161").parse().unwrap())
}

// Issue 8, 31; threats and goals, row 25. It held before.
#[tokio::test(start_paused = true)]
async fn forged_answers_of_the_local_network_lead_to_eight_dials_at_most() {
    let many = NonZeroUsize::new(2 * FORGED as usize).unwrap();
    let limits = DialLimits::default().with_concurrent(many).with_most(many);
    let (local, random) = (new_key().identity(), Random::system());
    let metrics = P2pMetrics::default();
    let mut dialing = Dialing::new(limits, Dials::default(), random, local, metrics);
    let poison: Vec<_> = (0..FORGED).map(forged).collect();
    for part in poison.chunks(100) {
        dialing.on_mdns(mdns::Event::Discovered(part.to_vec()));
        // The same again, and addresses that name no peer or no port.
        dialing.on_mdns(mdns::Event::Discovered(part.to_vec()));
        let odd = |(peer, _): &(PeerId, _)| (*peer, Multiaddr::empty());
        dialing.on_mdns(mdns::Event::Discovered(part.iter().map(odd).collect()));
    }
    let due = dialing.due();
    assert_eq!(due.len(), MOST);
    for address in &due {
        dialing.is_ourselves(address);
    }
    // An hour later, the failed ones are tried again, and none besides.
    tokio::time::advance(std::time::Duration::from_secs(3_601)).await;
    let again = dialing.due();
    assert!(again.len() <= MOST && again.iter().all(|address| due.contains(address)));
    // When they expire, others may come.
    dialing.on_mdns(mdns::Event::Expired(poison));
    assert!(dialing.due().is_empty());
    dialing.on_mdns(mdns::Event::Discovered((0..20).map(forged).collect()));
    assert_eq!(dialing.due().len(), MOST);
}
