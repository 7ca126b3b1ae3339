//! The bytes published to each peer that have not reached its connection yet.
//!
//! GossipSub copies a message into a queue for each peer. The task of the peer's connection empties that queue in
//! each of its turns (`muxer/topic_stream.rs`), so the queues hold what was published since, and what was published
//! to peers that do not accept the stream. A debt is paid message by message, because a flood from a peer keeps the
//! muxer of its connection from being polled, and in whole by the muxer.
//!
//! # Invariants
//!
//! * The debts of all peers together are at most the bound, and the copies of one more message. Beyond that
//!   publishing waits.
//! * A peer that takes nothing of its debt for [`PATIENCE`] is disconnected when publishing has to wait.
//! * A debt ends with the last connection of its peer.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use libp2p::PeerId;
use tokio::time::Instant;

/// Time after which an unpaid debt is held against its peer. Chosen: several times the longest turn of a busy node.
const PATIENCE: Duration = Duration::from_secs(5);

/// The debts of all peers. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct TopicDebts {
    all: Arc<All>,
}

#[derive(Debug)]
struct All {
    bound: usize,
    total: AtomicUsize,
    peers: Mutex<HashMap<PeerId, Weak<Account>>>,
}

#[derive(Debug)]
struct Account {
    all: Arc<All>,
    peer: PeerId,
    bytes: AtomicUsize,
    since: Mutex<Instant>,
}

/// The debt of the peer of one connection. Its connections share it.
#[derive(Clone, Debug)]
pub(crate) struct Debt {
    account: Arc<Account>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TopicDebts {
    /// Bounds the debts of all peers together to `bound` bytes.
    pub(crate) fn new(bound: usize) -> Self {
        let (total, peers) = (AtomicUsize::new(0), Mutex::default());
        Self { all: Arc::new(All { bound, total, peers }) }
    }

    /// Opens the account of a peer, or joins the one of its other connections.
    pub(crate) fn open(&self, peer: PeerId) -> Debt {
        let mut peers = lock(&self.all.peers);
        let entry = peers.entry(peer).or_default();
        let account = entry.upgrade().unwrap_or_else(|| {
            let (all, since) = (Arc::clone(&self.all), Mutex::new(Instant::now()));
            let account = Arc::new(Account { all, peer, bytes: AtomicUsize::new(0), since });
            *entry = Arc::downgrade(&account);
            account
        });
        drop(peers);
        Debt { account }
    }

    /// Adds a message that was published to a peer.
    pub(crate) fn charge(&self, peer: &PeerId, bytes: usize, now: Instant) {
        // A peer that has just disconnected has no debt.
        let Some(account) = lock(&self.all.peers).get(peer).and_then(Weak::upgrade) else { return };
        // The total first, so that it is never less than the sum of what is paid.
        self.all.total.fetch_add(bytes, Ordering::Relaxed);
        if account.bytes.fetch_add(bytes, Ordering::Relaxed) == 0 {
            *lock(&account.since) = now;
        }
    }

    /// Returns `true` if more may be published.
    pub(crate) fn has_room(&self) -> bool {
        self.all.total.load(Ordering::Relaxed) < self.all.bound
    }

    /// The peers that have taken nothing of their debt for [`PATIENCE`].
    pub(crate) fn overdue(&self, now: Instant) -> Vec<PeerId> {
        let accounts: Vec<_> = lock(&self.all.peers).values().filter_map(Weak::upgrade).collect();
        let is_overdue = |account: &&Arc<Account>| {
            account.bytes.load(Ordering::Relaxed) > 0
                && now.saturating_duration_since(*lock(&account.since)) >= PATIENCE
        };
        accounts.iter().filter(is_overdue).map(|account| account.peer).collect()
    }
}

impl Account {
    fn pay(&self) {
        let bytes = self.bytes.swap(0, Ordering::Relaxed);
        self.all.total.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.pay();
        let mut peers = lock(&self.all.peers);
        // A new connection may have opened an account meanwhile.
        if peers.get(&self.peer).is_some_and(|account| account.strong_count() == 0) {
            peers.remove(&self.peer);
        }
    }
}

impl Debt {
    /// Pays a part of the debt: a message of `bytes` has reached the connection.
    pub(crate) fn pay_part(&self, bytes: usize, now: Instant) {
        let Account { all, bytes: owed, since, .. } = &*self.account;
        let rest = |owed: usize| Some(owed.saturating_sub(bytes));
        let Ok(owed) = owed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest) else {
            return;
        };
        all.total.fetch_sub(owed.min(bytes), Ordering::Relaxed);
        *lock(since) = now;
    }

    /// Ends the debt: everything published to the peer has reached its connection.
    pub(crate) fn pay(&self) {
        if self.account.bytes.load(Ordering::Relaxed) > 0 {
            self.account.pay();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_debt_is_paid_at_once_or_ends_with_its_peer() {
        let debts = TopicDebts::new(100);
        let [slow, quick] = [PeerId::random(), PeerId::random()];
        let (first, second, other) = (debts.open(slow), debts.open(slow), debts.open(quick));
        let start = Instant::now();
        debts.charge(&slow, 60, start);
        debts.charge(&quick, 40, start);
        debts.charge(&PeerId::random(), 1_000, start);
        assert!(!debts.has_room());
        other.pay();
        assert!(debts.has_room());
        assert!(debts.overdue(start + PATIENCE / 2).is_empty());
        debts.charge(&slow, 60, start + PATIENCE / 2);
        assert!(!debts.has_room());
        assert_eq!(debts.overdue(start + PATIENCE), [slow], "the first message is the oldest");
        // Issue 8, 24: under a flood from it a peer was disconnected, although it took every message.
        second.pay_part(1, start + PATIENCE);
        assert!(debts.overdue(start + PATIENCE).is_empty(), "it takes something");
        assert!(!debts.has_room());
        drop(first);
        assert!(!debts.has_room());
        drop(second);
        assert!(debts.has_room());
        drop(other);
        assert_eq!(debts.all.total.load(Ordering::Relaxed), 0);
        assert!(lock(&debts.all.peers).is_empty());
    }
}
