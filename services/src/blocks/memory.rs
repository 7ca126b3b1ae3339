//! Blocks in memory.
//!
//! # Invariants
//!
//! * It never holds more bytes than it was made for.

use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock, RwLockReadGuard},
};

use super::{
    store::{Access, BlockStore, StoreError},
    stored::StoredBlock,
};

/// Keeps blocks in memory, up to a bound. What it keeps ends with the process.
#[derive(Debug)]
pub struct MemoryStore {
    kept: RwLock<Kept>,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct Kept {
    blocks: BTreeMap<u64, StoredBlock>,
    bytes: usize,
}

impl MemoryStore {
    /// An empty store for at most so many bytes of blocks and certificates. When they are there, it
    /// refuses more: it never forgets a block.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Self { kept: RwLock::default(), max_bytes }
    }

    fn kept(&self) -> RwLockReadGuard<'_, Kept> {
        self.kept.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlockStore for MemoryStore {
    fn access(&self) -> Access {
        Access::Immediate
    }

    fn latest(&self) -> Result<Option<u64>, StoreError> {
        Ok(self.kept().blocks.last_key_value().map(|(&round, _)| round))
    }

    fn get(&self, round: u64) -> Result<Option<StoredBlock>, StoreError> {
        Ok(self.kept().blocks.get(&round).cloned())
    }

    fn contains(&self, round: u64) -> Result<bool, StoreError> {
        Ok(self.kept().blocks.contains_key(&round))
    }

    fn put_all(&self, blocks: &[(u64, StoredBlock)]) -> Result<(), StoreError> {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        // A replaced block makes room only once it is replaced: a few bytes too careful, and never too many.
        let more: usize = blocks.iter().map(|(_, block)| block.len()).sum();
        if kept.bytes.saturating_add(more) > self.max_bytes {
            return Err(StoreError::Full { limit: self.max_bytes });
        }
        for (round, block) in blocks {
            let replaced = kept.blocks.insert(*round, block.clone());
            kept.bytes += block.len();
            kept.bytes -= replaced.map_or(0, |block| block.len());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::sample;

    #[test]
    fn a_full_store_refuses_more_and_keeps_what_it_has() {
        let blocks = [1, 2].map(|round| (round, sample::block(round)));
        let store = MemoryStore::new(blocks.iter().map(|(_, block)| block.len()).sum());
        store.put_all(&blocks).unwrap();
        let refused = store.put(3, sample::block(3));
        assert!(matches!(refused, Err(StoreError::Full { .. })), "{refused:?}");
        assert_eq!(store.latest().unwrap(), Some(2));
        assert_eq!(store.get(1).unwrap(), Some(sample::block(1)));
    }
}
