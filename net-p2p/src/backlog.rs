//! The backlog of all connections: bytes received and not yet read, and bytes written and not yet sent.
//!
//! ```text
//!   socket ──▶ Meter ──▶ Yamux ──▶ Substream ──▶ readers          each adds to, or takes from,
//!          ◀── Meter ◀── Yamux ◀── Substream ◀── writers          the account of its connection
//!                                                                      │ all together too much
//!                                  the largest one loses ◀── Backlog ◀──┘
//! ```
//!
//! The byte budget of the node counts messages, and a message starts where a stream is read. Bytes that wait
//! below that are bounded by Yamux per stream only, and a thousand connections may have a thousand streams
//! each. So all of them are counted here, and have a bound of their own.
//!
//! # Invariants
//!
//! * The count covers the memory of the library: each frame from its header on with its overhead, each open
//!   stream, and written bytes until they are in the buffers of the socket.
//! * Beyond the bound, the connection with the largest backlog loses the stream that holds most of it. If no
//!   stream holds half of it, the whole connection ends. Peers with a small backlog therefore lose nothing.
//! * Messages of GossipSub that the connection did not take count as well. A connection whose backlog is mostly
//!   these ends: without its topic stream the library would queue for it again.
//! * Locks are taken in the order connections, streams, stream. An eviction wakes tasks after it has released them.

mod topic_queue;

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, IoSlice},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use tokio_util::sync::CancellationToken;
use yamux::Packet;

pub(crate) use self::topic_queue::{MAX_WAITING_BYTES, Offer, TopicQueue, delimited};
use crate::{
    carrier::Carrier,
    memory::published_bytes,
    metrics::{P2pEvent, P2pMetrics},
    topic_debts::TopicDebts,
};

/// Overhead of a frame, in bytes: the smallest allocation, and a place in a queue that doubles.
pub(crate) const FRAME_BYTES: usize = 96;

/// Largest frame that the library sends, in bytes. Source: yamux 0.14, `split_send_size`.
const MAX_SENT_BYTES: usize = 16 * 1024;

/// The factor by which the backlog of one connection may exceed what is free, before messages of GossipSub for it are
/// dropped. Chosen: as in the ledgers of what the library keeps.
const PEER_FACTOR: usize = 8;

/// Bytes that messages of GossipSub leave free in all, however few are kept. Chosen: the frames that a few connections
/// are writing at one time.
const HEADROOM: usize = 4 * MAX_SENT_BYTES;

/// Memory of an open stream, in bytes: its state here and in the library. Chosen: rounded up.
const STREAM_BYTES: usize = 1_024;

/// The backlog of all connections of a node. Clones share it.
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
    debts: TopicDebts,
}

/// The backlog of one connection.
#[derive(Debug, Default)]
struct Account {
    held: AtomicUsize,
    /// The streams of the connection, by their IDs. Every received frame looks its stream up, and a tree of few
    /// streams does so faster than a keyed hash.
    streams: Mutex<BTreeMap<u32, Arc<StreamAccount>>>,
    /// ID of the stream that the library is about to hand out, and the bytes of its first frame.
    first: Mutex<Option<(u32, usize)>>,
    /// Bytes written by streams that are not in the buffers of the socket yet.
    unsent: AtomicUsize,
    /// `true` once the connection was chosen to end, because its backlog is the largest.
    evicted: AtomicBool,
    /// Cancelled after that.
    end: CancellationToken,
}

/// The unread bytes of one stream.
#[derive(Debug, Default)]
struct StreamAccount {
    held: AtomicUsize,
    kept: Mutex<Kept>,
}

/// A stream of the library, the rest of the frame of Yamux that is being read, and what GossipSub has written and the connection did
/// not take. `stream` is `None` after an eviction.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) stream: Option<Carrier>,
    pub(crate) frame: Option<(Packet, usize)>,
    pub(crate) topic: TopicQueue,
}

/// The contents of evicted streams, and the ends of evicted connections. Dropping it wakes their tasks.
#[derive(Default)]
struct Evicted {
    streams: Vec<Kept>,
    ends: Vec<CancellationToken>,
}

impl Drop for Evicted {
    fn drop(&mut self) {
        self.ends.iter().for_each(CancellationToken::cancel);
    }
}

