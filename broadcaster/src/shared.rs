//! What the tasks of a broadcaster share, and the decisions that more than one of them makes.

use std::sync::Arc;

use bytes::Bytes;
use gossip::{
    Admission, DisconnectReason, Handler, Inbound, Lane, NetworkProfile, PeerInfo, Tag, Validation,
    wire::{request, request::RequestKey, topics::Topics},
};
use runtime::Environment;
use tokio::{
    sync::broadcast,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use crate::{
    application::Application,
    assembler::INLINE_BYTES,
    budget::{ByteBudget, Reservation},
    contests::Contests,
    duplicates::Duplicates,
    fair::Refused,
    frame::{Frame, FrameParts, Origin},
    inbound::{
        topics::Forwarders,
        unpack::Unpacker,
        work::{HeardOn, Shares, Work, WorkQueues},
    },
    lanes::Queued,
    limits::Limits,
    metrics::{DropReason, Metrics},
    peer::Peer,
    pulse::Pulse,
    registry::Registry,
    router::{Intake, Job, Target, ToTopic, Topics as TopicSinks},
};

/// What a node does with the messages of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relaying {
    /// Nothing: `relay` is without effect.
    Off,
    /// Passes on every message that its validators accept, before the handler is asked.
    Accepted,
    /// Passes on what a handler, or a call of `relay`, asks for.
    OnRequest,
}

/// Something that happened to a peer.
#[derive(Clone, Debug)]
pub enum PeerEvent {
    /// It was attached.
    Connected(PeerInfo),
    /// Its identity was verified after it was attached.
    Identified(PeerInfo),
    /// It has ended, and why.
    Disconnected(PeerInfo, DisconnectReason),
}

impl PeerEvent {
    /// The peer that it happened to, as it was at that moment.
    #[must_use]
    pub const fn peer(&self) -> &PeerInfo {
        match self {
            Self::Connected(peer) | Self::Identified(peer) | Self::Disconnected(peer, _) => peer,
        }
    }
}

pub(crate) struct Shared {
    pub(crate) profile: &'static NetworkProfile,
    pub(crate) limits: Arc<Limits>,
    pub(crate) environment: Environment,
    pub(crate) relaying: Relaying,
    pub(crate) application: Application,
    pub(crate) budget: ByteBudget,
    pub(crate) registry: Arc<Registry>,
    pub(crate) contests: Contests,
    pub(crate) duplicates: Arc<Duplicates>,
    pub(crate) unpacker: Unpacker,
    pub(crate) forwarders: Forwarders,
    pub(crate) intake: Intake,
    /// Cancelled when the router has ended, after it has routed what was queued.
    pub(crate) routed: CancellationToken,
    pub(crate) work: WorkQueues,
    pub(crate) topics: TopicSinks,
    pub(crate) metrics: Metrics,
    pub(crate) pulse: Pulse,
    pub(crate) events: broadcast::Sender<PeerEvent>,
    pub(crate) observers: broadcast::Sender<Inbound>,
    /// What observers that do not keep up may hold.
    pub(crate) observed: ByteBudget,
}

impl Shared {
    /// Takes a peer out of the registry and asks its loops to end. A peer that ends with its network
    /// stays until its write loop has what the router still holds.
    pub(crate) fn end(&self, peer: &Peer, reason: DisconnectReason) {
        if peer.end(reason) && reason != DisconnectReason::LocalShutdown {
            self.registry.remove(peer.id);
        }
    }

    /// What follows once a message was found good: it is passed on, observers see it, and topics that
    /// asked are answered. Its sender's share of the intake has room for it. The caller gives it to
    /// `handler`, if there is one, afterwards.
    pub(crate) fn accepted(&self, work: &mut Work, handler: Option<&Arc<dyn Handler>>) {
        if self.relaying == Relaying::Accepted {
            self.forward(work);
        }
        if let Some(sighting) = &mut work.sighting {
            sighting.settle(Validation::Accept);
        }
        let observed = self.observers.receiver_count() > 0;
        if observed {
            self.show(work);
        }
        if handler.is_none() && !observed && self.relaying != Relaying::Accepted {
            self.metrics.dropped(DropReason::Unhandled, work.lane);
        }
    }

    /// Waits, for as long as anybody may be held up, until a message can be passed on: a worker can be
    /// held up as a reader can, and delays only messages of the same sender.
    pub(crate) async fn make_way(&self, work: &Work) {
        let share = work.shares.intake(work.lane);
        if self.relaying != Relaying::Off && !share.has_room() {
            // In vain, the message makes the share one longer than it may be.
            let _ = time::timeout(self.limits.inbound_wait, share.room()).await;
        }
    }

    /// Shows a message to the observers, if those that do not keep up leave room for it.
    fn show(&self, work: &Work) {
        let Some(held) = self.observed.try_reserve(work.message.body.len(), Lane::Priority) else {
            return self.metrics.dropped(DropReason::ObserverLagged, work.lane);
        };
        let message =
            Inbound { body: held.keep_with(&unshared(&work.message.body)), ..work.message.clone() };
        // An observer that falls behind by too many messages learns it from its own end.
        let _ = self.observers.send(message);
    }

    /// Passes a message on because its handler says so.
    pub(crate) fn forward_on_request(&self, work: &Work) {
        if self.relaying == Relaying::OnRequest {
            self.forward(work);
        }
    }

