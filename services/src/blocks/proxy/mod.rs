//! Passes a block request on to other peers, so that a newcomer catches up through a relay without blocks.
//!
//! ```text
//!   asker ─UE, HTTP─▶ Responder ─▶ BlockProxy ─┬─ cache, misses ─────────────────────▶ at once
//!                                              ├─ flight for that round: join it
//!                                              └─ new flight, in its turn ─UE, marked─▶ peer, next peer, next peer
//! ```
//!
//! # Never in a loop
//!
//! A request that is passed on is marked (`origin.rs`), with the number of relays that may pass it on after that; in
//! the form of existing nodes there is no room for one, and it is none.
//!
//! * A marked request that may go no further is answered from store and cache only. One that may does not wait for a
//!   flight that others began: a ring of relays that wait for each other cannot come to be.
//! * Each relay waits for less time than the one before, so that an answer comes before nobody waits for it.
//! * A relay that does not know the mark may pass our request on, and it may come back to us. If it comes
//!   from a peer that this flight has asked, it is told at once that there is no block. If it comes round
//!   by others, it joins the flight that caused it: nothing more is sent, and every turn of the ring ends
//!   with the deadline of the peer that was asked.
//! * A peer that waits for a round is not asked for it.
//!
//! # Invariants
//!
//! * One flight per round: however many ask, one peer at a time is asked for it.
//! * A flight asks at most [`BlockProxyLimits::peers`] peers, and ends within [`BlockProxyLimits::total`], before
//!   who asked gives up.
//! * A flight nobody waits for any more is dropped. There is no task here: who waits drives it.
//! * Flights, those who wait, each asker, the cache and everything remembered have bounds.
//! * More rounds than may be asked for at once wait for their turn, since a request that is refused costs an
//!   existing node four seconds: two newcomers at once are more than that.
//! * An asker of round after round that nobody has is slowed down: each such request costs others three.
//! * An answer is passed on and cached only if it is a block of that round. Whether it is the right one only
//!   the asker can tell; if it asks for the same block over and over, another peer is asked.

mod cache;
mod origin;
mod peers;

use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{FutureExt, future::Shared};
use gossip::{
    BoxFuture, Durations, GossipNode, Identity, LateNode, LinkId, PeerClass, PeerInfo, Request,
    RequestError, http::Caller, wire::block::BlockAnswer,
};
use tokio::{
    sync::Semaphore,
    time::{self, Instant},
};

pub(super) use self::origin::Origin;
use self::{
    cache::{Cache, Cached, Futile, Misses},
    origin::{Onward, marked},
    peers::{Peers, Reply},
};
use super::stored::StoredBlock;

/// Share of the wait for a peer that the peer itself may wait for others. Chosen: the rest is for the way there and back.
const SHARE_OF_THE_NEXT: f64 = 0.9;

/// Bounds of passing requests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockProxyLimits {
    /// Most peers asked for one round. Chosen: 3; each may take its deadline, and who asked waits four
    /// seconds.
    pub peers: usize,
    /// Most relays that a request goes through, this one included; at least one. More than one only where requests may
    /// be longer than those of existing nodes ([`TagRule::max_payload`](gossip::TagRule::max_payload) of `UE`): the
    /// number of those that may follow goes with the request. Default: 1. Each further relay multiplies the requests
    /// that one for a block which nobody has can cause by [`BlockProxyLimits::peers`].
    pub relays: u8,
    /// Longest wait for one peer. Chosen: 1.2 s, enough for a round trip around the world and some megabytes.
    pub each: Duration,
    /// Longest time until a flight ends. Chosen: 3.3 s; who asks gives up after 4 s (Source: wire facts 4.3),
    /// and the handler's deadline is 5 s.
    pub total: Duration,
    /// Most rounds being asked for. Chosen: 16, which with answers of 6 MiB are 96 MiB.
    pub flights: usize,
    /// Most rounds that wait until fewer are being asked for, within [`Self::total`]. Chosen: 160, the requests
    /// of ten existing nodes.
    pub waiting: usize,
    /// Most requests of one asker that wait. Chosen: 16, what an existing node asks for at once. Clients over
    /// HTTP that come from this machine are not counted: they may be those of a reverse proxy.
    pub per_asker: usize,
    /// Most bytes of blocks cached. Chosen: 32 MiB, some ten thousand small blocks.
    pub cache_bytes: usize,
    /// Time that a block is cached. Chosen: 30 s, since many newcomers at a time ask for the same.
    pub cache_for: Duration,
    /// Time for which the absence of a block is remembered. Chosen: 1 s, because the next round may come
    /// soon.
    pub miss_for: Duration,
}

