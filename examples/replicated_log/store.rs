//! The log and the vote of a member, in one file of redb.
//!
//! # Invariants
//!
//! * Nothing of log and vote is acknowledged to Raft before the system has it on disk.
//! * The log has no holes: it is cut at its end and dropped at its start, and never changed in between.

use std::{fmt::Debug, io, ops::RangeBounds, path::Path, sync::Arc};

use openraft::{
    Entry, LogId, LogState, OptionalSend, RaftLogReader, StorageError, StorageIOError, Vote,
    storage::{LogFlushed, RaftLogStorage},
};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Serialize, de::DeserializeOwned};

use crate::group::Group;

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const STATE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("state");

type Stored<T> = Result<T, StorageError<u64>>;
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The file of a member. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Store(Arc<Database>);

impl Store {
    /// Opens the file, which is made if it is missing.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let store = Self(Arc::new(Database::create(path)?));
        let transaction = store.0.begin_write()?;
        transaction.open_table(LOG)?;
        transaction.open_table(STATE)?;
        transaction.commit()?;
        Ok(store)
    }

    /// Reads a value of the state by its name.
    pub(crate) fn get<T: DeserializeOwned>(&self, name: &str) -> Stored<Option<T>> {
        let read = || -> Result<Option<T>, Failure> {
            let table = self.0.begin_read()?.open_table(STATE)?;
            let bytes = table.get(name)?;
            Ok(bytes.map(|bytes| serde_json::from_slice(bytes.value())).transpose()?)
        };
        read().map_err(|error| StorageIOError::read(&io::Error::other(error)).into())
    }

    /// Writes a value of the state under its name.
    pub(crate) fn put<T: Serialize>(&self, name: &str, value: &T) -> Stored<()> {
        self.change(Durability::Immediate, |transaction| {
            let bytes = serde_json::to_vec(value)?;
            transaction.open_table(STATE)?.insert(name, bytes.as_slice())?;
            Ok(())
        })
    }

    /// Makes one transaction, which is on disk then if it is to be durable.
    fn change(
        &self,
        durability: Durability,
        change: impl FnOnce(&redb::WriteTransaction) -> Result<(), Failure>,
    ) -> Stored<()> {
        let write = || -> Result<(), Failure> {
            let mut transaction = self.0.begin_write()?;
            transaction.set_durability(durability)?;
            change(&transaction)?;
            Ok(transaction.commit()?)
        };
        tokio::task::block_in_place(write)
            .map_err(|error| StorageIOError::write(&io::Error::other(error)).into())
    }

    fn entries(&self, range: impl RangeBounds<u64>) -> Result<Vec<Entry<Group>>, Failure> {
        let table = self.0.begin_read()?.open_table(LOG)?;
        let entries = table.range(range)?;
        entries.map(|entry| Ok(serde_json::from_slice(entry?.1.value())?)).collect()
    }

    fn last_entry(&self) -> Result<Option<Entry<Group>>, Failure> {
        let table = self.0.begin_read()?.open_table(LOG)?;
        let last = table.last()?;
        Ok(last.map(|(_, bytes)| serde_json::from_slice(bytes.value())).transpose()?)
    }
}

impl RaftLogReader<Group> for Store {
    async fn try_get_log_entries<R>(&mut self, range: R) -> Stored<Vec<Entry<Group>>>
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.entries(range)
            .map_err(|error| StorageIOError::read_logs(&io::Error::other(error)).into())
    }
}

impl RaftLogStorage<Group> for Store {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Stored<LogState<Group>> {
        let last_purged_log_id = self.get::<LogId<u64>>("purged")?;
        let last = self.last_entry();
        let last = last.map_err(|error| StorageIOError::read_logs(&io::Error::other(error)))?;
        let last_log_id = last.map(|entry| entry.log_id).or(last_purged_log_id);
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Stored<()> {
        self.put("vote", vote)
    }

    async fn read_vote(&mut self) -> Stored<Option<Vote<u64>>> {
        self.get("vote")
    }

    async fn save_committed(&mut self, committed: Option<LogId<u64>>) -> Stored<()> {
        // Raft finds it again if it is lost, so nothing waits for the disk here.
        self.change(Durability::None, |transaction| {
            let bytes = serde_json::to_vec(&committed)?;
            transaction.open_table(STATE)?.insert("committed", bytes.as_slice())?;
            Ok(())
        })
    }

    async fn read_committed(&mut self) -> Stored<Option<LogId<u64>>> {
        Ok(self.get::<Option<LogId<u64>>>("committed")?.flatten())
    }

    async fn append<I>(&mut self, entries: I, written: LogFlushed<Group>) -> Stored<()>
    where
        I: IntoIterator<Item = Entry<Group>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.change(Durability::Immediate, |transaction| {
            let mut table = transaction.open_table(LOG)?;
            for entry in entries {
                table.insert(entry.log_id.index, serde_json::to_vec(&entry)?.as_slice())?;
            }
            Ok(())
        })?;
        written.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, from: LogId<u64>) -> Stored<()> {
        self.change(Durability::Immediate, |transaction| {
            Ok(transaction.open_table(LOG)?.retain_in(from.index.., |_, _| false)?)
        })
    }

    async fn purge(&mut self, to: LogId<u64>) -> Stored<()> {
        self.change(Durability::Immediate, |transaction| {
            let purged = serde_json::to_vec(&to)?;
            transaction.open_table(STATE)?.insert("purged", purged.as_slice())?;
            Ok(transaction.open_table(LOG)?.retain_in(..=to.index, |_, _| false)?)
        })
    }
}