/// The account of one connection. Clones share it; its bytes are given back with the last of them.
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

/// A counted stream. Dropping it resets the stream, unless it was closed, and gives its bytes back.
#[derive(Debug)]
pub(crate) struct CountedStream {
    handle: StreamHandle,
    id: u32,
}

/// A handle to a counted stream, which may have been dropped or evicted.
#[derive(Clone, Debug)]
pub(crate) struct StreamHandle {
    connection: ConnectionBacklog,
    account: Arc<StreamAccount>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The error of an evicted stream.
pub(crate) fn taken_away<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
}

impl Backlog {
    /// Bounds the backlog of all connections to `bound` bytes.
    pub(crate) fn new(bound: usize, metrics: P2pMetrics) -> Self {
        let shared = Shared {
            bound,
            held: AtomicUsize::new(0),
            metrics,
            next: AtomicU64::new(0),
            accounts: Mutex::default(),
            debts: TopicDebts::new(published_bytes(bound)),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The bytes published to each peer that have not reached its connection.
    pub(crate) fn debts(&self) -> &TopicDebts {
        &self.shared.debts
    }

    /// The bound, in bytes.
    pub(crate) fn bound(&self) -> usize {
        self.shared.bound
    }

    /// The counters of evictions.
    pub(crate) fn metrics(&self) -> &P2pMetrics {
        &self.shared.metrics
    }

    /// Opens the account of a new connection.
    pub(crate) fn open(&self) -> ConnectionBacklog {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let account = Arc::<Account>::default();
        lock(&self.shared.accounts).insert(number, Arc::clone(&account));
        let shared = Arc::clone(&self.shared);
        ConnectionBacklog { open: Arc::new(OpenAccount { shared, number, account }) }
    }

    /// The backlog of all connections, in bytes.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.shared.held.load(Ordering::Relaxed)
    }
}

impl Shared {
    /// Evicts streams and connections with the largest backlog until the total is within the bound.
    fn make_room(&self) {
        let mut evicted = Evicted::default();
        // If another task holds the lock, it makes the room; this one must not wait with bytes in hand.
        let Ok(accounts) = self.accounts.try_lock() else { return };
        loop {
            // An evicted connection still holds its bytes until its task ends, which is soon, so it does not
            // count.
            let mut held = 0;
            let mut greediest: Option<&Arc<Account>> = None;
            let stay = |account: &&Arc<Account>| !account.evicted.load(Ordering::Relaxed);
            for account in accounts.values().filter(stay) {
                let bytes = account.held.load(Ordering::Relaxed);
                held += bytes;
                if greediest.is_none_or(|most| most.held.load(Ordering::Relaxed) < bytes) {
                    greediest = Some(account);
                }
            }
            let Some(greediest) = greediest.filter(|_| held > self.bound) else { break };
            self.take_from(greediest, &mut evicted);
        }
        drop(accounts);
        drop(evicted);
    }

    fn take_from(&self, account: &Account, evicted: &mut Evicted) {
        let all = account.held.load(Ordering::Relaxed);
        let streams: Vec<_> = lock(&account.streams).values().cloned().collect();
        let bytes = |stream: &Arc<StreamAccount>| stream.held.load(Ordering::Relaxed);
        if let Some(most) = streams.iter().max_by_key(|stream| bytes(stream))
            && bytes(most) > all / 2
            && lock(&most.kept).topic.is_empty()
        {
            self.metrics.note(P2pEvent::BacklogStream);
            tracing::debug!(bytes = bytes(most), "resetting the stream that keeps most unread");
            return evicted.streams.push(self.reset(account, most));
        }
        self.metrics.note(P2pEvent::BacklogConnection);
        tracing::debug!(bytes = all, "ending the connection that keeps most");
        account.evicted.store(true, Ordering::Relaxed);
        evicted.ends.push(account.end.clone());
        evicted.streams.extend(streams.iter().map(|stream| self.reset(account, stream)));
    }

    /// Evicts a stream, gives its bytes back, and returns what was kept of it.
    fn reset(&self, account: &Account, stream: &StreamAccount) -> Kept {
        let mut kept = lock(&stream.kept);
        self.take(account, stream.held.swap(0, Ordering::Relaxed));
        std::mem::take(&mut *kept)
    }

