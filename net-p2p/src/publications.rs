//! The queue of messages that the router gives the swarm task to publish.
//!
//! ```text
//!   router ──Publications──▶ [own] [link A] [link B] ──in turn──▶ ToPublish ──▶ outbox of the swarm task
//! ```
//!
//! # Invariants
//!
//! * Messages of the priority lane go first, and have a share of their own.
//! * Nothing waits in front of it: every origin has its share as soon as the router offers a message.
//! * It is closed and emptied when the swarm task is gone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broadcaster::{Reservation, TopicReceipt};
use bytes::Bytes;
use gossip::{Lane, PublishError};
use libp2p::gossipsub::TopicHash;
use tokio::sync::{Notify, oneshot};

use crate::{origin::Origin, waiting::LaneQueues};

/// The reason why a message or a command for the swarm task was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// There is no room.
    Full,
    /// No swarm is running.
    Down,
}

/// Tells the sender of a message the outcome. One that is dropped tells that the message was dropped.
#[derive(Debug)]
pub(crate) enum Receipt {
    /// The message is one of the broadcaster.
    Broadcast(TopicReceipt),
    /// The message is for a topic of the application.
    Awaited(oneshot::Sender<Result<usize, PublishError>>),
}

impl Receipt {
    /// Tells that the message was sent to so many peers.
    pub(crate) fn reached(self, peers: usize) {
        match self {
            Self::Broadcast(receipt) => receipt.reached(peers),
            // The send fails only if the sender has stopped waiting.
            Self::Awaited(sender) => drop(sender.send(Ok(peers))),
        }
    }

    /// Tells that the message was not sent.
    pub(crate) fn failed(self, why: PublishError) {
        if let Self::Awaited(sender) = self {
            // As above.
            let _ = sender.send(Err(why));
        }
    }
}

/// A message that waits to be published.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) origin: Origin,
    pub(crate) topic: TopicHash,
    pub(crate) lane: Lane,
    pub(crate) body: Bytes,
    /// The charge for [`cost`](crate::outbox::cost) bytes.
    pub(crate) held: Reservation,
    /// Receives the number of peers the message was sent to.
    pub(crate) receipt: Receipt,
}

/// The end of the queue that takes messages. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Publications {
    shared: Arc<Shared>,
}

/// The end of the queue that gives messages out.
#[derive(Debug)]
pub(crate) struct ToPublish {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// `None` once the swarm task is gone.
    waiting: Mutex<Option<LaneQueues<Origin, Publication>>>,
    /// Wakes the swarm task for a message: those that wait already may have no room, but this one may.
    came: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<LaneQueues<Origin, Publication>>> {
        // No code of others runs under this lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A queue for messages with a charge of `bound` bytes in all, and as much again for those of the priority lane.
pub(crate) fn publications(bound: usize) -> (Publications, ToPublish) {
    let waiting = Mutex::new(Some(LaneQueues::new(bound)));
    let shared = Arc::new(Shared { waiting, came: Notify::new() });
    (Publications { shared: Arc::clone(&shared) }, ToPublish { shared })
}

impl Publications {
    /// Offers a message, and returns the number of messages of others that were dropped for it.
    ///
    /// # Errors
    ///
    /// [`NotTaken`] if this message was dropped.
    pub(crate) fn offer(&self, message: Publication) -> Result<usize, NotTaken> {
        let origin = message.origin;
        let removed = {
            let mut waiting = self.shared.lock();
            let Some(waiting) = waiting.as_mut() else { return Err(NotTaken::Down) };
            waiting.of_mut(message.lane).push(origin, message.held.bytes(), message)
        };
        // An origin's own messages stay, and give no room to its next one.
        if removed.iter().any(|removed| removed.origin == origin) {
            return Err(NotTaken::Full);
        }
        self.shared.came.notify_one();
        Ok(removed.len())
    }
}

impl ToPublish {
    /// Waits for another message. May return without one.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is taken.
    pub(crate) async fn came(&self) {
        self.shared.came.notified().await;
    }

    /// The origin whose turn it is, of the priority lane first, and the charge for its oldest message.
    pub(crate) fn front(&self) -> Option<(Origin, usize)> {
        let waiting = self.shared.lock();
        let waiting = waiting.as_ref()?;
        let (origin, message) = Lane::ALL.iter().find_map(|lane| waiting.of(*lane).front())?;
        Some((origin, message.held.bytes()))
    }

    /// Takes the next message of a lane, of the first origin, among the next `tries`, that has room for it. The turns of those
    /// without are passed on.
    pub(crate) fn next(
        &self,
        lane: Lane,
        tries: usize,
        mut has_room: impl FnMut(Origin, usize) -> bool,
    ) -> Option<Publication> {
        let mut waiting = self.shared.lock();
        let waiting = waiting.as_mut()?.of_mut(lane);
        for _ in 0..waiting.origins().min(tries) {
            let (origin, message) = waiting.front()?;
            if has_room(origin, message.held.bytes()) {
                return waiting.pop();
            }
            waiting.skip();
        }
        None
    }
}

impl Drop for ToPublish {
    fn drop(&mut self) {
        let left = self.shared.lock().take();
        // Dropped after the lock was released: receipts wake their callers.
        drop(left);
    }
}
