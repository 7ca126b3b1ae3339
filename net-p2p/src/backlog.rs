//! The bytes that connections keep below the engine: received and not yet read, written and not yet sent.
//!
//! ```text
//!   socket ──▶ Meter ──▶ Yamux ──▶ Substream ──▶ readers          each adds to, or takes from,
//!          ◀── Meter ◀── Yamux ◀── Substream ◀── writers          the account of its connection
//!                                                                      │ all together too much
//!                                   the greediest loses ◀── Backlog ◀──┘
//! ```
//!
//! The byte budget of the node counts messages, and a message begins where a stream is read. What waits
//! before that is bounded by Yamux for each stream, which is nothing: a thousand connections may have a
//! thousand streams each. So all of it is counted here, and has a bound of its own.
//!
//! # Invariants
//!
//! * What is counted is what the library keeps: a frame from its header on, what each frame costs beside
//!   its bytes, what a stream costs, and what was written until it is in the buffers of the socket.
//! * Beyond the bound, the connection that keeps most loses the stream that keeps most of it. Where no
//!   stream keeps half of it, the whole connection ends. So peers that keep little lose nothing.
//! * Locks are taken in the order connections, streams, stream, and nothing is woken under the first.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio_util::sync::CancellationToken;
use yamux::{Packet, Stream};

use crate::metrics::{P2pEvent, P2pMetrics};

/// The part of the byte budget that the connections of a node may keep beside it, unless it is set. Chosen:
/// with the default budget 64 MiB, of which 2,400 idle peers keep a third.
const PART_OF_BUDGET: usize = 4;

/// The least of that, in bytes. Chosen: 64 streams of which nothing is read.
const LEAST_BYTES: usize = 16 * 1024 * 1024;

/// What a frame costs beside its bytes: the smallest allocation, and a place in a queue that doubles.
pub(crate) const FRAME_BYTES: usize = 96;

/// What an open stream costs: its state here and in the library. Chosen: rounded up.
const STREAM_BYTES: usize = 1_024;

/// What all connections of a node keep. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Backlog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bound: usize,
    held: AtomicUsize,
    metrics: P2pMetrics,
    next: AtomicU64,
    accounts: Mutex<HashMap<u64, Arc<Account>>>,
}

/// What one connection keeps.
#[derive(Debug, Default)]
struct Account {
    held: AtomicUsize,
    /// Its streams, by their numbers.
    streams: Mutex<HashMap<u32, Arc<StreamAccount>>>,
    /// The first frame of a stream that the library is about to hand out, and what it counts.
    first: Mutex<Option<(u32, usize)>>,
    /// Written by streams, and not in the buffers of the socket.
    unsent: AtomicUsize,
    /// Cancelled when the connection is to end, because it keeps most.
    end: CancellationToken,
}

/// A stream and what it keeps unread.
#[derive(Debug, Default)]
struct StreamAccount {
    held: AtomicUsize,
    kept: Mutex<Kept>,
}

/// A stream of Yamux, and the rest of the frame that is being read. `None` once it was taken away.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) stream: Option<Stream>,
    pub(crate) frame: Option<(Packet, usize)>,
}

/// The account of one connection. Clones share it; what it holds is given back with the last of them.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionBacklog {
    open: Arc<OpenAccount>,
}

#[derive(Debug)]
struct OpenAccount {
    shared: Arc<Shared>,
    number: u64,
    account: Arc<Account>,
}

