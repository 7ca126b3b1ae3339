//! The swarm task's handling of topics: paced publishing, rate limits on received messages, and a watch on
//! peers that are muted by a low score.
//!
//! # Invariants
//!
//! * A received message beyond the budget is ignored and counted. A message beyond its peer's share does not get
//!   here (`topic_gate.rs`).
//! * A message that is not published because message IDs use too much memory already is counted.
//! * Each time a score falls so low that the peer is not served, this is counted and logged once.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use broadcaster::TopicMessage;
use bytes::Bytes;
use gossip::{Lane, Tag, Transport, Validation};
use libp2p::{
    PeerId,
    gossipsub::{self, IdentTopic, MessageAcceptance, PublishError, TopicHash},
};
use tokio::{sync::mpsc, time::Instant};

use crate::{
    address::identity_of,
    behaviour::NodeSwarm,
    command::Verdict,
    link::LinkContext,
    metrics::P2pEvent,
    outbox::{Origin, Outbox, Publication, cost},
    pubsub::{GRAYLIST_THRESHOLD, PUBLISH_THRESHOLD},
    topic_debts::TopicDebts,
    topic_scores::TopicScore,
};

/// Interval at which scores are checked. Chosen: the interval at which the library updates them.
const SCORE_INTERVAL: Duration = Duration::from_secs(1);

/// Pause before publishing is tried again, when the messages for all peers use too much memory. Chosen: a few turns of
/// the tasks that take them.
const FULL_PAUSE: Duration = Duration::from_millis(5);

/// Time after which a graylisted peer is disconnected; until then its messages are read and dropped. Chosen: as long
/// as a flood on a connection may last.
const GRAYLIST_TIME: Duration = Duration::from_secs(10);

/// State of the traffic on all topics.
#[derive(Debug)]
pub(crate) struct TopicTraffic {
    around: Arc<LinkContext>,
    topics: Vec<(Tag, IdentTopic)>,
    /// Takes the verdicts on messages to the swarm task.
    verdicts: mpsc::Sender<Verdict>,
    outbox: Outbox,
    /// The bytes published that have not reached the connections yet.
    debts: TopicDebts,
    /// Time before which nothing is published, because that is too much.
    full_until: Option<Instant>,
    /// Peers whose score is too low to be served.
    muted: HashSet<PeerId>,
    /// Peers of which the library hears nothing any more, and since when.
    graylisted: HashMap<PeerId, Instant>,
    /// Time of the next check of the scores.
    watch: Instant,
}

impl TopicTraffic {
    /// Creates the state. Verdicts on messages go to `verdicts`.
    pub(crate) fn new(
        around: Arc<LinkContext>,
        topics: Vec<(Tag, IdentTopic)>,
        verdicts: mpsc::Sender<Verdict>,
        debts: TopicDebts,
    ) -> Self {
        let now = Instant::now();
        let outbox = Outbox::new(around.broadcaster.budget().total(), now);
        let (muted, graylisted) = (HashSet::new(), HashMap::new());
        let full_until = None;
        Self { around, topics, verdicts, outbox, debts, full_until, muted, graylisted, watch: now }
    }

    /// Returns the time at which the next message may be published; `None` if none waits.
    pub(crate) fn due(&self) -> Option<Instant> {
        let due = self.outbox.due()?;
        Some(self.full_until.map_or(due, |until| until.max(due)))
    }

    /// Removes the state of a peer that has disconnected.
    pub(crate) fn forget(&mut self, swarm: &NodeSwarm, peer: &PeerId) {
        self.muted.remove(peer);
        self.graylisted.remove(peer);
        if let Some(gossipsub) = swarm.behaviour().gossipsub.as_ref() {
            gossipsub.gate().forget(peer);
        }
    }

    /// Queues a message for publishing.
    pub(crate) fn publish(&mut self, swarm: &mut NodeSwarm, publication: Publication) {
        if self.outbox.offer(publication).is_some() {
            self.around.metrics.note(P2pEvent::PublishQueueFull);
        }
        self.publish_due(swarm);
    }