    fn take(&self, account: &Account, bytes: usize) {
        account.held.fetch_sub(bytes, Ordering::Relaxed);
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl ConnectionBacklog {
    /// Adds bytes to the connection's count. The caller must then call [`Self::settle`].
    pub(crate) fn add(&self, bytes: usize) {
        self.open.account.held.fetch_add(bytes, Ordering::Relaxed);
        self.open.shared.held.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The bytes that each of the open connections may keep until they are acknowledged, so that all together keep a
    /// quarter of the bound at most: the rest is for what peers send.
    #[cfg(any(feature = "quic", feature = "data-channels"))]
    pub(crate) fn send_share(&self) -> usize {
        let connections = lock(&self.open.shared.accounts).len().max(1);
        self.open.shared.bound / 4 / connections
    }

    /// Subtracts bytes from the connection's count.
    pub(crate) fn take(&self, bytes: usize) {
        self.open.shared.take(&self.open.account, bytes);
    }

    /// Counts `bytes` in place of those that were `counted` before, and evicts if that is too much.
    #[cfg(any(feature = "quic", feature = "data-channels"))]
    pub(crate) fn recount(&self, counted: &mut usize, bytes: usize) {
        let before = std::mem::replace(counted, bytes);
        if bytes > before {
            self.add(bytes - before);
            self.settle();
        } else {
            self.take(before - bytes);
        }
    }

    /// Evicts if all connections together exceed the bound.
    pub(crate) fn settle(&self) {
        let shared = &self.open.shared;
        if shared.held.load(Ordering::Relaxed) > shared.bound {
            shared.make_room();
        }
    }

    /// Counts bytes that a stream is about to write.
    pub(crate) fn wrote(&self, bytes: usize) {
        self.open.account.unsent.fetch_add(bytes, Ordering::Relaxed);
        self.add(bytes);
    }

    /// Gives back written bytes that were sent, or that the library did not accept.
    pub(crate) fn sent(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let less = |unsent: usize| Some(unsent.saturating_sub(bytes));
        let unsent = &self.open.account.unsent;
        // After the end of the connection the count is zero already.
        if let Ok(before) = unsent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less) {
            self.take(bytes.min(before));
        }
    }

    /// Keeps the bytes of a frame that opens a stream, until the library hands the stream out.
    pub(crate) fn first(&self, stream: u32, bytes: usize) {
        let before = lock(&self.open.account.first).replace((stream, bytes));
        self.take(before.map_or(0, |(_, bytes)| bytes));
    }

    /// Gives back the bytes that belong to no stream, after the socket was dropped.
    pub(crate) fn close(&self) {
        let account = &self.open.account;
        let first = lock(&account.first).take().map_or(0, |(_, bytes)| bytes);
        self.take(first + account.unsent.swap(0, Ordering::Relaxed));
    }

    /// Assigns counted bytes to a stream. Returns `false` if there is no such stream.
    pub(crate) fn assign(&self, stream: u32, bytes: usize) -> bool {
        let streams = lock(&self.open.account.streams);
        let Some(stream) = streams.get(&stream) else { return false };
        let kept = lock(&stream.kept);
        if kept.stream.is_none() {
            return false;
        }
        stream.held.fetch_add(bytes, Ordering::Relaxed);
        true
    }

    /// Counts a new stream, and assigns its first frame to it.
    pub(crate) fn count(&self, id: u32, stream: Carrier) -> CountedStream {
        let first = lock(&self.open.account.first).take_if(|(first, _)| *first == id);
        let bytes = first.map_or(0, |(_, bytes)| bytes);
        let kept = Mutex::new(Kept { stream: Some(stream), ..Kept::default() });
        let account = Arc::new(StreamAccount { held: AtomicUsize::new(bytes), kept });
        lock(&self.open.account.streams).insert(id, Arc::clone(&account));
        self.add(STREAM_BYTES);
        self.settle();
        CountedStream { handle: StreamHandle { connection: self.clone(), account }, id }
    }

    /// Calls `change` for each open stream.
    #[cfg(feature = "quic")]
    pub(crate) fn each_carrier(&self, change: impl Fn(&mut Carrier)) {
        let streams: Vec<_> = lock(&self.open.account.streams).values().cloned().collect();
        for stream in streams {
            if let Some(carrier) = &mut lock(&stream.kept).stream {
                change(carrier);
            }
        }
    }

    /// The counters of evictions.
    pub(crate) fn metrics(&self) -> &P2pMetrics {
        &self.open.shared.metrics
    }

    /// Ends the connection.
    pub(crate) fn evict(&self) {
        self.open.account.evicted.store(true, Ordering::Relaxed);
        self.open.account.end.cancel();
    }

    /// Cancelled when the connection must end, because its backlog is the largest.
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
    /// A handle to the stream that does not keep it open.
    pub(crate) const fn handle(&self) -> &StreamHandle {
        &self.handle
    }
}

impl StreamHandle {
    /// Locks the stream, which is `None` after an eviction, and after it was dropped.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Kept> {
        lock(&self.account.kept)
    }

    /// Counts bytes that the stream keeps, if the connection may keep so many more: eight times what is free after
    /// that in all, and frames of other connections must fit in there. Peers that do not read therefore leave room for
    /// others, and are not the reason for an eviction. The caller must hold the lock of a stream that was not evicted.
    pub(crate) fn try_keep(&self, bytes: usize) -> bool {
        let OpenAccount { shared, account, .. } = &*self.connection.open;
        let own = account.held.load(Ordering::Relaxed).saturating_add(bytes);
        // Looked at and counted in one step: tasks of several connections do this at the same time.
        let counted = shared.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            let after = held.saturating_add(bytes);
            let free = shared.bound.checked_sub(after).filter(|free| *free >= HEADROOM)?;
            (own <= free.saturating_mul(PEER_FACTOR)).then_some(after)
        });
        if counted.is_err() {
            return false;
        }
        account.held.fetch_add(bytes, Ordering::Relaxed);
        self.account.held.fetch_add(bytes, Ordering::Relaxed);
        true
    }

