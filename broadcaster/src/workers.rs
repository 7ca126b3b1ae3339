//! The workers: where messages are judged and handled.
//!
//! ```text
//!   share of peer A ──┐
//!   share of peer B ──┼─ in turn ─▶ workers of a lane ─▶ validator ─▶ forward ─▶ observers ─▶ handler ─▶ verdict
//!   requests ─────────── in turn ─▶ many at once: validator ─▶ handler ─▶ answer
//! ```
//!
//! # Invariants
//!
//! * Messages of one peer in one lane are handled one after the other, in the order they came.
//! * Peers take turns: who sends much, or what takes long, delays only its own messages, as long as
//!   there is a worker for each peer that does.
//! * A message whose sender has too much to be passed on waits aside, and no worker with it.
//! * A lane has workers of its own: bulk handlers never delay votes.
//! * Requests are handled side by side, up to a bound: one that asks others for its answer delays no
//!   message and no other request.
//! * A handler that panics or outlives its deadline loses that one message, and is counted.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use gossip::{
    Admission, Lane, Tag, Validation, Verdict,
    wire::{
        request::{self, RequestKey},
        topics::Topics,
    },
};
use runtime::{
    Breath, TaskSet,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use crate::{
    context::Context,
    fair::{Consumer, FairQueue},
    inbound::{WayIn, work::Work},
    lanes::Queued,
    metrics::DropReason,
    trace::TraceEvent,
};

/// Starts the workers of both lanes, and what handles requests.
pub(crate) fn spawn(way_in: &Arc<WayIn>, tasks: &TaskSet) {
    for lane in Lane::ALL {
        let queue = way_in.queues.lane(lane);
        let consumer = queue.consumer();
        for _ in 0..way_in.context.limits.workers.get() {
            let (way_in, queue) = (Arc::clone(way_in), queue.clone());
            let consumer = Arc::clone(&consumer);
            tasks.spawn_lasting("worker", |cancel| run(queue, consumer, way_in, cancel));
        }
    }
    let way_in = Arc::clone(way_in);
    tasks.spawn_lasting("requests", |cancel| serve(way_in, cancel));
}

/// A step of the task that handles requests.
enum Turn<T> {
    /// The node stops.
    Over,
    /// A request was handled.
    Handled,
    /// A request is to be handled.
    Comes(T),
}

/// The place where a message waited for its worker.
#[derive(PartialEq, Eq)]
enum Was {
    /// In the queue of its lane.
    Queued,
    /// Aside, because its sender has too much to be passed on.
    Aside,
}

/// Handles requests side by side.
async fn serve(way_in: Arc<WayIn>, cancel: CancellationToken) {
    let queue = way_in.queues.requests();
    let _consumer = queue.consumer();
    let (mut under_way, mut breath) = (FuturesUnordered::new(), Breath::new());
    loop {
        let has_room = under_way.len() < way_in.context.limits.requests_handled.get();
        let turn = async {
            tokio::select! {
                biased;
                () = cancel.cancelled() => Turn::Over,
                Some(()) = under_way.next() => Turn::Handled,
                next = queue.next(), if has_room => next.map_or(Turn::Over, Turn::Comes),
            }
        };
        match breath.during(turn).await {
            Turn::Over => return,
            Turn::Handled => {}
            Turn::Comes((work, in_hand)) => {
                let way_in = &way_in;
                under_way.push(async move {
                    handle(way_in, work).await;
                    drop(in_hand);
                });
            }
        }
        breath.take().await;
    }
}

async fn run(
    queue: FairQueue<Work>,
    _consumer: Arc<Consumer<Work>>,
    way_in: Arc<WayIn>,
    cancel: CancellationToken,
) {
    let (mut breath, mut aside) = (Breath::new(), FuturesUnordered::new());
    let relay = &way_in.relay;
    loop {
        let next = async {
            tokio::select! {
                biased;
                () = cancel.cancelled() => None,
                Some(ready) = aside.next() => Some((ready, Was::Aside)),
                next = queue.next() => next.map(|next| (next, Was::Queued)),
            }
        };
        let Some(((work, in_hand), was)) = breath.during(next).await else { return };
        if was == Was::Queued && relay.is_behind(&work) {
            // One of each sender at most: the next one comes when this is no longer in hand.
            aside.push(async move {
                relay.make_way(&work).await;
                (work, in_hand)
            });
            continue;
        }
        let handled = breath.during(cancel.run_until_cancelled(handle(&way_in, work)));
        if handled.await.is_none() {
            return;
        }
        drop(in_hand);
        breath.take().await;
    }
}

/// Judges one message, passes it on, and has it handled.
async fn handle(way_in: &WayIn, mut work: Work) {
    let (tag, lane) = (work.message.tag, work.lane);
    let validation = way_in.application.judge(&work.message, &way_in.context.metrics);
    if validation != Validation::Accept
        && let Some(sighting) = &mut work.sighting
    {
        sighting.settle(validation);
    }
    match validation {
        Validation::Accept => {}
        Validation::Ignore => {
            way_in.dropped(work.peer.as_deref(), DropReason::Ignored, lane);
            return work.trace(TraceEvent::Dropped(DropReason::Ignored));
        }
        Validation::Reject => {
            way_in.dropped(work.peer.as_deref(), DropReason::Rejected, lane);
            work.trace(TraceEvent::Dropped(DropReason::Rejected));
            if let Some(peer) = &work.peer {
                way_in.context.registry.end(peer, gossip::DisconnectReason::BadData);
            }
            return;
        }
    }
    let handler = way_in.application.handler(tag);
    way_in.accepted(&mut work, handler);
    let Some(handler) = handler else { return };
    way_in.context.metrics.handled(tag);
    // The call itself may panic as well, before there is a future to poll.
    let handled = async { handler.handle(work.message.clone()).await };
    let handled = AssertUnwindSafe(handled).catch_unwind();
    match time::timeout(way_in.context.limits.handler_timeout, handled).await {
        Ok(Ok(verdict)) => {
            work.trace(TraceEvent::Handled);
            let latency = way_in.context.metrics.latency();
            latency.handled(lane, time::into_std(Instant::now()) - work.message.received);
            obey(way_in, &work, verdict).await;
        }
        Ok(Err(_panic)) => {
            if let Some(left_out) = way_in.context.metrics.lines().handler_panicked.due() {
                tracing::error!(%tag, left_out, "the handler panicked; its message is lost");
            }
            way_in.context.metrics.dropped(DropReason::HandlerPanicked, lane);
            work.trace(TraceEvent::Dropped(DropReason::HandlerPanicked));
        }
        Err(_elapsed) => {
            if let Some(left_out) = way_in.context.metrics.lines().handler_timed_out.due() {
                tracing::warn!(%tag, left_out, "the handler took too long; its message is lost");
            }
            way_in.context.metrics.dropped(DropReason::HandlerTimedOut, lane);
            work.trace(TraceEvent::Dropped(DropReason::HandlerTimedOut));
        }
    }
}

async fn obey(way_in: &WayIn, work: &Work, verdict: Verdict) {
    match verdict {
        Verdict::Ignore => {}
        Verdict::Relay => {
            way_in.relay.make_way(work).await;
            way_in.relay.forward_on_request(work);
        }
        Verdict::Respond(topics) => respond(&way_in.context, work, topics),
        Verdict::Disconnect(reason) => {
            if let Some(peer) = &work.peer {
                way_in.context.registry.end(peer, reason.into());
            }
        }
    }
}

/// Answers a request.
fn respond(context: &Context, work: &Work, topics: Topics) {
    let (Some(peer), Tag::UE) = (&work.peer, work.message.tag) else {
        return context.metrics.dropped(DropReason::NotARequest, work.lane);
    };
    let payload = request::answer(topics, RequestKey::of(&work.message.body));
    let Some(frame) = context.direct(Tag::TS, &payload) else { return };
    match peer.lanes.offer(Queued { frame, receipt: None }) {
        Admission::Queued => {}
        Admission::Full => context.dropped_of(peer, DropReason::PeerFull, Lane::Bulk),
        Admission::Closed => context.metrics.dropped(DropReason::PeerGone, Lane::Bulk),
    }
}
