//! Two honest nodes that gossip through the hub: one over a WebSocket, one over libp2p.
//!
//! ```text
//!   near (WebSocket) ──AV, TX──▶ hub ──▶ far (libp2p)      and the other way round
//! ```
//!
//! # Invariants
//!
//! * Every message has a number, and the time at which it was due. One that is not heard within the patience of the
//!   measurement is lost.
//! * Messages of one measurement are told from those of another, and from those of an attacker.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, future::join_all, stream::FuturesUnordered};
use gossip::{
    Admission, BoxFuture, GossipNode, Handler, Inbound, LinkId, NodeAddress, Outbound, PeerClass,
    Request, Tag, Verdict, wire::block::BlockRequest,
};
use tandem::{Mode, NodeBuilder, Running};
use tokio::time::{self, Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{Counters, Target, counters};
use crate::wait::eventually;

/// Between two votes of one node. 500 a second are a quarter of what a busy network has.
const VOTE_EVERY: Duration = Duration::from_millis(2);
const VOTE_BYTES: usize = 500;

/// Between two transactions of one node.
const TRANSACTION_EVERY: Duration = Duration::from_millis(10);
const TRANSACTION_BYTES: usize = 300;

/// Longest time until the nodes receive messages from each other: a topic has no mesh in its first seconds.
const MEETING: Duration = Duration::from_secs(30);

/// Tells honest messages from those of attackers.
const MAGIC: [u8; 8] = *b"honest! ";

/// The four ways of messages: who sends, and what.
const WAYS: usize = 4;

/// The results of the messages of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Number of messages sent.
    pub sent: usize,
    /// Number of messages that did not arrive.
    pub lost: usize,
    /// Number of messages that were handled more than once.
    pub doubled: usize,
    /// From when a message was due to its handler, sorted.
    pub delays: Vec<Duration>,
}

impl Heard {
    /// The delay that a share of all do not exceed; zero if none was heard.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Duration {
        // Far fewer than 2^52 were sent.
        let place = (self.delays.len() as f64 * share) as usize;
        self.delays.get(place.min(self.delays.len().saturating_sub(1))).copied().unwrap_or_default()
    }

    fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.delays.extend(other.delays);
        self.delays.sort_unstable();
    }
}

/// The results of all messages of one measurement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Votes, both ways together.
    pub votes: Heard,
    /// Transactions, both ways together.
    pub transactions: Heard,
    /// Messages of the WebSocket node, and of the libp2p node, that did not arrive.
    pub lost_from: [usize; 2],
}

/// The measurement that runs.
#[derive(Debug)]
struct Round {
    number: u64,
    began: Instant,
    heard: [Mutex<Vec<Option<Duration>>>; WAYS],
    doubled: [Mutex<usize>; WAYS],
}

/// Writes down what one node hears of the other.
#[derive(Clone, Debug)]
struct Ear {
    round: Arc<Mutex<Arc<Round>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ear {
    fn take(&self, body: &Bytes) -> Option<()> {
        let word = |place: usize| {
            let bytes = body.get(8 * place..8 * place + 8)?;
            Some(u64::from_le_bytes(bytes.try_into().ok()?))
        };
        if word(0)? != u64::from_le_bytes(MAGIC) {
            return None;
        }
        let round = Arc::clone(&lock(&self.round));
        if word(1)? != round.number {
            return None;
        }
        let (way, number) = (usize::try_from(word(2)?).ok()?, usize::try_from(word(3)?).ok()?);
        let delay = round.began.elapsed().saturating_sub(Duration::from_micros(word(4)?));
        let mut heard = lock(round.heard.get(way)?);
        if heard.len() <= number {
            heard.resize(number + 1, None);
        }
        let place = heard.get_mut(number)?;
        if place.is_some() {
            *lock(round.doubled.get(way)?) += 1;
        } else {
            *place = Some(delay);
        }
        Some(())
    }
}

impl Handler for Ear {
    fn handle(&self, message: Inbound) -> BoxFuture<'_, Verdict> {
        // Others send too.
        let _ = self.take(&message.body);
        Box::pin(std::future::ready(Verdict::Ignore))
    }
}

/// The two honest nodes. They run until their token is cancelled.
#[derive(Debug)]
pub struct Pair {
    near: Running,
    far: Running,
    round: Arc<Mutex<Arc<Round>>>,
}

impl Round {
    fn new(number: u64) -> Arc<Self> {
        let (heard, doubled) = Default::default();
        let began = Instant::now();
        Arc::new(Self { number, began, heard, doubled })
    }

    fn body(&self, way: usize, number: usize, due: Duration, bytes: usize) -> Bytes {
        let due = u64::try_from(due.as_micros()).unwrap_or(u64::MAX);
        let mut body = MAGIC.to_vec();
        for word in [self.number, way as u64, number as u64, due] {
            body.extend_from_slice(&word.to_le_bytes());
        }
        body.resize(bytes, b'.');
        body.into()
    }

    fn is_heard(&self, way: usize, sent: usize) -> bool {
        self.heard.get(way).is_some_and(|heard| {
            let heard = lock(heard);
            heard.iter().filter(|delay| delay.is_some()).count() >= sent
        })
    }

