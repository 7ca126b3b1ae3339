//! The words that connected peers say of themselves in the identify protocol, for status pages.
//!
//! # Invariants
//!
//! * There is an entry for peers that are connected, and for no other.
//! * An entry is bounded: longer texts are cut, further protocols left out.
//! * The texts are the peers' own. They are to be shown escaped, and nothing is decided by them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use gossip::Identity;
use libp2p::identify;

/// Longest text that is kept of a peer, in bytes. Chosen: the name of a program with its version and commit.
const MAX_TEXT_BYTES: usize = 128;

/// Most protocols that are kept of a peer. Chosen: twice what a node of the field has.
const MAX_PROTOCOLS: usize = 48;

/// A peer's own description, as its identify record had it last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerAbout {
    /// Program and version; 128 bytes at most.
    pub agent: String,
    /// The stream protocols that it serves; 48 at most, each of 128 bytes at most.
    pub protocols: Vec<String>,
    /// The address at which the peer sees this node; 128 bytes at most.
    pub observed: String,
}

impl PeerAbout {
    fn of(info: &identify::Info) -> Self {
        let protocols = info.protocols.iter().take(MAX_PROTOCOLS);
        Self {
            agent: cut(&info.agent_version),
            protocols: protocols.map(|protocol| cut(protocol.as_ref())).collect(),
            observed: cut(&info.observed_addr.to_string()),
        }
    }
}

/// The descriptions of the peers of one network. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Abouts {
    peers: Arc<Mutex<HashMap<Identity, PeerAbout>>>,
}

impl Abouts {
    /// Notes what a connected peer says.
    pub(crate) fn note(&self, peer: Identity, info: &identify::Info) {
        self.peers().insert(peer, PeerAbout::of(info));
    }

    /// Forgets a peer that is not connected any more.
    pub(crate) fn forget(&self, peer: &Identity) {
        self.peers().remove(peer);
    }

    /// The description of a peer; `None` if it is not connected, or has not said anything yet.
    pub(crate) fn of(&self, peer: &Identity) -> Option<PeerAbout> {
        self.peers().get(peer).cloned()
    }

    /// The connected peers that say that they serve a protocol.
    #[cfg(feature = "reachability")]
    pub(crate) fn speaking(&self, protocol: &libp2p::StreamProtocol) -> Vec<libp2p::PeerId> {
        let peers = self.peers();
        let speaks =
            |about: &PeerAbout| about.protocols.iter().any(|name| *name == protocol.as_ref());
        let speaking = peers.iter().filter(|(_, about)| speaks(about));
        speaking
            .filter_map(|(peer, _)| libp2p::PeerId::from_bytes(peer.peer_id_bytes()).ok())
            .collect()
    }

    fn peers(&self) -> MutexGuard<'_, HashMap<Identity, PeerAbout>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The beginning of a text, as much of it as is kept.
fn cut(text: &str) -> String {
    let end = (0..=MAX_TEXT_BYTES.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or(0)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use libp2p::{Multiaddr, StreamProtocol, identity::Keypair};

    use super::*;

    #[test]
    fn a_talkative_peer_is_kept_within_bounds_and_forgotten() {
        let protocol = |number: usize| {
            StreamProtocol::try_from_owned(format!("/{number}{}", "p".repeat(1_000))).unwrap()
        };
        let info = identify::Info {
            public_key: Keypair::generate_ed25519().public(),
            protocol_version: String::new(),
            agent_version: "é".repeat(500),
            listen_addrs: Vec::new(),
            protocols: (0..1_000).map(protocol).collect(),
            observed_addr: "/dns4/h.example".repeat(100).parse::<Multiaddr>().unwrap(),
            signed_peer_record: None,
        };
        let (abouts, peer) = (Abouts::default(), Identity::from_ed25519([1; 32]));
        assert_eq!(abouts.of(&peer), None);
        abouts.note(peer, &info);
        let about = abouts.of(&peer).unwrap();
        assert_eq!((about.agent.len(), about.protocols.len()), (MAX_TEXT_BYTES, MAX_PROTOCOLS));
        assert_eq!(about.observed.len(), MAX_TEXT_BYTES);
        assert!(about.protocols.iter().all(|text| text.len() == MAX_TEXT_BYTES));
        abouts.forget(&peer);
        assert_eq!(abouts.of(&peer), None);
    }
}
