//! Identities that held a place for long, so that they are preferred when they come again.
//!
//! # Invariants
//!
//! * At most [`MAX_TRIED`] are remembered; those heard of longest ago are forgotten first.

use std::collections::HashSet;

use gossip::Identity;

/// Identities remembered at most. Chosen: more than a node has places, and some 300 KiB.
const MAX_TRIED: usize = 4_096;

/// In two generations: those added since the last turn, and those before. A full newer one turns.
#[derive(Debug, Default)]
pub(super) struct Tried {
    recent: HashSet<Identity>,
    older: HashSet<Identity>,
}

impl Tried {
    pub(super) fn add(&mut self, identity: Identity) {
        self.recent.insert(identity);
        if self.recent.len() >= MAX_TRIED / 2 {
            self.older = std::mem::take(&mut self.recent);
        }
    }

    pub(super) fn has(&self, identity: &Identity) -> bool {
        self.recent.contains(identity) || self.older.contains(identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(number: usize) -> Identity {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        Identity::from_ed25519(bytes)
    }

    #[test]
    fn the_newest_are_remembered_and_no_more_than_the_bound() {
        let mut tried = Tried::default();
        for number in 0..10 * MAX_TRIED {
            tried.add(identity(number));
            assert!(tried.has(&identity(number)));
            assert!(tried.recent.len() + tried.older.len() <= MAX_TRIED);
        }
        assert!(!tried.has(&identity(0)));
    }
}