    /// Counts bytes that the stream keeps. The caller must hold the lock of a stream that was not evicted, and
    /// call [`ConnectionBacklog::settle`] without it.
    pub(crate) fn keep(&self, bytes: usize) {
        self.account.held.fetch_add(bytes, Ordering::Relaxed);
        self.connection.add(bytes);
    }

    /// Gives back bytes that the stream kept. The caller must hold the lock of a stream that was not evicted.
    pub(crate) fn give_back(&self, bytes: usize) {
        self.account.held.fetch_sub(bytes, Ordering::Relaxed);
        self.connection.take(bytes);
    }

    /// The account of the stream's connection.
    pub(crate) const fn connection(&self) -> &ConnectionBacklog {
        &self.connection
    }

    /// Writes one frame to a locked stream. The caller must call [`ConnectionBacklog::settle`] without the lock.
    pub(crate) fn poll_write_frame(
        &self,
        stream: &mut Carrier,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        #[cfg(any(feature = "quic", feature = "data-channels"))]
        if !matches!(stream, Carrier::Yamux(_)) {
            // Counted for the whole connection (`quic/gauge.rs`, `channels/driver.rs`).
            return stream.poll_write(context, bytes);
        }
        // Counted before the write, because the connection's task may send the bytes at once.
        let most = bytes.len().min(MAX_SENT_BYTES) + FRAME_BYTES;
        self.connection.wrote(most);
        let written = stream.poll_write(context, bytes);
        let counted = match &written {
            Poll::Ready(Ok(bytes @ 1..)) => bytes + FRAME_BYTES,
            _ => 0,
        };
        self.connection.sent(most.saturating_sub(counted));
        written
    }

    /// Writes the first of `parts` that is not empty, or as many of them as the stream gathers. The same holds.
    pub(crate) fn poll_write_parts(
        &self,
        stream: &mut Carrier,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        #[cfg(feature = "quic")]
        if let Carrier::Quic(stream) = stream {
            return stream.poll_write_parts(context, parts);
        }
        let first = parts.iter().find(|part| !part.is_empty());
        self.poll_write_frame(stream, context, first.map_or(&[], |part| part))
    }
}

impl Drop for CountedStream {
    fn drop(&mut self) {
        let StreamHandle { connection, account: stream } = &self.handle;
        let OpenAccount { shared, account, .. } = &*connection.open;
        lock(&account.streams).remove(&self.id);
        drop(shared.reset(account, stream));
        shared.take(account, STREAM_BYTES);
    }
}
