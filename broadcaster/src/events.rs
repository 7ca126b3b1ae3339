//! Peer events, from the broadcaster to any number of listeners.
//!
//! # Invariants
//!
//! * Emitting an event never waits. A listener that falls behind loses the oldest events, and learns how many.

use gossip::{DisconnectReason, PeerInfo};
use tokio::sync::broadcast;

/// Peer events that a slow listener may fall behind by. Chosen: a reconnecting network of 1,000 peers.
pub(crate) const EVENT_DEPTH: usize = 2_048;

/// Something that happened to a peer.
#[derive(Clone, Debug)]
pub enum PeerEvent {
    /// It was attached.
    Connected(PeerInfo),
    /// Its identity was verified after it was attached.
    Identified(PeerInfo),
    /// It has ended, and why.
    Disconnected(PeerInfo, DisconnectReason),
}

impl PeerEvent {
    /// The peer that it happened to, as it was at that moment.
    #[must_use]
    pub const fn peer(&self) -> &PeerInfo {
        match self {
            Self::Connected(peer) | Self::Identified(peer) | Self::Disconnected(peer, _) => peer,
        }
    }
}

/// The sending end of the peer events. A cheap handle.
#[derive(Clone, Debug)]
pub(crate) struct Events(broadcast::Sender<PeerEvent>);

impl Events {
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(EVENT_DEPTH))
    }

    pub(crate) fn emit(&self, event: PeerEvent) {
        // The send fails only when no listener is subscribed, which is fine.
        let _ = self.0.send(event);
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<PeerEvent> {
        self.0.subscribe()
    }
}
