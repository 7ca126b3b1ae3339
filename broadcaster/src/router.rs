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
//! * A sender with many messages waits for room in its own share, and delays nobody else's.
//! * The router waits only for the next message, and lets others run in between: a slow peer shows up as `Full` on its own lane and
//!   is counted, and cannot delay the peers after it.
//! * A message goes back to the node that it came from by none of its links.
//! * Within a lane, messages of one share reach every peer's queue in the order they were submitted.
//! * Messages that were submitted before the node stops are still routed.
//! * A message whose tag has a topic goes either to the topic or to the streams of the topic's
//!   transport, never to both.

use std::sync::Arc;

use gossip::{Admission, LinkId, TagTable, Transport};
use runtime::Breath;
use tokio_util::sync::CancellationToken;

use crate::{
    fair::Consumer,
    intake::{Intake, Job},
    lanes::Queued,
    metrics::{DropReason, Metrics},
    peer::Peer,
    receipts::Receipts,
    registry::Registry,
    topic_sinks::TopicSinks,
};

/// Most messages taken from the intake at a time. Chosen: enough to spread the cost of a peer's lock.
const ROUND: usize = 64;

pub(crate) struct Router {
    intake: Intake,
    /// Drops what is left when the router is gone.
    _consumers: [Arc<Consumer<Job>>; 2],
    registry: Arc<Registry>,
    topics: Arc<TopicSinks>,
    table: TagTable,
    metrics: Metrics,
    ended: CancellationToken,
    /// The peers, as of `version` of the registry.
    peers: Vec<Arc<Peer>>,
    version: u64,
}

impl Router {
    /// A router of what enters `intake`.
    pub(crate) fn new(
        intake: Intake,
        registry: Arc<Registry>,
        topics: Arc<TopicSinks>,
        table: TagTable,
        metrics: Metrics,
    ) -> Self {
        let (peers, version) = (Vec::new(), u64::MAX);
        let (_consumers, ended) = (intake.consumers(), CancellationToken::new());
        Self { intake, _consumers, registry, topics, table, metrics, ended, peers, version }
    }

    /// The token that is cancelled when the router has ended.
    pub(crate) fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }

    /// Routes until the token is cancelled, and then what is left.
    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        let _ended = self.ended.clone().drop_guard();
        let (mut jobs, mut breath) = (Vec::with_capacity(ROUND), Breath::new());
        let [priority, bulk] = self.intake.lanes().clone();
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
        for queue in self.intake.lanes().clone() {
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
        let carried: Vec<Option<Transport>> =
            jobs.iter().map(|job| self.topics.publish(job, &self.metrics)).collect();
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
}
