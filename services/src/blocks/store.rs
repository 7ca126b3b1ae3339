//! The store of blocks, and the way to it that holds no task up.
//!
//! ```text
//!   router, responder, fetcher ─▶ Blocks ─┬─ Access::Immediate ─▶ BlockStore, on the spot
//!                                         └─ Access::Blocking ─▶ [8 places] ─▶ spawn_blocking ─▶ BlockStore
//! ```
//!
//! # Invariants
//!
//! * A store that waits for a disk is never called on a thread that runs futures.
//! * At most [`MAX_BLOCKING`] such calls run at once. A call keeps its place until it has ended, also when
//!   nobody waits for it any more, so dropped callers cannot pile calls up.

use std::{fmt, sync::Arc};

use tokio::{
    sync::Semaphore,
    task::{self, JoinError},
};

use super::stored::StoredBlock;

/// Most calls of a blocking store at once. Chosen: enough to keep a disk busy, and with the longest
/// blocks 80 MiB.
pub const MAX_BLOCKING: usize = 8;

/// The cost of a call of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// They compute only.
    Immediate,
    /// They may wait for a disk.
    Blocking,
}

/// Why a store did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store could not be read.
    #[error("the block store cannot be read")]
    Read {
        /// Its error.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The store could not be written.
    #[error("the block store cannot be written")]
    Write {
        /// Its error.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The store holds as much as it may.
    #[error("the block store is full: it may hold {limit} bytes")]
    Full {
        /// Most bytes that it may hold.
        limit: usize,
    },
    /// The call did not come to an end.
    #[error("the block store broke down in the middle of a call")]
    BrokeDown {
        /// The outcome.
        source: Arc<JoinError>,
    },
}

/// Keeps blocks by round, and gives them back byte for byte without looking into them.
///
/// The methods may block; [`BlockStore::access`] tells. Async code goes through [`Blocks`].
pub trait BlockStore: Send + Sync + 'static {
    /// The cost of a call.
    fn access(&self) -> Access;

    /// The highest round there is; `None` for an empty store.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store cannot be read.
    fn latest(&self) -> Result<Option<u64>, StoreError>;

    /// The block of a round; `None` when there is none.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store cannot be read.
    fn get(&self, round: u64) -> Result<Option<StoredBlock>, StoreError>;

    /// `true` if there is a block of a round.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store cannot be read.
    fn contains(&self, round: u64) -> Result<bool, StoreError>;

    /// Keeps blocks, all of them or none; a round that is there already is replaced. They are safe when
    /// this returns, as far as the store keeps anything safe.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when they cannot be written, or the store holds as much as it may; nothing was kept then.
    fn put_all(&self, blocks: &[(u64, StoredBlock)]) -> Result<(), StoreError>;

    /// Keeps one block, as [`BlockStore::put_all`].
    ///
    /// # Errors
    ///
    /// As [`BlockStore::put_all`].
    fn put(&self, round: u64, block: StoredBlock) -> Result<(), StoreError> {
        self.put_all(&[(round, block)])
    }
}

const _: Option<&dyn BlockStore> = None; // stays dyn-compatible

/// A store as async code uses it. A cheap handle; clones share the store and its places.
///
/// Every method returns what the method of [`BlockStore`] with its name returns.
///
/// # Cancel safety
///
/// Dropping the future of a blocking call that has begun lets it run to its end: what was to be kept may
/// have been kept.
#[derive(Clone)]
pub struct Blocks {
    store: Arc<dyn BlockStore>,
    places: Arc<Semaphore>,
}

impl Blocks {
    /// A handle of a store.
    #[must_use]
    pub fn new(store: Arc<dyn BlockStore>) -> Self {
        Self { store, places: Arc::new(Semaphore::new(MAX_BLOCKING)) }
    }

    /// The highest round there is.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Safe: a dropped read goes on for a moment on its thread, and its result is lost.
    pub async fn latest(&self) -> Result<Option<u64>, StoreError> {
        self.call(|store| store.latest()).await
    }

    /// The block of a round.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store cannot be read.
    ///
    /// # Cancel safety
    ///
    /// As [`Blocks::latest`].
    pub async fn get(&self, round: u64) -> Result<Option<StoredBlock>, StoreError> {
        self.call(move |store| store.get(round)).await
    }

    /// The block of a round, or the highest round there is when it is not there.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store cannot be read.
    ///
    /// # Cancel safety
    ///
    /// As [`Blocks::latest`].
    pub async fn find(&self, round: u64) -> Result<Found, StoreError> {
        self.call(move |store| match store.get(round)? {
            Some(block) => Ok(Found::Block(block)),
            None => Ok(Found::Missing { latest: store.latest()?.unwrap_or(0) }),
        })
        .await
    }

    /// The rounds among these that are not there.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store cannot be read.
    ///
    /// # Cancel safety
    ///
    /// As [`Blocks::latest`].
    pub async fn missing(&self, mut rounds: Vec<u64>) -> Result<Vec<u64>, StoreError> {
        self.call(move |store| {
            let mut failed = None;
            rounds.retain(|&round| match store.contains(round) {
                Ok(there) => !there,
                Err(error) => {
                    failed = Some(error);
                    true
                }
            });
            failed.map_or(Ok(rounds), Err)
        })
        .await
    }

    /// Keeps blocks, all of them or none.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when they cannot be written, or the store holds as much as it may; nothing was kept then.
    ///
    /// # Cancel safety
    ///
    /// Not safe: the blocks may or may not be kept after the future was dropped.
    pub async fn put_all(&self, blocks: Vec<(u64, StoredBlock)>) -> Result<(), StoreError> {
        self.call(move |store| store.put_all(&blocks)).await
    }

    async fn call<T, F>(&self, call: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&dyn BlockStore) -> Result<T, StoreError> + Send + 'static,
    {
        if self.store.access() == Access::Immediate {
            return call(&*self.store);
        }
        // Never closed; without a place the call would only be one too many.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let store = Arc::clone(&self.store);
        let called = task::spawn_blocking(move || {
            let called = call(&*store);
            drop(place);
            called
        });
        called.await.map_err(|source| StoreError::BrokeDown { source: source.into() })?
    }
}

impl fmt::Debug for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocks").field("access", &self.store.access()).finish_non_exhaustive()
    }
}

/// The outcome of a look for a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The block.
    Block(StoredBlock),
    /// There is none of that round.
    Missing {
        /// The highest round there is; 0 in an empty store.
        latest: u64,
    },
}
