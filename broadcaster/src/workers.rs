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
//! * A lane has workers of its own: bulk handlers never delay votes.
//! * Requests are handled side by side, up to a bound: one that asks others for its answer delays no
//!   message and no other request.
//! * A handler that panics or outlives its deadline loses that one message, and is counted.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use gossip::{Lane, Validation, Verdict};
use runtime::TaskSet;
use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::{
    breath::Breath,
    fair::{Consumer, FairQueue},
    inbound::work::Work,
    metrics::DropReason,
    shared::Shared,
};

/// Starts the workers of both lanes, and what handles requests.
pub(crate) fn spawn(shared: &Arc<Shared>, tasks: &TaskSet) {
    for lane in Lane::ALL {
        let queue = shared.work.lane(lane);
        let consumer = queue.consumer();
        for _ in 0..shared.limits.workers.get() {
            let (shared, queue) = (Arc::clone(shared), queue.clone());
            let consumer = Arc::clone(&consumer);
            tasks.spawn_lasting("worker", |cancel| run(queue, consumer, shared, cancel));
        }
    }
    let shared = Arc::clone(shared);
    tasks.spawn_lasting("requests", |cancel| serve(shared, cancel));
}

/// Handles requests side by side.
async fn serve(shared: Arc<Shared>, cancel: CancellationToken) {
    let queue = shared.work.requests();
    let _consumer = queue.consumer();
    let (mut under_way, mut breath) = (FuturesUnordered::new(), Breath::new());
    loop {
        let has_room = under_way.len() < shared.limits.requests_handled.get();
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            Some(()) = under_way.next() => {}
            next = queue.next(), if has_room => match next {
                Some((work, in_hand)) => {
                    let shared = &shared;
                    under_way.push(async move {
                        handle(shared, work).await;
                        drop(in_hand);
                    });
                }
                None => return,
            },
        }
        breath.take().await;
    }
}

async fn run(
    queue: FairQueue<Work>,
    _consumer: Arc<Consumer<Work>>,
    shared: Arc<Shared>,
    cancel: CancellationToken,
) {
    let mut breath = Breath::new();
    loop {
        let next = tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            next = queue.next() => next,
        };
        let Some((work, _in_hand)) = next else { return };
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            () = handle(&shared, work) => {}
        }
        breath.take().await;
    }
}

/// Judges one message, passes it on, and has it handled.
async fn handle(shared: &Shared, mut work: Work) {
    let (tag, lane) = (work.message.tag, work.lane);
    let validation = shared.application.judge(&work.message);
    if validation != Validation::Accept
        && let Some(sighting) = &mut work.sighting
    {
        sighting.settle(validation);
    }
    match validation {
        Validation::Accept => {}
        Validation::Ignore => return shared.metrics.dropped(DropReason::Ignored, lane),
        Validation::Reject => {
            shared.metrics.dropped(DropReason::Rejected, lane);
            if let Some(peer) = &work.peer {
                shared.end(peer, gossip::DisconnectReason::BadData);
            }
            return;
        }
    }
    shared.make_way(&work).await;
    let handler = shared.application.handler(tag);
    shared.accepted(&mut work, handler);
    let Some(handler) = handler else { return };
    shared.metrics.handled(tag);
    // The call itself may panic as well, before there is a future to poll.
    let handled = async { handler.handle(work.message.clone()).await };
    let handled = AssertUnwindSafe(handled).catch_unwind();
    match time::timeout(shared.limits.handler_timeout, handled).await {
        Ok(Ok(verdict)) => obey(shared, &work, verdict).await,
        Ok(Err(_panic)) => {
            tracing::error!(%tag, "the handler panicked; its message is lost");
            shared.metrics.dropped(DropReason::HandlerPanicked, lane);
        }
        Err(_elapsed) => {
            tracing::warn!(%tag, "the handler took too long; its message is lost");
            shared.metrics.dropped(DropReason::HandlerTimedOut, lane);
        }
    }
}

async fn obey(shared: &Shared, work: &Work, verdict: Verdict) {
    match verdict {
        Verdict::Ignore => {}
        Verdict::Relay => {
            shared.make_way(work).await;
            shared.forward_on_request(work);
        }
        Verdict::Respond(topics) => shared.respond(work, topics),
        Verdict::Disconnect(reason) => {
            if let Some(peer) = &work.peer {
                shared.end(peer, reason.into());
            }
        }
    }
}
