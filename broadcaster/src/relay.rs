//! The relay: messages of others on their way out of this node again.
//!
//! # Invariants
//!
//! * A message is passed on in the bytes it came in, and never to the link that it came from.
//! * The duplicate filter knows of a message before it goes out, since it may be heard back at once.
//! * Copies of a message wait in its sender's share of the intake, so a relay that is behind holds up
//!   the sender and nobody else.
//! * Where this node has passed on as much as it may, a sender with more than a fair share is not held up: its messages
//!   are shed, so that its own rate shows.

use std::sync::Arc;

use bytes::Bytes;
use gossip::{Lane, Tag};
use runtime::time::{self, Instant};

use crate::{
    context::Context,
    duplicates::Duplicates,
    fair::Refused,
    frame::{Frame, FrameParts, Origin},
    inbound::work::{HeardOn, Shares, Work},
    intake::{Job, Target, ToTopic},
    metrics::DropReason,
    trace::TraceEvent,
};

/// The relaying of other nodes' messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Relaying {
    /// Nothing: `relay` is without effect.
    Off,
    /// Passes on every message that its validators accept, before the handler is asked.
    Accepted,
    /// Passes on what a handler, or a call of `relay`, asks for.
    OnRequest,
}

pub(crate) struct Relay {
    context: Arc<Context>,
    duplicates: Arc<Duplicates>,
    relaying: Relaying,
}

impl Relay {
    pub(crate) const fn new(
        context: Arc<Context>,
        duplicates: Arc<Duplicates>,
        relaying: Relaying,
    ) -> Self {
        Self { context, duplicates, relaying }
    }

    pub(crate) const fn relaying(&self) -> Relaying {
        self.relaying
    }

    /// Returns `true` if a message must wait for room in its sender's share of the intake.
    pub(crate) fn is_behind(&self, work: &Work) -> bool {
        self.relaying != Relaying::Off
            && !work.shares.intake(work.lane).has_room()
            && !self.sheds(&work.shares, work.lane)
    }

    /// Waits until the sender's share of the intake has room for a message, at most
    /// [`Limits::inbound_wait`](crate::Limits::inbound_wait).
    pub(crate) async fn make_way(&self, work: &Work) {
        if self.is_behind(work) {
            let room = work.shares.intake(work.lane).room();
            // In vain, the message makes the share one longer than it may be.
            let _ = time::timeout(self.context.limits.inbound_wait, room).await;
        }
    }

    /// Returns `true` if the next message of a sender is not to be passed on.
    pub(crate) fn sheds(&self, shares: &Shares, lane: Lane) -> bool {
        let rate = self.context.limits.rates.passed_on.of(lane);
        self.context.held_back.is(lane)
            && !shares.intake(lane).has_room()
            && shares.passed_on().is_beyond_fair(lane, 0, rate)
    }

    /// Passes a message on because it was accepted, if the node relays what it accepts.
    pub(crate) fn forward_accepted(&self, work: &Work) {
        if self.relaying == Relaying::Accepted {
            self.forward(work);
        }
    }

    /// Passes a message on because its handler says so, if the node relays on request.
    pub(crate) fn forward_on_request(&self, work: &Work) {
        if self.relaying == Relaying::OnRequest {
            self.forward(work);
        }
    }

    /// Passes a message on to every peer but its sender. A message that is shed, or finds no room in the budget, is
    /// owed: the next copy of it is passed on.
    fn forward(&self, work: &Work) {
        let Some(fingerprint) = work.fingerprint else { return };
        let is_shed = self.sheds(&work.shares, work.lane);
        // It counts for the sender either way.
        let rate = self.context.limits.rates.passed_on.of(work.lane);
        work.shares.passed_on().is_beyond_fair(work.lane, 1, rate);
        if is_shed {
            self.duplicates.owed(work.lane, fingerprint, Instant::now());
            return self.dropped(work, DropReason::OverRate);
        }
        let Some(frame) = self.frame_as_it_came(work) else {
            self.duplicates.owed(work.lane, fingerprint, Instant::now());
            return self.dropped(work, DropReason::BudgetFull);
        };
        let generation = self.context.registry.generation();
        self.duplicates.passed(work.lane, fingerprint, Instant::now(), generation);
        let target = work.from().map_or(Target::All, Target::AllExcept);
        let topic = match work.heard_on {
            HeardOn::Topic => ToTopic::Skip,
            HeardOn::Stream => ToTopic::Publish,
        };
        // The share is closed only when the node stops.
        let _ = work.shares.intake(work.lane).push(Job { frame, target, topic, receipts: None });
    }

    /// Passes on a copy of a message that could not be passed on when it was new.
    pub(crate) fn forward_late(&self, copy: impl FnOnce() -> Work) {
        if self.relaying != Relaying::Off {
            let copy = copy();
            if copy.shares.intake(copy.lane).has_room() {
                self.forward(&copy);
            } else {
                self.dropped(&copy, DropReason::IntakeFull);
            }
        }
    }

    /// Sends a copy of a message to the peers that joined after the first copy went out, which was at the
    /// generation `passed`. A topic that had the message brings it to its newcomers by itself.
    pub(crate) fn forward_to_newcomers(&self, passed: u64, copy: impl FnOnce() -> Work) {
        if self.relaying == Relaying::Off {
            return;
        }
        let generation = self.context.registry.generation();
        if generation <= passed {
            return;
        }
        let copy = copy();
        let Some(frame) = self.frame_as_it_came(&copy) else {
            return self.dropped(&copy, DropReason::BudgetFull);
        };
        let target = Target::JoinedAfter { generation: passed, except: copy.from() };
        self.offer(&copy.shares, copy.lane, || {
            if let Some(fingerprint) = copy.fingerprint {
                self.duplicates.passed(copy.lane, fingerprint, Instant::now(), generation);
            }
            Job { frame, target, topic: ToTopic::Skip, receipts: None }
        });
    }

    /// Tells every other peer that this node has a large message. Without room for the announcement the peers may
    /// send a needless copy, which is all.
    pub(crate) fn announce(&self, work: &Work) {
        let Some(digest) = work.digest() else { return };
        let frame = Frame::control(Tag::MS, Lane::Bulk, &digest.0);
        let target = work.from().map_or(Target::All, Target::AllExcept);
        let make = || Job { frame, target, topic: ToTopic::Skip, receipts: None };
        self.offer(&work.shares, Lane::Bulk, make);
    }

    /// Counts a message that is not passed on.
    fn dropped(&self, work: &Work, reason: DropReason) {
        self.context.metrics.dropped(reason, work.lane);
        work.trace(TraceEvent::Dropped(reason));
    }

    /// Queues a job in the sender's share of the intake, or counts that there is no room.
    fn offer(&self, shares: &Shares, lane: Lane, make: impl FnOnce() -> Job) {
        match shares.intake(lane).try_push_with(make) {
            Err(Refused::Full) => self.context.metrics.dropped(DropReason::IntakeFull, lane),
            Ok(()) | Err(Refused::Closed) => {}
        }
    }

    fn frame_as_it_came(&self, work: &Work) -> Option<Frame> {
        let len = work.wire.len() + work.packed.as_ref().map_or(0, Bytes::len);
        let held = self.context.budget.try_reserve(len, work.lane)?;
        let frame = Frame::new(FrameParts {
            tag: work.message.tag,
            lane: work.lane,
            wire: work.own_wire(),
            digest: work.digest(),
            origin: Origin::Forwarded,
            sender: work.from(),
            held: Some(held),
        });
        Some(frame.traced(work.traced.clone()).come_packed(work.packed.clone()))
    }
}
