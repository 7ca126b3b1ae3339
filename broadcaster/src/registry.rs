//! The connected peers of a node, whatever carries them.
//!
//! # Invariants
//!
//! * Every attachment gets the next generation, so "joined after" is a comparison of numbers.
//! * A peer that has ended is not in the registry.
//! * What is parked for an identity is bounded in number and time.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dashmap::DashMap;
use gossip::{Identity, PeerClass, PeerId, PeerInfo};
use tokio::time::Instant;

use crate::{lanes::Queued, peer::Peer};

/// Identities for which messages may be parked at a time. Chosen: links are handed over one or two
/// at a time; this bounds what hostile reconnections can hold.
const MAX_PARKED: usize = 64;

#[derive(Default)]
pub(crate) struct Registry {
    peers: DashMap<PeerId, Arc<Peer>>,
    identities: DashMap<Identity, PeerId>,
    next_id: AtomicU64,
    generation: AtomicU64,
    /// Changes with every insertion and removal, so that the router knows when its list is old.
    version: AtomicU64,
    parked: Mutex<HashMap<Identity, (Instant, Vec<Queued>)>>,
}

impl Registry {
    pub(crate) fn next_id(&self) -> PeerId {
        PeerId(self.next_id.fetch_add(1, Ordering::Relaxed) + 1)
    }

    pub(crate) fn next_generation(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// The generation of the newest attachment.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(crate) fn insert(&self, peer: Arc<Peer>) {
        let (id, identity) = (peer.id, peer.identity());
        self.peers.insert(id, peer);
        if let Some(identity) = identity {
            self.identities.insert(identity, id);
        }
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// Notes the identity of a peer that is in the registry. The newest link answers to the identity.
    pub(crate) fn identify(&self, id: PeerId, identity: Identity) {
        if let Some(peer) = self.get(id) {
            peer.identify(identity);
            self.identities.insert(identity, id);
        }
    }

    pub(crate) fn remove(&self, id: PeerId) {
        if let Some((_, peer)) = self.peers.remove(&id) {
            if let Some(identity) = peer.identity() {
                self.identities.remove_if(&identity, |_, holder| *holder == id);
            }
            self.version.fetch_add(1, Ordering::AcqRel);
        }
    }

    pub(crate) fn get(&self, id: PeerId) -> Option<Arc<Peer>> {
        self.peers.get(&id).map(|peer| Arc::clone(&peer))
    }

    pub(crate) fn by_identity(&self, identity: &Identity) -> Option<Arc<Peer>> {
        let id = *self.identities.get(identity)?;
        self.get(id)
    }

    pub(crate) fn list(&self) -> Vec<Arc<Peer>> {
        self.peers.iter().map(|peer| Arc::clone(&peer)).collect()
    }

    pub(crate) fn infos(&self, class: PeerClass) -> Vec<PeerInfo> {
        let infos = self.peers.iter().map(|peer| peer.info());
        infos.filter(|info| class.includes(info)).collect()
    }

    /// Keeps what a link could not write until another link to the same node takes it.
    pub(crate) fn park(&self, identity: Identity, messages: Vec<Queued>, patience: Duration) {
        let now = Instant::now();
        let mut dropped = Vec::new();
        {
            let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
            parked.retain(|_, (until, messages)| {
                let keep = now < *until;
                if !keep {
                    dropped.append(messages);
                }
                keep
            });
            if parked.len() < MAX_PARKED {
                let (_, waiting) =
                    parked.entry(identity).or_insert_with(|| (now + patience, Vec::new()));
                waiting.extend(messages);
            } else {
                dropped.extend(messages);
            }
        }
        drop(dropped);
    }

    /// What waits for a new link of this identity.
    pub(crate) fn unpark(&self, identity: &Identity) -> Vec<Queued> {
        let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = parked.remove(identity);
        let fresh = waiting.filter(|(until, _)| Instant::now() < *until);
        fresh.map(|(_, messages)| messages).unwrap_or_default()
    }
}