impl Default for BlockProxyLimits {
    fn default() -> Self {
        Self {
            peers: 3,
            relays: 1,
            each: Duration::from_millis(1200),
            total: Duration::from_millis(3300),
            flights: 16,
            waiting: 160,
            per_asker: 16,
            cache_bytes: 32 * 1024 * 1024,
            cache_for: Duration::from_secs(30),
            miss_for: Duration::from_secs(1),
        }
    }
}

gossip::setters!(BlockProxyLimits {
    with_peers => peers: usize,
    with_relays => relays: u8,
    with_each => each: Duration,
    with_total => total: Duration,
    with_flights => flights: usize,
    with_waiting => waiting: usize,
    with_per_asker => per_asker: usize,
    with_cache_bytes => cache_bytes: usize,
    with_cache_for => cache_for: Duration,
    with_miss_for => miss_for: Duration,
});

impl Durations for BlockProxyLimits {
    fn each_duration(&mut self, visit: &mut dyn FnMut(&'static str, &mut Duration)) {
        visit("BlockProxyLimits::each", &mut self.each);
        visit("BlockProxyLimits::total", &mut self.total);
        visit("BlockProxyLimits::cache_for", &mut self.cache_for);
        visit("BlockProxyLimits::miss_for", &mut self.miss_for);
    }
}

/// The one that waits for a block, as far as the way of its request tells it from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Asker {
    /// A peer, by a message.
    Link(LinkId),
    /// A node with a proven identity, over HTTP. It may be a peer as well.
    Node(Identity),
    /// Anybody else over HTTP: all of one address.
    Host(Option<IpAddr>),
}

impl Asker {
    /// The caller of a request over HTTP, if it came in over a network.
    pub(super) fn over_http(caller: Option<Caller>) -> Self {
        match caller {
            Some(Caller { identity: Some(identity), .. }) => Self::Node(identity),
            Some(Caller { ip, .. }) => Self::Host(ip),
            None => Self::Host(None),
        }
    }

    /// Returns `true` if many clients may stand behind the asker: those of a reverse proxy all come from this
    /// machine.
    fn is_crowd(self) -> bool {
        matches!(self, Self::Host(ip) if ip.is_none_or(|ip| ip.is_loopback()))
    }

    /// Returns `true` if the requesting peer is known to be this one.
    fn is(self, peer: &Asked) -> bool {
        match self {
            Self::Link(link) => link == peer.link,
            Self::Node(identity) => Some(identity) == peer.identity,
            Self::Host(_) => false,
        }
    }
}

/// A peer that may be asked for a block.
#[derive(Clone, Copy, Debug)]
struct Asked {
    link: LinkId,
    identity: Option<Identity>,
}

/// The outcome of passing a request on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Passed {
    /// A block of that round.
    Block(StoredBlock),
    /// Nobody has it.
    Unavailable {
        /// The newest round anybody asked claims to have; 0 if nobody said.
        latest: u64,
    },
    /// Too much is being asked for.
    Busy,
}

/// Passes block requests on to other peers. A cheap handle.
#[derive(Clone)]
pub struct BlockProxy {
    shared: Arc<ProxyState>,
}

struct ProxyState {
    node: LateNode,
    limits: BlockProxyLimits,
    /// One permit for each round that may be asked for at once; handed on in the order of arrival.
    turns: Semaphore,
    state: Mutex<State>,
}

struct State {
    flights: HashMap<u64, Flight>,
    /// Number of waiting requests of an asker.
    waiting: HashMap<Asker, usize>,
    cache: Cache,
    misses: Misses,
    futile: Futile,
    peers: Peers,
    /// Numbers flights, so that one is not taken for a later one of the same round.
    next: u64,
}

/// A round that is being asked for, or waits for its turn.
struct Flight {
    number: u64,
    outcome: Shared<BoxFuture<'static, Passed>>,
    /// All that wait for it.
    askers: Vec<Asker>,
    /// Peers that were asked for it.
    asked: Vec<Asked>,
    /// The peer that sent this block before, to an asker that did not want it.
    avoid: Option<LinkId>,
}

impl BlockProxy {
    /// Passes requests on to the peers of `node`. Durations among the limits are brought between
    /// [`SHORTEST_LIMIT`](gossip::SHORTEST_LIMIT) and [`LONGEST_LIMIT`](gossip::LONGEST_LIMIT).
    #[must_use]
    pub fn new(node: LateNode, limits: BlockProxyLimits) -> Self {
        let limits = limits.bounded();
        let state = State {
            flights: HashMap::new(),
            waiting: HashMap::new(),
            cache: Cache::new(limits.cache_bytes, limits.cache_for),
            misses: Misses::new(limits.miss_for),
            futile: Futile::default(),
            peers: Peers::default(),
            next: 0,
        };
        let turns = Semaphore::new(limits.flights.min(Semaphore::MAX_PERMITS));
        Self { shared: Arc::new(ProxyState { node, limits, turns, state: Mutex::new(state) }) }
    }

