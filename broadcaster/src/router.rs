//! The router: one message after the other, offered to every peer that wants it.
//!
//! ```text
//!   own messages ──▶ share ──┐                                ┌─▶ Lanes of each peer
//!   of peer A    ──▶ share ──┼─▶ [priority] [bulk] ─▶ Router ─┤
//!   of peer B    ──▶ share ──┘     in turn                    └─▶ TopicSink
//! ```
//!
//! # Invariants
//!
//! * Whoever has much to be routed waits for room in its own share, and delays nobody else's.
//! * The router waits only for the next message, and lets others run in between: a slow peer shows up as `Full` on its own lane and
//!   is counted, and cannot delay the peers after it.
//! * A message goes back to the node that it came from by none of its links.
//! * Within a lane, messages of one share reach every peer's queue in the order they were submitted.
//! * When the node stops, what was submitted before is still routed.
//! * A message whose tag has a topic goes either to the topic or to the streams of the topic's
//!   transport, never to both.

use std::{collections::HashMap, sync::Arc};

use gossip::{Admission, Lane, LinkId, Tag, TagTable, Transport};
use tokio_util::sync::CancellationToken;

use crate::{
    breath::Breath,
    fair::{Consumer, FairQueue, Refused, Share},
    frame::Frame,
    lanes::Queued,
    metrics::{DropReason, Metrics},
    peer::Peer,
    receipts::{Receipts, TopicReceipt},
    registry::Registry,
    topic::{TopicAdmission, TopicSink},
};

/// Most messages taken from the intake at a time. Chosen: enough to spread the cost of a peer's lock.
const ROUND: usize = 64;

/// Topics by tag, shared with whoever attaches them.
pub(crate) type Topics = Arc<std::sync::RwLock<HashMap<Tag, (Transport, Arc<dyn TopicSink>)>>>;

/// Whom a message is for.
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

