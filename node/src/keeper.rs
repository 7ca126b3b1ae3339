//! Writes what a node learns of others into its peer store: soon after the start, then rarely, and once when it stops.
//!
//! # Invariants
//!
//! * An operator's decisions, bans and addresses, are on the disk a few seconds later.
//! * No more than one write is under way, and none on a worker of the runtime.
//! * The last write sees the links of the node as they are before it stops, so that they are dialled first afterwards.
//! * A disk that refuses is told of once a minute at most, and ends nothing.

use std::time::Duration;

use ::discovery::{PeerFileError, PeerStore};
use broadcaster::Mesh;
use gossip::NodeAddress;
use mesh::{Ban, Record, SourceId, SourceKind};
use runtime::{Fault, Rarely, Shutdown, TaskSet};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

/// Time from the start to the first write. Chosen: long enough to have found peers.
const FIRST: Duration = Duration::from_secs(10);

/// Time from one write to the next. Chosen: what a crash may cost is a minute's knowledge.
const PERIOD: Duration = Duration::from_secs(60);

/// Time from one look for an operator's decisions to the next. Chosen: a crash so soon after a command is noticed by whoever
/// gave it.
const LOOK: Duration = Duration::from_secs(5);

/// Longest time for the last write. Chosen: a disk that needs longer than this has lost it.
const LAST: Duration = Duration::from_secs(1);

/// Keeps the peer store of a running node.
#[derive(Clone, Debug)]
pub(crate) struct Keeper {
    store: PeerStore,
    mesh: Mesh,
}

impl Keeper {
    pub(crate) const fn new(store: PeerStore, mesh: Mesh) -> Self {
        Self { store, mesh }
    }

    async fn run(self, cancel: CancellationToken) {
        let refused = Rarely::new();
        let (mut kept, mut next) = (self.decisions(), Instant::now() + FIRST);
        while cancel.run_until_cancelled(time::sleep(LOOK)).await.is_some() {
            let decisions = self.decisions();
            if decisions == kept && Instant::now() < next {
                continue;
            }
            let Some(saved) = cancel.run_until_cancelled(self.save()).await else { return };
            (kept, next) = (decisions, Instant::now() + PERIOD);
            if let Err(error) = saved
                && let Some(left_out) = refused.due()
            {
                tracing::warn!(%error, left_out, "the peer store was not written");
            }
        }
    }

    /// Bans, and the addresses that an operator added.
    fn decisions(&self) -> (Vec<Ban>, Vec<NodeAddress>) {
        let operator = SourceId::of(SourceKind::Operator);
        let is_own =
            |record: &Record| record.listings.iter().any(|(source, _)| *source == operator);
        let records = self.mesh.records().into_iter().filter(is_own);
        (self.mesh.bans(), records.map(|record| record.address).collect())
    }

    async fn save(&self) -> Result<bool, PeerFileError> {
        let records = self.mesh.records().into_iter().filter(Record::is_kept);
        self.store.save(records.collect(), self.mesh.bans()).await
    }
}

/// A keeper at work.
#[derive(Debug)]
pub(crate) struct Keeping {
    keeper: Keeper,
    tasks: TaskSet,
}

impl Keeping {
    /// Writes from time to time, until `parent` is cancelled.
    pub(crate) fn start(keeper: Keeper, parent: &CancellationToken) -> Self {
        let tasks = TaskSet::new(parent);
        let own = keeper.clone();
        tasks.spawn_lasting("peer store", |cancel| own.run(cancel));
        Self { keeper, tasks }
    }

    /// Writes once more, before the links of the node end.
    pub(crate) async fn last(&self) {
        match time::timeout(LAST, self.keeper.save()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the peer store was not written"),
            Err(_elapsed) => tracing::warn!("the peer store was not written in time"),
        }
    }

    /// Waits until the task has ended unasked; for ever if it does not.
    pub(crate) async fn faulted(&self) -> Fault {
        self.tasks.faulted().await
    }

    /// Ends the task.
    pub(crate) async fn stop(&self, grace: Duration) -> Shutdown {
        self.tasks.stop(grace).await
    }
}
