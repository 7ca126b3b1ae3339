//! The one way in: how a message of others enters this node, whatever carried it.
//!
//! ```text
//!   read loop ──┐                                  ┌─ heard before ─▶ newcomers, or nobody
//!               ├─▶ unpack ─▶ room in the share ─▶ duplicate filter
//!   topic     ──┘   of its sender                  └─ new ─▶ share of a worker, or passed on at once
//! ```
//!
//! # Invariants
//!
//! * A message is handed on at most once per window of the duplicate filter, whatever carried it.
//! * A message counts as heard once there is a place for it, and nothing is waited for after that. So what
//!   a stalled peer sent is taken from another one, and what is lost before it was judged is new again.
//! * It is announced to others when it has its place, not before.
//! * Compressed messages unpack to less, for all peers together, than the next node bears of this one,
//!   and no peer takes all of it.
//! * A read loop waits for its place, a topic does not: nobody can be held up there. That is the only
//!   difference between them.
//! * A topic that asks about a message gets the verdict on it, whichever copy was judged.

pub(crate) mod patience;
pub(crate) mod rate;
pub(crate) mod topics;
pub(crate) mod unpack;
pub(crate) mod work;

use std::sync::Arc;

use bytes::Bytes;
use gossip::{Handler, Identity, Inbound, Lane, TagRule, Transport, Validation};
use runtime::time::{self, Instant};

use crate::{
    application::Application,
    assembler::MessageMemory,
    context::Context,
    duplicates::{Before, Duplicates, Report, Seen, Sighting},
    encode,
    inbound::{
        patience::{Patience, Refusal},
        unpack::{Unpacked, Unpacker},
        work::{HeardOn, Held, Shares, Work, WorkQueues},
    },
    intake::Intake,
    metrics::DropReason,
    observers::Observers,
    peer::Peer,
    relay::{Relay, Relaying},
    trace::{Party, TraceEvent, Traced},
};

/// The origin of a message.
#[derive(Clone)]
pub(crate) struct Source {
    /// The gossip peer, if it is one.
    pub(crate) peer: Option<Arc<Peer>>,
    /// The node that passed it on in a topic, which need not be a gossip peer.
    pub(crate) forwarder: Option<Identity>,
    pub(crate) transport: Transport,
    pub(crate) heard_on: HeardOn,
    /// The sender's shares of the queues.
    pub(crate) shares: Arc<Shares>,
}

impl Source {
    /// The node that the message came from, as a trace names it.
    fn party(&self) -> Party {
        let peer = self.peer.as_deref();
        Party {
            link: peer.map(|peer| peer.id),
            identity: self.forwarder.or_else(|| peer?.identity()),
            transport: self.transport,
        }
    }
}

/// A gossip message that has just come.
pub(crate) struct Arrival {
    pub(crate) rule: &'static TagRule,
    /// The whole message, tag included, if it came as one.
    pub(crate) wire: Option<Bytes>,
    /// The bytes behind the tag.
    pub(crate) payload: Bytes,
    /// The message as a vote packed by itself, if it came in that form.
    pub(crate) packed: Option<Bytes>,
    /// The memory that the message lies in.
    pub(crate) memory: MessageMemory,
    pub(crate) source: Source,
}

/// The one way in. Read loops, topics and workers share it.
pub(crate) struct WayIn {
    pub(crate) context: Arc<Context>,
    pub(crate) application: Arc<Application>,
    pub(crate) relay: Relay,
    pub(crate) queues: WorkQueues,
    duplicates: Arc<Duplicates>,
    unpacker: Unpacker,
    observers: Arc<Observers>,
    intake: Intake,
}

/// The parts of the way in.
pub(crate) struct WayInParts {
    pub(crate) context: Arc<Context>,
    pub(crate) application: Arc<Application>,
    pub(crate) relaying: Relaying,
    pub(crate) duplicates: Arc<Duplicates>,
    pub(crate) observers: Arc<Observers>,
    /// The queues in which messages are passed on.
    pub(crate) intake: Intake,
}

