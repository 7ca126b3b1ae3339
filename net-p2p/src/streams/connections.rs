//! The connections of each peer, and the streams other than gossip that are open on them.
//!
//! # Invariants
//!
//! * A retired connection gets no new outbound stream while its peer has another connection, and is closed only
//!   when none of its streams is in use.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use gossip::LinkPath;
use libp2p::{PeerId, swarm::ConnectionId};

/// A reference to a connection, held by its handler and by the user of each of its streams.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usage {
    shared: Arc<()>,
}

impl Usage {
    /// Returns `true` while somebody but the handler holds a reference.
    pub(super) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.shared) > 1
    }
}

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Active,
    /// The connection ends when none of its streams is in use.
    Retired,
}

#[derive(Debug)]
struct Known {
    id: ConnectionId,
    path: LinkPath,
    standing: Standing,
}

/// The connections by peer.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    /// The oldest connection of each peer is first.
    peers: HashMap<PeerId, Vec<Known>>,
    usages: HashMap<ConnectionId, Weak<()>>,
}

impl Connections {
    /// Registers a connection that is about to be made. Its handler holds the returned reference.
    pub(crate) fn announce(&mut self, id: ConnectionId) -> Usage {
        // Connections without a reference never came up, or have ended.
        self.usages.retain(|_, usage| usage.strong_count() > 0);
        let usage = Usage::default();
        self.usages.insert(id, Arc::downgrade(&usage.shared));
        usage
    }

    pub(crate) fn add(&mut self, peer: PeerId, id: ConnectionId, path: LinkPath) {
        self.peers.entry(peer).or_default().push(Known { id, path, standing: Standing::Active });
    }

    pub(crate) fn remove(&mut self, peer: &PeerId, id: ConnectionId) {
        self.usages.remove(&id);
        if let Some(known) = self.peers.get_mut(peer) {
            known.retain(|known| known.id != id);
            if known.is_empty() {
                self.peers.remove(peer);
            }
        }
    }

    pub(crate) fn has(&self, peer: &PeerId) -> bool {
        self.peers.contains_key(peer)
    }

    /// The connection for a new stream: `wanted` if it exists, else the oldest active one, and one through a relay only
    /// if there is no other.
    pub(crate) fn choose(
        &self,
        peer: &PeerId,
        wanted: Option<ConnectionId>,
    ) -> Option<ConnectionId> {
        let known = self.peers.get(peer)?;
        let chosen = match wanted {
            Some(wanted) => known.iter().find(|known| known.id == wanted),
            None => known.iter().min_by_key(|known| (known.standing, known.path)),
        };
        chosen.map(|known| known.id)
    }

    /// Marks a connection as not needed.
    pub(crate) fn retire(&mut self, peer: &PeerId, id: ConnectionId) {
        let known = self.peers.get_mut(peer).into_iter().flatten();
        for known in known.filter(|known| known.id == id) {
            known.standing = Standing::Retired;
        }
    }

    /// The retired connections without a stream in use.
    pub(crate) fn unused(&self) -> Vec<ConnectionId> {
        let retired = self.peers.values().flatten();
        let retired = retired.filter(|known| known.standing == Standing::Retired);
        retired.map(|known| known.id).filter(|id| !self.is_used(*id)).collect()
    }

    fn is_used(&self, id: ConnectionId) -> bool {
        // The handler itself holds one reference.
        self.usages.get(&id).is_some_and(|usage| usage.strong_count() > 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retired_connection_is_closed_after_its_last_stream() {
        let (peer, mut connections) = (PeerId::random(), Connections::default());
        let [old, new] = [1, 2].map(ConnectionId::new_unchecked);
        let [old_handler, _new_handler] = [old, new].map(|id| connections.announce(id));
        connections.add(peer, old, LinkPath::Direct);
        connections.add(peer, new, LinkPath::Direct);
        assert_eq!(connections.choose(&peer, None), Some(old));
        let stream = old_handler.clone();
        connections.retire(&peer, old);
        assert_eq!(connections.choose(&peer, None), Some(new));
        assert_eq!(connections.choose(&peer, Some(old)), Some(old));
        assert!(connections.unused().is_empty());
        drop(stream);
        assert_eq!(connections.unused(), [old]);
        connections.remove(&peer, old);
        connections.remove(&peer, new);
        assert!(connections.unused().is_empty() && !connections.has(&peer));
    }

    // Issue 11, 2.
    #[test]
    fn a_stream_takes_the_direct_connection_of_a_peer_and_not_the_circuit() {
        let (peer, mut connections) = (PeerId::random(), Connections::default());
        let [circuit, direct] = [1, 2].map(ConnectionId::new_unchecked);
        connections.add(peer, circuit, LinkPath::Relayed);
        assert_eq!(connections.choose(&peer, None), Some(circuit));
        connections.add(peer, direct, LinkPath::Direct);
        assert_eq!(connections.choose(&peer, None), Some(direct));
        assert_eq!(connections.choose(&peer, Some(circuit)), Some(circuit));
    }

    #[test]
    fn a_connection_that_never_came_up_is_forgotten() {
        let mut connections = Connections::default();
        for id in 0..100 {
            drop(connections.announce(ConnectionId::new_unchecked(id)));
        }
        assert_eq!(connections.usages.len(), 1);
    }
}
