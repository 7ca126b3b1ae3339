//! The swarm task's handling of topics: paced publishing and passing on, and a watch on peers that are muted by a low
//! score.
//!
//! # Invariants
//!
//! * A received message beyond the budget is ignored and counted. A message beyond its peer's share does not get
//!   here (`topic_gate.rs`).
//! * A received message is handled even where there is no room to pass it on: what one node passes to the next is less
//!   than that hears of it, so a flood takes nothing of others on the way.
//! * The copies of one message for all peers take a bounded part of memory. Peers of the mesh come first; those that are
//!   passed over hear of the message by gossip.
//! * A message that is not published or passed on is counted.
//! * Each time a score falls so low that the peer is not served, this is counted and logged once.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use broadcaster::TopicMessage;
use bytes::Bytes;
use gossip::{Interest, Lane, PublishError, Tag, TopicInbound, Transport, Validation};
use libp2p::{
    Multiaddr, PeerId,
    gossipsub::{self, IdentTopic, MessageAcceptance, PublishError as NotPublished, TopicHash},
};
use runtime::time::{self, Instant};
use tokio::sync::{mpsc, watch};

use crate::{
    address::{identity_of, ip_of},
    behaviour::NodeSwarm,
    command::Verdict,
    gated_pubsub::GatedPubsub,
    link::LinkContext,
    metrics::P2pEvent,
    origin::Origin,
    outbox::{Outbox, Outgoing, cost},
    own_topics::{Heard, TopicPolicies, TopicPool},
    publications::Publication,
    pubsub::{self, GRAYLIST_THRESHOLD, PUBLISH_THRESHOLD},
    topic_debts::TopicDebts,
    topic_gate,
    topic_scores::{TopicMesh, TopicScore},
    topic_standings::TopicStandings,
};

/// Interval at which scores are checked. Chosen: the interval at which the library updates them.
const SCORE_INTERVAL: Duration = Duration::from_secs(1);

/// Pause before messages are sent again, when those for all peers use too much memory. Chosen: a few turns of the
/// tasks that take them.
const FULL_PAUSE: Duration = Duration::from_millis(5);

/// Time after which a graylisted peer is disconnected; until then its messages are read and dropped. Chosen: as long
/// as a flood on a connection may last.
const GRAYLIST_TIME: Duration = Duration::from_secs(10);

/// Messages that go to the library before other work of the swarm task. Chosen: less than a millisecond.
const AT_ONCE: usize = 16;

/// The topics of a node, and where messages on them go.
#[derive(Debug)]
pub(crate) struct KnownTopics {
    /// Those of tags, whose messages the broadcaster judges.
    pub(crate) of_tags: Vec<(Tag, IdentTopic)>,
    /// Those of the application, whose messages the pool judges.
    pub(crate) own: TopicPolicies,
    pub(crate) pool: TopicPool,
    /// Takes the verdicts on messages to the swarm task.
    pub(crate) verdicts: mpsc::Sender<Verdict>,
}

/// State of the traffic on all topics.
#[derive(Debug)]
pub(crate) struct TopicTraffic {
    context: Arc<LinkContext>,
    known: KnownTopics,
    /// The gossip that the node wants. `None` in a node that subscribes to nothing.
    wanted: Option<watch::Receiver<Interest>>,
    outbox: Outbox,
    /// The bytes sent that have not reached the connections yet.
    debts: TopicDebts,
    /// Time before which nothing is sent, because that is too much.
    full_until: Option<Instant>,
    standings: TopicStandings,
    /// Peers whose score is too low to be served.
    muted: HashSet<PeerId>,
    /// Peers of which the library hears nothing any more, and since when.
    graylisted: HashMap<PeerId, Instant>,
    /// Time of the next check of the scores.
    watch: Instant,
}

impl TopicTraffic {
    /// Creates the state. Messages come out of `outbox`.
    pub(crate) fn new(
        context: Arc<LinkContext>,
        known: KnownTopics,
        outbox: Outbox,
        debts: TopicDebts,
    ) -> Self {
        let (muted, graylisted) = (HashSet::new(), HashMap::new());
        let (full_until, watch) = (None, Instant::now());
        let standings = TopicStandings::new(context.broadcaster.profile().topic_scoring);
        Self {
            context,
            known,
            wanted: None,
            outbox,
            debts,
            full_until,
            standings,
            muted,
            graylisted,
            watch,
        }
    }

    /// Subscribes to the topics of the application and of the tags that the node wants, and follows it when it wants others.
    pub(crate) fn subscribe(&mut self, swarm: &mut NodeSwarm) {
        self.wanted = Some(self.context.broadcaster.wanted());
        self.follow_interest(swarm);
        let Some(gossipsub) = swarm.behaviour_mut().gossipsub.as_mut() else { return };
        for (_, topic) in self.known.own.own() {
            if let Err(error) = gossipsub.subscribe(&IdentTopic::new(topic.name())) {
                tracing::error!(%error, topic = topic.name(), "cannot subscribe");
            }
        }
    }