impl WayIn {
    pub(crate) fn new(parts: WayInParts) -> Self {
        let WayInParts { context, application, relaying, duplicates, observers, intake } = parts;
        let threads = context.limits.unpacked_at_once.get();
        Self {
            relay: Relay::new(Arc::clone(&context), Arc::clone(&duplicates), relaying),
            queues: WorkQueues::new(&context.limits),
            unpacker: Unpacker::new(threads, Arc::clone(&duplicates)),
            context,
            application,
            duplicates,
            observers,
            intake,
        }
    }

    /// The shares of a peer that sends over its connection and can be held up.
    pub(crate) fn shares_of_peer(&self, peer: &Peer) -> Shares {
        let limits = &self.context.limits;
        let shares = Shares::of_peer(&self.queues, &self.intake, limits);
        shares.unpacking_at(peer.rates(&limits.rates).unpacked_bytes)
    }

    /// The shares of a node that passes messages on in a topic, where nobody can be held up.
    pub(crate) fn shares_of_forwarder(&self) -> Shares {
        Shares::of_topic(&self.queues, &self.intake, &self.context.limits)
    }

    /// Takes a message in. A `report` that is left was not answered: the message was refused.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it leaves no trace of the message but its count.
    pub(crate) async fn take_in(
        &self,
        arrival: Arrival,
        patience: Patience,
        report: &mut Option<Report>,
    ) -> Result<(), Refusal> {
        let (rule, lane) = (arrival.rule, arrival.rule.lane);
        let shares = Arc::clone(&arrival.source.shares);
        let unpacked = self
            .unpacker
            .unpack(&self.context, rule, &arrival.payload, (patience, &shares))
            .await?;
        let message = unpacked.fingerprint;
        let traced = self.context.tracer.of(rule.tag, unpacked.body.as_deref(), message);
        if let Some(traced) = &traced {
            arrival.note(traced);
        }
        if let Some(peer) = &arrival.source.peer {
            self.context.performance.heard(peer, lane, message.0);
        }
        if !self.unpacker.admits(unpacked.price, &shares, &self.context.limits.rates)? {
            self.dropped_arrival(&arrival, DropReason::OverRate, traced.as_deref());
            return Err(Refusal::NoRoom);
        }
        let is_awaited = self.application.awaits(rule.tag);
        let has_room =
            if is_awaited { shares.work(lane).has_room() } else { shares.intake(lane).has_room() };
        if unpacked.body.is_none() || !has_room {
            // A copy needs no place.
            if let Some(before) = self.duplicates.meet(lane, message, Instant::now(), report) {
                self.dropped_arrival(&arrival, DropReason::Duplicate, traced.as_deref());
                self.heard_before(before, report, || arrival.work(unpacked, (None, traced)));
                return Ok(());
            }
        }
        let is_shed = !is_awaited && self.relay.sheds(&shares, lane);
        if !has_room && !is_shed {
            let room = async {
                if is_awaited {
                    shares.work(lane).room().await
                } else {
                    shares.intake(lane).room().await
                }
            };
            let waited = patience.wait(&self.context, lane, DropReason::WorkerFull, room).await;
            if let (Err(Refusal::NoRoom), Some(traced)) = (&waited, &traced) {
                traced.note(TraceEvent::Dropped(DropReason::WorkerFull), None);
            }
            waited?;
        }
        // From here on nothing is waited for.
        match self.duplicates.sight(lane, message, Instant::now(), report) {
            Seen::First(sighting) => {
                let mut work = arrival.work(unpacked, (Some(sighting), traced));
                self.relay.announce(&work);
                if is_awaited {
                    // Refused only when the node stops.
                    let _ = shares.work(lane).push(work);
                } else {
                    self.accepted(&mut work, None);
                }
            }
            Seen::Before(before) => {
                self.dropped_arrival(&arrival, DropReason::Duplicate, traced.as_deref());
                self.heard_before(before, report, || arrival.work(unpacked, (None, traced)));
            }
        }
        Ok(())
    }

