//! The connected peers of a node, whatever carries them.
//!
//! # Invariants
//!
//! * Every attachment gets the next generation, so "joined after" is a comparison of numbers. Whoever
//!   reads a generation finds every peer that had joined by then in the registry.
//! * A peer that has ended is not in the registry.
//! * Messages that a link could not write go to the other link of the same node, if there is one or soon
//!   will be; what is parked in the meantime is bounded in number and time. What belongs to one
//!   connection, such as a request, goes with it.
//! * Of the links of a node one answers to its identity, as long as there is one: the one that holds it.
//! * A claim goes with its peer, and when the holder of an identity ends, the best benched link that is
//!   still open is a peer again, before anybody could see that there is none.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dashmap::DashMap;
use gossip::{
    Admission, DisconnectReason, Forwarding, Identity, LinkId, NetworkProfile, PeerClass, PeerInfo,
    TagTable,
};
use mesh::Ledger;
use runtime::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    frame::Frame,
    lanes::Queued,
    metrics::{DropReason, Metrics},
    peer::Peer,
    trace::TraceEvent,
};

/// Messages parked for one identity. Chosen: what the queues of one link hold.
const MAX_PARKED_MESSAGES: usize = 15_096;
/// Identities for which messages may be parked at a time. Chosen: links are handed over one or two
/// at a time; this bounds what hostile reconnections can hold.
const MAX_PARKED: usize = 64;

/// Links of one node that take over from each other when they are ended, at most. Chosen: more than a node has while two
/// ends dial each other on two transports.
const MAX_TWINS: usize = 16;

/// A link that has just been benched.
pub(crate) struct Benched {
    pub(crate) loser: Arc<Peer>,
    pub(crate) winner: LinkId,
    /// Time for which this end reads the loser before it closes it.
    pub(crate) patience: Duration,
}

/// Messages by the identity they wait for, each until when.
type Parked = HashMap<Identity, (Instant, Vec<Queued>)>;

pub(crate) struct Registry {
    peers: DashMap<LinkId, Arc<Peer>>,
    /// Links that lost against another one of their node, and are still read. Changed with the ledger.
    benched: DashMap<LinkId, Arc<Peer>>,
    ledger: Mutex<Ledger>,
    identities: DashMap<Identity, LinkId>,
    next_id: AtomicU64,
    /// Also taken while a peer is inserted, so that generations are given out in order.
    generation: Mutex<u64>,
    /// Changes with every insertion, removal and weight, so that the router knows when its list is old.
    version: AtomicU64,
    /// Messages that wait for a link that may come; `None` once the node stops.
    parked: Mutex<Option<Parked>>,
    /// Time for which messages stay parked.
    patience: Duration,
    tags: TagTable,
    metrics: Metrics,
}

impl Registry {
    pub(crate) fn new(
        patience: Duration,
        profile: &'static NetworkProfile,
        metrics: Metrics,
    ) -> Self {
        Self {
            peers: DashMap::new(),
            benched: DashMap::new(),
            ledger: Mutex::new(Ledger::new(profile.claims)),
            identities: DashMap::new(),
            next_id: AtomicU64::new(0),
            generation: Mutex::default(),
            version: AtomicU64::new(0),
            parked: Mutex::new(Some(HashMap::new())),
            patience,
            tags: profile.tags,
            metrics,
        }
    }

