//! A message on its way to its handler, and what whoever sent it may have under way.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use gossip::{DisconnectReason, Inbound, Lane, LinkId, wire::digest::Digest};
use runtime::time::Instant;

use super::rate::{Bucket, CommonBucket};
use crate::{
    assembler::{INLINE_BYTES, MessageMemory},
    budget::Reservation,
    duplicates::{Fingerprint, Sighting},
    encode,
    fair::{FairQueue, Share},
    intake::{Intake, Job},
    limits::{Limits, Rate},
    passing::Passed,
    peer::Peer,
    trace::{TraceEvent, Traced},
};

/// The place where a message was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeardOn {
    /// On a peer's own connection.
    Stream,
    /// On a topic, where it spreads by itself once it is accepted.
    Topic,
}

/// The charges of a message.
#[derive(Debug)]
pub(crate) struct Held {
    /// For what came off the wire.
    pub(crate) wire: MessageMemory,
    /// For what it became when it was decompressed.
    pub(crate) _body: Option<Reservation>,
}

/// A message on its way to its handler.
pub(crate) struct Work {
    pub(crate) message: Inbound,
    /// The message as it came, to be passed on without encoding it again.
    pub(crate) wire: Bytes,
    /// The message as a vote packed by itself, if it came in that form.
    pub(crate) packed: Option<Bytes>,
    /// `None` for a request, which is no gossip.
    pub(crate) fingerprint: Option<Fingerprint>,
    /// The digest of a large message, once somebody asked: hashing megabytes twice would show.
    pub(crate) digest: OnceLock<Option<Digest>>,
    pub(crate) lane: Lane,
    pub(crate) peer: Option<Arc<Peer>>,
    /// Keeps the bytes charged to the budget until the message has been handled.
    pub(crate) held: Held,
    pub(crate) heard_on: HeardOn,
    /// The sender's shares of the queues, in which the message is passed on.
    pub(crate) shares: Arc<Shares>,
    /// Has the message forgotten unless somebody judges it. `None` for requests and for later copies.
    pub(crate) sighting: Option<Sighting>,
    /// Takes its steps, if its way is kept.
    pub(crate) traced: Option<Arc<Traced>>,
}

impl Work {
    /// The digest by which peers say that they have the message; only a large one has one.
    pub(crate) fn digest(&self) -> Option<Digest> {
        let Inbound { tag, body, .. } = &self.message;
        *self.digest.get_or_init(|| encode::digest(*tag, body, self.wire.len()))
    }

    /// The message as it came, where it keeps no read buffer alive.
    pub(crate) fn own_wire(&self) -> Bytes {
        match self.held.wire {
            MessageMemory::Shared(_) => unshared(&self.wire),
            MessageMemory::Uncharged | MessageMemory::Charged(_) => self.wire.clone(),
        }
    }

    /// Notes what happens to the message now, if its way is kept.
    pub(crate) fn trace(&self, event: TraceEvent) {
        if let Some(traced) = &self.traced {
            traced.note(event, None);
        }
    }

    /// The gossip peer that the message came from, if it was one.
    pub(crate) fn from(&self) -> Option<LinkId> {
        self.message.from
    }
}

/// The queues in front of the workers.
#[derive(Clone)]
pub(crate) struct WorkQueues {
    lanes: [FairQueue<Work>; 2],
    requests: FairQueue<Work>,
}

impl WorkQueues {
    pub(crate) fn new(limits: &Limits) -> Self {
        // One at a time, so that the messages of a peer are handled in order.
        let lanes = Lane::ALL.map(|_lane| FairQueue::new(1));
        Self { lanes, requests: FairQueue::new(limits.peer_requests_at_once.get()) }
    }

    /// The queue of a lane.
    pub(crate) fn lane(&self, lane: Lane) -> &FairQueue<Work> {
        &self.lanes[usize::from(lane == Lane::Bulk)]
    }

    /// The queue of requests.
    pub(crate) const fn requests(&self) -> &FairQueue<Work> {
        &self.requests
    }
}

