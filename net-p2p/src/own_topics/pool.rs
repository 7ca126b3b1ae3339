//! The workers that judge and handle messages of an application's topics.
//!
//! ```text
//!   swarm task ──▶ [peer A] ──┐
//!              ──▶ [peer B] ──┴─ in turn ─▶ workers ─▶ validator ─▶ verdict to the swarm task
//!                                                         └─▶ observers ─▶ handler, under a deadline
//! ```
//!
//! # Invariants
//!
//! * Of one peer one message is in hand at a time, so a peer whose messages take long delays only its own as long as
//!   there is a worker for each such peer.
//! * Messages wait within a bound in bytes. Beyond it the peer with most loses its newest, which are ignored and counted.
//! * Every message gets one verdict. A validator that panics has ignored its message; a handler that panics or outlives its
//!   deadline loses that message only.

use std::{
    collections::HashSet,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::FutureExt;
use gossip::{DisconnectReason, TopicInbound, Validation, Verdict as Wish};
use libp2p::{PeerId, gossipsub::MessageAcceptance};
use runtime::{Rarely, TaskSet, time};
use tokio::sync::{Notify, broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use super::OwnTopic;
use crate::{
    command::Verdict,
    metrics::{P2pEvent, P2pMetrics},
    waiting::Waiting,
};

/// Workers. Chosen: a few beside those of tags, which have 16.
const WORKERS: usize = 8;

/// Messages that an observer may be behind. Chosen: with the largest messages they take 64 MiB.
const OBSERVED: usize = 64;

/// A message that waits for its judgement.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) topic: Arc<OwnTopic>,
    pub(crate) message: TopicInbound,
    /// The verdict, in which only the judgement is missing: it is [`MessageAcceptance::Ignore`] until then.
    pub(crate) verdict: Verdict,
    /// Takes the verdict back to the swarm that heard the message.
    pub(crate) verdicts: mpsc::Sender<Verdict>,
}

/// Ends the links of a peer, as a handler may ask.
pub(crate) type EndLinks = Arc<dyn Fn(&TopicInbound, DisconnectReason) + Send + Sync>;

/// The pool of an application's topics. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct TopicPool {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Wakes a worker for a message that it may take.
    came: Notify,
    observers: broadcast::Sender<TopicInbound>,
    handler_timeout: Duration,
    end_links: EndLinks,
    metrics: P2pMetrics,
    lines: Lines,
}

/// Log lines that an application's code can cause, each limited in rate.
#[derive(Default)]
struct Lines {
    validator_panicked: Rarely,
    handler_panicked: Rarely,
    handler_timed_out: Rarely,
}

