//! The bytes published to each peer that have not reached its connection yet.
//!
//! GossipSub copies a message into a queue for each peer. The task of the peer's connection empties that queue in
//! each of its turns (`muxer/topic_stream.rs`), so the queues hold what was published since, and what was published
//! to peers that do not accept the stream. A debt is paid message by message, because a flood from a peer keeps the
//! muxer of its connection from being polled, and in whole by the muxer.
//!
//! # Invariants
//!
//! * The debts of all peers together are at most the bound: beyond half of it publishing waits, and the copies of one
//!   message are at most the other half.
//! * Publishing waits for this node's own tasks only. A peer that has no topic stream open any more takes nothing: if
//!   it has reset its stream, or made the library give it up, its messages would wait for as long as it likes. At the
//!   bound such peers are disconnected at once, those with the largest debts first, until half of the room is free.
//! * A peer that takes nothing of its debt for [`PATIENCE`] is disconnected when publishing has to wait.
//! * A debt ends with the last connection of its peer.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use libp2p::PeerId;
use runtime::time::Instant;
use tokio_util::sync::CancellationToken;

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
    connections: Mutex<Vec<Arc<Connection>>>,
}

/// One connection of a peer.
#[derive(Debug)]
struct Connection {
    /// `true` while its topic stream is open.
    is_open: AtomicBool,
    /// Cancelled to end the connection.
    end: CancellationToken,
}

/// The debt of the peer of one connection. Its connections share it.
#[derive(Debug)]
pub(crate) struct Debt {
    account: Arc<Account>,
    connection: Arc<Connection>,
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

    /// Opens the account of a peer, or joins the one of its other connections. Cancelling `end` ends this connection.
    pub(crate) fn open(&self, peer: PeerId, end: CancellationToken) -> Debt {
        let mut peers = lock(&self.all.peers);
        let entry = peers.entry(peer).or_default();
        let account = entry.upgrade().unwrap_or_else(|| {
            let (all, since) = (Arc::clone(&self.all), Mutex::new(Instant::now()));
            let (bytes, connections) = (AtomicUsize::new(0), Mutex::default());
            let account = Arc::new(Account { all, peer, bytes, since, connections });
            *entry = Arc::downgrade(&account);
            account
        });
        drop(peers);
        let connection = Arc::new(Connection { is_open: AtomicBool::new(false), end });
        lock(&account.connections).push(Arc::clone(&connection));
        Debt { account, connection }
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

    /// The peers to which a message may be copied at once: as many as fit into the bound.
    pub(crate) fn most_copies(&self, bytes: usize) -> usize {
        self.all.room() / bytes.max(1)
    }

    /// Returns `true` if more may be published.
    pub(crate) fn has_room(&self) -> bool {
        self.all.total.load(Ordering::Relaxed) < self.all.room()
    }

    /// Ends the connections of peers that delay publishing: of those without an open topic stream, until the rest
    /// leaves half of the room free, and of those that have taken nothing of their debt for [`PATIENCE`]. Returns
    /// these peers. Their debts end with the tasks of their connections.
    pub(crate) fn end_delays(&self, now: Instant) -> Vec<PeerId> {
        let mut accounts: Vec<_> =
            lock(&self.all.peers).values().filter_map(Weak::upgrade).collect();
        accounts.retain(|account| account.owes() > 0 && !account.is_ending());
        accounts.sort_by_key(|account| std::cmp::Reverse(account.owes()));
        let mut rest: usize = accounts.iter().map(|account| account.owes()).sum();
        let mut ended = Vec::new();
        for account in accounts {
            let withholds = rest > self.all.room() / 2 && !account.is_open();
            let is_overdue = || now.saturating_duration_since(*lock(&account.since)) >= PATIENCE;
            if withholds || is_overdue() {
                rest = rest.saturating_sub(account.owes());
                account.end();
                ended.push(account.peer);
            }
        }
        ended
    }
}

impl All {
    /// The debts from which on publishing waits.
    const fn room(&self) -> usize {
        self.bound / 2
    }
}

impl Account {
    fn owes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn is_open(&self) -> bool {
        lock(&self.connections).iter().any(|one| one.is_open.load(Ordering::Relaxed))
    }

