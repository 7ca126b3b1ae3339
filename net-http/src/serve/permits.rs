//! Connection permits, and the connections that wait for one.
//!
//! ```text
//!   connection ─▶ permits of its peer ─▶ permits in total ─▶ ConnectionPermit
//!                      │ all taken: waits, and an idle connection of the peer is dismissed
//! ```
//!
//! # Invariants
//!
//! * The table has an entry for a peer only while one of its connections is served or waits. Both numbers are
//!   bounded in total.
//! * The waiting connections of a peer take no permit from other peers.
//! * If all permits are taken, a new connection gets the permit of another peer's idle connection, if there is
//!   one.
//! * A wait ends after [`ServeLimits::wait`] at the latest.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use gossip::{Host, Identity, LoopbackRule, http::Caller};
use runtime::time;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    conn_state::ConnState,
    limits::ServeLimits,
    metrics::{Incident, ServeMetrics},
};

/// The reason why a connection got no permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// All permits of the node are taken.
    #[error("all connection permits are taken")]
    Full,
    /// Too many connections are waiting.
    #[error("too many connections wait for a permit")]
    PeerFull,
    /// No permit of the peer became free within [`ServeLimits::wait`].
    #[error("no other connection of the peer ended in time")]
    WaitedInVain,
}

/// The peer to which a connection is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum PeerKey {
    Identity(Identity),
    /// A host by its address; an IPv6 host by its /64.
    Host(Host),
    /// A caller without identity and address.
    Unknown,
}

impl PeerKey {
    /// The key of a caller; `None` for loopback callers that are exempt.
    pub(crate) fn of(caller: &Caller, loopback: LoopbackRule) -> Option<Self> {
        if let Some(identity) = caller.identity {
            return Some(Self::Identity(identity));
        }
        let Some(ip) = caller.ip else { return Some(Self::Unknown) };
        let host = Host::of(ip);
        if host.is_loopback() && loopback == LoopbackRule::Exempt {
            return None;
        }
        Some(Self::Host(host))
    }
}

/// All connection permits of a node.
#[derive(Debug)]
pub(crate) struct ConnectionPermits {
    limits: ServeLimits,
    loopback: LoopbackRule,
    metrics: Arc<ServeMetrics>,
    total: Arc<Semaphore>,
    waiting: AtomicUsize,
    peers: Mutex<HashMap<PeerKey, Arc<Peer>>>,
}

/// The connection permits of one peer.
#[derive(Debug)]
struct Peer {
    free: Arc<Semaphore>,
    /// Number of connections that are served or wait. Changed only under the lock of the table.
    present: AtomicUsize,
    waiting: AtomicUsize,
    served: Mutex<Vec<Arc<ConnState>>>,
}

/// Permission to serve one connection, given back when dropped.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    at_peer: Option<AtPeer>,
    _total: OwnedSemaphorePermit,
}

impl ConnectionPermit {
    /// Returns `true` if another connection of the same peer waits for this permit.
    pub(crate) fn is_wanted(&self) -> bool {
        self.at_peer.as_ref().is_some_and(|permit| permit.present.peer.is_wanted())
    }
}

/// The permit of the peer. Fields are dropped in order: the permit is free before the peer may be removed.
#[derive(Debug)]
struct AtPeer {
    conn: Arc<ConnState>,
    _permit: OwnedSemaphorePermit,
    present: Present,
}

impl Drop for AtPeer {
    fn drop(&mut self) {
        self.present.peer.served().retain(|conn| !Arc::ptr_eq(conn, &self.conn));
    }
}

/// One connection of a peer, served or waiting.
#[derive(Debug)]
struct Present {
    permits: Arc<ConnectionPermits>,
    key: PeerKey,
    peer: Arc<Peer>,
}

impl Drop for Present {
    fn drop(&mut self) {
        let mut peers = self.permits.peers();
        if self.peer.present.fetch_sub(1, Ordering::Relaxed) == 1 {
            peers.remove(&self.key);
        }
    }
}

