//! The way of a sampled message through this node: when each copy came and from whom, when it was handled, and to whom it
//! was passed on.
//!
//! ```text
//!   way in ────────┐                              ┌─▶ nearly always: nothing
//!   own messages ──┴─▶ Tracer (sample, or asked) ─┴─▶ Traced ◀── steps, from whoever has the message in hand
//! ```
//!
//! # Invariants
//!
//! * A message outside the sample costs a hash over at most [`sample::WORDS`] words of it, once, and a look at a null
//!   pointer for each peer.
//! * Nodes with the same rate pick the same messages, so that a path can be followed from node to node.
//! * The messages, their steps and their peers are bounded: the oldest message is forgotten first, and further steps
//!   are counted. A message that was forgotten takes no further step.
//! * Messages that somebody makes to be in the sample do not push out all others: only [`MAX_BEGUN`] are begun a second.

pub(crate) mod sample;
mod steps;

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use gossip::{Tag, wire::digest::Digest};
use runtime::{Environment, time::Instant};

use self::sample::Sample;
pub(crate) use self::steps::{Party, Traced};
pub use self::steps::{Trace, TraceEvent, TracePeer, TraceStep};
use crate::{duplicates::Fingerprint, metrics::Metrics};

/// Messages whose way is kept. Chosen: minutes of one in a thousand on a busy node, in 3 MiB at most.
const MAX_TRACES: usize = 256;

/// Messages of the sample whose way is begun in a second. Chosen: a quarter of those that are kept, so that nobody
/// makes the rest be forgotten within a glance.
const MAX_BEGUN: u32 = 64;

/// Digests that are waited for. Chosen: a hand's worth for each of a few operators.
const MAX_WANTED: usize = 16;

/// Longest time for which a digest is waited for. Chosen: an hour; meanwhile every message is hashed once more.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(3_600);

/// There is no room to wait for another digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node waits for {MAX_WANTED} messages already")]
pub struct TooManyWanted;

/// The messages whose way through a node is kept, and the choice of them.
pub struct Tracer {
    sample: Sample,
    /// `true` while there is something in `Kept::wanted`.
    wants: AtomicBool,
    environment: Environment,
    kept: Mutex<Kept>,
    /// Counts messages of the sample that were not begun.
    metrics: Metrics,
}

#[derive(Default)]
struct Kept {
    by_name: HashMap<Fingerprint, Arc<Traced>>,
    order: VecDeque<Fingerprint>,
    wanted: Vec<(Digest, Instant)>,
    /// The second that began then, and the messages begun in it.
    second: Option<(Instant, u32)>,
}

impl Kept {
    /// Returns whether the rate has room for a message, and takes it.
    fn may_begin(&mut self, now: Instant) -> bool {
        let (since, begun) = self.second.get_or_insert((now, 0));
        if now.duration_since(*since) >= Duration::from_secs(1) {
            (*since, *begun) = (now, 0);
        }
        *begun += 1;
        *begun <= MAX_BEGUN
    }

    fn insert(&mut self, name: Fingerprint, traced: &Arc<Traced>) {
        self.by_name.insert(name, Arc::clone(traced));
        self.order.push_back(name);
        if self.order.len() > MAX_TRACES
            && let Some(oldest) = self.order.pop_front().and_then(|name| self.by_name.remove(&name))
        {
            oldest.forget();
        }
    }

    /// Returns whether somebody waits for this message.
    fn wants(&mut self, digest: &Digest, now: Instant) -> bool {
        self.wanted.retain(|(_, until)| now < *until);
        self.wanted.iter().any(|(wanted, _)| wanted == digest)
    }
}

impl std::fmt::Debug for Tracer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracer").field("one_in", &self.one_in()).finish_non_exhaustive()
    }
}