/// Whether a message also goes to the topic of its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ToTopic {
    Publish,
    /// It came from there, or is for one peer.
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
    fn source(&self) -> Option<LinkId> {
        match self.target {
            Target::AllExcept(source) => Some(source),
            Target::JoinedAfter { except, .. } => except,
            Target::All | Target::One(_) => None,
        }
    }

    fn includes(&self, peer: &Peer) -> bool {
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
    fn new(depths: [usize; 2]) -> Self {
        let lanes = [FairQueue::new(1), FairQueue::new(1)];
        let own = [lanes[0].share(depths[0]), lanes[1].share(depths[1])];
        Self { lanes, own }
    }

    fn lane(&self, lane: Lane) -> &FairQueue<Job> {
        &self.lanes[usize::from(lane == Lane::Bulk)]
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

pub(crate) struct Router {
    intake: Intake,
    /// Drops what is left when the router is gone.
    _consumers: [Arc<Consumer<Job>>; 2],
    registry: Arc<Registry>,
    topics: Topics,
    table: TagTable,
    metrics: Metrics,
    ended: CancellationToken,
    /// The peers, as of `version` of the registry.
    peers: Vec<Arc<Peer>>,
    version: u64,
}

impl Router {
    pub(crate) fn new(
        depths: [usize; 2],
        registry: Arc<Registry>,
        topics: Topics,
        table: TagTable,
        metrics: Metrics,
    ) -> (Self, Intake) {
        let intake = Intake::new(depths);
        let consumers = [intake.lanes[0].consumer(), intake.lanes[1].consumer()];
        let (peers, version) = (Vec::new(), u64::MAX);
        let ended = CancellationToken::new();
        let router = Self {
            intake: intake.clone(),
            _consumers: consumers,
            registry,
            topics,
            table,
            metrics,
            ended,
            peers,
            version,
        };
        (router, intake)
    }

    /// What is cancelled when the router has ended.
    pub(crate) fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }

    /// Routes until the token is cancelled, and then what is left.
    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        let _ended = self.ended.clone().drop_guard();
        let (mut jobs, mut breath) = (Vec::with_capacity(ROUND), Breath::new());
        let [priority, bulk] = self.intake.lanes.clone();
        loop {
            let lane = tokio::select! {
                biased;
                () = cancel.cancelled() => return self.route_the_rest(&mut jobs),
                () = priority.ready() => &priority,
                () = bulk.ready() => &bulk,
            };
            lane.take_many(ROUND, &mut jobs);
            self.route(&mut jobs);
            // A flood of priority messages must not keep bulk waiting for ever: one goes each round.
            bulk.take_many(1, &mut jobs);
            if !jobs.is_empty() {
                self.route(&mut jobs);
            }
            breath.take().await;
        }
    }

    /// Routes what was submitted before the node began to stop.
    fn route_the_rest(&mut self, jobs: &mut Vec<Job>) {
        for queue in self.intake.lanes.clone() {
            // Closed first, so that nobody can make this longer.
            queue.close();
            loop {
                queue.take_many(ROUND, jobs);
                if jobs.is_empty() {
                    break;
                }
                self.route(jobs);
            }
        }
    }

    /// Offers each message to each peer it is for. One lock per peer, whatever the number of messages.
    fn route(&mut self, jobs: &mut Vec<Job>) {
        let version = self.registry.version();
        if version != self.version {
            self.peers = self.registry.list();
            self.version = version;
        }
        let carried: Vec<Option<Transport>> = jobs.iter().map(|job| self.publish(job)).collect();
        // The sender may be reached by another link than the one that its message came on.
        let sender = |job: &Job| job.source().and_then(|source| self.registry.in_use(source));
        let senders: Vec<Option<LinkId>> = jobs.iter().map(sender).collect();
        for peer in &self.peers {
            let ways = carried.iter().zip(&senders);
            let wanted = jobs.iter().zip(ways).filter(|(job, (carried, sender))| {
                job.includes(peer)
                    && **sender != Some(peer.id)
                    && **carried != Some(peer.transport)
                    && self.wants(peer, job)
            });
            let queued = wanted.map(|(job, _)| Queued {
                frame: job.frame.clone(),
                receipt: job.receipts.as_ref().map(Receipts::issue),
            });
            let late = peer.lanes.offer_all(queued, |frame, admission| {
                if admission == Admission::Full {
                    self.metrics.dropped(DropReason::PeerFull, frame.lane());
                }
            });
            if !late.is_empty() {
                // The peer's link was just replaced, and its successor may not be in the list yet.
                self.registry.hand_over_unsent(peer, late);
            }
        }
        jobs.clear();
    }

    fn wants(&self, peer: &Peer, job: &Job) -> bool {
        let lane = job.frame.lane();
        if !peer.wants(&job.frame, &self.table) {
            self.metrics.dropped(DropReason::NotInterested, lane);
            false
        } else if peer.knows(&job.frame) {
            self.metrics.dropped(DropReason::PeerHasIt, lane);
            false
        } else {
            true
        }
    }

    /// Publishes on the topic of the tag, if there is one, and says which transport that covers.
    fn publish(&self, job: &Job) -> Option<Transport> {
        let topics = self.topics.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (transport, sink) = topics.get(&job.frame.tag())?;
        match job.topic {
            // It is spreading there already; only a message for one peer has to take the stream.
            ToTopic::Skip if matches!(job.target, Target::One(_)) => None,
            ToTopic::Skip => Some(*transport),
            ToTopic::Publish => {
                let body = job.frame.wire().slice(Tag::BYTES..);
                let receipt = job.receipts.as_ref().map(Receipts::topic);
                let receipt = receipt.unwrap_or_else(TopicReceipt::unwanted);
                match sink.publish(job.frame.tag(), body, receipt) {
                    TopicAdmission::Queued => Some(*transport),
                    TopicAdmission::Full => {
                        self.metrics.dropped(DropReason::TopicFull, job.frame.lane());
                        Some(*transport)
                    }
                    TopicAdmission::TooLarge | TopicAdmission::Closed => None,
                }
            }
        }
    }
}