    /// Passes a message on to every peer but its sender, as it came, and remembers that it was. What
    /// cannot be passed on for want of memory is owed: the next copy is passed on.
    fn forward(&self, work: &Work) {
        let Some(fingerprint) = work.fingerprint else { return };
        let Some(frame) = self.frame_as_it_came(work) else {
            self.duplicates.owed(work.lane, fingerprint, Instant::now());
            return self.metrics.dropped(DropReason::BudgetFull, work.lane);
        };
        let generation = self.registry.generation();
        // Before it goes out: it may be heard back at once.
        self.duplicates.passed(work.lane, fingerprint, Instant::now(), generation);
        let target = work.from().map_or(Target::All, Target::AllExcept);
        let topic = match work.heard_on {
            HeardOn::Topic => ToTopic::Skip,
            HeardOn::Stream => ToTopic::Publish,
        };
        // Refused only when the node stops.
        let _ = work.shares.intake(work.lane).push(Job { frame, target, topic, receipts: None });
    }

    /// Passes on a copy of a message that could not be passed on when it was new.
    pub(crate) fn forward_late(&self, copy: impl FnOnce() -> Work) {
        if self.relaying != Relaying::Off {
            let copy = copy();
            if copy.shares.intake(copy.lane).has_room() {
                self.forward(&copy);
            } else {
                self.metrics.dropped(DropReason::IntakeFull, copy.lane);
            }
        }
    }

    /// A duplicate: it still goes to the peers that joined after the first copy went out. A topic
    /// that had it brings it to its newcomers by itself.
    pub(crate) fn forward_to_newcomers(&self, passed: u64, copy: impl FnOnce() -> Work) {
        if self.relaying == Relaying::Off {
            return;
        }
        let generation = self.registry.generation();
        if generation <= passed {
            return;
        }
        let copy = copy();
        let Some(frame) = self.frame_as_it_came(&copy) else {
            return self.metrics.dropped(DropReason::BudgetFull, copy.lane);
        };
        let target = Target::JoinedAfter { generation: passed, except: copy.from() };
        self.offer(&copy.shares, copy.lane, || {
            if let Some(fingerprint) = copy.fingerprint {
                self.duplicates.passed(copy.lane, fingerprint, Instant::now(), generation);
            }
            Job { frame, target, topic: ToTopic::Skip, receipts: None }
        });
    }

    /// Queues what a message gives rise to in its sender's share of the intake. What there is no room
    /// for is counted.
    fn offer(&self, shares: &Shares, lane: Lane, make: impl FnOnce() -> Job) {
        match shares.intake(lane).try_push_with(make) {
            Err(Refused::Full) => self.metrics.dropped(DropReason::IntakeFull, lane),
            Ok(()) | Err(Refused::Closed) => {}
        }
    }

    fn frame_as_it_came(&self, work: &Work) -> Option<Frame> {
        let len = work.wire.len();
        let held = self.budget.try_reserve(len, work.lane)?;
        Some(Frame::new(FrameParts {
            tag: work.message.tag,
            lane: work.lane,
            wire: unshared(&work.wire),
            digest: work.digest(),
            origin: Origin::Forwarded,
            held: Some(held),
        }))
    }

    /// Tells every other peer that this node has a large message. If there is no room for that, it costs
    /// a needless copy.
    pub(crate) fn announce(&self, work: &Work) {
        let Some(digest) = work.digest() else { return };
        let frame = Frame::control(Tag::MS, Lane::Bulk, &digest.0);
        let target = work.from().map_or(Target::All, Target::AllExcept);
        let make = || Job { frame, target, topic: ToTopic::Skip, receipts: None };
        self.offer(&work.shares, Lane::Bulk, make);
    }

    /// Answers a request.
    pub(crate) fn respond(&self, work: &Work, topics: Topics) {
        let (Some(peer), Tag::UE) = (&work.peer, work.message.tag) else {
            return self.metrics.dropped(DropReason::NotARequest, work.lane);
        };
        let payload = request::answer(topics, RequestKey::of(&work.message.body));
        let Some(frame) = self.direct(Tag::TS, &payload) else { return };
        let queued = Queued { frame, receipt: None };
        match peer.lanes.offer(queued) {
            Admission::Queued => {}
            Admission::Full => self.metrics.dropped(DropReason::PeerFull, Lane::Bulk),
            Admission::Closed => self.metrics.dropped(DropReason::PeerGone, Lane::Bulk),
        }
    }

    /// A message of one connection, charged to the budget; `None`, and counted, if there is no room.
    pub(crate) fn direct(&self, tag: Tag, payload: &[u8]) -> Option<Frame> {
        let rule = self.profile.tags.rule(tag)?;
        let len = Tag::BYTES + payload.len();
        if payload.len() > rule.max_payload || len > gossip::MAX_MESSAGE_BYTES {
            self.metrics.dropped(DropReason::Oversized, rule.lane);
            return None;
        }
        let held: Option<Reservation> = self.budget.try_reserve(len, rule.lane);
        if held.is_none() {
            self.metrics.dropped(DropReason::BudgetFull, rule.lane);
        }
        let mut wire = Vec::with_capacity(len);
        wire.extend_from_slice(&tag.0);
        wire.extend_from_slice(payload);
        let (wire, lane, origin) = (Bytes::from(wire), rule.lane, Origin::Own);
        held.map(|held| {
            Frame::new(FrameParts { tag, lane, wire, digest: None, origin, held: Some(held) })
        })
    }

    pub(crate) fn emit(&self, event: PeerEvent) {
        // Nobody listening is no failure.
        let _ = self.events.send(event);
    }
}

/// The same bytes, copied where they may lie in a read buffer, so that they do not keep all of it alive.
fn unshared(bytes: &Bytes) -> Bytes {
    if bytes.len() <= INLINE_BYTES { Bytes::copy_from_slice(bytes) } else { bytes.clone() }
}
