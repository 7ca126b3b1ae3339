//! The cache of a relay without blocks: blocks that it passed on.
//!
//! # Invariants
//!
//! * Blocks, rounds that nobody has, and who was served what: each has a bound, and an end.
//! * A block is not pressed on somebody who keeps asking for it: then it was of no use to him.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

use gossip::LinkId;
use tokio::time::Instant;

use super::Asker;
use crate::blocks::stored::StoredBlock;

/// Most blocks and most misses remembered. Chosen: what a newcomer asks for within their time, amply.
const MAX_ENTRIES: usize = 16_384;

/// Most peers remembered that were served a block. Chosen: what is forgotten costs a block served once more.
const MAX_SERVED: usize = 64;

/// Most requests of a peer that come to nothing in a row before it is slowed down. Chosen: twice what an
/// existing node asks for at once, at the end of the history.
const MAX_FUTILE: u32 = 32;

/// Pause between two requests of such a peer that are passed on. Chosen: a third of the time a block takes.
const FUTILE_PAUSE: Duration = Duration::from_secs(1);

/// Most times that a peer is served a block from the cache. Chosen: twice, because the first answer may
/// have come too late.
const SERVINGS: u8 = 2;

/// Blocks that were passed on.
#[derive(Debug)]
pub(super) struct Cache {
    blocks: BTreeMap<u64, Entry>,
    /// Rounds and numbers in the order in which they were kept; those replaced since are still in it.
    order: VecDeque<(u64, u64)>,
    bytes: usize,
    max_bytes: usize,
    keep_for: Duration,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    block: StoredBlock,
    source: LinkId,
    since: Instant,
    served: HashMap<Asker, u8>,
}

/// The answer of the cache to an asker.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cached {
    /// The block.
    Block(StoredBlock),
    /// It had the block, which was of no use; it came from `source`.
    Unwanted {
        /// The peer whose block it was.
        source: LinkId,
    },
    /// Nothing.
    Nothing,
}

impl Cache {
    pub(super) fn new(max_bytes: usize, keep_for: Duration) -> Self {
        let (blocks, order) = (BTreeMap::new(), VecDeque::new());
        Self { blocks, order, bytes: 0, max_bytes, keep_for, next: 0 }
    }

    /// The block of a round for `asker`.
    pub(super) fn take(&mut self, round: u64, asker: Asker, now: Instant) -> Cached {
        let Some(entry) = self.blocks.get_mut(&round) else { return Cached::Nothing };
        if now.duration_since(entry.since) > self.keep_for {
            self.forget(round);
            return Cached::Nothing;
        }
        if let Some(served) = entry.served.get_mut(&asker) {
            if *served >= SERVINGS {
                let source = entry.source;
                self.forget(round);
                return Cached::Unwanted { source };
            }
            *served += 1;
        } else if entry.served.len() < MAX_SERVED {
            entry.served.insert(asker, 1);
        }
        Cached::Block(entry.block.clone())
    }

    /// Keeps a block, and forgets the oldest that have no room beside it.
    pub(super) fn keep(&mut self, round: u64, block: &StoredBlock, source: LinkId, now: Instant) {
        self.forget(round);
        if block.len() > self.max_bytes {
            return;
        }
        self.next += 1;
        let (number, block, served) = (self.next, block.clone(), HashMap::new());
        self.bytes += block.len();
        self.blocks.insert(round, Entry { number, block, source, since: now, served });
        self.order.push_back((round, number));
        while self.bytes > self.max_bytes || self.order.len() > MAX_ENTRIES {
            let Some((round, number)) = self.order.pop_front() else { break };
            if self.blocks.get(&round).is_some_and(|entry| entry.number == number) {
                self.forget(round);
            }
        }
    }

    /// The newest round there is; 0 when there is none.
    pub(super) fn highest(&self) -> u64 {
        self.blocks.last_key_value().map_or(0, |(&round, _)| round)
    }

    fn forget(&mut self, round: u64) {
        self.bytes -= self.blocks.remove(&round).map_or(0, |entry| entry.block.len());
    }
}

/// Rounds that nobody had a moment ago.
#[derive(Debug)]
pub(super) struct Misses {
    rounds: HashMap<u64, (Instant, u64)>,
    keep_for: Duration,
}

impl Misses {
    pub(super) fn new(keep_for: Duration) -> Self {
        Self { rounds: HashMap::new(), keep_for }
    }

