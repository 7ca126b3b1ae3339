//! Peer events, from the broadcaster to any number of listeners.
//!
//! # Invariants
//!
//! * Emitting an event never waits. A listener that falls behind loses the oldest events, and learns how many.
//! * The events of one peer come in order: `Connected` once and first, `Disconnected` once and last.
//! * A peer whose identity exchange goes on is `Connected` when the exchange ends or its time is over, so that
//!   the event carries the identity.

use std::sync::{Mutex, MutexGuard, PoisonError};

use gossip::{DisconnectReason, PeerInfo};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

/// Peer events that a slow listener may fall behind by. Chosen: a reconnecting network of 1,000 peers.
pub(crate) const EVENT_DEPTH: usize = 2_048;

/// A change of the connected peers. See [`Broadcaster::events`](crate::Broadcaster::events).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PeerEvent {
    /// It is connected, with its identity if it proves one. A peer that was to prove one and has not done so
    /// within the time of its transport, 10 s over WebSocket, is connected without. It is among the peers of the
    /// node, and its messages are handled, from a moment earlier.
    Connected(PeerInfo),
    /// Its identity was verified after it was connected without one.
    Identified(PeerInfo),
    /// It has ended, and why. Every `Connected` is followed by this, and nothing of the peer follows it.
    Disconnected(PeerInfo, DisconnectReason),
}

impl PeerEvent {
    /// Returns the peer of the event, as it was at that moment.
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

/// The stage of one peer in the eyes of the listeners.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Untold,
    Connected,
    Disconnected,
}

/// Events of one peer, which any of its tasks may emit.
#[derive(Debug, Default)]
pub(crate) struct PeerEvents {
    /// Locked while an event is emitted, so that no other one overtakes it.
    stage: Mutex<Stage>,
    /// Cancelled once listeners know of the peer.
    told: CancellationToken,
}

impl PeerEvents {
    /// Tells that the peer is connected, unless that was told.
    pub(crate) fn connected(&self, events: &Events, peer: impl FnOnce() -> PeerInfo) {
        self.connect(&mut self.stage(), events, peer);
    }

    /// Tells the identity of the peer: with `Connected` if that was not told, else by an event of its own.
    pub(crate) fn identified(&self, events: &Events, peer: impl FnOnce() -> PeerInfo) {
        let mut stage = self.stage();
        match *stage {
            Stage::Untold => self.connect(&mut stage, events, peer),
            Stage::Connected => events.emit(PeerEvent::Identified(peer())),
            Stage::Disconnected => {}
        }
    }

    /// Tells that the peer has ended, and before it that it was connected, if that was not told.
    pub(crate) fn disconnected(
        &self,
        events: &Events,
        peer: impl Fn() -> PeerInfo,
        reason: DisconnectReason,
    ) {
        let mut stage = self.stage();
        self.connect(&mut stage, events, &peer);
        if *stage == Stage::Connected {
            *stage = Stage::Disconnected;
            events.emit(PeerEvent::Disconnected(peer(), reason));
        }
    }

    /// Resolves once listeners know of the peer.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is taken.
    pub(crate) async fn told(&self) {
        self.told.cancelled().await;
    }

    fn connect(&self, stage: &mut Stage, events: &Events, peer: impl FnOnce() -> PeerInfo) {
        if *stage == Stage::Untold {
            *stage = Stage::Connected;
            events.emit(PeerEvent::Connected(peer()));
            self.told.cancel();
        }
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