    fn judge(&self, way: usize, sent: usize) -> Heard {
        let (Some(heard), Some(doubled)) = (self.heard.get(way), self.doubled.get(way)) else {
            return Heard::default();
        };
        let mut delays: Vec<Duration> = lock(heard).iter().copied().flatten().collect();
        delays.sort_unstable();
        Heard { sent, lost: sent - delays.len().min(sent), doubled: *lock(doubled), delays }
    }
}

impl Pair {
    /// Starts both, and waits until each hears votes and transactions of the other.
    ///
    /// # Panics
    ///
    /// If they don't start, or don't hear each other within half a minute.
    pub async fn start(target: &Target, parent: &CancellationToken) -> Self {
        let round = Arc::new(Mutex::new(Round::new(0)));
        let start = async |mode, peer: &str| {
            let ear = Ear { round: Arc::clone(&round) };
            let peer: NodeAddress = peer.parse().expect("the hub has an address");
            let node = NodeBuilder::new(target.network.clone()).mode(mode).peer(peer);
            let node = node.handler(Tag::AV, ear.clone()).handler(Tag::TX, ear);
            node.start(parent).await.expect("an honest node starts")
        };
        let near = start(Mode::WebSocket, &target.ws.to_string()).await;
        let far = start(Mode::Libp2p, &target.p2p).await;
        let pair = Self { near, far, round };
        let mut ticks = time::interval(Duration::from_millis(50));
        let greet = async {
            let round = Arc::clone(&lock(&pair.round));
            for number in 0.. {
                ticks.tick().await;
                if (0..WAYS).all(|way| round.is_heard(way, 3)) {
                    return;
                }
                for way in 0..WAYS {
                    let body = round.body(way, number, round.began.elapsed(), VOTE_BYTES);
                    // A message that is not heard yet is sent again.
                    let _ = pair.node(way).broadcast(Outbound::new(tag(way), body));
                }
            }
        };
        time::timeout(MEETING, greet).await.expect("the honest nodes hear each other");
        pair
    }

    fn node(&self, way: usize) -> Arc<dyn GossipNode> {
        if way < 2 { self.near.node() } else { self.far.node() }
    }

    /// Returns `true` if both are connected to the hub.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        let connected = |node: &Running| !node.node().peers(PeerClass::Connected).is_empty();
        connected(&self.near) && connected(&self.far)
    }

    /// The counters of the WebSocket node and of the libp2p node.
    #[must_use]
    pub fn counters(&self) -> [Counters; 2] {
        [counters(&self.near), counters(&self.far)]
    }

    /// Has both send votes and transactions for so long a time, and tells what became of them. Waits for them for as
    /// long as `patience` lasts after the last one was sent.
    pub async fn measure(&self, lasting: Duration, patience: Duration) -> Measured {
        let number = lock(&self.round).number + 1;
        let round = Round::new(number);
        *lock(&self.round) = Arc::clone(&round);
        let sent = join_all((0..WAYS).map(|way| self.send(way, lasting, &round))).await;
        let all = async {
            while !sent.iter().enumerate().all(|(way, sent)| round.is_heard(way, *sent)) {
                time::sleep(Duration::from_millis(5)).await;
            }
        };
        // A message that is still missing is lost.
        let _ = time::timeout(patience, all).await;
        let mut measured = Measured::default();
        for (way, sent) in sent.into_iter().enumerate() {
            let heard = round.judge(way, sent);
            if let Some(lost) = measured.lost_from.get_mut(way / 2) {
                *lost += heard.lost;
            }
            match tag(way) {
                Tag::AV => measured.votes.add(heard),
                _ => measured.transactions.add(heard),
            }
        }
        measured
    }

    /// Sends one message at each tick, whatever became of those before.
    async fn send(&self, way: usize, lasting: Duration, round: &Round) -> usize {
        let (every, bytes) = match tag(way) {
            Tag::AV => (VOTE_EVERY, VOTE_BYTES),
            _ => (TRANSACTION_EVERY, TRANSACTION_BYTES),
        };
        let (node, end) = (self.node(way), round.began + lasting);
        let mut ticks = time::interval_at(round.began, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut sent = 0;
        loop {
            let due = ticks.tick().await;
            if due >= end {
                return sent;
            }
            let body = round.body(way, sent, due - round.began, bytes);
            // One that its own node does not take is lost as well.
            let _: Result<Admission, _> = node.broadcast(Outbound::new(tag(way), body));
            sent += 1;
        }
    }

    /// Has the WebSocket node keep so many requests for blocks open at the hub, which nobody can answer, for
    /// as long as it is polled. Issue 9, 4.
    pub async fn ask_for_blocks(&self, at_once: usize) {
        let node = self.near.node();
        let hub = || -> Option<LinkId> { Some(node.peers(PeerClass::Connected).first()?.id) };
        let hub = eventually("the hub is connected", MEETING, hub).await;
        let ask = |round| node.request(hub, Request { topics: BlockRequest { round }.topics() });
        let mut open: FuturesUnordered<_> = (0..at_once as u64).map(ask).collect();
        let mut next = at_once as u64;
        while open.next().await.is_some() {
            open.push(ask(next));
            next += 1;
        }
    }
}

const fn tag(way: usize) -> Tag {
    if way.is_multiple_of(2) { Tag::AV } else { Tag::TX }
}