    /// Deals with a copy of a message that was heard before, and answers the topic that asked.
    fn heard_before(
        &self,
        before: Before,
        report: &mut Option<Report>,
        copy: impl FnOnce() -> Work,
    ) {
        let verdict = match before {
            Before::Judged(verdict) => Some(verdict),
            Before::Owed | Before::Passed { .. } => Some(Validation::Accept),
            // The report waits for the verdict, unless too many ask already.
            Before::Pending => None,
        };
        if let Some(verdict) = verdict
            && let Some(report) = report.take()
        {
            report(verdict);
        }
        match before {
            Before::Passed { generation } => self.relay.forward_to_newcomers(generation, copy),
            Before::Owed => self.relay.forward_late(copy),
            Before::Judged(_) | Before::Pending => {}
        }
    }

    /// Counts a copy that goes no further.
    fn dropped_arrival(&self, arrival: &Arrival, reason: DropReason, traced: Option<&Traced>) {
        self.dropped(arrival.source.peer.as_deref(), reason, arrival.rule.lane);
        if let Some(traced) = traced {
            traced.note(TraceEvent::Dropped(reason), Some(arrival.source.party()));
        }
    }

    /// Counts a message that goes no further, and if it came over a connection, for that peer too.
    pub(crate) fn dropped(&self, peer: Option<&Peer>, reason: DropReason, lane: Lane) {
        match peer {
            Some(peer) => self.context.dropped_of(peer, reason, lane),
            None => self.context.metrics.dropped(reason, lane),
        }
    }

    /// Passes an accepted message on, shows it to the observers and answers the topics that asked. The caller
    /// gives it to `handler`, if there is one, afterwards.
    pub(crate) fn accepted(&self, work: &mut Work, handler: Option<&Arc<dyn Handler>>) {
        work.trace(TraceEvent::Accepted);
        self.relay.forward_accepted(work);
        if let Some(sighting) = &mut work.sighting {
            sighting.settle(Validation::Accept);
            if let Some(hooks) = work.peer.as_ref().and_then(|peer| peer.hooks.as_ref()) {
                hooks.delivered();
            }
        }
        if handler.is_none() {
            let took = time::into_std(Instant::now()) - work.message.received;
            self.context.metrics.latency().handled(work.lane, took);
        }
        let is_observed = !self.observers.is_empty();
        if is_observed {
            self.observers.show(&work.message, work.lane, &self.context.metrics);
        }
        if handler.is_none() && !is_observed && self.relay.relaying() != Relaying::Accepted {
            self.context.metrics.dropped(DropReason::Unhandled, work.lane);
            work.trace(TraceEvent::Dropped(DropReason::Unhandled));
        }
    }
}

impl Arrival {
    /// Notes that the copy came.
    fn note(&self, traced: &Traced) {
        let event = match self.source.heard_on {
            HeardOn::Stream => TraceEvent::Came,
            HeardOn::Topic => TraceEvent::Heard,
        };
        traced.note(event, Some(self.source.party()));
    }

    fn work(
        self,
        unpacked: Unpacked,
        (sighting, traced): (Option<Sighting>, Option<Arc<Traced>>),
    ) -> Work {
        let Self { rule, wire, payload, packed, memory, source } = self;
        let Source { peer, forwarder, transport, heard_on, shares } = source;
        let Unpacked { fingerprint, body, digest, held: _body, price: _ } = unpacked;
        let message = Inbound {
            tag: rule.tag,
            body: body.unwrap_or_default(),
            from: peer.as_ref().map(|peer| peer.id),
            identity: forwarder.or_else(|| peer.as_ref()?.identity()),
            transport,
            received: time::into_std(Instant::now()),
        };
        let wire = wire.unwrap_or_else(|| encode::joined(rule.tag, &payload));
        Work {
            message,
            wire,
            packed,
            fingerprint: Some(fingerprint),
            digest,
            lane: rule.lane,
            peer,
            held: Held { wire: memory, _body },
            heard_on,
            shares,
            sighting,
            traced,
        }
    }
}