    /// Resolves when the node wants other tags than before.
    ///
    /// # Cancel safety
    ///
    /// Safe: the change is seen until [`TopicTraffic::follow_interest`] has followed it.
    pub(crate) async fn interest_changed(&self) {
        let Some(mut wanted) = self.wanted.clone() else { return std::future::pending().await };
        if wanted.changed().await.is_err() {
            // The broadcaster is gone, and nothing changes any more.
            std::future::pending().await
        }
    }

    /// Subscribes to the topics that the node wants by now, and leaves the others. Messages for a topic that it left are
    /// still published.
    pub(crate) fn follow_interest(&mut self, swarm: &mut NodeSwarm) {
        let Some(wanted) = &mut self.wanted else { return };
        let wanted = *wanted.borrow_and_update();
        let table = &self.context.broadcaster.profile().tags;
        let Some(gossipsub) = swarm.behaviour_mut().gossipsub.as_mut() else { return };
        for (tag, topic) in &self.known.of_tags {
            if !wanted.contains(table, *tag) {
                gossipsub.unsubscribe(topic);
            } else if let Err(error) = gossipsub.subscribe(topic) {
                tracing::error!(%error, %topic, "cannot subscribe");
            }
        }
    }

    /// Waits until a message may be published or passed on. May return when there is none.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is taken.
    pub(crate) async fn due(&self) {
        match self.outbox.due() {
            Some(at) => time::sleep_until(self.full_until.map_or(at, |until| until.max(at))).await,
            None => self.outbox.came().await,
        }
    }

    /// Notes where a peer has connected from.
    pub(crate) fn connected(&mut self, peer: PeerId, from: &Multiaddr) {
        self.standings.connected(peer, ip_of(from));
    }

    /// Removes the state of a peer that has disconnected.
    pub(crate) fn forget(&mut self, swarm: &NodeSwarm, peer: &PeerId) {
        self.muted.remove(peer);
        self.graylisted.remove(peer);
        self.standings.forget(peer);
        if let Some(gossipsub) = swarm.behaviour().gossipsub.as_ref() {
            gossipsub.gate().forget(peer);
        }
    }

    /// Gives the library messages that may go now, a few at a time.
    pub(crate) fn send_due(&mut self, swarm: &mut NodeSwarm) {
        let now = Instant::now();
        self.full_until = None;
        for _ in 0..AT_ONCE {
            if !self.debts.has_room() {
                self.full_until = Some(now + FULL_PAUSE);
                return self.end_delays(now);
            }
            match self.outbox.next(now) {
                Some(Outgoing::Publish(publication)) => self.publish(swarm, publication, now),
                Some(Outgoing::PassOn(verdict)) => self.pass_on(swarm, verdict, now),
                None => return,
            }
        }
    }

    fn publish(&mut self, swarm: &mut NodeSwarm, publication: Publication, now: Instant) {
        let standings = &self.standings;
        let Publication { origin, topic, body, held, receipt, .. } = publication;
        // No topic is attached in a node without gossip, so there is nothing to publish.
        let Some(gossipsub) = swarm.behaviour_mut().gossipsub.as_mut() else { return };
        if !gossipsub.gate().may_publish(origin, now) {
            self.context.metrics.note(P2pEvent::TopicNamesFull);
            return receipt.failed(PublishError::Full);
        }
        let bytes = held.bytes();
        let (served, passed_over) = recipients(gossipsub, &topic, self.debts.most_copies(bytes));
        // The library leaves out peers of such a score, and asks nobody in between.
        passed_over.iter().for_each(|peer| pubsub::hide(gossipsub, peer));
        let published = gossipsub.publish(topic, body);
        passed_over.iter().for_each(|peer| pubsub::rate(gossipsub, peer, standings.of(peer)));
        match published {
            Ok(_) => {
                gossipsub.gate().published(origin, now);
                served.iter().for_each(|peer| self.debts.charge(peer, bytes, now));
                receipt.reached(served.len());
                // They hear of the message with the next heartbeats, and can ask for it.
                let passed_over = passed_over.len() as u64;
                self.context.metrics.note_many(P2pEvent::TopicPeerFull, passed_over);
                self.outbox.keep(origin, held, now);
            }
            // The message was received or published before, so it is not lost.
            Err(NotPublished::Duplicate) => receipt.failed(PublishError::Duplicate),
            Err(NotPublished::NoPeersSubscribedToTopic) => {
                self.context.metrics.note(P2pEvent::PublishWithoutPeers);
                receipt.reached(0);
            }
            Err(error) => {
                tracing::debug!(%error, "publishing failed");
                self.context.metrics.note(P2pEvent::PublishFailed);
                receipt.failed(PublishError::Full);
                // The charge stays, because peers may still request the message.
                self.outbox.keep(origin, held, now);
            }
        }
    }