    fn is_ending(&self) -> bool {
        lock(&self.connections).iter().all(|one| one.end.is_cancelled())
    }

    fn end(&self) {
        let connections = lock(&self.connections).clone();
        connections.iter().for_each(|one| one.end.cancel());
    }

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
        if self.account.owes() > 0 {
            self.account.pay();
        }
    }

    /// Notes that the connection has a topic stream, which takes every message.
    pub(crate) fn opened(&self) {
        self.connection.is_open.store(true, Ordering::Relaxed);
    }

    /// Notes that the connection has no topic stream any more.
    pub(crate) fn closed(&self) {
        self.connection.is_open.store(false, Ordering::Relaxed);
    }
}

impl Drop for Debt {
    fn drop(&mut self) {
        let mut connections = lock(&self.account.connections);
        connections.retain(|one| !Arc::ptr_eq(one, &self.connection));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl TopicDebts {
        /// Opens an account with an open topic stream.
        fn opened(&self, peer: PeerId) -> Debt {
            let debt = self.open(peer, CancellationToken::new());
            debt.opened();
            debt
        }
    }

    impl Debt {
        fn is_ending(&self) -> bool {
            self.connection.end.is_cancelled()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_debt_is_paid_at_once_or_ends_with_its_peer() {
        let debts = TopicDebts::new(200);
        let [slow, quick] = [PeerId::random(), PeerId::random()];
        let (first, second, other) = (debts.opened(slow), debts.opened(slow), debts.opened(quick));
        let start = Instant::now();
        debts.charge(&slow, 60, start);
        debts.charge(&quick, 40, start);
        debts.charge(&PeerId::random(), 1_000, start);
        assert!(!debts.has_room());
        other.pay();
        assert!(debts.has_room());
        assert!(debts.end_delays(start + PATIENCE / 2).is_empty());
        debts.charge(&slow, 60, start + PATIENCE / 2);
        assert!(!debts.has_room());
        // Issue 8, 24: under a flood from it a peer was disconnected, although it took every message.
        second.pay_part(1, start + PATIENCE);
        assert!(debts.end_delays(start + PATIENCE).is_empty(), "it takes something");
        assert!(!debts.has_room());
        assert_eq!(debts.end_delays(start + 2 * PATIENCE), [slow]);
        assert!(first.is_ending() && second.is_ending() && !other.is_ending());
        assert!(debts.end_delays(start + 2 * PATIENCE).is_empty(), "once");
        drop(first);
        assert!(!debts.has_room());
        drop(second);
        assert!(debts.has_room());
        drop(other);
        assert_eq!(debts.all.total.load(Ordering::Relaxed), 0);
        assert!(lock(&debts.all.peers).is_empty());
    }

    // Issue 8, 22. Before, publishing to all waited 5 s for such a peer.
    #[tokio::test(start_paused = true)]
    async fn a_peer_that_withholds_its_topic_stream_is_ended_at_once_and_others_are_not() {
        let debts = TopicDebts::new(200);
        let now = Instant::now();
        let peers: Vec<_> = [1, 7, 40, 30, 20].map(|owes| (PeerId::random(), owes)).into();
        let held: Vec<_> = peers.iter().map(|(peer, _)| debts.opened(*peer)).collect();
        for (peer, owes) in &peers {
            debts.charge(peer, *owes, now);
        }
        assert!(debts.has_room());
        debts.charge(&peers[0].0, 9, now);
        assert!(!debts.has_room() && debts.end_delays(now).is_empty(), "all are served");
        for debt in &held[..4] {
            debt.closed();
        }
        assert_eq!(debts.end_delays(now), [peers[2].0, peers[3].0], "the rest is 37");
        held[0].opened();
        debts.charge(&peers[1].0, 50, now);
        let also = debts.opened(peers[1].0);
        assert!(debts.end_delays(now).is_empty(), "another connection of it takes them");
        drop(also);
        assert_eq!(debts.end_delays(now), [peers[1].0]);
    }
}