/// The shares of one sender: of every queue, and of the processors.
pub(crate) struct Shares {
    /// Bytes that its compressed messages became of late.
    unpacked: Mutex<Bucket>,
    unpacked_rate: Rate,
    /// The part of them that this node was ready to pass on.
    passed: Mutex<Bucket>,
    passed_on: Passed,
    work: [Share<Work>; 2],
    requests: Share<Work>,
    intake: [Share<Job>; 2],
}

impl Shares {
    /// The shares of a peer that sends over its connection and can be held up.
    pub(crate) fn of_peer(work: &WorkQueues, intake: &Intake, limits: &Limits) -> Self {
        Self::new(work, intake, limits, (limits.peer_tokens.max(1), limits.peer_intake.get()))
    }

    /// The shares of somebody who passes messages on in a topic, where nobody can be held up.
    pub(crate) fn of_topic(work: &WorkQueues, intake: &Intake, limits: &Limits) -> Self {
        let queue = limits.topic_queue.get();
        Self::new(work, intake, limits, (queue, queue))
    }

    fn new(
        work: &WorkQueues,
        intake: &Intake,
        limits: &Limits,
        (handled, routed): (usize, usize),
    ) -> Self {
        Self {
            unpacked: Mutex::new(Bucket::new(Instant::now())),
            unpacked_rate: limits.rates.unpacked_bytes,
            passed: Mutex::new(CommonBucket::newcomer(
                limits.rates.unpacked_in_all,
                Instant::now(),
            )),
            passed_on: Passed::new(Instant::now()),
            work: Lane::ALL.map(|lane| work.lane(lane).share(handled)),
            requests: work.requests().share(limits.peer_requests.get()),
            intake: Lane::ALL.map(|lane| intake.share(lane, routed)),
        }
    }

    /// Shares of which compressed messages may become so much.
    pub(crate) fn unpacking_at(self, unpacked_rate: Rate) -> Self {
        Self { unpacked_rate, ..self }
    }

    /// Notes what a compressed message became, which costs this node and not its sender.
    ///
    /// # Errors
    ///
    /// [`DisconnectReason::Flood`] when it was too much of late.
    pub(crate) fn charge(&self, bytes: usize) -> Result<(), DisconnectReason> {
        let mut unpacked = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        let over = unpacked.fill(bytes as u64, self.unpacked_rate, Instant::now());
        if over.is_zero() { Ok(()) } else { Err(DisconnectReason::Flood) }
    }

    /// Takes room for what a compressed message became out of what all peers share. False if there is none for
    /// this peer.
    pub(crate) fn takes_of(&self, common: &Mutex<CommonBucket>, bytes: usize, rate: Rate) -> bool {
        let mut common = common.lock().unwrap_or_else(PoisonError::into_inner);
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        common.take(&mut passed, bytes as u64, rate, Instant::now())
    }

    /// Returns `true` if this peer may have `bytes` of what compressed messages become, which all peers share.
    pub(crate) fn has_part_of(
        &self,
        common: &Mutex<CommonBucket>,
        bytes: usize,
        rate: Rate,
    ) -> bool {
        let common = common.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        common.has_room(&passed, bytes as u64, rate, Instant::now())
    }

    /// Messages that were passed on of late.
    pub(crate) const fn passed_on(&self) -> &Passed {
        &self.passed_on
    }

    /// Messages of a lane that wait for a worker, or are being handled.
    pub(crate) fn work(&self, lane: Lane) -> &Share<Work> {
        &self.work[usize::from(lane == Lane::Bulk)]
    }

    /// Requests that wait, or are being handled.
    pub(crate) const fn requests(&self) -> &Share<Work> {
        &self.requests
    }

    /// Messages of a lane that wait to be passed on.
    pub(crate) fn intake(&self, lane: Lane) -> &Share<Job> {
        &self.intake[usize::from(lane == Lane::Bulk)]
    }

    /// Returns whether nothing waits or is being handled.
    pub(crate) fn are_idle(&self) -> bool {
        self.work.iter().all(Share::is_idle) && self.intake.iter().all(Share::is_idle)
    }
}

/// The same bytes, copied where they may lie in a read buffer, so that they do not keep all of it alive.
pub(crate) fn unshared(bytes: &Bytes) -> Bytes {
    if bytes.len() <= INLINE_BYTES { Bytes::copy_from_slice(bytes) } else { bytes.clone() }
}
