//! Fetches a range of rounds from several sources at once.
//!
//! ```text
//!   rounds ─▶ [store: which are missing?] ─▶ Plan ─▶ source, source, source ─▶ check ─▶ [ready] ─▶ store
//!                                             ▲            │
//!                                             └── failed ──┘                     Progress ─▶ watch
//! ```
//!
//! # Invariants
//!
//! * Rounds that are in the store are not fetched again, so that a fetch that ended can be taken up by another one.
//! * A block is kept only if it says that it is of the round that was asked for. It is kept as it comes, in
//!   batches; gaps may be left open while others are filled.
//! * Requests, each source's requests, and the bytes that wait for the store are bounded; the length of the
//!   range costs nothing.
//! * A source that fails is put aside and others take over. The fetch ends when every round is kept or known
//!   to be missing, and says why.

mod plan;
mod source;

use std::{future, num::NonZeroUsize, ops::RangeInclusive, time::Duration};

use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use gossip::{BoxFuture, Durations};
use tokio::{
    sync::watch,
    time::{self, Instant},
};

pub use self::source::{Failure, Source};
use self::{
    plan::{Ask, Plan, Standing, Step},
    source::Said,
};
use super::{
    store::{Blocks, StoreError},
    stored::StoredBlock,
};

/// Rounds looked up in the store at a time. Chosen: many to one call, and few to hold.
const LOOK_AHEAD: u64 = 256;

/// Blocks and bytes kept in one write of the store. Chosen: one flush of a disk costs about as much as writing
/// a few megabytes.
const BATCH_BLOCKS: usize = 256;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Bytes that may wait for the store before no more are asked for. Chosen: some batches.
const MAX_READY_BYTES: usize = 32 * 1024 * 1024;

/// Bounds of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FetchLimits {
    /// Most requests at once. Default: 16. Source: wire facts 4.3, `CatchupParallelBlocks`.
    pub parallel: NonZeroUsize,
    /// Most requests to one source at once. Default: 16.
    pub per_source: NonZeroUsize,
    /// Longest time of a source for a block, body and all. Default: 4 s. Source: wire facts 4.3.
    pub timeout: Duration,
    /// Pause before the next look for a block that no source had. Default: 1.5 s; a relay remembers for a
    /// second that it found none.
    pub second_look: Duration,
}

impl Default for FetchLimits {
    fn default() -> Self {
        let sixteen = NonZeroUsize::MIN.saturating_add(15);
        Self {
            parallel: sixteen,
            per_source: sixteen,
            timeout: Duration::from_secs(4),
            second_look: Duration::from_millis(1500),
        }
    }
}

gossip::setters!(FetchLimits {
    with_parallel => parallel: NonZeroUsize,
    with_per_source => per_source: NonZeroUsize,
    with_timeout => timeout: Duration,
    with_second_look => second_look: Duration,
});

impl Durations for FetchLimits {
    fn each_duration(&mut self, visit: &mut dyn FnMut(&'static str, &mut Duration)) {
        visit("blocks::FetchLimits::timeout", &mut self.timeout);
        visit("blocks::FetchLimits::second_look", &mut self.second_look);
    }
}

/// The progress of a fetch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Rounds in the range.
    pub wanted: u64,
    /// Rounds that were in the store already.
    pub present: u64,
    /// Blocks fetched and kept.
    pub stored: u64,
    /// Bytes of those blocks, certificates included.
    pub bytes: u64,
    /// Rounds given up.
    pub missing: u64,
    /// Requests under way.
    pub in_flight: usize,
}

/// The outcome of a fetch.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Its progress at the end.
    pub progress: Progress,
    /// The record of each source, in the order in which they were added.
    pub sources: Vec<SourceReport>,
}

/// The record of a source in a fetch.
#[derive(Clone, Debug)]
pub struct SourceReport {
    /// Its name.
    pub name: String,
    /// Blocks it gave.
    pub blocks: u64,
    /// Requests it failed.
    pub failures: u64,
    /// Its last failure.
    pub last: Option<Failure>,
}

/// The end of a fetch.
#[derive(Clone, Debug)]
#[must_use = "some rounds may not have been got"]
pub enum Fetched {
    /// Every round is in the store.
    All(Tally),
    /// Some rounds are not.
    Incomplete {
        /// The outcome up to then.
        tally: Tally,
        /// Rounds that were not got, and the reasons, by number.
        gaps: Vec<Gap>,
    },
}

