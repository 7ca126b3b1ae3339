//! Messages that were heard on a topic.
//!
//! # Invariants
//!
//! * A node that passes messages on in a topic has a share of the queues of its own, and a rate.
//! * The number of those who are told apart is bounded; the rest share one share.
//! * Memory is charged before a message waits for anything.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::FutureExt;
use gossip::{DisconnectReason, Identity, Lane, Validation};
use runtime::{TaskSet, time::Instant};

use super::{
    Arrival, Source, WayIn,
    patience::{Patience, Refusal},
    rate::Bucket,
    work::{HeardOn, Shares},
};
use crate::{
    assembler::MessageMemory, duplicates::Report, encode, metrics::DropReason, topic::TopicMessage,
};

/// Nodes that are told apart. Chosen: more than a node has links to.
const MAX_FORWARDERS: usize = 4_096;

/// The topics' way in.
pub(crate) struct Topics {
    way_in: Arc<WayIn>,
    forwarders: Forwarders,
    tasks: TaskSet,
}

/// The nodes that pass messages on in topics.
#[derive(Default)]
struct Forwarders {
    /// `None`: those who are not told apart.
    known: Mutex<HashMap<Option<Identity>, Forwarder>>,
}

#[derive(Clone)]
struct Forwarder {
    shares: Arc<Shares>,
    /// By lane.
    sent: [Bucket; Lane::ALL.len()],
}

impl Forwarders {
    /// Notes a message, and gives the shares of the node that passed it on and how far beyond its rate that is.
    fn note(&self, from: Option<Identity>, lane: Lane, way_in: &WayIn) -> (Arc<Shares>, Duration) {
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = from.filter(|from| {
            let has_room = known.len() < MAX_FORWARDERS || known.contains_key(&Some(*from));
            if !has_room {
                known.retain(|_, forwarder| !forwarder.shares.are_idle());
            }
            has_room || known.len() < MAX_FORWARDERS
        });
        let forwarder = known.entry(key).or_insert_with(|| Forwarder {
            shares: Arc::new(way_in.shares_of_forwarder()),
            sent: [Bucket::new(now); Lane::ALL.len()],
        });
        let rate = way_in.context.limits.rates.gossip.of(lane);
        let over = forwarder.sent[lane.index()].fill(1, rate, now);
        (Arc::clone(&forwarder.shares), over)
    }
}

impl Topics {
    pub(crate) fn new(way_in: Arc<WayIn>, tasks: TaskSet) -> Self {
        Self { way_in, forwarders: Forwarders::default(), tasks }
    }

    /// Takes a message that was heard on a topic. Never waits: what has to be waited for becomes a task.
    pub(crate) fn hear(&self, message: TopicMessage) {
        let TopicMessage { tag, body, from, transport, report } = message;
        let context = &self.way_in.context;
        let Ok(rule) = encode::gossip_rule(&context.tags, tag) else {
            context.metrics.dropped(DropReason::UnknownTag, Lane::Bulk);
            return report(Validation::Reject);
        };
        if body.len() > rule.max_payload {
            context.metrics.dropped(DropReason::Oversized, rule.lane);
            return report(Validation::Reject);
        }
        let peer = from.and_then(|identity| context.registry.by_identity(&identity));
        let (shares, over) = self.forwarders.note(from, rule.lane, &self.way_in);
        if !over.is_zero() {
            context.metrics.dropped(DropReason::OverRate, rule.lane);
            if let Some(peer) = peer.filter(|_| over > context.limits.rates.flood_after) {
                context.registry.end(&peer, DisconnectReason::Flood);
            }
            return report(Validation::Ignore);
        }
        let Some(held) = context.budget.try_reserve(body.len(), rule.lane) else {
            context.metrics.dropped(DropReason::BudgetFull, rule.lane);
            return report(Validation::Ignore);
        };
        let memory = MessageMemory::Charged(held);
        let source = Source { peer, forwarder: from, transport, heard_on: HeardOn::Topic, shares };
        let arrival = Arrival { rule, wire: None, payload: body, packed: None, memory, source };
        let mut taken = Box::pin(take(Arc::clone(&self.way_in), arrival, report));
        if taken.as_mut().now_or_never().is_none() {
            self.tasks.spawn("topic", |cancel| async move {
                cancel.run_until_cancelled(taken).await;
            });
        }
    }
}

async fn take(way_in: Arc<WayIn>, arrival: Arrival, report: Report) {
    let (peer, mut report) = (arrival.source.peer.clone(), Some(report));
    let refusal = way_in.take_in(arrival, Patience::Hurries, &mut report).await.err();
    let verdict = match refusal {
        Some(Refusal::End(reason)) => {
            if let Some(peer) = peer {
                way_in.context.registry.end(&peer, reason);
            }
            if reason == DisconnectReason::BadData {
                Validation::Reject
            } else {
                Validation::Ignore
            }
        }
        Some(Refusal::NoRoom) | None => Validation::Ignore,
    };
    if let Some(report) = report {
        report(verdict);
    }
}