    pub(crate) fn next_id(&self) -> LinkId {
        LinkId(self.next_id.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// The generation of the newest attachment.
    pub(crate) fn generation(&self) -> u64 {
        *self.generation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Makes a peer of the next generation and takes it in.
    pub(crate) fn insert(&self, make: impl FnOnce(u64) -> Peer) -> Arc<Peer> {
        let mut generation = self.generation.lock().unwrap_or_else(PoisonError::into_inner);
        let peer = Arc::new(make(*generation + 1));
        self.peers.insert(peer.id, Arc::clone(&peer));
        if let Some(identity) = peer.identity() {
            self.identities.insert(identity, peer.id);
        }
        self.version.fetch_add(1, Ordering::AcqRel);
        *generation += 1;
        peer
    }

    /// Notes the identity of a peer that is in the registry. The newest link answers to the identity.
    pub(crate) fn identify(&self, id: LinkId, identity: Identity) {
        if let Some(peer) = self.get(id) {
            peer.identify(identity);
            self.identities.insert(identity, id);
            if self.get(id).is_none() {
                // The peer was removed meanwhile, before it had the name.
                self.take_name(identity, id);
            }
        }
    }

    /// Asks the loops of a peer to end, and takes it out. A peer that ends with its network stays until its write
    /// loop has what the router still holds.
    pub(crate) fn end(&self, peer: &Peer, reason: DisconnectReason) {
        if peer.end(reason) && reason != DisconnectReason::LocalShutdown {
            self.remove(peer.id);
        }
    }

    /// Ends every link of which `which` holds, also one from the bench that takes over for another that ends.
    pub(crate) fn end_where(&self, which: impl Fn(&PeerInfo) -> bool, reason: DisconnectReason) {
        for _ in 0..MAX_TWINS {
            let matching = self.list().into_iter().filter(|peer| which(&peer.info()));
            let matching: Vec<_> = matching.collect();
            if matching.is_empty() {
                return;
            }
            matching.iter().for_each(|peer| self.end(peer, reason));
        }
    }

    /// Forgets a link that ends, and gives its identity to the best benched link that is still open.
    pub(crate) fn remove(&self, id: LinkId) {
        self.release(id);
        self.benched.remove(&id);
        self.take_out(id);
    }

    fn take_out(&self, id: LinkId) {
        if let Some((_, peer)) = self.peers.remove(&id) {
            if let Some(identity) = peer.identity() {
                self.take_name(identity, id);
            }
            self.version.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// The record of which link each identity is reached by. Pure: it does no I/O and reads no clock.
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the claim of a link back.
    pub(crate) fn release(&self, id: LinkId) {
        let recalled = {
            let mut ledger = self.ledger();
            let mut ended = id;
            loop {
                let Some(successor) = ledger.release(ended) else { return };
                let Some((_, peer)) = self.benched.remove(&successor) else {
                    // The successor is about to be attached, or was not benched yet.
                    return;
                };
                if peer.recall() {
                    self.peers.insert(successor, Arc::clone(&peer));
                    self.version.fetch_add(1, Ordering::AcqRel);
                    break peer;
                }
                ended = successor;
            }
        };
        if let Some(identity) = recalled.identity() {
            self.identities.insert(identity, recalled.id);
            tracing::debug!(ended = %id, link = %recalled.id, %identity, "a benched link takes over");
            self.give(&recalled, self.unpark(&identity));
        }
    }

    /// Benches the attached links to a node that lost, if the one that they lost against is attached.
    pub(crate) fn bench(&self, identity: &Identity) -> Vec<Benched> {
        let mut benched = Vec::new();
        let ledger = self.ledger();
        let Some(winner) = ledger.holder(identity).filter(|holder| self.peers.contains_key(holder))
        else {
            return benched;
        };
        let patience = ledger.patience(identity);
        for link in ledger.benched(identity) {
            let Some(loser) = self.get(link).filter(|loser| loser.bench()) else { continue };
            self.benched.insert(link, Arc::clone(&loser));
            self.take_out(link);
            benched.push(Benched { loser, winner, patience });
        }
        benched
    }

    /// Calls `visit` with every link, benched ones too.
    pub(crate) fn for_each_link(&self, mut visit: impl FnMut(&Peer)) {
        self.peers.iter().chain(self.benched.iter()).for_each(|peer| visit(&peer));
    }

    /// Returns `true` if a link is a peer, or benched.
    pub(crate) fn is_attached(&self, id: LinkId) -> bool {
        self.peers.contains_key(&id) || self.benched.contains_key(&id)
    }

    /// The link in use to the node at the other end of a link, which may be that link or another one.
    pub(crate) fn in_use(&self, id: LinkId) -> Option<LinkId> {
        let peer = self.get(id).or_else(|| self.benched.get(&id).map(|peer| Arc::clone(&peer)))?;
        self.by_identity(&peer.identity()?).map(|peer| peer.id)
    }

    /// Lets another link of a node answer to its identity, if this one did and there is another.
    fn take_name(&self, identity: Identity, id: LinkId) {
        if self.identities.remove_if(&identity, |_, holder| *holder == id).is_none() {
            return;
        }
        let others = self.peers.iter().filter(|peer| peer.identity() == Some(identity));
        let Some(other) = others.map(|peer| peer.id).max() else { return };
        self.identities.entry(identity).or_insert(other);
        if self.get(other).is_none() {
            // The peer was removed meanwhile, before it had the name.
            self.identities.remove_if(&identity, |_, holder| *holder == other);
        }
    }

    pub(crate) fn get(&self, id: LinkId) -> Option<Arc<Peer>> {
        self.peers.get(&id).map(|peer| Arc::clone(&peer))
    }

    pub(crate) fn by_identity(&self, identity: &Identity) -> Option<Arc<Peer>> {
        let holder = self.ledger().holder(identity);
        if let Some(holder) = holder.and_then(|holder| self.get(holder)) {
            return Some(holder);
        }
        let id = *self.identities.get(identity)?;
        self.get(id)
    }

    /// The peers in the order in which they were named, which does not depend on a hash.
    pub(crate) fn list(&self) -> Vec<Arc<Peer>> {
        let mut peers: Vec<_> = self.peers.iter().map(|peer| Arc::clone(&peer)).collect();
        peers.sort_unstable_by_key(|peer| peer.id);
        peers
    }

    /// The peers in the order in which messages are offered to them.
    pub(crate) fn fan_out(&self) -> Vec<Arc<Peer>> {
        let mut peers = self.list();
        peers.sort_by_cached_key(|peer| peer.place());
        peers
    }

    /// Sets the weight of a peer.
    pub(crate) fn weigh(&self, id: LinkId, weight: u64) {
        if self.get(id).is_some_and(|peer| peer.weigh(weight)) {
            self.version.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Returns `true` if no peer is connected.
    pub(crate) fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    pub(crate) fn infos(&self, class: PeerClass) -> Vec<PeerInfo> {
        let infos = self.list().into_iter().map(|peer| peer.info());
        infos.filter(|info| class.includes(info)).collect()
    }

    /// The benched links, in the order in which they were named.
    pub(crate) fn benched_infos(&self) -> Vec<PeerInfo> {
        let mut infos: Vec<_> = self.benched.iter().map(|peer| peer.info()).collect();
        infos.sort_unstable_by_key(|info| info.id);
        infos
    }

    /// Gives what waited for a link to another link of the same node, or keeps it until there is one.
    pub(crate) fn hand_over(&self, loser: &Peer, left: Vec<Queued>, winner: LinkId) {
        let (left, hop_local) = self.part(left);
        self.drop_queued(hop_local);
        match (self.get(winner), loser.identity()) {
            (Some(winner), _) => self.give(&winner, left),
            (None, Some(identity)) => self.leave_to(identity, left),
            (None, None) => self.drop_queued(left),
        }
    }

    /// Gives what a link that has ended could not write to the node's other link, if that is why it
    /// ended; else counts it as lost.
    pub(crate) fn hand_over_unsent(&self, peer: &Peer, left: Vec<Queued>) {
        let handed_over = match peer.end_reason() {
            DisconnectReason::Duplicate | DisconnectReason::RemoteClosed => true,
            // No later call fetches the messages that a dead link held, unless another link is there or on its way.
            DisconnectReason::Silent | DisconnectReason::Transport => {
                let is_there = |identity| self.by_identity(&identity).is_some();
                peer.doubt.is_confirmed() || peer.identity().is_some_and(is_there)
            }
            _ => false,
        };
        match peer.identity().filter(|_| handed_over && !left.is_empty()) {
            Some(identity) => {
                let (left, hop_local) = self.part(left);
                self.drop_queued(hop_local);
                self.leave_to(identity, left);
            }
            None => self.drop_queued(left),
        }
    }

    /// Parts gossip from what belongs to the connection it waits for: on another one nobody asked
    /// for that.
    pub(crate) fn part(&self, left: Vec<Queued>) -> (Vec<Queued>, Vec<Queued>) {
        left.into_iter().partition(|message| {
            let rule = self.tags.rule(message.frame.tag());
            rule.is_some_and(|rule| rule.forwarding == Forwarding::Gossip)
        })
    }

    /// Gives messages to another link of the node they were for.
    pub(crate) fn give(&self, successor: &Peer, left: Vec<Queued>) {
        successor.lanes.inherit(left, |frame, admission| match admission {
            Admission::Queued => successor.trace(frame, TraceEvent::Queued),
            Admission::Full => self.dropped(DropReason::PeerFull, frame),
            Admission::Closed => self.dropped(DropReason::PeerGone, frame),
        });
    }

    fn leave_to(&self, identity: Identity, left: Vec<Queued>) {
        if let Some(successor) = self.by_identity(&identity) {
            return self.give(&successor, left);
        }
        self.park(identity, left);
        // A link that was attached since then has looked for parked messages already.
        if let Some(successor) = self.by_identity(&identity) {
            self.give(&successor, self.unpark(&identity));
        }
    }

    fn park(&self, identity: Identity, mut messages: Vec<Queued>) {
        let room_for_another =
            |parked: &Parked| parked.len() < MAX_PARKED || parked.contains_key(&identity);
        let dropped = match &mut *self.parked.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(parked) if room_for_another(parked) => {
                let until = Instant::now() + self.patience;
                let (_, waiting) = parked.entry(identity).or_insert_with(|| (until, Vec::new()));
                let room = MAX_PARKED_MESSAGES.saturating_sub(waiting.len()).min(messages.len());
                let dropped = messages.split_off(room);
                waiting.append(&mut messages);
                dropped
            }
            _ => messages,
        };
        self.drop_queued(dropped);
    }

    /// Gives up what was parked for too long, whenever `patience` has passed, and all of it when
    /// cancelled.
    pub(crate) async fn sweep(self: Arc<Self>, cancel: CancellationToken) {
        let mut ticks = time::interval(self.patience.max(Duration::from_millis(1)));
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                _ = ticks.tick() => {}
            }
            let now = Instant::now();
            let expired: Vec<Queued> = {
                let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
                let parked = parked.iter_mut();
                let expired =
                    parked.flat_map(|parked| parked.extract_if(|_, (until, _)| *until <= now));
                expired.flat_map(|(_, (_, messages))| messages).collect()
            };
            self.drop_queued(expired);
        }
        let left = self.parked.lock().unwrap_or_else(PoisonError::into_inner).take();
        let left = left.into_iter().flatten().flat_map(|(_, (_, messages))| messages);
        self.drop_queued(left.collect());
    }

    /// Takes the messages that wait for a new link of this identity.
    pub(crate) fn unpark(&self, identity: &Identity) -> Vec<Queued> {
        let parked = {
            let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
            parked.as_mut().and_then(|parked| parked.remove(identity))
        };
        let (until, messages) = parked.unwrap_or_else(|| (Instant::now(), Vec::new()));
        if Instant::now() < until {
            return messages;
        }
        self.drop_queued(messages);
        Vec::new()
    }

    /// Counts messages that leave with their peer.
    fn drop_queued(&self, messages: Vec<Queued>) {
        for message in messages {
            self.dropped(DropReason::PeerGone, &message.frame);
        }
    }

    fn dropped(&self, reason: DropReason, frame: &Frame) {
        self.metrics.dropped(reason, frame.lane());
        frame.trace(TraceEvent::Dropped(reason));
    }
}