impl Peer {
    fn served(&self) -> MutexGuard<'_, Vec<Arc<ConnState>>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Makes one connection of the peer end: an idle one, else the first that becomes idle.
    fn make_room(&self, metrics: &ServeMetrics) {
        let served = self.served();
        if served.iter().any(|conn| conn.dismiss().is_ok())
            || served.iter().any(|conn| conn.dismiss_later())
        {
            metrics.note(Incident::Dismissed);
        }
    }
}

/// A waiting connection, counted while this exists.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn start(count: &'a AtomicUsize, bound: usize) -> Option<Self> {
        let one_more = |waiting| (waiting < bound).then_some(waiting + 1);
        count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Self(count))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ConnectionPermits {
    pub(crate) fn new(
        limits: ServeLimits,
        loopback: LoopbackRule,
        metrics: Arc<ServeMetrics>,
    ) -> Self {
        Self {
            total: Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS))),
            waiting: AtomicUsize::new(0),
            peers: Mutex::default(),
            limits,
            loopback,
            metrics,
        }
    }

    /// Number of connections that hold a permit.
    pub(crate) fn served(&self) -> usize {
        let permits = self.limits.connections.min(Semaphore::MAX_PERMITS);
        permits.saturating_sub(self.total.available_permits())
    }

    /// Number of connections that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    fn peers(&self) -> MutexGuard<'_, HashMap<PeerKey, Arc<Peer>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a permit, and waits for one of the peer's if necessary. Without a caller it is of no peer's share.
    ///
    /// # Cancel safety
    ///
    /// Safe: a dropped future loses its place in the queue, and nothing else.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        caller: Option<&Caller>,
        conn: &Arc<ConnState>,
    ) -> Result<ConnectionPermit, Refused> {
        let acquired = self.acquire_uncounted(caller, conn).await;
        if let Err(refused) = acquired {
            self.metrics.note(match refused {
                Refused::Full => Incident::Full,
                Refused::PeerFull => Incident::PeerFull,
                Refused::WaitedInVain => Incident::WaitedInVain,
            });
        }
        acquired
    }

    async fn acquire_uncounted(
        self: &Arc<Self>,
        caller: Option<&Caller>,
        conn: &Arc<ConnState>,
    ) -> Result<ConnectionPermit, Refused> {
        let key = caller.and_then(|caller| PeerKey::of(caller, self.loopback));
        let at_peer = match key {
            Some(key) => {
                let present = self.present(key);
                let permit = self.permit_of(&present.peer).await?;
                present.peer.served().push(Arc::clone(conn));
                Some(AtPeer { conn: Arc::clone(conn), _permit: permit, present })
            }
            None => None,
        };
        let own = at_peer.as_ref().map(|at_peer| at_peer.present.key);
        Ok(ConnectionPermit { _total: self.permit_in_total(own).await?, at_peer })
    }

    /// Takes one of the permits in total. If none is free, an idle connection of another peer is closed for it:
    /// of the peer with the most connections.
    async fn permit_in_total(&self, own: Option<PeerKey>) -> Result<OwnedSemaphorePermit, Refused> {
        if let Ok(permit) = Arc::clone(&self.total).try_acquire_owned() {
            return Ok(permit);
        }
        let _waiting = Waiting::start(&self.waiting, self.limits.waiting).ok_or(Refused::Full)?;
        if !self.make_room_of_another(own) {
            return Err(Refused::Full);
        }
        let permit = time::timeout(self.limits.wait, Arc::clone(&self.total).acquire_owned()).await;
        permit.ok().and_then(Result::ok).ok_or(Refused::Full)
    }

    fn make_room_of_another(&self, own: Option<PeerKey>) -> bool {
        let peers = self.peers();
        let others = peers.iter().filter(|(key, _)| Some(**key) != own);
        let mut others: Vec<_> = others.map(|(_, peer)| (peer.served().len(), peer)).collect();
        others.sort_by_key(|(served, _)| std::cmp::Reverse(*served));
        let dismissed =
            others.iter().any(|(_, peer)| peer.served().iter().any(|conn| conn.dismiss().is_ok()));
        if dismissed {
            self.metrics.note(Incident::Dismissed);
        }
        dismissed
    }

    fn present(self: &Arc<Self>, key: PeerKey) -> Present {
        let mut peers = self.peers();
        let peer = peers.entry(key).or_insert_with(|| {
            let free = self.limits.per_peer.min(Semaphore::MAX_PERMITS);
            Arc::new(Peer {
                free: Arc::new(Semaphore::new(free)),
                present: AtomicUsize::new(0),
                waiting: AtomicUsize::new(0),
                served: Mutex::default(),
            })
        });
        peer.present.fetch_add(1, Ordering::Relaxed);
        Present { permits: Arc::clone(self), key, peer: Arc::clone(peer) }
    }

    async fn permit_of(&self, peer: &Peer) -> Result<OwnedSemaphorePermit, Refused> {
        if let Ok(permit) = Arc::clone(&peer.free).try_acquire_owned() {
            return Ok(permit);
        }
        let _waiting =
            Waiting::start(&self.waiting, self.limits.waiting).ok_or(Refused::PeerFull)?;
        let _of_peer =
            Waiting::start(&peer.waiting, self.limits.waiting_per_peer).ok_or(Refused::PeerFull)?;
        peer.make_room(&self.metrics);
        let permit = time::timeout(self.limits.wait, Arc::clone(&peer.free).acquire_owned()).await;
        permit.ok().and_then(Result::ok).ok_or(Refused::WaitedInVain)
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, future::join_all};
    use gossip::Transport;
    use tokio::time::Duration;

    use super::*;

    fn caller(number: u8) -> Caller {
        let identity = Some(Identity::from_ed25519([number; 32]));
        Caller { identity, transport: Transport::Libp2p, address: "here".into(), ip: None }
    }

    fn permits(limits: ServeLimits) -> Arc<ConnectionPermits> {
        Arc::new(ConnectionPermits::new(limits, LoopbackRule::default(), Arc::default()))
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_forgets_peers_without_connections() {
        let limits = ServeLimits { per_peer: 1, connections: 10, ..ServeLimits::default() };
        let (permits, conn) = (permits(limits), Arc::default());
        let mut held = Vec::new();
        for number in 0..10 {
            held.push(permits.acquire(Some(&caller(number)), &conn).await.unwrap());
        }
        assert_eq!(permits.acquire(Some(&caller(99)), &conn).await.unwrap_err(), Refused::Full);
        assert_eq!((permits.peers().len(), permits.served()), (10, 10));
        // Some of these wait, some are dropped while they wait, and some reach the deadline.
        let first = caller(1);
        let mut waiting = Box::pin(permits.acquire(Some(&first), &conn));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(waiting);
        assert_eq!(permits.acquire(Some(&first), &conn).await.unwrap_err(), Refused::WaitedInVain);
        drop(held);
        assert_eq!(permits.peers().len(), 0);
        assert_eq!((permits.served(), permits.waiting()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn permits_are_given_in_the_order_of_waiting() {
        let permits = permits(ServeLimits { per_peer: 1, ..ServeLimits::default() });
        let (conn, order) = (Arc::default(), Mutex::new(Vec::new()));
        let (permits, conn, order) = (&permits, &conn, &order);
        join_all((0..5).map(|number| async move {
            let permit = permits.acquire(Some(&caller(1)), conn).await.unwrap();
            order.lock().unwrap().push(number);
            time::sleep(Duration::from_secs(1)).await;
            drop(permit);
        }))
        .await;
        assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4]);
    }
}