    /// Publishes every message that may be published now.
    pub(crate) fn publish_due(&mut self, swarm: &mut NodeSwarm) {
        let now = Instant::now();
        loop {
            self.full_until = None;
            if !self.debts.has_room() {
                self.full_until = Some(now + FULL_PAUSE);
                return self.end_overdue(swarm, now);
            }
            let Some(next) = self.outbox.next(now) else { return };
            let Publication { origin, topic, body, held, receipt } = next;
            // No topic is attached in a node without gossip, so there is nothing to publish.
            let Some(gossipsub) = swarm.behaviour_mut().gossipsub.as_mut() else { continue };
            if !gossipsub.gate().has_room(origin, now) {
                self.around.metrics.note(P2pEvent::TopicNamesFull);
                continue;
            }
            let bytes = cost(body.len());
            match gossipsub.publish(topic.clone(), body) {
                Ok(_) => {
                    gossipsub.gate().published(origin, now);
                    // The same condition by which the library chooses the peers to publish to.
                    let is_served = |(peer, topics): &(&PeerId, Vec<&TopicHash>)| {
                        topics.contains(&&topic)
                            && gossipsub
                                .peer_score(peer)
                                .is_none_or(|score| score >= PUBLISH_THRESHOLD)
                    };
                    let mut served = 0;
                    for (peer, _) in gossipsub.all_peers().filter(is_served) {
                        self.debts.charge(peer, bytes, now);
                        served += 1;
                    }
                    receipt.reached(served);
                    self.outbox.keep(origin, held, now);
                }
                // The message was received or published before, so it is not lost.
                Err(PublishError::Duplicate) => {}
                Err(PublishError::NoPeersSubscribedToTopic) => {
                    self.around.metrics.note(P2pEvent::PublishWithoutPeers);
                }
                Err(error) => {
                    tracing::debug!(%error, "publishing failed");
                    self.around.metrics.note(P2pEvent::PublishFailed);
                    // The charge stays, because peers may still request the message.
                    self.outbox.keep(origin, held, now);
                }
            }
        }
    }

    /// Disconnects the peers that do not accept what was published to them, so that others can be served.
    fn end_overdue(&self, swarm: &mut NodeSwarm, now: Instant) {
        for peer in self.debts.overdue(now) {
            // This fails only if the peer has disconnected already.
            if swarm.disconnect_peer_id(peer).is_ok() {
                self.around.metrics.note(P2pEvent::TopicPeerStalled);
                tracing::debug!(%peer, "disconnecting a peer that does not accept topic messages");
            }
        }
    }