/// Rounds that were not got.
#[derive(Clone, Debug)]
pub struct Gap {
    /// The first of them.
    pub first: u64,
    /// The last of them.
    pub last: u64,
    /// Why they were not got; of several alike, the first.
    pub why: Why,
}

/// Why rounds were not got.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Why {
    /// No source has them.
    #[error("no source has it")]
    Unavailable {
        /// The newest round that a source claims to have.
        latest: Option<u64>,
    },
    /// Sources that may have them failed each time they were asked.
    #[error("no source gave it")]
    Failed {
        /// Its last failure.
        #[source]
        last: Failure,
    },
    /// No source was left to be asked.
    #[error("no source is left")]
    NoSource,
}

impl Why {
    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Failed { last }, Self::Failed { last: other }) => {
                std::mem::discriminant(last) == std::mem::discriminant(other)
            }
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

/// Fetches blocks into a store.
#[derive(Debug)]
pub struct Fetcher {
    blocks: Blocks,
    sources: Vec<Source>,
    limits: FetchLimits,
    progress: watch::Sender<Progress>,
}

impl Fetcher {
    /// A fetcher without sources, with default limits.
    #[must_use]
    pub fn new(blocks: Blocks) -> Self {
        let progress = watch::Sender::new(Progress::default());
        Self { blocks, sources: Vec::new(), limits: FetchLimits::default(), progress }
    }

    /// Fetches from this source too. The ones with the least to do are asked first.
    #[must_use]
    pub fn source(mut self, source: Source) -> Self {
        self.sources.push(source);
        self
    }

    /// Other limits. Durations among them are brought between [`SHORTEST_LIMIT`](gossip::SHORTEST_LIMIT) and
    /// [`LONGEST_LIMIT`](gossip::LONGEST_LIMIT).
    #[must_use]
    pub fn limits(self, limits: FetchLimits) -> Self {
        Self { limits: limits.bounded(), ..self }
    }

    /// Shows how far a fetch is, from now on.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Fetches those of `rounds` that are not in the store.
    ///
    /// # Errors
    ///
    /// [`StoreError`], which ends the fetch. Blocks kept before stay.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the requests. Blocks kept before stay; those that came and were not kept are
    /// lost, and fetched by the next fetch.
    pub async fn fetch(&self, rounds: RangeInclusive<u64>) -> Result<Fetched, StoreError> {
        let mut progress = Progress::default();
        if !rounds.is_empty() {
            progress.wanted = (rounds.end() - rounds.start()).saturating_add(1);
        }
        self.progress.send_replace(progress);
        let run = Run {
            fetcher: self,
            plan: Plan::new(self.sources.clone(), self.limits),
            ahead: (!rounds.is_empty()).then(|| rounds.clone()),
            ready: Vec::new(),
            ready_bytes: 0,
            progress,
        };
        run.complete().await
    }
}

/// One fetch.
struct Run<'a> {
    fetcher: &'a Fetcher,
    plan: Plan,
    /// Rounds not looked at yet.
    ahead: Option<RangeInclusive<u64>>,
    /// Blocks that wait for the store.
    ready: Vec<(u64, StoredBlock)>,
    ready_bytes: usize,
    progress: Progress,
}

/// The outcome of a write.
struct Written {
    result: Result<(), StoreError>,
    blocks: u64,
    bytes: u64,
}

/// The outcome of a look into the store.
struct Looked {
    /// Number of the rounds that are there.
    present: u64,
    /// Those that are not.
    missing: Vec<u64>,
}

type Answer = (Ask, Result<Said, Failure>);
type Write = BoxFuture<'static, Written>;
type Look = BoxFuture<'static, Result<Looked, StoreError>>;

