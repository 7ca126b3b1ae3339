//! Conduct of a peer as the door remembers it, for the one that reads from the peer.

use std::fmt;

use gossip::{Host, Identity, Instant};

use super::Door;

/// The place where misbehaviour of one peer is noted, for its host and for its identity if it proved one. Outlives the
/// peer, which pays when it comes again.
#[derive(Clone)]
pub struct Conduct {
    door: Door,
    host: Host,
    identity: Option<Identity>,
}

impl Conduct {
    pub(super) const fn new(door: Door, host: Host, identity: Option<Identity>) -> Self {
        Self { door, host, identity }
    }

    /// Notes that the peer was disconnected for misbehaviour. Without effect for this machine while it is exempt.
    pub fn misbehaved(&self, now: Instant) {
        self.door.shared().rules.strike(self.host, self.identity, now);
    }

    /// Times of late that peers of this host, or of this identity, were disconnected for misbehaviour. Forgotten after a
    /// time that doubles with each of them.
    #[must_use]
    pub fn strikes(&self, now: Instant) -> u32 {
        self.door.shared().rules.strikes(self.host, self.identity, now)
    }
}

impl fmt::Debug for Conduct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { door: _, host, identity } = self;
        f.debug_struct("Conduct").field("host", host).field("identity", identity).finish()
    }
}
