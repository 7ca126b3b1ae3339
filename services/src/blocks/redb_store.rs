//! Blocks in one file, an embedded redb database.
//!
//! ```text
//!   about:  "format" → 1, "network" → name         blocks: round → (block, certificate)
//! ```
//!
//! # Invariants
//!
//! * A write returns when it is on the disk; a crash before that leaves the file as it was. Source: redb,
//!   immediate durability.
//! * A file of another network or another format is refused, and left as it is.
//! * One process has the file open at a time; redb locks it.

use std::{
    error::Error,
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use gossip::NetworkId;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition, TableError};

use super::{
    store::{Access, BlockStore, StoreError},
    stored::StoredBlock,
};

/// Format of the file: raised when a reader of the old one could not read it.
const FORMAT: &str = "1";

/// Memory for pages of the file, in bytes. Chosen: 32 MiB; blocks are read about once, so that more would
/// hold little that is asked for again.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// Ending that is added to the name of a store while it is made.
const UNFINISHED: &str = ".new";

const ABOUT: TableDefinition<'_, &str, &str> = TableDefinition::new("about");
const BLOCKS: TableDefinition<'_, u64, (&[u8], &[u8])> = TableDefinition::new("blocks");

/// Keeps blocks in a file of its own. Crash safe; calls block.
pub struct RedbStore {
    file: Database,
    path: PathBuf,
}

/// Why a store of blocks could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A process has it open.
    #[error("the block store {} is in use by another process", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file holds the blocks of another network.
    #[error("the block store {} is of the network {found}", path.display())]
    OtherNetwork {
        /// The file.
        path: PathBuf,
        /// The network it is of.
        found: String,
    },
    /// The file was written by another version of this program.
    #[error("the block store {} has the format {found}, {FORMAT} is read", path.display())]
    OtherFormat {
        /// The file.
        path: PathBuf,
        /// The format it has.
        found: String,
    },
    /// The file cannot be read or made: a path that cannot be had, a damaged file, or no block store.
    #[error("the block store {} cannot be opened", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The error of the database.
        source: Box<redb::Error>,
    },
}

impl RedbStore {
    /// Opens the store in the file `path`, and makes it if there is none. Blocks; a file that was not
    /// closed in order is repaired first.
    ///
    /// # Errors
    ///
    /// [`OpenError`] when the file cannot be used, or holds the blocks of another network.
    pub fn open(path: impl AsRef<Path>, network: &NetworkId) -> Result<Self, OpenError> {
        let path = path.as_ref().to_owned();
        let unusable = |source| OpenError::Unusable { path: path.clone(), source };
        make(&path, network).map_err(unusable)?;
        let file = database(&path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path: path.clone() },
            error => unusable(boxed(error)),
        })?;
        match about(&file).map_err(unusable)? {
            None => label(&file, network).map_err(unusable)?,
            Some((format, _)) if format != FORMAT => {
                return Err(OpenError::OtherFormat { path, found: format });
            }
            Some((_, found)) if found != network.as_str() => {
                return Err(OpenError::OtherNetwork { path, found });
            }
            Some(_) => {}
        }
        Ok(Self { file, path })
    }
}

fn database(path: &Path) -> Result<Database, DatabaseError> {
    Database::builder().set_cache_size(CACHE_BYTES).create(path)
}

/// Makes a store if there is none. It gets its name once it is whole, so that a process which is killed meanwhile leaves
/// nothing that could not be opened.
fn make(path: &Path, network: &NetworkId) -> Result<(), Box<redb::Error>> {
    let failed = |error| Box::new(redb::Error::Io(error));
    if fs::exists(path).map_err(failed)? {
        return Ok(());
    }
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(UNFINISHED);
    // Of a process that was killed. A directory stays, and is refused below.
    let _ = fs::remove_file(&unfinished);
    let file = database(Path::new(&unfinished)).map_err(boxed)?;
    label(&file, network)?;
    drop(file);
    fs::rename(&unfinished, path).map_err(failed)
}

/// Format and network of the file; `None` when it is new.
fn about(file: &Database) -> Result<Option<(String, String)>, Box<redb::Error>> {
    let transaction = file.begin_read().map_err(boxed)?;
    let table = match transaction.open_table(ABOUT) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(boxed(error)),
    };
    let read = |key| -> Result<String, Box<redb::Error>> {
        let value = table.get(key).map_err(boxed)?;
        Ok(value.map_or_else(String::new, |value| value.value().to_owned()))
    };
    Ok(Some((read("format")?, read("network")?)))
}

/// Makes the tables of a new file.
fn label(file: &Database, network: &NetworkId) -> Result<(), Box<redb::Error>> {
    let transaction = file.begin_write().map_err(boxed)?;
    {
        let mut about = transaction.open_table(ABOUT).map_err(boxed)?;
        about.insert("format", FORMAT).map_err(boxed)?;
        about.insert("network", network.as_str()).map_err(boxed)?;
        transaction.open_table(BLOCKS).map_err(boxed)?;
    }
    transaction.commit().map_err(boxed)
}

fn boxed(error: impl Into<redb::Error>) -> Box<redb::Error> {
    Box::new(error.into())
}

fn reading<E: Error + Send + Sync + 'static>(error: E) -> StoreError {
    StoreError::Read { source: Arc::new(error) }
}

fn writing<E: Error + Send + Sync + 'static>(error: E) -> StoreError {
    StoreError::Write { source: Arc::new(error) }
}

