//! The lines that a majority has agreed on, as one member knows them.
//!
//! They are kept in memory. What the log no longer has of them is in the snapshot on disk; the rest is applied again
//! when the member starts.

use std::{
    io::Cursor,
    sync::{Arc, PoisonError, RwLock},
};

use openraft::{
    BasicNode, Entry, EntryPayload, LogId, OptionalSend, RaftSnapshotBuilder, Snapshot,
    SnapshotMeta, StorageError, StorageIOError, StoredMembership, storage::RaftStateMachine,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{group::Group, store::Store};

type Stored<T> = Result<T, StorageError<u64>>;

/// Everything that follows from the log up to an entry of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct State {
    applied: Option<LogId<u64>>,
    membership: StoredMembership<u64, BasicNode>,
    lines: Vec<String>,
}

impl State {
    fn snapshot(&self) -> Stored<Snapshot<Group>> {
        let bytes = serde_json::to_vec(self);
        let bytes = bytes.map_err(|error| StorageIOError::read_state_machine(&error))?;
        let meta = SnapshotMeta {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
            snapshot_id: self.applied.map(|id| id.to_string()).unwrap_or_default(),
        };
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) })
    }
}

/// The lines that were applied so far, for those who ask for them. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines(Arc<RwLock<State>>);

impl Lines {
    /// At most `count` lines from position `from` on; the first line has position 1.
    pub(crate) fn from(&self, from: usize, count: usize) -> Vec<String> {
        let state = self.0.read().unwrap_or_else(PoisonError::into_inner);
        state.lines.iter().skip(from.saturating_sub(1)).take(count).cloned().collect()
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Applies entries of the log. Clones share the lines.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    store: Store,
    lines: Lines,
    /// Number of lines, for those who wait for more.
    count: watch::Sender<usize>,
}

impl Machine {
    /// The machine as its last snapshot has it.
    pub(crate) fn load(store: Store) -> Stored<Self> {
        let state: State = store.get("snapshot")?.unwrap_or_default();
        let count = watch::Sender::new(state.lines.len());
        Ok(Self { store, lines: Lines(Arc::new(RwLock::new(state))), count })
    }

    /// The lines.
    pub(crate) fn lines(&self) -> Lines {
        self.lines.clone()
    }

    /// A receiver of the number of lines.
    pub(crate) fn count(&self) -> watch::Receiver<usize> {
        self.count.subscribe()
    }
}

impl RaftSnapshotBuilder<Group> for Machine {
    async fn build_snapshot(&mut self) -> Stored<Snapshot<Group>> {
        let state = self.lines.change(|state| state.clone());
        self.store.put("snapshot", &state)?;
        state.snapshot()
    }
}

impl RaftStateMachine<Group> for Machine {
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> Stored<(Option<LogId<u64>>, StoredMembership<u64, BasicNode>)> {
        Ok(self.lines.change(|state| (state.applied, state.membership.clone())))
    }

    async fn apply<I>(&mut self, entries: I) -> Stored<Vec<usize>>
    where
        I: IntoIterator<Item = Entry<Group>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let positions = self.lines.change(|state| {
            let mut positions = Vec::new();
            for entry in entries {
                state.applied = Some(entry.log_id);
                match entry.payload {
                    EntryPayload::Blank => {}
                    EntryPayload::Normal(line) => state.lines.push(line),
                    EntryPayload::Membership(members) => {
                        state.membership = StoredMembership::new(Some(entry.log_id), members);
                    }
                }
                positions.push(state.lines.len());
            }
            positions
        });
        if let Some(&last) = positions.last() {
            self.count.send_replace(last);
        }
        Ok(positions)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Stored<Box<Cursor<Vec<u8>>>> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, BasicNode>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Stored<()> {
        let state = serde_json::from_slice::<State>(snapshot.get_ref())
            .map_err(|error| StorageIOError::read_snapshot(Some(meta.signature()), &error))?;
        self.store.put("snapshot", &state)?;
        self.count.send_replace(state.lines.len());
        self.lines.change(|now| *now = state);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Stored<Option<Snapshot<Group>>> {
        self.store.get::<State>("snapshot")?.map(|state| state.snapshot()).transpose()
    }
}
