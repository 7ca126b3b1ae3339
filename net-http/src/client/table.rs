//! The table of targets that are remembered.
//!
//! # Invariants
//!
//! * The table never exceeds its limit. To make room, the target used least recently among those without a
//!   client is removed together with its idle connections.
//! * A target that has to be removed although it has a client keeps no idle connections from then on, so
//!   closing the table closes every idle connection.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{ClientLimits, pool::Pool};

#[derive(Debug)]
pub(super) struct Table {
    limits: ClientLimits,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    closed: bool,
    /// Counts look-ups; its value at the last look-up is the age of an entry.
    clock: u64,
    pools: HashMap<String, Remembered>,
}

#[derive(Debug)]
struct Remembered {
    pool: Arc<Pool>,
    asked_at: u64,
}

impl Table {
    pub(super) fn new(limits: ClientLimits) -> Self {
        Self { limits, entries: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pool of the target called `name`, created if necessary.
    pub(super) fn pool(&self, name: String) -> Arc<Pool> {
        let mut entries = self.lock();
        entries.clock += 1;
        let asked_at = entries.clock;
        if let Some(known) = entries.pools.get_mut(&name) {
            known.asked_at = asked_at;
            return Arc::clone(&known.pool);
        }
        let forgotten = (entries.pools.len() >= self.limits.targets.get())
            .then(|| entries.forget_one())
            .flatten();
        let pool = Pool::new(&self.limits);
        if entries.closed {
            pool.close();
        }
        entries.pools.insert(name, Remembered { pool: Arc::clone(&pool), asked_at });
        drop(entries);
        if let Some(forgotten) = forgotten {
            forgotten.close();
        }
        pool
    }

    /// Closes every idle connection, and keeps none from now on.
    pub(super) fn close(&self) {
        let mut entries = self.lock();
        entries.closed = true;
        let pools: Vec<_> = entries.pools.values().map(|known| Arc::clone(&known.pool)).collect();
        drop(entries);
        for pool in pools {
            pool.close();
        }
    }
}

impl Entries {
    fn forget_one(&mut self) -> Option<Arc<Pool>> {
        let (name, _known) = self
            .pools
            .iter()
            .min_by_key(|(_name, known)| (Arc::strong_count(&known.pool) > 1, known.asked_at))?;
        let name = name.clone();
        self.pools.remove(&name).map(|known| known.pool)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    fn table(targets: usize) -> Table {
        let targets = NonZeroUsize::new(targets).unwrap();
        Table::new(ClientLimits { targets, ..ClientLimits::default() })
    }

    #[test]
    fn one_name_always_gets_the_same_pool() {
        let table = table(2);
        let a = table.pool("a".to_owned());
        assert!(Arc::ptr_eq(&a, &table.pool("a".to_owned())));
        assert!(!Arc::ptr_eq(&a, &table.pool("b".to_owned())));
    }

    #[test]
    fn targets_without_a_client_are_removed_first() {
        let table = table(2);
        let held = table.pool("held".to_owned());
        drop(table.pool("idle".to_owned()));
        for new in 0..100 {
            drop(table.pool(new.to_string()));
            assert_eq!(table.lock().pools.len(), 2);
        }
        assert!(Arc::ptr_eq(&held, &table.pool("held".to_owned())));
    }

    #[test]
    fn the_bound_holds_even_if_every_target_has_a_client() {
        let table = table(2);
        let held: Vec<_> = (0..10).map(|name: u32| table.pool(name.to_string())).collect();
        assert_eq!(table.lock().pools.len(), 2);
        assert!(Arc::ptr_eq(&held[9], &table.pool("9".to_owned())));
    }
}