impl BlockStore for RedbStore {
    fn access(&self) -> Access {
        Access::Blocking
    }

    fn latest(&self) -> Result<Option<u64>, StoreError> {
        let blocks =
            self.file.begin_read().map_err(reading)?.open_table(BLOCKS).map_err(reading)?;
        Ok(blocks.last().map_err(reading)?.map(|(round, _)| round.value()))
    }

    fn get(&self, round: u64) -> Result<Option<StoredBlock>, StoreError> {
        let blocks =
            self.file.begin_read().map_err(reading)?.open_table(BLOCKS).map_err(reading)?;
        let found = blocks.get(round).map_err(reading)?;
        Ok(found.map(|found| {
            let (block, cert) = found.value();
            StoredBlock { block: Bytes::copy_from_slice(block), cert: Bytes::copy_from_slice(cert) }
        }))
    }

    fn contains(&self, round: u64) -> Result<bool, StoreError> {
        let blocks =
            self.file.begin_read().map_err(reading)?.open_table(BLOCKS).map_err(reading)?;
        Ok(blocks.get(round).map_err(reading)?.is_some())
    }

    fn put_all(&self, blocks: &[(u64, StoredBlock)]) -> Result<(), StoreError> {
        let transaction = self.file.begin_write().map_err(writing)?;
        {
            let mut table = transaction.open_table(BLOCKS).map_err(writing)?;
            for (round, block) in blocks {
                table.insert(round, (&block.block[..], &block.cert[..])).map_err(writing)?;
            }
        }
        transaction.commit().map_err(writing)
    }
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbStore").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::{sample, store::Blocks};

    fn network(name: &str) -> NetworkId {
        NetworkId::new(name).unwrap()
    }

    // A process that was killed while it made its store left a file that no later start could open.
    #[test]
    fn a_store_that_was_not_made_to_its_end_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("blocks.redb");
        let unfinished = directory.path().join("blocks.redb.new");
        fs::write(&unfinished, b"redb, half a header").unwrap();
        drop(RedbStore::open(&path, &network("a")).unwrap());
        assert!(path.exists() && !unfinished.exists());
        assert!(RedbStore::open(&path, &network("a")).is_ok());
    }

    #[test]
    fn kept_blocks_are_there_after_reopening() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("blocks.redb");
        let blocks: Vec<_> = [7, u64::MAX, 0].map(|round| (round, sample::block(round))).into();
        {
            let store = RedbStore::open(&path, &network("a")).unwrap();
            assert_eq!(store.latest().unwrap(), None);
            store.put_all(&blocks).unwrap();
            let in_use = RedbStore::open(&path, &network("a")).unwrap_err();
            assert!(matches!(in_use, OpenError::InUse { .. }), "{in_use}");
        }
        let store = RedbStore::open(&path, &network("a")).unwrap();
        assert_eq!(store.latest().unwrap(), Some(u64::MAX));
        for (round, block) in blocks {
            assert!(store.contains(round).unwrap());
            assert_eq!(store.get(round).unwrap(), Some(block));
        }
        assert!(!store.contains(8).unwrap());
        assert_eq!(store.get(8).unwrap(), None);
    }

    #[test]
    fn a_crash_loses_nothing_that_was_kept() {
        let directory = tempfile::tempdir().unwrap();
        let (path, crashed) =
            (directory.path().join("blocks.redb"), directory.path().join("crashed.redb"));
        let store = RedbStore::open(&path, &network("a")).unwrap();
        store.put(1, sample::block(1)).unwrap();
        // A crash at this moment leaves this: the file, never closed.
        fs::copy(&path, &crashed).unwrap();
        store.put(2, sample::block(2)).unwrap();
        let recovered = RedbStore::open(&crashed, &network("a")).unwrap();
        assert_eq!(recovered.get(1).unwrap(), Some(sample::block(1)));
        assert_eq!(recovered.latest().unwrap(), Some(1));
    }

    #[test]
    fn a_file_of_another_network_or_no_store_at_all_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("blocks.redb");
        drop(RedbStore::open(&path, &network("a")).unwrap());
        let other = RedbStore::open(&path, &network("b")).unwrap_err();
        assert!(matches!(&other, OpenError::OtherNetwork { found, .. } if found == "a"), "{other}");
        assert!(RedbStore::open(&path, &network("a")).is_ok());

        let text = directory.path().join("notes.txt");
        fs::write(&text, "no database, but a few notes of somebody").unwrap();
        for path in [text.as_path(), directory.path(), &directory.path().join("no/such/place")] {
            let unusable = RedbStore::open(path, &network("a")).unwrap_err();
            assert!(matches!(unusable, OpenError::Unusable { .. }), "{unusable}");
        }
        assert_eq!(fs::read(&text).unwrap(), b"no database, but a few notes of somebody");
    }

    #[tokio::test]
    async fn async_code_goes_through_a_handle() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("blocks.redb");
        let blocks = Blocks::new(Arc::new(RedbStore::open(&path, &network("a")).unwrap()));
        blocks.put_all(vec![(3, sample::block(3))]).await.unwrap();
        assert_eq!(blocks.latest().await.unwrap(), Some(3));
        assert_eq!(blocks.missing(vec![2, 3, 4]).await.unwrap(), [2, 4]);
        assert_eq!(blocks.get(3).await.unwrap(), Some(sample::block(3)));
    }
}