impl Run<'_> {
    async fn complete(mut self) -> Result<Fetched, StoreError> {
        let mut answers: FuturesUnordered<BoxFuture<'static, Answer>> = FuturesUnordered::new();
        let mut write: Option<Write> = None;
        let mut look: Option<Look> = None;
        loop {
            let wake = self.ask(&mut answers);
            if look.is_none() {
                look = self.look_ahead();
            }
            if write.is_none() {
                write = self.write(answers.len());
            }
            self.report();
            if answers.is_empty() && write.is_none() && look.is_none() && wake.is_none() {
                break;
            }
            tokio::select! {
                biased;
                written = if_any(&mut write) => {
                    write = None;
                    written.result?;
                    self.progress.stored += written.blocks;
                    self.progress.bytes += written.bytes;
                }
                looked = if_any(&mut look) => {
                    look = None;
                    let Looked { present, missing } = looked?;
                    self.progress.present += present;
                    self.plan.add(missing);
                }
                Some((ask, said)) = answers.next() => self.heard(ask, said),
                () = time::sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
        Ok(self.finish())
    }

    /// Makes all requests that can be made, and says when there may be more.
    fn ask(
        &mut self,
        answers: &mut FuturesUnordered<BoxFuture<'static, Answer>>,
    ) -> Option<Instant> {
        while self.ready_bytes < MAX_READY_BYTES {
            match self.plan.next(Instant::now()) {
                Step::Ask(ask) => {
                    // The plan names only sources that it has.
                    let Some(source) = self.plan.source(ask) else { continue };
                    let within = self.fetcher.limits.timeout;
                    let answer = async move { (ask, source.ask(ask.round, within).await) };
                    answers.push(answer.boxed());
                }
                Step::Wait(until) => return Some(until),
                Step::Listen | Step::Done => return None,
            }
        }
        None
    }

    fn heard(&mut self, ask: Ask, said: Result<Said, Failure>) {
        let now = Instant::now();
        match said {
            Ok(Said::Block(block)) => {
                self.plan.got(ask);
                self.ready_bytes += block.len();
                self.ready.push((ask.round, block));
            }
            Ok(Said::NoBlock { latest }) => self.plan.lacks(ask, latest, now),
            Ok(Said::Busy { after }) => self.plan.busy(ask, after, now),
            Err(failure) => self.plan.failed(ask, failure, now),
        }
    }

    /// Looks up the next rounds in the store, when few are left to be asked for.
    fn look_ahead(&mut self) -> Option<Look> {
        let ahead = self.ahead.clone()?;
        let (first, last) = ahead.into_inner();
        if let Some(why) = self.plan.end(first) {
            self.ahead = None;
            self.plan.gap(first, last, why);
            return None;
        }
        if self.plan.waiting() >= self.fetcher.limits.parallel.get() {
            return None;
        }
        let until = last.min(first.saturating_add(LOOK_AHEAD - 1));
        self.ahead = (until < last).then(|| until + 1..=last);
        let blocks = self.fetcher.blocks.clone();
        Some(Box::pin(async move {
            let looked: Vec<u64> = (first..=until).collect();
            let all = looked.len();
            let missing = blocks.missing(looked).await?;
            Ok(Looked { present: (all - missing.len()) as u64, missing })
        }))
    }

    /// Keeps what is ready, when it is worth a write or nothing else is to be waited for.
    fn write(&mut self, under_way: usize) -> Option<Write> {
        let worth = self.ready.len() >= BATCH_BLOCKS || self.ready_bytes >= BATCH_BYTES;
        if self.ready.is_empty() || !(worth || under_way == 0) {
            return None;
        }
        let blocks = std::mem::take(&mut self.ready);
        let bytes = std::mem::take(&mut self.ready_bytes) as u64;
        let (store, count) = (self.fetcher.blocks.clone(), blocks.len() as u64);
        Some(Box::pin(async move {
            Written { result: store.put_all(blocks).await, blocks: count, bytes }
        }))
    }

    fn report(&mut self) {
        self.progress.in_flight = self.plan.in_flight();
        self.progress.missing = self.plan.missing();
        let progress = self.progress;
        self.fetcher.progress.send_if_modified(|shown| {
            let changed = *shown != progress;
            *shown = progress;
            changed
        });
    }

    fn finish(self) -> Fetched {
        let (sources, mut gaps) = self.plan.into_parts();
        let report = |standing: Standing| SourceReport {
            name: standing.source.name().to_owned(),
            blocks: standing.blocks,
            failures: standing.failures,
            last: standing.last,
        };
        let sources = sources.into_iter().map(report).collect();
        let tally = Tally { progress: self.progress, sources };
        if gaps.is_empty() {
            return Fetched::All(tally);
        }
        gaps.sort_by_key(|gap| gap.first);
        gaps.dedup_by(|next, gap| {
            let joins = gap.last.checked_add(1) == Some(next.first) && gap.why.is_like(&next.why);
            if joins {
                gap.last = next.last;
            }
            joins
        });
        Fetched::Incomplete { tally, gaps }
    }
}

/// The output of a future, if there is one.
async fn if_any<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => future::pending().await,
    }
}