/// A stream that is counted. Dropping it resets it, unless it was closed, and gives back what it keeps.
#[derive(Debug)]
pub(crate) struct CountedStream {
    connection: ConnectionBacklog,
    id: u32,
    account: Arc<StreamAccount>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Backlog {
    /// Connections may keep `bound` bytes together.
    pub(crate) fn new(bound: usize, metrics: P2pMetrics) -> Self {
        let shared = Shared {
            bound,
            held: AtomicUsize::new(0),
            metrics,
            next: AtomicU64::new(0),
            accounts: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// What connections may keep beside a byte budget.
    pub(crate) fn beside(budget_bytes: usize) -> usize {
        (budget_bytes / PART_OF_BUDGET).max(LEAST_BYTES)
    }

    /// The bound, in bytes.
    pub(crate) fn bound(&self) -> usize {
        self.shared.bound
    }

    /// Where evictions are counted.
    pub(crate) fn metrics(&self) -> &P2pMetrics {
        &self.shared.metrics
    }

    /// An account for a new connection.
    pub(crate) fn open(&self) -> ConnectionBacklog {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let account = Arc::<Account>::default();
        lock(&self.shared.accounts).insert(number, Arc::clone(&account));
        let shared = Arc::clone(&self.shared);
        ConnectionBacklog { open: Arc::new(OpenAccount { shared, number, account }) }
    }

    /// What all connections keep, in bytes.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.shared.held.load(Ordering::Relaxed)
    }
}

impl Shared {
    /// Takes from those that keep most until all keep no more than they may.
    fn make_room(&self) {
        // Whoever has the lock sees to it. Nobody waits for it with bytes in hand.
        let Ok(accounts) = self.accounts.try_lock() else { return };
        loop {
            // One that is to end keeps what it has until its task is told, which is soon.
            let mut held = 0;
            let mut greediest: Option<&Arc<Account>> = None;
            for account in accounts.values().filter(|account| !account.end.is_cancelled()) {
                let bytes = account.held.load(Ordering::Relaxed);
                held += bytes;
                if greediest.is_none_or(|most| most.held.load(Ordering::Relaxed) < bytes) {
                    greediest = Some(account);
                }
            }
            let Some(greediest) = greediest.filter(|_| held > self.bound) else { return };
            let greediest = Arc::clone(greediest);
            self.take_from(&greediest);
        }
    }

    fn take_from(&self, account: &Account) {
        let all = account.held.load(Ordering::Relaxed);
        let streams: Vec<_> = lock(&account.streams).values().cloned().collect();
        let bytes = |stream: &Arc<StreamAccount>| stream.held.load(Ordering::Relaxed);
        if let Some(most) = streams.iter().max_by_key(|stream| bytes(stream))
            && bytes(most) > all / 2
        {
            self.metrics.note(P2pEvent::BacklogStream);
            tracing::debug!(bytes = bytes(most), "resetting the stream that keeps most unread");
            return self.reset(account, most);
        }
        self.metrics.note(P2pEvent::BacklogConnection);
        tracing::debug!(bytes = all, "ending the connection that keeps most");
        account.end.cancel();
        streams.iter().for_each(|stream| self.reset(account, stream));
    }

    /// Takes a stream away from whoever has it, and what it keeps.
    fn reset(&self, account: &Account, stream: &StreamAccount) {
        let taken = {
            let mut kept = lock(&stream.kept);
            self.take(account, stream.held.swap(0, Ordering::Relaxed));
            std::mem::take(&mut *kept)
        };
        drop(taken);
    }

    fn take(&self, account: &Account, bytes: usize) {
        account.held.fetch_sub(bytes, Ordering::Relaxed);
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl ConnectionBacklog {
    /// Counts bytes of the connection. [`Self::settle`] has to follow.
    pub(crate) fn add(&self, bytes: usize) {
        self.open.account.held.fetch_add(bytes, Ordering::Relaxed);
        self.open.shared.held.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes back what was counted.
    pub(crate) fn take(&self, bytes: usize) {
        self.open.shared.take(&self.open.account, bytes);
    }

    /// Makes room if all connections keep more than they may.
    pub(crate) fn settle(&self) {
        let shared = &self.open.shared;
        if shared.held.load(Ordering::Relaxed) > shared.bound {
            shared.make_room();
        }
    }

    /// Counts what a stream writes, from before the library has it.
    pub(crate) fn wrote(&self, bytes: usize) {
        self.open.account.unsent.fetch_add(bytes, Ordering::Relaxed);
        self.add(bytes);
    }

    /// Gives back what was written and is sent, or was not taken.
    pub(crate) fn sent(&self, bytes: usize) {
        let less = |unsent: usize| Some(unsent.saturating_sub(bytes));
        let unsent = &self.open.account.unsent;
        // After the end there is nothing left of it.
        if let Ok(before) = unsent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less) {
            self.take(bytes.min(before));
        }
    }

    /// Keeps bytes that the connection counts for a stream that comes next.
    pub(crate) fn first(&self, stream: u32, bytes: usize) {
        let before = lock(&self.open.account.first).replace((stream, bytes));
        self.take(before.map_or(0, |(_, bytes)| bytes));
    }

    /// Gives back what belongs to no stream: the socket is gone.
    pub(crate) fn close(&self) {
        let account = &self.open.account;
        let first = lock(&account.first).take().map_or(0, |(_, bytes)| bytes);
        self.take(first + account.unsent.swap(0, Ordering::Relaxed));
    }

    /// Makes bytes that the connection counts those of a stream. Says no if there is no such stream.
    pub(crate) fn assign(&self, stream: u32, bytes: usize) -> bool {
        let Some(stream) = lock(&self.open.account.streams).get(&stream).cloned() else {
            return false;
        };
        let kept = lock(&stream.kept);
        if kept.stream.is_none() {
            return false;
        }
        stream.held.fetch_add(bytes, Ordering::Relaxed);
        true
    }

    /// Counts a stream, and its first frame as its own.
    pub(crate) fn count(&self, stream: Stream) -> CountedStream {
        let id = stream.id().val();
        let first = lock(&self.open.account.first).take_if(|(first, _)| *first == id);
        let bytes = first.map_or(0, |(_, bytes)| bytes);
        let kept = Mutex::new(Kept { stream: Some(stream), frame: None });
        let account = Arc::new(StreamAccount { held: AtomicUsize::new(bytes), kept });
        lock(&self.open.account.streams).insert(id, Arc::clone(&account));
        self.add(STREAM_BYTES);
        self.settle();
        CountedStream { connection: self.clone(), id, account }
    }

    /// Cancelled when the connection has to end, because it keeps most.
    pub(crate) fn end(&self) -> &CancellationToken {
        &self.open.account.end
    }
}

impl Drop for OpenAccount {
    fn drop(&mut self) {
        lock(&self.shared.accounts).remove(&self.number);
        self.shared.held.fetch_sub(self.account.held.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl CountedStream {
    /// The stream, unless it was taken away.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Kept> {
        lock(&self.account.kept)
    }

    /// Gives back what a frame cost that was read. The stream has to be locked, and there.
    pub(crate) fn read(&self, frame_bytes: usize) {
        let bytes = frame_bytes + FRAME_BYTES;
        self.account.held.fetch_sub(bytes, Ordering::Relaxed);
        self.connection.take(bytes);
    }

    /// The account of its connection.
    pub(crate) fn connection(&self) -> &ConnectionBacklog {
        &self.connection
    }
}

impl Drop for CountedStream {
    fn drop(&mut self) {
        let OpenAccount { shared, account, .. } = &*self.connection.open;
        lock(&account.streams).remove(&self.id);
        shared.reset(account, &self.account);
        shared.take(account, STREAM_BYTES);
    }
}
