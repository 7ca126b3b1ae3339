//! Observers: whoever wants to see every accepted message.
//!
//! # Invariants
//!
//! * Showing a message never waits. An observer that falls behind loses the oldest messages, and learns how many.
//! * The messages that slow observers keep alive have a budget of their own, so they take no memory from peers.

use gossip::{Inbound, Lane};
use tokio::sync::broadcast;

use crate::{
    budget::ByteBudget,
    inbound::work::unshared,
    metrics::{DropReason, Metrics},
};

/// Messages that a slow observer may fall behind by. Chosen: a second of a busy network.
pub(crate) const OBSERVER_DEPTH: usize = 4_096;
/// Divisor of the byte budget that gives the memory, on top of it, for observers that do not keep up. Chosen: several
/// of the largest messages by default, and little beside the rest.
const OBSERVERS_SHARE: usize = 8;

#[derive(Debug)]
pub(crate) struct Observers {
    sender: broadcast::Sender<Inbound>,
    held: ByteBudget,
}

impl Observers {
    /// Observers beside a budget of `budget_bytes`, of which none is there yet.
    pub(crate) fn new(budget_bytes: usize) -> Self {
        let held = ByteBudget::new(budget_bytes / OBSERVERS_SHARE);
        Self { sender: broadcast::Sender::new(OBSERVER_DEPTH), held }
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Inbound> {
        self.sender.subscribe()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sender.receiver_count() == 0
    }

    /// Shows a message to the observers, if those that do not keep up leave room for it.
    pub(crate) fn show(&self, message: &Inbound, lane: Lane, metrics: &Metrics) {
        let Some(held) = self.held.try_reserve(message.body.len(), Lane::Priority) else {
            return metrics.dropped(DropReason::ObserverLagged, lane);
        };
        let shown = Inbound { body: held.keep_with(&unshared(&message.body)), ..message.clone() };
        // An observer that falls behind by too many messages learns it from its own end.
        let _ = self.sender.send(shown);
    }
}