    /// The newest round anybody claimed to have when a round was missed.
    pub(super) fn latest(&mut self, round: u64, now: Instant) -> Option<u64> {
        let &(since, latest) = self.rounds.get(&round)?;
        if now.duration_since(since) > self.keep_for {
            self.rounds.remove(&round);
            return None;
        }
        Some(latest)
    }

    pub(super) fn note(&mut self, round: u64, latest: u64, now: Instant) {
        if self.rounds.len() >= MAX_ENTRIES {
            let keep_for = self.keep_for;
            self.rounds.retain(|_, (since, _)| now.duration_since(*since) <= keep_for);
        }
        if self.rounds.len() < MAX_ENTRIES {
            self.rounds.insert(round, (now, latest));
        }
    }
}

/// Askers that ask for what nobody has.
#[derive(Debug, Default)]
pub(super) struct Futile {
    askers: HashMap<Asker, Row>,
}

/// Requests in a row that came to nothing.
#[derive(Debug)]
struct Row {
    len: u32,
    last: Instant,
    latest: u64,
}

impl Futile {
    /// The answer to an asker that asked in vain too often, which is given without asking a peer.
    pub(super) fn latest(&self, asker: Asker, now: Instant) -> Option<u64> {
        let row = self.askers.get(&asker).filter(|row| row.len >= MAX_FUTILE)?;
        (now.duration_since(row.last) < FUTILE_PAUSE).then_some(row.latest)
    }

    /// Notes a request that came to nothing.
    pub(super) fn note(&mut self, asker: Asker, latest: u64, now: Instant) {
        if self.askers.len() >= MAX_ENTRIES {
            self.askers.retain(|_, row| now.duration_since(row.last) < FUTILE_PAUSE);
        }
        if self.askers.len() < MAX_ENTRIES {
            let row = self.askers.entry(asker).or_insert(Row { len: 0, last: now, latest });
            *row = Row { len: row.len.saturating_add(1), last: now, latest };
        }
    }

    /// Starts again with an asker: it was given a block.
    pub(super) fn forget(&mut self, asker: Asker) {
        self.askers.remove(&asker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::sample;

    const ASKER: Asker = Asker::Link(LinkId(1));
    const SOURCE: LinkId = LinkId(2);
    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn the_oldest_blocks_make_room() {
        let (now, size) = (Instant::now(), sample::block(100).len());
        let mut cache = Cache::new(2 * size + 10, LONG);
        for round in 100..103 {
            cache.keep(round, &sample::block(round), SOURCE, now);
        }
        assert_eq!(cache.take(100, ASKER, now), Cached::Nothing);
        assert_eq!(cache.take(101, ASKER, now), Cached::Block(sample::block(101)));
        assert_eq!(cache.highest(), 102);
        cache.keep(103, &sample::with_transactions(103, 50), SOURCE, now);
        assert_eq!(cache.highest(), 102, "a block that fits no cache pushes nothing out");
        for _ in 0..2 * MAX_ENTRIES {
            cache.keep(102, &sample::block(102), SOURCE, now);
        }
        assert!(cache.order.len() <= MAX_ENTRIES);
        let bytes: usize = cache.blocks.values().map(|entry| entry.block.len()).sum();
        assert_eq!(cache.bytes, bytes);
    }

    #[test]
    fn a_block_that_is_asked_for_again_and_again_is_forgotten() {
        let now = Instant::now();
        let mut cache = Cache::new(10_000, LONG);
        cache.keep(7, &sample::block(7), SOURCE, now);
        for _ in 0..SERVINGS {
            assert_eq!(cache.take(7, ASKER, now), Cached::Block(sample::block(7)));
        }
        assert_eq!(cache.take(7, Asker::Link(LinkId(3)), now), Cached::Block(sample::block(7)));
        assert_eq!(cache.take(7, ASKER, now), Cached::Unwanted { source: SOURCE });
        assert_eq!(cache.take(7, ASKER, now), Cached::Nothing);
    }

    #[test]
    fn the_cache_is_bounded() {
        let (now, later) = (Instant::now(), Instant::now() + LONG + LONG);
        let mut cache = Cache::new(10_000, LONG);
        cache.keep(7, &sample::block(7), SOURCE, now);
        assert_eq!(cache.take(7, ASKER, later), Cached::Nothing);
        assert_eq!(cache.bytes, 0);
        let mut misses = Misses::new(LONG);
        for round in 0..2 * MAX_ENTRIES as u64 {
            misses.note(round, 5, now);
        }
        assert_eq!(misses.rounds.len(), MAX_ENTRIES);
        assert_eq!(misses.latest(7, now), Some(5));
        assert_eq!(misses.latest(7, later), None);
    }
}