    /// Passes a received message on, if the next node has room for it.
    fn pass_on(&mut self, swarm: &mut NodeSwarm, verdict: Verdict, now: Instant) {
        let Verdict { message, from, acceptance, held, topic, .. } = verdict;
        let Some(gossipsub) = swarm.behaviour().gossipsub.as_ref() else { return };
        if !gossipsub.gate().may_pass_on(from, now) {
            self.context.metrics.note(P2pEvent::TopicNamesFull);
            return report(swarm, &message, &from, MessageAcceptance::Ignore);
        }
        gossipsub.gate().passed_on(from, now);
        // The library sends it to the mesh, but not back.
        for peer in gossipsub.mesh_peers(&topic).filter(|peer| **peer != from) {
            self.debts.charge(peer, held.bytes(), now);
        }
        report(swarm, &message, &from, acceptance);
        self.outbox.keep(Origin::Peer(from), held, now);
    }

    /// Ends the connections of peers that do not accept what was sent to them, so that others can be served.
    fn end_delays(&self, now: Instant) {
        for peer in self.debts.end_delays(now) {
            self.context.metrics.note(P2pEvent::TopicPeerStalled);
            tracing::debug!(%peer, "ending a peer that does not accept topic messages");
        }
    }

    pub(crate) fn on_gossipsub(&mut self, swarm: &mut NodeSwarm, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                self.on_topic_message(swarm, propagation_source, message_id, message);
            }
            gossipsub::Event::SlowPeer { failed_messages, .. } => {
                let failed = failed_messages.priority + failed_messages.non_priority;
                self.context.metrics.note_many(P2pEvent::TopicPeerFull, failed as u64);
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
        let tag = self.known.of_tags.iter().find(on_topic).map(|(tag, _)| *tag);
        let rule = tag.and_then(|tag| self.context.broadcaster.profile().tags.rule(tag));
        let lane = rule.map_or(Lane::Bulk, |rule| rule.lane);
        let bytes = cost(message.data.len());
        let Some(held) = self.context.broadcaster.budget().try_reserve(bytes, lane) else {
            self.context.metrics.note(P2pEvent::TopicBudgetFull);
            return report(swarm, &id, &from, MessageAcceptance::Ignore);
        };
        let (acceptance, topic) = (MessageAcceptance::Ignore, message.topic.clone());
        let verdict = Verdict { message: id, from, acceptance, held, topic, lane };
        match tag {
            Some(tag) => self.to_broadcaster(tag, message.data, verdict),
            None => self.to_pool(swarm, message, verdict),
        }
    }

    /// Has a message of an application's topic judged and handled.
    fn to_pool(&self, swarm: &mut NodeSwarm, message: gossipsub::Message, verdict: Verdict) {
        let Some(topic) = self.known.own.of(&message.topic) else { return };
        let mut inbound = TopicInbound::new(Arc::clone(&topic.name), message.data);
        inbound.author = message.source.as_ref().and_then(identity_of);
        inbound.sequence = message.sequence_number;
        inbound.from = identity_of(&verdict.from);
        let verdicts = self.known.verdicts.clone();
        let heard = Heard { topic: Arc::clone(topic), message: inbound, verdict, verdicts };
        for Heard { verdict, .. } in self.known.pool.hear(heard) {
            report(swarm, &verdict.message, &verdict.from, MessageAcceptance::Ignore);
        }
    }

    /// Has a message of a tag's topic judged and handled.
    fn to_broadcaster(&self, tag: Tag, body: Vec<u8>, verdict: Verdict) {
        let (verdicts, metrics) = (self.known.verdicts.clone(), self.context.metrics.clone());
        let from = identity_of(&verdict.from);
        let report = Box::new(move |validation| {
            let acceptance = match validation {
                Validation::Accept => MessageAcceptance::Accept,
                Validation::Ignore => MessageAcceptance::Ignore,
                Validation::Reject => MessageAcceptance::Reject,
            };
            if let Err(mpsc::error::TrySendError::Full(_)) =
                verdicts.try_send(Verdict { acceptance, ..verdict })
            {
                metrics.note(P2pEvent::VerdictLost);
            }
        });
        let body = Bytes::from(body);
        let transport = Transport::Libp2p;
        self.context.broadcaster.hear(TopicMessage { tag, body, from, transport, report });
    }