    /// Gets the block of a round for `asker`, from the cache or from a peer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the flight to the others that wait for it, or ends it.
    pub(super) async fn obtain(&self, round: u64, asker: Asker, origin: Origin) -> Passed {
        let now = Instant::now();
        let (outcome, _wait) = {
            let mut state = self.shared.state();
            let avoid = match state.cache.take(round, asker, now) {
                Cached::Block(block) => return Passed::Block(block),
                Cached::Unwanted { source } => Some(source),
                Cached::Nothing => None,
            };
            let onward = self.onward(origin);
            let is_ours = origin == Origin::Asker;
            if !is_ours && (onward.relays == 0 || state.flights.contains_key(&round)) {
                return Passed::Unavailable { latest: state.cache.highest() };
            }
            if let Some(latest) = state.misses.latest(round, now) {
                return Passed::Unavailable { latest };
            }
            if let Some(latest) = state.futile.latest(asker, now) {
                // Of the clients of one address only some may ask in vain: the others must not be told that
                // there is no block.
                let shared = matches!(asker, Asker::Host(_));
                return if shared { Passed::Busy } else { Passed::Unavailable { latest } };
            }
            match self.board(&mut state, (round, onward), asker, avoid) {
                Ok(boarded) => boarded,
                Err(refused) => return refused,
            }
        };
        let passed = outcome.await;
        let mut state = self.shared.state();
        match passed {
            Passed::Unavailable { latest } => state.futile.note(asker, latest, Instant::now()),
            Passed::Block(_) => state.futile.forget(asker),
            Passed::Busy => {}
        }
        drop(state);
        passed
    }

    /// The bounds of a request that goes on through this relay.
    fn onward(&self, origin: Origin) -> Onward {
        let BlockProxyLimits { relays, total, .. } = self.shared.limits;
        let relays = relays.max(1);
        match origin {
            Origin::Asker => Onward { relays, patience: total },
            Origin::Relay(Onward { relays: left, patience }) => {
                Onward { relays: left.min(relays - 1), patience: patience.min(total) }
            }
        }
    }

    /// Joins the flight for a round, or starts it.
    fn board(
        &self,
        state: &mut State,
        (round, onward): (u64, Onward),
        asker: Asker,
        avoid: Option<LinkId>,
    ) -> Result<(Shared<BoxFuture<'static, Passed>>, Wait), Passed> {
        let limits = &self.shared.limits;
        let flight = state.flights.get_mut(&round);
        if flight.as_ref().is_some_and(|flight| flight.asked.iter().any(|peer| asker.is(peer))) {
            return Err(Passed::Unavailable { latest: state.cache.highest() });
        }
        let waiting = state.waiting.get(&asker);
        let full = waiting.is_some_and(|&waiting| waiting >= limits.per_asker && !asker.is_crowd());
        let most = limits.flights.saturating_add(limits.waiting);
        if full || (flight.is_none() && state.flights.len() >= most) {
            return Err(Passed::Busy);
        }
        let flight = state.flights.entry(round).or_insert_with(|| {
            state.next += 1;
            let number = state.next;
            let outcome = Arc::clone(&self.shared).fly((round, onward), number).boxed().shared();
            Flight { number, outcome, askers: Vec::new(), asked: Vec::new(), avoid }
        });
        flight.askers.push(asker);
        *state.waiting.entry(asker).or_default() += 1;
        let wait = Wait { shared: Arc::clone(&self.shared), round, number: flight.number, asker };
        Ok((flight.outcome.clone(), wait))
    }
}

impl fmt::Debug for BlockProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockProxy").field("node", &self.shared.node).finish_non_exhaustive()
    }
}

/// One that waits for a flight; leaves it when dropped, and the last one takes it down.
struct Wait {
    shared: Arc<ProxyState>,
    round: u64,
    number: u64,
    asker: Asker,
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        if let Some(waiting) = state.waiting.get_mut(&self.asker) {
            *waiting -= 1;
            if *waiting == 0 {
                state.waiting.remove(&self.asker);
            }
        }
        let Some(flight) = state.flights.get_mut(&self.round) else { return };
        if flight.number != self.number {
            return;
        }
        if let Some(at) = flight.askers.iter().position(|&asker| asker == self.asker) {
            flight.askers.swap_remove(at);
        }
        let abandoned =
            if flight.askers.is_empty() { state.flights.remove(&self.round) } else { None };
        // The request of the flight may end with it, and calls the node: not under the lock.
        drop(state);
        drop(abandoned);
    }
}

