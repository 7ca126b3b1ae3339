//! The index over the phonebook by which the dial schedule finds what is due without looking at every address.
//!
//! ```text
//!               its time comes            it is chosen
//!   Waiting ──────────────────▶ Ready ─────────────────▶ InUse
//!      ▲                          │ its peer is there, or banned
//!      └── the entry has changed ─┴─▶ Waiting, Asleep
//! ```
//!
//! # Invariants
//!
//! * Every address has one slot, and lies in at most one queue.
//! * The time of one that waits may be too early, never too late: things that put an address off, such as a ban, are
//!   noticed when its turn comes. Things that make it due sooner must be told.
//! * It holds as much as the phonebook, and no more.

use std::collections::{BTreeMap, BTreeSet};

use gossip::{Identity, Instant, NodeAddress, Transport};
use rand::Rng;

use super::entry::Rank;

/// Addresses that compete for the same places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Persistent,
    Learnt(Transport),
}

/// The queue of an address: those that were connected before have places of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct QueueId {
    pub(super) class: Class,
    pub(super) is_familiar: bool,
}

/// The order of those that are ready: by rank, and by chance among equals.
pub(super) type Turn = (Rank, u64);

/// The state of an address, as its entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It may be dialled from then on.
    Waiting { queue: QueueId, rank: Rank, at: Instant },
    /// Time alone makes it due never.
    Asleep,
    /// It is being dialled.
    Dialled { since: Instant, transport: Transport },
    /// It has a link.
    Linked { transport: Transport },
}

#[derive(Clone, Copy, Debug)]
enum Slot {
    Waiting { queue: QueueId, rank: Rank, at: Instant },
    Ready { queue: QueueId, turn: Turn },
    Asleep,
    Dialled,
    Linked { transport: Transport },
}

#[derive(Debug, Default)]
struct Queue {
    ready: BTreeSet<(Turn, NodeAddress)>,
    waiting: BTreeSet<(Instant, NodeAddress)>,
}

/// The index. See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Agenda {
    slots: BTreeMap<NodeAddress, (Slot, Option<Identity>)>,
    queues: BTreeMap<QueueId, Queue>,
    dialled: BTreeMap<NodeAddress, (Instant, Transport)>,
    linked: BTreeMap<Transport, usize>,
    by_identity: BTreeMap<Identity, BTreeSet<NodeAddress>>,
}

impl Agenda {
    /// Sets the state of an address, and the identity that was last found behind it.
    pub(super) fn set(&mut self, address: &NodeAddress, state: State, identity: Option<Identity>) {
        self.take(address);
        let slot = match state {
            State::Waiting { queue, rank, at } => {
                self.queues.entry(queue).or_default().waiting.insert((at, address.clone()));
                Slot::Waiting { queue, rank, at }
            }
            State::Asleep => Slot::Asleep,
            State::Dialled { since, transport } => {
                self.dialled.insert(address.clone(), (since, transport));
                Slot::Dialled
            }
            State::Linked { transport } => {
                *self.linked.entry(transport).or_default() += 1;
                Slot::Linked { transport }
            }
        };
        if let Some(identity) = identity {
            self.by_identity.entry(identity).or_default().insert(address.clone());
        }
        self.slots.insert(address.clone(), (slot, identity));
    }

    /// Forgets an address.
    pub(super) fn take(&mut self, address: &NodeAddress) {
        let Some((slot, identity)) = self.slots.remove(address) else { return };
        match slot {
            Slot::Waiting { queue, at, .. } => {
                if let Some(queue) = self.queues.get_mut(&queue) {
                    queue.waiting.remove(&(at, address.clone()));
                }
            }
            Slot::Ready { queue, turn } => {
                if let Some(queue) = self.queues.get_mut(&queue) {
                    queue.ready.remove(&(turn, address.clone()));
                }
            }
            Slot::Asleep => {}
            Slot::Dialled => {
                self.dialled.remove(address);
            }
            Slot::Linked { transport } => {
                if let Some(count) = self.linked.get_mut(&transport) {
                    *count = count.saturating_sub(1);
                }
            }
        }
        if let Some(identity) = identity
            && let Some(addresses) = self.by_identity.get_mut(&identity)
        {
            addresses.remove(address);
            if addresses.is_empty() {
                self.by_identity.remove(&identity);
            }
        }
    }

    /// Makes those ready whose time has come.
    pub(super) fn ripen(&mut self, now: Instant, rng: &mut impl Rng) {
        for (id, queue) in &mut self.queues {
            while queue.waiting.first().is_some_and(|(at, _)| *at <= now) {
                let Some((_, address)) = queue.waiting.pop_first() else { break };
                let Some((slot, _)) = self.slots.get_mut(&address) else { continue };
                let Slot::Waiting { rank, .. } = *slot else { continue };
                let turn = (rank, rng.random());
                *slot = Slot::Ready { queue: *id, turn };
                queue.ready.insert((turn, address));
            }
        }
    }

    /// The queues there are.
    pub(super) fn queues(&self) -> Vec<QueueId> {
        self.queues.keys().copied().collect()
    }

    /// The first of a queue that is ready.
    pub(super) fn ready(&self, queue: QueueId) -> Option<(Turn, &NodeAddress)> {
        let (turn, address) = self.queues.get(&queue)?.ready.first()?;
        Some((*turn, address))
    }

    /// The first of a queue whose time comes.
    pub(super) fn waiting(&self, queue: QueueId) -> Option<(Instant, &NodeAddress)> {
        let (at, address) = self.queues.get(&queue)?.waiting.first()?;
        Some((*at, address))
    }

    /// The addresses behind which an identity was last found.
    pub(super) fn of_identity(&self, identity: &Identity) -> Vec<NodeAddress> {
        self.by_identity.get(identity).into_iter().flatten().cloned().collect()
    }

    /// Since when each of the dials is under way, and over which transport.
    pub(super) fn dials(&self) -> impl ExactSizeIterator<Item = (Instant, Transport)> {
        self.dialled.values().copied()
    }

    /// The number of links of each transport.
    pub(super) fn linked(&self) -> BTreeMap<Transport, usize> {
        self.linked.clone()
    }

    /// Addresses that have a link.
    pub(super) fn links(&self) -> usize {
        self.linked.values().sum()
    }

    /// All addresses.
    pub(super) fn addresses(&self) -> Vec<NodeAddress> {
        self.slots.keys().cloned().collect()
    }
}
