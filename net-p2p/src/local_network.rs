//! The search for peers on the local network, by mDNS.

use std::io;

pub(crate) use libp2p::mdns::{Event, tokio::Behaviour};
use libp2p::{Multiaddr, PeerId, mdns};

/// Searches the local network, and answers others there.
pub(crate) fn search(local: PeerId) -> io::Result<Behaviour> {
    Behaviour::new(mdns::Config::default(), local)
}

/// The addresses that an event found, and those that it took back.
pub(crate) fn found_and_gone(event: Event) -> [Vec<(PeerId, Multiaddr)>; 2] {
    match event {
        Event::Discovered(found) => [found, Vec::new()],
        Event::Expired(gone) => [Vec::new(), gone],
    }
}
