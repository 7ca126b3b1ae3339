//! In place of `local_network` in a browser, which sends no datagrams: a search that fails, and finds nothing.

use std::io;

pub(crate) use libp2p::swarm::dummy::Behaviour;
use libp2p::{Multiaddr, PeerId};

/// Has no value.
#[derive(Debug)]
pub(crate) enum Event {}

/// Fails.
pub(crate) fn search(_: PeerId) -> io::Result<Behaviour> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "a browser has no sockets"))
}

/// Is never called, since there is no event.
pub(crate) fn found_and_gone(event: Event) -> [Vec<(PeerId, Multiaddr)>; 2] {
    match event {}
}
