//! The workers: where messages are judged and handled.
//!
//! ```text
//!   reader ──send──▶ [worker queue]  ─▶ validator ─▶ forward ─▶ observers ─▶ handler ─▶ verdict
//!          ──send──▶ [request queue] ─▶ many at once: validator ─▶ handler ─▶ answer
//! ```
//!
//! # Invariants
//!
//! * Messages of one peer in one lane are handled by one worker, in the order they came.
//! * A lane has workers of its own: bulk handlers never delay votes.
//! * Requests are handled side by side, up to a bound: one that asks others for its answer delays no
//!   message and no other request.
//! * A handler that panics or outlives its deadline loses that one message, and is counted.

use std::{
    collections::HashMap,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use gossip::{
    Handler, Inbound, Lane, LinkId, Tag, Validation, Validator, Verdict, wire::digest::Digest,
};
use runtime::TaskSet;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time,
};
use tokio_util::sync::CancellationToken;

use crate::{
    assembler::MessageMemory, budget::Reservation, duplicates::Fingerprint, encode,
    metrics::DropReason, peer::Peer, shared::Shared,
};

/// What the application installed.
#[derive(Clone, Default)]
pub(crate) struct Application {
    pub(crate) handlers: HashMap<Tag, Arc<dyn Handler>>,
    pub(crate) validators: HashMap<Tag, Arc<dyn Validator>>,
}

/// Where a message was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeardOn {
    /// On a peer's own connection.
    Stream,
    /// On a topic, where it spreads by itself once it is accepted.
    Topic,
}

/// What a message is charged for.
#[derive(Debug)]
pub(crate) struct Held {
    /// For what came off the wire.
    pub(crate) _wire: MessageMemory,
    /// For what it became when it was decompressed.
    pub(crate) _body: Option<Reservation>,
}

/// A message on its way to its handler.
pub(crate) struct Work {
    pub(crate) message: Inbound,
    /// The message as it came, to be passed on without encoding it again.
    pub(crate) wire: Bytes,
    pub(crate) fingerprint: Option<Fingerprint>,
    /// The digest of a large message, once somebody asked: hashing megabytes twice would show.
    pub(crate) digest: OnceLock<Option<Digest>>,
    pub(crate) lane: Lane,
    pub(crate) peer: Option<Arc<Peer>>,
    /// Keeps the bytes charged to the budget until the message has been handled.
    pub(crate) _held: Held,
    /// The peer's place among the messages that wait; given back when the message has been handled.
    pub(crate) token: Option<OwnedSemaphorePermit>,
    pub(crate) heard_on: HeardOn,
    /// Takes the validator's word back to the topic.
    pub(crate) report: Option<Box<dyn FnOnce(Validation) + Send>>,
}

impl Work {
    /// The digest by which peers say that they have the message; only a large one has one.
    pub(crate) fn digest(&self) -> Option<Digest> {
        let Inbound { tag, body, .. } = &self.message;
        *self.digest.get_or_init(|| encode::digest(*tag, body))
    }
}

/// The queues of all workers.
#[derive(Clone)]
pub(crate) struct Workers {
    lanes: [Arc<[mpsc::Sender<Work>]>; 2],
    requests: mpsc::Sender<Work>,
}

/// The ends from which [`spawn`] feeds the workers.
pub(crate) struct Queues {
    messages: Vec<mpsc::Receiver<Work>>,
    requests: mpsc::Receiver<Work>,
}

impl Workers {
    /// The queues, and the ends from which [`spawn`] feeds the workers.
    pub(crate) fn new(workers: usize, depth: usize) -> (Self, Queues) {
        let mut receivers = Vec::with_capacity(2 * workers);
        let lanes = Lane::ALL.map(|_lane| {
            let senders: Vec<_> = (0..workers)
                .map(|_| {
                    let (sender, receiver) = mpsc::channel(depth);
                    receivers.push(receiver);
                    sender
                })
                .collect();
            senders.into()
        });
        let (requests, asked) = mpsc::channel(depth);
        (Self { lanes, requests }, Queues { messages: receivers, requests: asked })
    }

    /// The queue of requests.
    pub(crate) const fn requests(&self) -> &mpsc::Sender<Work> {
        &self.requests
    }

    /// The queue of a peer's messages of one lane.
    pub(crate) fn queue(&self, lane: Lane, peer: Option<LinkId>) -> &mpsc::Sender<Work> {
        let queues = &self.lanes[usize::from(lane == Lane::Bulk)];
        let number = peer.map_or(0, |peer| peer.0);
        let index = usize::try_from(number % queues.len() as u64).unwrap_or(0);
        &queues[index]
    }
}

/// Starts one worker per queue.
pub(crate) fn spawn(queues: Queues, shared: &Arc<Shared>, tasks: &TaskSet) {
    for receiver in queues.messages {
        let shared = Arc::clone(shared);
        tasks.spawn_lasting("worker", |cancel| run(receiver, shared, cancel));
    }
    let shared = Arc::clone(shared);
    tasks.spawn_lasting("requests", |cancel| serve(queues.requests, shared, cancel));
}

/// Handles requests side by side.
async fn serve(mut queue: mpsc::Receiver<Work>, shared: Arc<Shared>, cancel: CancellationToken) {
    let mut under_way = FuturesUnordered::new();
    loop {
        let has_room = under_way.len() < shared.limits.requests_handled.get();
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            Some(()) = under_way.next() => {}
            work = queue.recv(), if has_room => match work {
                Some(work) => under_way.push(handle(&shared, work)),
                None => return,
            },
        }
    }
}

async fn run(mut queue: mpsc::Receiver<Work>, shared: Arc<Shared>, cancel: CancellationToken) {
    loop {
        let work = tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            work = queue.recv() => work,
        };
        let Some(work) = work else { return };
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            () = handle(&shared, work) => {}
        }
    }
}

/// Judges one message, passes it on, and has it handled.
async fn handle(shared: &Shared, mut work: Work) {
    let (tag, lane) = (work.message.tag, work.lane);
    let validation = judge(shared, &work.message);
    if let Some(report) = work.report.take() {
        report(validation);
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
    shared.accepted(&work);
    let Some(handler) = shared.application.handlers.get(&tag) else { return };
    shared.metrics.handled(tag);
    // The call itself may panic as well, before there is a future to poll.
    let handled = async { handler.handle(work.message.clone()).await };
    let handled = AssertUnwindSafe(handled).catch_unwind();
    match time::timeout(shared.limits.handler_timeout, handled).await {
        Ok(Ok(verdict)) => obey(shared, &work, verdict),
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

fn judge(shared: &Shared, message: &Inbound) -> Validation {
    let Some(validator) = shared.application.validators.get(&message.tag) else {
        return Validation::Accept;
    };
    let judged = panic::catch_unwind(AssertUnwindSafe(|| validator.validate(message)));
    judged.unwrap_or_else(|_panic| {
        tracing::error!(tag = %message.tag, "the validator panicked; the message is ignored");
        Validation::Ignore
    })
}

fn obey(shared: &Shared, work: &Work, verdict: Verdict) {
    match verdict {
        Verdict::Ignore => {}
        Verdict::Relay => shared.forward_on_request(work),
        Verdict::Respond(topics) => shared.respond(work, topics),
        Verdict::Disconnect(reason) => {
            if let Some(peer) = &work.peer {
                shared.end(peer, reason);
            }
        }
    }
}
