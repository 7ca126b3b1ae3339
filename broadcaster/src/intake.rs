//! The intake: the two bounded queues in front of the router, and what waits in them.
//!
//! # Invariants
//!
//! * Each sender has a share of its own in each lane: many messages of one fill its share and delay nobody else's.
//! * Offering this node's own message never waits: a full share is an answer, and counted.

use std::sync::Arc;

use gossip::{Admission, Lane, LinkId};

use crate::{
    fair::{Consumer, FairQueue, Refused, Share},
    frame::{Frame, Origin},
    metrics::{DropReason, Metrics},
    peer::Peer,
    receipts::Receipts,
};

/// The peers that a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    All,
    AllExcept(LinkId),
    One(LinkId),
    /// Peers that joined after a generation: those that missed the first copy.
    JoinedAfter {
        generation: u64,
        except: Option<LinkId>,
    },
}

/// The use of the topic of a message's tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ToTopic {
    Publish,
    /// Leave the topic out: the message came from there, or is for one peer.
    Skip,
}

#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) frame: Frame,
    pub(crate) target: Target,
    pub(crate) topic: ToTopic,
    pub(crate) receipts: Option<Receipts>,
}

impl Job {
    /// The link that a message must not go to, because it came from there.
    pub(crate) fn source(&self) -> Option<LinkId> {
        match self.target {
            Target::AllExcept(source) => Some(source),
            Target::JoinedAfter { except, .. } => except,
            Target::All | Target::One(_) => None,
        }
    }

    /// Returns whether it is a message of somebody else that this node passes on.
    pub(crate) fn is_forwarded(&self) -> bool {
        self.frame.origin() == Origin::Forwarded
    }

    /// Returns whether the message is for this peer.
    pub(crate) fn includes(&self, peer: &Peer) -> bool {
        match self.target {
            Target::All => true,
            Target::AllExcept(source) => peer.id != source,
            Target::One(only) => peer.id == only,
            Target::JoinedAfter { generation, except } => {
                peer.joined > generation && Some(peer.id) != except
            }
        }
    }
}

/// The two queues in front of the router.
#[derive(Clone)]
pub(crate) struct Intake {
    lanes: [FairQueue<Job>; 2],
    own: [Share<Job>; 2],
}

impl Intake {
    /// Queues in which this node's own messages have shares of `depths`.
    pub(crate) fn new(depths: [usize; 2]) -> Self {
        let lanes = [FairQueue::new(1), FairQueue::new(1)];
        let own = [lanes[0].share(depths[0]), lanes[1].share(depths[1])];
        Self { lanes, own }
    }

    fn lane(&self, lane: Lane) -> &FairQueue<Job> {
        &self.lanes[usize::from(lane == Lane::Bulk)]
    }

    /// The queue of each lane, priority first.
    pub(crate) const fn lanes(&self) -> &[FairQueue<Job>; 2] {
        &self.lanes
    }

    /// The consumers of both lanes. What is queued is dropped when the last clone of them is.
    pub(crate) fn consumers(&self) -> [Arc<Consumer<Job>>; 2] {
        [self.lanes[0].consumer(), self.lanes[1].consumer()]
    }

    /// A share of a lane, for `bound` messages of somebody else.
    pub(crate) fn share(&self, lane: Lane, bound: usize) -> Share<Job> {
        self.lane(lane).share(bound)
    }

    /// Queues a message of this node's own, or says why not. Never waits. `make` is called if there is
    /// room, and what it does is then not undone.
    pub(crate) fn offer(
        &self,
        lane: Lane,
        make: impl FnOnce() -> Job,
        metrics: &Metrics,
    ) -> Admission {
        match self.own[usize::from(lane == Lane::Bulk)].try_push_with(make) {
            Ok(()) => Admission::Queued,
            Err(Refused::Full) => {
                metrics.dropped(DropReason::IntakeFull, lane);
                Admission::Full
            }
            Err(Refused::Closed) => Admission::Closed,
        }
    }
}