    pub(crate) fn on_verdict(&mut self, swarm: &mut NodeSwarm, verdict: Verdict) {
        if !matches!(verdict.acceptance, MessageAcceptance::Accept) {
            return report(swarm, &verdict.message, &verdict.from, verdict.acceptance);
        }
        for refused in self.outbox.pass_on(verdict) {
            self.context.metrics.note(P2pEvent::TopicPassOnFull);
            report(swarm, &refused.message, &refused.from, MessageAcceptance::Ignore);
        }
        self.send_due(swarm);
    }

    /// Records the peers that are not served because of their score.
    pub(crate) fn watch_scores(&mut self, swarm: &mut NodeSwarm) {
        let now = Instant::now();
        if now < self.watch {
            return;
        }
        self.watch = now + SCORE_INTERVAL;
        let connected: Vec<PeerId> = swarm.connected_peers().copied().collect();
        let Some(gossipsub) = swarm.behaviour_mut().gossipsub.as_mut() else { return };
        for peer in &connected {
            pubsub::rate(gossipsub, peer, self.standings.of(peer));
        }
        let Some(gossipsub) = swarm.behaviour().gossipsub.as_ref() else { return };
        let scored = |peer: &PeerId| Some((*peer, gossipsub.peer_score(peer)?));
        let scores: Vec<(PeerId, f64)> = swarm.connected_peers().filter_map(scored).collect();
        let shown = scores.iter().filter_map(|&(peer, score)| {
            Some((identity_of(&peer)?, TopicScore { score, is_muted: score < PUBLISH_THRESHOLD }))
        });
        let of_tags = self.known.of_tags.iter().map(|(tag, topic)| (Some(*tag), topic.hash()));
        let own = self.known.own.own().map(|(topic, _)| (None, topic.clone()));
        let meshes = of_tags.chain(own).map(|(tag, hash)| {
            let subscribed = gossipsub.all_peers();
            let subscribed = subscribed.filter(|(_, topics)| topics.contains(&&hash)).count();
            let mesh = gossipsub.mesh_peers(&hash).filter_map(identity_of).collect();
            TopicMesh { tag, topic: hash.to_string(), subscribed, mesh }
        });
        self.context.scores.set(shown.collect(), meshes.collect(), time::into_std(now));
        let muted = scores.into_iter().filter(|(_, score)| *score < PUBLISH_THRESHOLD);
        let muted: Vec<(PeerId, f64)> = muted.collect();
        let graylisted = muted.iter().filter(|(_, score)| *score < GRAYLIST_THRESHOLD);
        let since =
            |(peer, _): &(PeerId, f64)| (*peer, self.graylisted.get(peer).copied().unwrap_or(now));
        self.graylisted = graylisted.map(since).collect();
        self.muted.retain(|peer| muted.iter().any(|(low, _)| low == peer));
        for (peer, score) in muted {
            if self.muted.insert(peer) {
                self.context.metrics.note(P2pEvent::TopicPeerMuted);
                if let Some(left_out) = self.context.lines.muted.due() {
                    tracing::warn!(%peer, score, left_out, "a peer is not served on topics: its score is too low");
                }
            }
        }
        let for_long = |since: &Instant| now.duration_since(*since) >= GRAYLIST_TIME;
        let graylisted = self.graylisted.iter().filter(|(_, since)| for_long(since));
        let flooded: Vec<PeerId> = graylisted.map(|(peer, _)| *peer).collect();
        for peer in flooded {
            self.graylisted.remove(&peer);
            self.context.metrics.note(P2pEvent::TopicFlood);
            topic_gate::note_flood(&self.context.door, &peer);
            tracing::info!(%peer, "disconnecting a peer that stays graylisted");
            // This fails only if the peer has disconnected already.
            let _ = swarm.disconnect_peer_id(peer);
        }
    }
}

/// The peers that a message is published to, at most `most` beside those in the mesh, and those that it is not.
fn recipients(
    gossipsub: &GatedPubsub,
    topic: &TopicHash,
    most: usize,
) -> (Vec<PeerId>, Vec<PeerId>) {
    // The same condition by which the library chooses the peers to publish to.
    let is_served = |(peer, topics): &(&PeerId, Vec<&TopicHash>)| {
        topics.contains(&topic)
            && gossipsub.peer_score(peer).is_none_or(|score| score >= PUBLISH_THRESHOLD)
    };
    let mut served: Vec<PeerId> =
        gossipsub.all_peers().filter(is_served).map(|(peer, _)| *peer).collect();
    if served.len() <= most {
        return (served, Vec::new());
    }
    let mesh: HashSet<PeerId> = gossipsub.mesh_peers(topic).copied().collect();
    served.sort_by_key(|peer| !mesh.contains(peer));
    let passed_over = served.split_off(most.max(mesh.len()).min(served.len()));
    (served, passed_over)
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
