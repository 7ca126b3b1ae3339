//! The measurement of outgoing peers by who brings messages first: from the way in to the mesh loop.
//!
//! # Invariants
//!
//! * Votes and proposals count, as the messages of the priority lane.
//! * Only messages of peers that this node dialled take the lock, and it is held for a look into a table.

use std::sync::{Mutex, MutexGuard, PoisonError};

use gossip::{Direction, Lane};
use mesh::{MessageKey, Ranking};
use runtime::time::{self, Instant};

use crate::peer::Peer;

/// The ranking, shared by the read loops and the mesh loop.
#[derive(Debug)]
pub(crate) struct Performance(Mutex<Ranking>);

impl Performance {
    pub(crate) const fn new(ranking: Ranking) -> Self {
        Self(Mutex::new(ranking))
    }

    /// A peer has brought a message.
    pub(crate) fn heard(&self, peer: &Peer, lane: Lane, message: MessageKey) {
        if lane == Lane::Priority && peer.direction() == Direction::Outbound {
            self.ranking().heard(peer.id, message, time::into_std(Instant::now()));
        }
    }

    pub(crate) fn ranking(&self) -> MutexGuard<'_, Ranking> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
