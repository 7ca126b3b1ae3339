//! Messages that the application sends: from the call to the intake, or to the one peer that is asked.
//!
//! # Invariants
//!
//! * A message is encoded on its caller's thread, once, however many peers it is for.
//! * A message for everybody is remembered as heard once it has its place in the intake, so that its echo is a
//!   duplicate, and a message that was refused may be sent again.

use std::sync::Arc;

use gossip::{Admission, Outbound, Recipients, Request, RequestError, Response, SubmitError, Tag};
use runtime::time::{self, Instant};

use crate::{
    context::Context,
    duplicates::Duplicates,
    encode,
    frame::Origin,
    intake::{Intake, Job, Target, ToTopic},
    lanes::Queued,
    metrics::DropReason,
    peer::Peer,
    receipts::Receipts,
    trace::TraceEvent,
};

pub(crate) struct Submitter {
    context: Arc<Context>,
    duplicates: Arc<Duplicates>,
    intake: Intake,
}

impl Submitter {
    pub(crate) const fn new(
        context: Arc<Context>,
        duplicates: Arc<Duplicates>,
        intake: Intake,
    ) -> Self {
        Self { context, duplicates, intake }
    }

    /// Offers a message to the intake. Whoever holds `receipts` learns what became of it.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] when the message can never be sent.
    pub(crate) fn submit(
        &self,
        message: &Outbound,
        origin: Origin,
        receipts: Option<Receipts>,
    ) -> Result<Admission, SubmitError> {
        let Context { tags, budget, metrics, registry, .. } = &*self.context;
        let rule = encode::gossip_rule(tags, message.tag)
            .inspect_err(|_| metrics.dropped(DropReason::UnknownTag, gossip::Lane::Bulk))?;
        let frame = encode::encode(rule, &message.body, origin, budget)
            .inspect_err(|_| metrics.dropped(DropReason::Oversized, rule.lane))?;
        let (target, topic) = match message.to {
            Recipients::All => (Target::All, ToTopic::Publish),
            Recipients::AllExcept(peer) => (Target::AllExcept(peer), ToTopic::Publish),
            Recipients::One(peer) => (Target::One(peer), ToTopic::Skip),
        };
        let is_for_everybody = !matches!(target, Target::One(_));
        let fingerprint =
            is_for_everybody.then(|| self.duplicates.fingerprint(message.tag, &message.body));
        let traced = fingerprint
            .and_then(|name| self.context.tracer.of(message.tag, Some(&message.body), name));
        let note = |event| traced.iter().for_each(|traced| traced.note(event, None));
        note(TraceEvent::Submitted);
        let Some(frame) = frame else {
            metrics.dropped(DropReason::BudgetFull, rule.lane);
            note(TraceEvent::Dropped(DropReason::BudgetFull));
            return Ok(Admission::Full);
        };
        let frame = frame.traced(traced.clone());
        let make = || {
            if let Some(fingerprint) = fingerprint {
                let generation = registry.generation();
                self.duplicates.passed(rule.lane, fingerprint, Instant::now(), generation);
            }
            Job { frame, target, topic, receipts }
        };
        let admission = self.intake.offer(rule.lane, make, metrics);
        if admission == Admission::Full {
            note(TraceEvent::Dropped(DropReason::IntakeFull));
        }
        Ok(admission)
    }

    /// Asks one peer and resolves with its answer.
    ///
    /// # Errors
    ///
    /// See [`RequestError`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future forgets the request; a late answer is dropped.
    pub(crate) async fn request(
        &self,
        peer: &Peer,
        request: Request,
    ) -> Result<Response, RequestError> {
        let (context, id) = (&self.context, peer.id);
        let full = RequestError::Full { peer: id };
        let most = context.limits.requests_per_peer;
        let (payload, key, answer) = peer.requests().open(&request.topics, most).ok_or(full)?;
        let max = context.tags.rule(Tag::UE).map_or(0, |rule| rule.max_payload);
        if payload.len() > max {
            peer.requests().withdraw(key);
            return Err(RequestError::TooLarge { bytes: payload.len(), max });
        }
        let frame = context.direct(Tag::UE, &payload);
        let queued = frame.map(|frame| peer.lanes.offer(Queued { frame, receipt: None }));
        if queued != Some(Admission::Queued) {
            peer.requests().withdraw(key);
            return Err(full);
        }
        tokio::select! {
            biased;
            answer = time::timeout(context.limits.request_timeout, answer) => match answer {
                Ok(Ok(topics)) => Ok(Response { topics }),
                Ok(Err(_)) => Err(RequestError::NotConnected { peer: id }),
                Err(_elapsed) => Err(RequestError::TimedOut { peer: id }),
            },
            () = peer.cancel.cancelled() => Err(RequestError::NotConnected { peer: id }),
        }
    }
}
