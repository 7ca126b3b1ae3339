//! The router: one message after the other, offered to every peer that wants it.
//!
//! ```text
//!   submit ──try_send──▶ [intake.priority] ──┐               ┌─▶ Lanes of each peer
//!          ──try_send──▶ [intake.bulk]     ──┴─▶ Router::run ─┤
//!                                                            └─▶ TopicSink
//! ```
//!
//! # Invariants
//!
//! * The router waits only for the next message: a slow peer shows up as `Full` on its own lane and
//!   is counted, and cannot delay the peers after it.
//! * Within a lane, messages reach every peer's queue in the order they were submitted.
//! * When the node stops, what was submitted before is still routed.
//! * A message whose tag has a topic goes either to the topic or to the streams of the topic's
//!   transport, never to both.

use std::{collections::HashMap, sync::Arc};

use gossip::{Admission, Lane, LinkId, Tag, TagTable, Transport};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    frame::Frame,
    lanes::Queued,
    metrics::{DropReason, Metrics},
    peer::Peer,
    receipts::Receipts,
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
#[derive(Clone, Debug)]
pub(crate) struct Intake {
    priority: mpsc::Sender<Job>,
    bulk: mpsc::Sender<Job>,
}

impl Intake {
    /// Queues a message for the router, or says why not. Never waits.
    pub(crate) fn offer(&self, job: Job, metrics: &Metrics) -> Admission {
        let lane = job.frame.lane();
        let queue = match lane {
            Lane::Priority => &self.priority,
            Lane::Bulk => &self.bulk,
        };
        match queue.try_send(job) {
            Ok(()) => Admission::Queued,
            Err(mpsc::error::TrySendError::Full(_)) => {
                metrics.dropped(DropReason::IntakeFull, lane);
                Admission::Full
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Admission::Closed,
        }
    }
}

pub(crate) struct Router {
    priority: mpsc::Receiver<Job>,
    bulk: mpsc::Receiver<Job>,
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
        let (priority_sender, priority) = mpsc::channel(depths[0]);
        let (bulk_sender, bulk) = mpsc::channel(depths[1]);
        let (peers, version) = (Vec::new(), u64::MAX);
        let ended = CancellationToken::new();
        let router =
            Self { priority, bulk, registry, topics, table, metrics, ended, peers, version };
        (router, Intake { priority: priority_sender, bulk: bulk_sender })
    }

    /// What is cancelled when the router has ended.
    pub(crate) fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }

    /// Routes until the token is cancelled, and then what is left.
    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        let _ended = self.ended.clone().drop_guard();
        let mut jobs = Vec::with_capacity(ROUND);
        loop {
            let (first, lane) = tokio::select! {
                biased;
                () = cancel.cancelled() => return self.route_the_rest(&mut jobs),
                Some(job) = self.priority.recv() => (job, &mut self.priority),
                Some(job) = self.bulk.recv() => (job, &mut self.bulk),
            };
            jobs.push(first);
            while let Some(job) = (jobs.len() < ROUND).then(|| lane.try_recv().ok()).flatten() {
                jobs.push(job);
            }
            self.route(&mut jobs);
            // A flood of priority messages must not keep bulk waiting for ever: one goes each round.
            if let Ok(job) = self.bulk.try_recv() {
                jobs.push(job);
                self.route(&mut jobs);
            }
        }
    }

    /// Routes what was submitted before the node began to stop.
    fn route_the_rest(&mut self, jobs: &mut Vec<Job>) {
        for lane in Lane::ALL {
            let queue = match lane {
                Lane::Priority => &mut self.priority,
                Lane::Bulk => &mut self.bulk,
            };
            // Closed first, so that nobody can make this longer.
            queue.close();
            while let Ok(job) = queue.try_recv() {
                jobs.push(job);
            }
        }
        self.route(jobs);
    }

    /// Offers each message to each peer it is for. One lock per peer, whatever the number of messages.
    fn route(&mut self, jobs: &mut Vec<Job>) {
        let version = self.registry.version();
        if version != self.version {
            self.peers = self.registry.list();
            self.version = version;
        }
        let carried: Vec<Option<Transport>> = jobs.iter().map(|job| self.publish(job)).collect();
        for peer in &self.peers {
            let wanted = jobs.iter().zip(&carried).filter(|(job, carried)| {
                job.includes(peer) && **carried != Some(peer.transport) && self.wants(peer, job)
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
                match sink.publish(job.frame.tag(), body) {
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
