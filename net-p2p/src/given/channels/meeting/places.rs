//! The meetings in progress that peers began.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use libp2p::PeerId;

use super::MAX_MEETINGS;

/// The peers of these meetings. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Arc<Mutex<HashSet<PeerId>>>);

/// The place of one meeting, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    of: PeerId,
    places: Places,
}

impl Places {
    fn peers(&self) -> MutexGuard<'_, HashSet<PeerId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a meeting with `peer`; `None` if there is none, or the peer has one.
    pub(super) fn take(&self, peer: PeerId) -> Option<Place> {
        let mut peers = self.peers();
        let is_taken = peers.len() < MAX_MEETINGS && peers.insert(peer);
        is_taken.then(|| Place { of: peer, places: self.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.peers().remove(&self.of);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_one_place_and_all_have_so_many() {
        let places = Places::default();
        let first = PeerId::random();
        let held = places.take(first).unwrap();
        assert!(places.take(first).is_none());
        let others: Vec<_> =
            std::iter::from_fn(|| places.take(PeerId::random())).take(MAX_MEETINGS).collect();
        assert_eq!(others.len(), MAX_MEETINGS - 1);
        drop(held);
        assert!(places.take(first).is_some());
    }
}