    pub(crate) fn on_gossipsub(&mut self, swarm: &mut NodeSwarm, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                self.on_topic_message(swarm, propagation_source, message_id, message);
            }
            gossipsub::Event::SlowPeer { failed_messages, .. } => {
                let failed = failed_messages.priority + failed_messages.non_priority;
                self.around.metrics.note_many(P2pEvent::TopicPeerFull, failed as u64);
            }
            _ => {}
        }
    }

    fn on_topic_message(
        &mut self,
        swarm: &mut NodeSwarm,
        from: PeerId,
        id: gossipsub::MessageId,
        message: gossipsub::Message,
    ) {
        if message.data.is_empty() {
            // The empty message stands for every excess one.
            return report(swarm, &id, &from, MessageAcceptance::Ignore);
        }
        if let Some(gossipsub) = swarm.behaviour().gossipsub.as_ref() {
            gossipsub.gate().heard(from, Instant::now());
        }
        let on_topic = |(_, topic): &&(Tag, IdentTopic)| topic.hash() == message.topic;
        let Some(&(tag, _)) = self.topics.iter().find(on_topic) else { return };
        let bytes = cost(message.data.len());
        let Some(held) = self.admit(&from, bytes) else {
            return report(swarm, &id, &from, MessageAcceptance::Ignore);
        };
        let (verdicts, metrics) = (self.verdicts.clone(), self.around.metrics.clone());
        let topic = message.topic;
        let report = Box::new(move |validation| {
            let acceptance = match validation {
                Validation::Accept => MessageAcceptance::Accept,
                Validation::Ignore => MessageAcceptance::Ignore,
                Validation::Reject => MessageAcceptance::Reject,
            };
            let verdict = Verdict { message: id, from, acceptance, held, topic };
            if let Err(mpsc::error::TrySendError::Full(_)) = verdicts.try_send(verdict) {
                metrics.note(P2pEvent::VerdictLost);
            }
        });
        let (body, from) = (Bytes::from(message.data), identity_of(&from));
        let transport = Transport::Libp2p;
        self.around.broadcaster.hear(TopicMessage { tag, body, from, transport, report });
    }

    /// Charges a received message to the budget. Returns `None` if it is exceeded.
    fn admit(&mut self, from: &PeerId, bytes: usize) -> Option<broadcaster::Reservation> {
        let has_room = self.debts.has_room()
            && self.outbox.has_room(Origin::Peer(*from), bytes, Instant::now());
        let held = if has_room {
            self.around.broadcaster.budget().try_reserve(bytes, Lane::Bulk)
        } else {
            None
        };
        if held.is_none() {
            self.around.metrics.note(P2pEvent::TopicBudgetFull);
        }
        held
    }

    pub(crate) fn on_verdict(&mut self, swarm: &mut NodeSwarm, verdict: Verdict) {
        let Verdict { message, from, acceptance, held, topic } = verdict;
        if matches!(acceptance, MessageAcceptance::Accept) {
            let now = Instant::now();
            // It is forwarded to the mesh of its topic.
            if let Some(gossipsub) = swarm.behaviour().gossipsub.as_ref() {
                for peer in gossipsub.mesh_peers(&topic) {
                    self.debts.charge(peer, held.bytes(), now);
                }
            }
            self.outbox.keep(Origin::Peer(from), held, now);
        }
        report(swarm, &message, &from, acceptance);
    }

    /// Records the peers that are not served because of their score.
    pub(crate) fn watch_scores(&mut self, swarm: &mut NodeSwarm) {
        let now = Instant::now();
        let Some(gossipsub) = swarm.behaviour().gossipsub.as_ref() else { return };
        if now < self.watch {
            return;
        }
        self.watch = now + SCORE_INTERVAL;
        let scored = |peer: &PeerId| Some((*peer, gossipsub.peer_score(peer)?));
        let scores: Vec<(PeerId, f64)> = swarm.connected_peers().filter_map(scored).collect();
        let shown = scores.iter().filter_map(|&(peer, score)| {
            Some((identity_of(&peer)?, TopicScore { score, is_muted: score < PUBLISH_THRESHOLD }))
        });
        self.around.scores.set(shown.collect(), now.into_std());
        let muted = scores.into_iter().filter(|(_, score)| *score < PUBLISH_THRESHOLD);
        let muted: Vec<(PeerId, f64)> = muted.collect();
        let graylisted = muted.iter().filter(|(_, score)| *score < GRAYLIST_THRESHOLD);
        let since =
            |(peer, _): &(PeerId, f64)| (*peer, self.graylisted.get(peer).copied().unwrap_or(now));
        self.graylisted = graylisted.map(since).collect();
        self.muted.retain(|peer| muted.iter().any(|(low, _)| low == peer));
        for (peer, score) in muted {
            if self.muted.insert(peer) {
                self.around.metrics.note(P2pEvent::TopicPeerMuted);
                if let Some(left_out) = self.around.lines.muted.due() {
                    tracing::warn!(%peer, score, left_out, "a peer is not served on topics: its score is too low");
                }
            }
        }
        let for_long = |since: &Instant| now.duration_since(*since) >= GRAYLIST_TIME;
        let graylisted = self.graylisted.iter().filter(|(_, since)| for_long(since));
        let flooded: Vec<PeerId> = graylisted.map(|(peer, _)| *peer).collect();
        for peer in flooded {
            self.graylisted.remove(&peer);
            self.around.metrics.note(P2pEvent::TopicFlood);
            tracing::info!(%peer, "disconnecting a peer that stays graylisted");
            // This fails only if the peer has disconnected already.
            let _ = swarm.disconnect_peer_id(peer);
        }
    }
}

fn report(
    swarm: &mut NodeSwarm,
    message: &gossipsub::MessageId,
    from: &PeerId,
    acceptance: MessageAcceptance,
) {
    if let Some(gossipsub) = swarm.behaviour_mut().gossipsub.as_mut() {
        // A message that the library no longer knows is too old to be forwarded.
        let _known = gossipsub.report_message_validation_result(message, from, acceptance);
    }
}