impl ProxyState {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks one peer after the other for a round, once it is its turn.
    async fn fly(self: Arc<Self>, (round, onward): (u64, Onward), number: u64) -> Passed {
        let deadline = Instant::now() + onward.patience;
        // Two peers can be asked, if the first one is silent.
        let each = self.limits.each.min(onward.patience / 2);
        let further = Onward {
            relays: onward.relays.saturating_sub(1),
            patience: each.mul_f64(SHARE_OF_THE_NEXT),
        };
        let turn = time::timeout_at(deadline, self.turns.acquire()).await;
        // A turn that comes with the deadline leaves no time to ask anybody.
        if !matches!(turn, Ok(Ok(_))) || Instant::now() >= deadline {
            let landed = self.state().land(round, number);
            drop(landed);
            return Passed::Busy;
        }
        let (mut latest, mut asked) = (0, 0);
        while Instant::now() < deadline {
            let Some((node, asking)) = self.next_peer(round, number) else { break };
            let peer = asking.peer;
            asked += 1;
            let until = deadline.min(Instant::now() + each);
            let request = Request { topics: marked(round, further) };
            let answer = time::timeout_at(until, node.request(peer, request)).await;
            drop(asking);
            let reply = read(answer, round);
            let mut state = self.state();
            state.peers.replied(peer, &reply, Instant::now());
            match reply {
                Reply::Block(block) => {
                    state.cache.keep(round, &block, peer, Instant::now());
                    // From here on the cache answers.
                    let landed = state.land(round, number);
                    drop(state);
                    drop(landed);
                    return Passed::Block(block);
                }
                Reply::NoBlock { latest: theirs } => latest = latest.max(theirs.unwrap_or(0)),
                Reply::Wrong | Reply::Silent | Reply::NotAsked => {}
            }
        }
        let mut state = self.state();
        if asked > 0 {
            state.misses.note(round, latest, Instant::now());
        }
        let landed = state.land(round, number);
        drop(state);
        drop(landed);
        Passed::Unavailable { latest }
    }

    /// Chooses whom to ask next, and notes it; `None` when nobody is left.
    fn next_peer(
        self: &Arc<Self>,
        round: u64,
        number: u64,
    ) -> Option<(Arc<dyn GossipNode>, Asking)> {
        let node = self.node.node()?;
        // The node is asked before the lock is taken.
        let connected = node.peers(PeerClass::Connected);
        let mut guard = self.state();
        let state = &mut *guard;
        let flight = state.flights.get_mut(&round).filter(|flight| flight.number == number)?;
        if flight.asked.len() >= self.limits.peers {
            return None;
        }
        let left_out = |peer: &Asked| {
            flight.askers.iter().any(|asker| asker.is(peer))
                || flight.asked.iter().any(|asked| asked.link == peer.link)
                || flight.avoid == Some(peer.link)
        };
        let peer = |PeerInfo { id: link, identity, .. }| Asked { link, identity };
        let connected: Vec<Asked> = connected.into_iter().map(peer).collect();
        let links: Vec<LinkId> = connected.iter().map(|peer| peer.link).collect();
        let out: Vec<LinkId> =
            connected.iter().filter(|peer| left_out(peer)).map(|peer| peer.link).collect();
        let peer = state.peers.choose(&links, |link| out.contains(&link), Instant::now())?;
        flight.asked.extend(connected.into_iter().find(|known| known.link == peer));
        drop(guard);
        Some((node, Asking { shared: Arc::clone(self), peer }))
    }
}

/// A request to a peer that is under way; counted until it is dropped, which must not be under the lock.
struct Asking {
    shared: Arc<ProxyState>,
    peer: LinkId,
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.shared.state().peers.released(self.peer);
    }
}

impl State {
    /// Takes a flight off, if it is still that one.
    fn land(&mut self, round: u64, number: u64) -> Option<Flight> {
        self.flights.get(&round).filter(|flight| flight.number == number)?;
        self.flights.remove(&round)
    }
}

/// The meaning of a peer's answer.
fn read(
    answer: Result<Result<gossip::Response, RequestError>, time::error::Elapsed>,
    round: u64,
) -> Reply {
    let topics = match answer {
        Ok(Ok(response)) => response.topics,
        Ok(Err(RequestError::TimedOut { .. })) | Err(_) => return Reply::Silent,
        Ok(Err(_not_sent)) => return Reply::NotAsked,
    };
    match BlockAnswer::decode(&topics) {
        Ok(BlockAnswer::Block { block, cert }) => {
            let block = StoredBlock { block, cert };
            match block.check(round) {
                Ok(()) => Reply::Block(block.detached()),
                Err(_) => Reply::Wrong,
            }
        }
        Ok(BlockAnswer::Unavailable { latest }) => Reply::NoBlock { latest },
        Ok(BlockAnswer::Failed { .. }) | Err(_) => Reply::Wrong,
    }
}