impl Tracer {
    /// Keeps one message in `one_in`; none for zero.
    pub(crate) fn new(one_in: u64, environment: &Environment, metrics: &Metrics) -> Self {
        Self {
            sample: Sample::one_in(one_in),
            wants: AtomicBool::new(false),
            environment: environment.clone(),
            kept: Mutex::default(),
            metrics: metrics.clone(),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The trace of a message that came, or is sent; `None`, nearly always, if its way is not kept. A message without a
    /// body is a copy of one that is remembered.
    #[inline]
    pub(crate) fn of(
        &self,
        tag: Tag,
        body: Option<&[u8]>,
        name: Fingerprint,
    ) -> Option<Arc<Traced>> {
        let wants = self.wants.load(Ordering::Relaxed);
        let Some(body) = body else {
            return if wants || self.sample.is_on() {
                self.kept().by_name.get(&name).cloned()
            } else {
                None
            };
        };
        let is_picked = self.sample.picks(tag, body);
        if is_picked || wants { self.begin((tag, body), name, is_picked) } else { None }
    }

    /// Finds or begins the trace of a message that is in the sample, or that somebody may wait for.
    #[cold]
    fn begin(
        &self,
        (tag, body): (Tag, &[u8]),
        name: Fingerprint,
        is_picked: bool,
    ) -> Option<Arc<Traced>> {
        if let Some(traced) = self.kept().by_name.get(&name) {
            return Some(Arc::clone(traced));
        }
        // Not under the lock: a large body takes a while.
        let (digest, now) = (Digest::of(tag, body), Instant::now());
        let mut kept = self.kept();
        if let Some(traced) = kept.by_name.get(&name) {
            return Some(Arc::clone(traced));
        }
        let is_wanted = kept.wants(&digest, now);
        self.wants.store(!kept.wanted.is_empty(), Ordering::Relaxed);
        if !is_wanted && !is_picked {
            return None;
        }
        if !is_wanted && !kept.may_begin(now) {
            self.metrics.trace_left_out();
            return None;
        }
        let began_at = self.environment.clock().now();
        let traced = Arc::new(Traced::new((tag, body.len(), digest), (now, began_at)));
        kept.insert(name, &traced);
        Some(traced)
    }

    /// Keeps the way of a message, should it come within `wait`, which is an hour at most, whatever the sample is. Meanwhile
    /// every message is hashed once more.
    ///
    /// # Errors
    ///
    /// [`TooManyWanted`] when 16 are waited for already.
    pub fn want(&self, digest: Digest, wait: Duration) -> Result<(), TooManyWanted> {
        let now = Instant::now();
        let mut kept = self.kept();
        kept.wanted.retain(|(wanted, until)| now < *until && *wanted != digest);
        if kept.wanted.len() >= MAX_WANTED {
            return Err(TooManyWanted);
        }
        kept.wanted.push((digest, now + wait.min(MAX_WAIT)));
        self.wants.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Changes the rate of the sample from now on: the way of one message in so many is kept, of none for zero. Nodes with
    /// the same rate keep that of the same messages.
    pub fn set_one_in(&self, one_in: u64) {
        self.sample.set(one_in);
    }

    /// The rate of the sample: one message in so many, none for zero.
    #[must_use]
    pub fn one_in(&self) -> u64 {
        self.sample.rate()
    }

    /// The ways that are kept, the newest first: 256 at most.
    #[must_use]
    pub fn traces(&self) -> Vec<Trace> {
        let traced: Vec<Arc<Traced>> = {
            let kept = self.kept();
            kept.order.iter().rev().filter_map(|name| kept.by_name.get(name).cloned()).collect()
        };
        traced.iter().map(|traced| traced.trace()).collect()
    }

    /// The way of a message, if it is kept.
    #[must_use]
    pub fn trace(&self, digest: &Digest) -> Option<Trace> {
        let traced = {
            let kept = self.kept();
            kept.by_name.values().find(|traced| traced.digest() == *digest).cloned()
        };
        traced.map(|traced| traced.trace())
    }
}

/// The time since the Unix epoch, for what is shown.
pub(crate) fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests;