struct State {
    waiting: Waiting<PeerId, Heard>,
    /// Peers of which a worker has a message.
    in_hand: HashSet<PeerId>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl TopicPool {
    /// A pool in which messages wait with `bound` bytes. Without workers yet.
    pub(crate) fn new(
        bound: usize,
        handler_timeout: Duration,
        end_links: EndLinks,
        metrics: P2pMetrics,
    ) -> Self {
        let state = Mutex::new(State { waiting: Waiting::new(bound), in_hand: HashSet::new() });
        let shared = Shared {
            state,
            came: Notify::new(),
            observers: broadcast::Sender::new(OBSERVED),
            handler_timeout,
            end_links,
            metrics,
            lines: Lines::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Starts the workers.
    pub(crate) fn work(&self, tasks: &TaskSet) {
        for _ in 0..WORKERS {
            let pool = self.clone();
            tasks.spawn_lasting("topic worker", |cancel| pool.run(cancel));
        }
    }

    /// Adds a message, and returns those that have no room any more.
    pub(crate) fn hear(&self, heard: Heard) -> Vec<Heard> {
        let (from, bytes) = (heard.verdict.from, heard.verdict.held.bytes());
        let removed = self.lock().waiting.push(from, bytes, heard);
        self.shared.metrics.note_many(P2pEvent::TopicPoolFull, removed.len() as u64);
        self.shared.came.notify_one();
        removed
    }

    /// Every message that is accepted from now on, of all topics. A reader that falls behind misses the oldest.
    pub(crate) fn observe(&self) -> broadcast::Receiver<TopicInbound> {
        self.shared.observers.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code of others runs under this lock.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next message of a peer of which none is in hand.
    fn take(&self) -> Option<Heard> {
        let mut state = self.lock();
        let State { waiting, in_hand } = &mut *state;
        for _ in 0..waiting.origins() {
            let (from, _) = waiting.front()?;
            if !in_hand.contains(&from) {
                let heard = waiting.pop();
                in_hand.insert(from);
                // There may be another one for another worker.
                self.shared.came.notify_one();
                return heard;
            }
            waiting.skip();
        }
        None
    }

    async fn run(self, cancel: CancellationToken) {
        loop {
            let came = self.shared.came.notified();
            let Some(heard) = self.take() else {
                match cancel.run_until_cancelled(came).await {
                    Some(()) => continue,
                    None => return,
                }
            };
            let from = heard.verdict.from;
            let handled = cancel.run_until_cancelled(self.handle(heard)).await;
            self.lock().in_hand.remove(&from);
            self.shared.came.notify_one();
            if handled.is_none() {
                return;
            }
        }
    }

    /// Judges one message, tells the verdict, and has the message handled.
    async fn handle(&self, heard: Heard) {
        let Heard { topic, message, mut verdict, verdicts } = heard;
        let validation = self.judge(&topic, &message);
        verdict.acceptance = match validation {
            Validation::Accept => MessageAcceptance::Accept,
            Validation::Ignore => MessageAcceptance::Ignore,
            Validation::Reject => MessageAcceptance::Reject,
        };
        // The send fails only if the swarm that heard the message is gone.
        let _ = verdicts.send(verdict).await;
        if validation != Validation::Accept {
            return self.shared.metrics.note(P2pEvent::TopicRefused);
        }
        // The send fails if no task observes, which is no fault.
        let _ = self.shared.observers.send(message.clone());
        let Some(handler) = &topic.handler else { return };
        // The call itself may panic as well, before there is a future to poll.
        let handled = async { handler.handle(message.clone()).await };
        let handled = AssertUnwindSafe(handled).catch_unwind();
        match time::timeout(self.shared.handler_timeout, handled).await {
            Ok(Ok(Wish::Ignore | Wish::Relay)) => {}
            Ok(Ok(Wish::Respond(_))) => self.shared.metrics.note(P2pEvent::TopicHandlerFailed),
            Ok(Ok(Wish::Disconnect(reason))) => (self.shared.end_links)(&message, reason.into()),
            Ok(Err(_panic)) => {
                self.shared.metrics.note(P2pEvent::TopicHandlerFailed);
                if let Some(left_out) = self.shared.lines.handler_panicked.due() {
                    let topic = topic.name();
                    tracing::error!(topic, left_out, "the handler panicked; its message is lost");
                }
            }
            Err(_elapsed) => {
                self.shared.metrics.note(P2pEvent::TopicHandlerFailed);
                if let Some(left_out) = self.shared.lines.handler_timed_out.due() {
                    let topic = topic.name();
                    tracing::warn!(
                        topic,
                        left_out,
                        "the handler took too long; its message is lost"
                    );
                }
            }
        }
    }

    fn judge(&self, topic: &OwnTopic, message: &TopicInbound) -> Validation {
        if message.body.len() > topic.max_bytes {
            return Validation::Reject;
        }
        let Some(validator) = &topic.validator else { return Validation::Accept };
        let judged = std::panic::catch_unwind(AssertUnwindSafe(|| validator.validate(message)));
        judged.unwrap_or_else(|_panic| {
            if let Some(left_out) = self.shared.lines.validator_panicked.due() {
                let topic = topic.name();
                tracing::error!(topic, left_out, "the validator panicked; its message is ignored");
            }
            Validation::Ignore
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use broadcaster::ByteBudget;
    use gossip::Lane;
    use libp2p::gossipsub::{MessageId, TopicHash};

    use super::*;

    struct Rig {
        pool: TopicPool,
        tasks: TaskSet,
        budget: ByteBudget,
        metrics: P2pMetrics,
        ended: Arc<AtomicUsize>,
        verdicts: mpsc::Sender<Verdict>,
        told: mpsc::Receiver<Verdict>,
    }

    fn rig() -> Rig {
        let (verdicts, told) = mpsc::channel(64);
        let (metrics, ended) = (P2pMetrics::default(), Arc::<AtomicUsize>::default());
        let ends = Arc::clone(&ended);
        let end_links: EndLinks = Arc::new(move |_, _| {
            ends.fetch_add(1, Ordering::Relaxed);
        });
        let pool = TopicPool::new(10_000, Duration::from_secs(5), end_links, metrics.clone());
        let tasks = TaskSet::new(&CancellationToken::new());
        Rig { pool, tasks, budget: ByteBudget::new(1 << 24), metrics, ended, verdicts, told }
    }

    impl Rig {
        fn hear(&self, topic: &Arc<OwnTopic>, from: PeerId, body: &'static [u8]) -> usize {
            let verdict = Verdict {
                message: MessageId::new(body),
                from,
                acceptance: MessageAcceptance::Ignore,
                held: self.budget.try_reserve(1_000, Lane::Bulk).unwrap(),
                topic: TopicHash::from_raw(topic.name()),
                lane: Lane::Bulk,
            };
            let heard = Heard {
                topic: Arc::clone(topic),
                message: TopicInbound::new("t", body),
                verdict,
                verdicts: self.verdicts.clone(),
            };
            self.pool.hear(heard).len()
        }
    }

    // Issue 11, 3: one that panicked took a worker, or the swarm, with it.
    #[tokio::test(start_paused = true)]
    async fn panics_and_slow_handlers_cost_their_message_only() {
        let mut rig = rig();
        rig.pool.work(&rig.tasks);
        let judge = |message: &TopicInbound| match &message.body[..] {
            b"panic" => panic!("as the test asked"),
            b"bad" => Validation::Reject,
            _ => Validation::Accept,
        };
        let handler = |message: TopicInbound| async move {
            match &message.body[..] {
                b"slow" => std::future::pending().await,
                b"handler panic" => panic!("as the test asked"),
                b"leave" => Wish::Disconnect(gossip::ApplicationReason::BadData),
                _ => Wish::Ignore,
            }
        };
        let topic = OwnTopic::new("t").with_validator(judge).with_handler(handler);
        let topic = Arc::new(topic.with_max_bytes(20));
        let mut observed = rig.pool.observe();
        let bodies: [&'static [u8]; 7] = [
            b"panic",
            b"bad",
            b"slow",
            b"handler panic",
            b"leave",
            b"much longer than allowed",
            b"good",
        ];
        for body in bodies {
            assert_eq!(rig.hear(&topic, PeerId::random(), body), 0);
        }
        let mut accepted = Vec::new();
        for _ in bodies {
            let verdict = rig.told.recv().await.unwrap();
            if matches!(verdict.acceptance, MessageAcceptance::Accept) {
                accepted.push(verdict.message.0);
            }
        }
        accepted.sort();
        assert_eq!(accepted, [&b"good"[..], b"handler panic", b"leave", b"slow"]);
        for _ in 0..4 {
            observed.recv().await.unwrap();
        }
        while rig.metrics.count(P2pEvent::TopicHandlerFailed) < 2 {
            time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(rig.metrics.count(P2pEvent::TopicRefused), 3);
        assert_eq!(rig.ended.load(Ordering::Relaxed), 1);
        assert_eq!(rig.tasks.fault(), None, "no worker has died");
    }

    // Issue 11, 3: threats and goals, row 21.
    #[tokio::test(start_paused = true)]
    async fn a_peer_that_floods_loses_its_own_newest_messages() {
        let mut rig = rig();
        let topic = Arc::new(OwnTopic::new("t"));
        let (loud, quiet) = (PeerId::random(), PeerId::random());
        let lost: usize = (0..30).map(|_| rig.hear(&topic, loud, b"loud")).sum();
        assert_eq!(lost, 20, "ten fit");
        assert_eq!(rig.hear(&topic, quiet, b"quiet"), 1);
        assert_eq!(rig.metrics.count(P2pEvent::TopicPoolFull), 21);
        rig.pool.work(&rig.tasks);
        let mut heard = Vec::new();
        for _ in 0..10 {
            heard.push(rig.told.recv().await.unwrap().from);
        }
        assert_eq!(heard.iter().filter(|from| **from == quiet).count(), 1);
        assert_eq!(rig.budget.used(), 0, "nothing is charged any more");
    }

    // Issue 11, 3.
    #[tokio::test(start_paused = true)]
    async fn peers_with_slow_messages_delay_nobody_else() {
        let mut rig = rig();
        rig.pool.work(&rig.tasks);
        let handler = |message: TopicInbound| async move {
            if &message.body[..] == b"slow" {
                std::future::pending::<()>().await;
            }
            Wish::Ignore
        };
        let topic = Arc::new(OwnTopic::new("t").with_handler(handler));
        let began = time::Instant::now();
        let slow = PeerId::random();
        for _ in 0..8 {
            rig.hear(&topic, slow, b"slow");
        }
        rig.hear(&topic, PeerId::random(), b"quick");
        loop {
            if rig.told.recv().await.unwrap().message == MessageId::new(b"quick") {
                break;
            }
        }
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
}
