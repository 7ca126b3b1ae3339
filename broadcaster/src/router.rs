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
//! * Forwarded messages have a pace (`passing.rs`): beyond it the router takes nothing from the lane for a moment.
//! * Within a lane, messages of one share reach every peer's queue in the order they were submitted.
//! * Messages that were submitted before the node stops are still routed.
//! * A message whose tag has a topic goes either to the topic or to the streams of the topic's
//!   transport, never to both.

use std::{sync::Arc, time::Duration};

use gossip::{Admission, Interest, Lane, LinkId, Transport};
use runtime::{
    Breath,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use crate::{
    context::Context,
    fair::{Consumer, FairQueue},
    frame::Frame,
    intake::{Intake, Job, Target},
    lanes::Queued,
    metrics::DropReason,
    passing::Passing,
    peer::Peer,
    receipts::Receipts,
    topic_sinks::TopicSinks,
    trace::TraceEvent,
};

/// Most messages taken from the intake at a time. Chosen: enough to spread the cost of a peer's lock.
const ROUND: usize = 64;

/// Longest time that the router runs without yielding while messages wait. Chosen: what is routed in one turn leaves in
/// one write per peer, and turns of 200 µs made more writes, a twentieth of the throughput over libp2p.
const TURN: Duration = Duration::from_millis(1);

/// Waits until something of a lane may be routed.
async fn ready(lane: &FairQueue<Job>, pace: &Passing) {
    if let Some(until) = pace.until() {
        time::sleep_until(until).await;
    }
    lane.ready().await;
}

/// The parts of a message's way that are the same for every peer, and are found once.
struct Route {
    /// The transport that the topic of its tag has brought it to.
    carried: Option<Transport>,
    /// The link in use to the node that it came from.
    sender: Option<LinkId>,
    /// Its tag.
    interest: Interest,
}

/// Most links named in a [`SharedRoute`]. Chosen: looking for a peer among them costs less than to judge a few messages.
const MAX_NAMED: usize = 8;

/// The way of the messages of a round that go to the same peers, which is that of nearly every round: it is judged once
/// for a peer in place of once for each message.
struct SharedRoute {
    /// The tags of the messages. A peer that does not want them all is judged message by message.
    interest: Interest,
    /// Links that some of the messages came from, which are judged message by message.
    named: Vec<LinkId>,
}

impl SharedRoute {
    /// The way of `jobs`; `None` if they have to be judged one by one.
    fn of(jobs: &[Job], routes: &[Route]) -> Option<Self> {
        let (mut interest, mut named) = (Interest::NONE, Vec::new());
        for (job, route) in jobs.iter().zip(routes) {
            let is_for_all = matches!(job.target, Target::All | Target::AllExcept(_));
            // No peer wants a message of an unknown tag, and each may have said that it has one with a digest.
            let is_simple = route.interest != Interest::NONE && job.frame.digest().is_none();
            if !is_for_all || !is_simple || route.carried.is_some() {
                return None;
            }
            interest = interest.or(route.interest);
            for link in [job.source(), route.sender].into_iter().flatten() {
                if !named.contains(&link) {
                    named.push(link);
                }
            }
            if named.len() > MAX_NAMED {
                return None;
            }
        }
        Some(Self { interest, named })
    }

    /// Returns whether all messages go to `peer`, which is interested in those of `interest`.
    fn leads_to(&self, peer: &Peer, interest: Interest) -> bool {
        interest.includes(self.interest) && !self.named.contains(&peer.id)
    }
}

pub(crate) struct Router {
    intake: Intake,
    /// Drops what is left when the router is gone.
    _consumers: [Arc<Consumer<Job>>; 2],
    context: Arc<Context>,
    topics: Arc<TopicSinks>,
    ended: CancellationToken,
    /// The peers, as of `version` of the registry.
    peers: Vec<Arc<Peer>>,
    version: u64,
}

impl Router {
    /// A router of what enters `intake`.
    pub(crate) fn new(intake: Intake, context: Arc<Context>, topics: Arc<TopicSinks>) -> Self {
        let (peers, version) = (Vec::new(), u64::MAX);
        let (_consumers, ended) = (intake.consumers(), CancellationToken::new());
        Self { intake, _consumers, context, topics, ended, peers, version }
    }

    /// The token that is cancelled when the router has ended.
    pub(crate) fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }

    /// Routes until the token is cancelled, and then what is left.
    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        let _ended = self.ended.clone().drop_guard();
        let (mut jobs, mut breath) = (Vec::with_capacity(ROUND), Breath::of(TURN));
        let [priority, bulk] = self.intake.lanes().clone();
        let rates = self.context.limits.rates.passed_on;
        let passing = |lane| Passing::new(lane, rates.of(lane), Instant::now());
        let (mut priority_pace, mut bulk_pace) = (passing(Lane::Priority), passing(Lane::Bulk));
        loop {
            let next = async {
                tokio::select! {
                    biased;
                    () = cancel.cancelled() => None,
                    () = ready(&priority, &priority_pace) => Some(Lane::Priority),
                    () = ready(&bulk, &bulk_pace) => Some(Lane::Bulk),
                }
            };
            let (lane, pace) = match breath.during(next).await {
                None => return self.route_the_rest(&mut jobs),
                Some(Lane::Priority) => (&priority, &mut priority_pace),
                Some(Lane::Bulk) => (&bulk, &mut bulk_pace),
            };
            lane.take_many(ROUND, &mut jobs);
            pace.note(&jobs, &self.context.held_back, Instant::now());
            self.route(&mut jobs);
            // A flood of priority messages must not keep bulk waiting for ever: one goes each round.
            if bulk_pace.until().is_none_or(|until| until <= Instant::now()) {
                bulk.take_many(1, &mut jobs);
            }
            if !jobs.is_empty() {
                bulk_pace.note(&jobs, &self.context.held_back, Instant::now());
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
        let Context { registry, metrics, tags, .. } = &*self.context;
        let version = registry.version();
        if version != self.version {
            self.peers = registry.fan_out();
            self.version = version;
        }
        let routes: Vec<Route> = jobs
            .iter()
            .map(|job| Route {
                carried: self.topics.publish(job, metrics),
                // The sender may be reached by another link than the one that its message came on.
                sender: job.source().and_then(|source| registry.in_use(source)),
                interest: Interest::NONE.with(tags, job.frame.tag()),
            })
            .collect();
        let shared = SharedRoute::of(jobs, &routes);
        let queued = |job: &Job| Queued {
            frame: job.frame.clone(),
            receipt: job.receipts.as_ref().map(Receipts::issue),
        };
        for peer in &self.peers {
            let interest = peer.interest();
            let outcome = |frame: &Frame, admission| match admission {
                Admission::Queued => peer.trace(frame, TraceEvent::Queued),
                Admission::Full => self.context.withheld_from(peer, DropReason::PeerFull, frame),
                Admission::Closed => {}
            };
            let late = if shared.as_ref().is_some_and(|shared| shared.leads_to(peer, interest)) {
                peer.lanes.offer_all(jobs.iter().map(queued), outcome)
            } else {
                let wanted = jobs.iter().zip(&routes).filter(|(job, route)| {
                    job.includes(peer)
                        && route.sender != Some(peer.id)
                        && route.carried != Some(peer.transport)
                        && self.wants(peer, interest, (job, route))
                });
                peer.lanes.offer_all(wanted.map(|(job, _)| queued(job)), outcome)
            };
            if !late.is_empty() {
                // The peer's link was just replaced, and its successor may not be in the list yet.
                registry.hand_over_unsent(peer, late);
            }
        }
        jobs.clear();
    }

    /// Returns whether the message goes to this peer, which is interested in messages of `interest`.
    fn wants(&self, peer: &Peer, interest: Interest, (job, route): (&Job, &Route)) -> bool {
        if !interest.intersects(route.interest) {
            self.context.withheld_from(peer, DropReason::NotInterested, &job.frame);
            false
        } else if peer.knows(&job.frame) {
            self.context.withheld_from(peer, DropReason::PeerHasIt, &job.frame);
            false
        } else {
            true
        }
    }
}
