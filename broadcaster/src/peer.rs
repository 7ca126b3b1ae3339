//! One connected peer: what the router, its loops and the application share of it.
//!
//! # Invariants
//!
//! * The first reason to end a peer is the one that counts. One that is benched ends as a duplicate.
//! * A peer that has ended takes no further message.

use std::{
    cmp::Reverse,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use gossip::{
    Direction, DisconnectReason, Identity, Interest, Lane, LinkId, LinkPath, NodeAddress, PeerInfo,
    Roles, Tag, TagTable, Transport,
    wire::{
        digest::{Digest, DigestFilter},
        features::Features,
    },
};
use mesh::{Conduct, ConfiguredAddress};
use runtime::time::{self, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    codec::PipeGauge,
    doubt::Doubt,
    events::PeerEvents,
    frame::Frame,
    lanes::{Lanes, Queued},
    limits::Rates,
    link::{LinkHooks, LinkInfo},
    requests::Requests,
    tally::{LinkTraffic, Tally},
    trace::{Party, TraceEvent},
    vitals::{LastMessage, RoundTrip},
};

pub(crate) struct Peer {
    pub(crate) id: LinkId,
    pub(crate) transport: Transport,
    direction: Direction,
    path: LinkPath,
    address: String,
    roles: Roles,
    http_address: Option<NodeAddress>,
    configured: Option<ConfiguredAddress>,
    conduct: Option<Conduct>,
    connected_at: Instant,
    /// Which attachment this was: later ones have larger numbers.
    pub(crate) joined: u64,
    pub(crate) lanes: Lanes,
    /// The description of the peer that events carry.
    pub(crate) events: PeerEvents,
    /// Cancelled when the peer is to end.
    pub(crate) cancel: CancellationToken,
    pub(crate) hooks: Option<Arc<dyn LinkHooks>>,
    pub(crate) gauge: Option<Arc<dyn PipeGauge>>,
    pub(crate) doubt: Doubt,
    pub(crate) last_message: LastMessage,
    round_trip: RoundTrip,
    pub(crate) tally: Tally,
    /// The features that it announced.
    pub(crate) features: Features,
    identity: OnceLock<Identity>,
    standing: watch::Sender<Standing>,
    interest: AtomicU32,
    /// This node's own interest as the peer was last told of it.
    told: Mutex<Option<Bytes>>,
    weight: AtomicU64,
    /// `true` if the peer asked for the messages that relays ask for.
    relays: AtomicBool,
    /// `true` once `known` was written: most peers never announce a digest.
    announces: AtomicBool,
    known: Mutex<DigestFilter>,
    requests: Mutex<Requests>,
    /// Messages that a write loop could not finish writing.
    unsent: Mutex<Vec<Queued>>,
}

/// The standing of a link among the links of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// The link is used.
    Live,
    /// The link lost against another one, and is read until one of the ends closes it.
    Benched,
    /// The link ends, for this reason.
    Ended(DisconnectReason),
}

/// The parts of a peer.
pub(crate) struct PeerParts {
    pub(crate) id: LinkId,
    pub(crate) about: LinkInfo,
    pub(crate) joined: u64,
    pub(crate) lanes: Lanes,
    pub(crate) cancel: CancellationToken,
    pub(crate) hooks: Option<Arc<dyn LinkHooks>>,
    pub(crate) gauge: Option<Arc<dyn PipeGauge>>,
    pub(crate) interest: Interest,
    /// This node's own interest, of which the greeting tells the peer.
    pub(crate) told: Option<Bytes>,
}

impl Peer {
    pub(crate) fn new(parts: PeerParts) -> Self {
        let LinkInfo {
            transport,
            direction,
            path,
            address,
            identity,
            roles,
            http_address,
            configured,
            round_trip,
            identity_time: _,
            conduct,
            features,
        } = parts.about;
        Self {
            id: parts.id,
            transport,
            direction,
            path,
            address,
            roles,
            http_address,
            configured,
            conduct,
            connected_at: Instant::now(),
            joined: parts.joined,
            lanes: parts.lanes,
            events: PeerEvents::default(),
            cancel: parts.cancel,
            hooks: parts.hooks,
            gauge: parts.gauge,
            doubt: Doubt::default(),
            last_message: LastMessage::new(Instant::now()),
            round_trip,
            tally: Tally::default(),
            features,
            identity: identity.map_or_else(OnceLock::new, OnceLock::from),
            standing: watch::Sender::new(Standing::Live),
            interest: AtomicU32::new(parts.interest.to_bits()),
            told: Mutex::new(parts.told),
            weight: AtomicU64::new(0),
            relays: AtomicBool::new(false),
            announces: AtomicBool::new(false),
            known: Mutex::new(DigestFilter::outgoing()),
            requests: Mutex::default(),
            unsent: Mutex::default(),
        }
    }

    /// Notes what happens to a message with this peer now, if its way is kept.
    #[inline]
    pub(crate) fn trace(&self, frame: &Frame, event: TraceEvent) {
        if let Some(traced) = frame.way() {
            let (link, identity, transport) = (Some(self.id), self.identity(), self.transport);
            traced.note(event, Some(Party { link, identity, transport }));
        }
    }

    pub(crate) fn info(&self) -> PeerInfo {
        let mut info = PeerInfo::new(self.id, self.transport, self.direction);
        info.path = self.path;
        info.address.clone_from(&self.address);
        info.identity = self.identity();
        info.connected_at = time::into_std(self.connected_at);
        info.queued_bytes = self.lanes.queued_bytes();
        info.roles = if self.relays.load(Ordering::Relaxed) {
            self.roles.with(Roles::RELAY)
        } else {
            self.roles
        };
        info.http_address.clone_from(&self.http_address);
        info.rtt = self.round_trip.get();
        info.weight = self.weight.load(Ordering::Relaxed);
        info.dial = self.configured.as_ref().and_then(ConfiguredAddress::state);
        info
    }

    /// The traffic of the link so far, and its queues.
    pub(crate) fn traffic(&self) -> LinkTraffic {
        let [priority, bulk] = self.lanes.queued();
        LinkTraffic {
            link: self.id,
            priority: self.tally.lane(Lane::Priority, priority),
            bulk: self.tally.lane(Lane::Bulk, bulk),
            drops: self.tally.drops(),
        }
    }

    /// The end that dialled.
    pub(crate) const fn direction(&self) -> Direction {
        self.direction
    }

    pub(crate) fn identity(&self) -> Option<Identity> {
        self.identity.get().copied()
    }

    /// Notes the verified identity. The first one stays.
    pub(crate) fn identify(&self, identity: Identity) {
        self.identity.get_or_init(|| identity);
    }

    /// Asks the peer's loops to end. Returns whether this settled why.
    pub(crate) fn end(&self, reason: DisconnectReason) -> bool {
        let misbehaved = self.conduct.as_ref().filter(|_| reason.is_misbehaviour());
        if let Some(conduct) = misbehaved.filter(|_| !self.has_ended()) {
            conduct.misbehaved(time::into_std(Instant::now()));
        }
        let first = self.standing.send_if_modified(|standing| match standing {
            Standing::Live => {
                *standing = Standing::Ended(reason);
                true
            }
            Standing::Benched => {
                *standing = Standing::Ended(DisconnectReason::Duplicate);
                false
            }
            Standing::Ended(_) => false,
        });
        self.cancel.cancel();
        first
    }

    fn has_ended(&self) -> bool {
        matches!(*self.standing.borrow(), Standing::Ended(_))
    }

    /// The rates at which the peer may send, when it was disconnected for misbehaviour of late lower than those of
    /// others.
    pub(crate) fn rates(&self, rates: &Rates) -> Rates {
        let now = time::into_std(Instant::now());
        let strikes = self.conduct.as_ref().map_or(0, |conduct| conduct.strikes(now));
        rates.after(strikes)
    }

    /// Ends the peer if it is benched.
    pub(crate) fn end_benched(&self) {
        if self.turn(Standing::Benched, Standing::Ended(DisconnectReason::Duplicate)) {
            self.cancel.cancel();
        }
    }

    /// Leaves it to the other end to close the link. Returns whether it was used until now.
    pub(crate) fn bench(&self) -> bool {
        self.turn(Standing::Live, Standing::Benched)
    }

    /// Takes the link into use again. Returns whether it was benched, and is still open.
    pub(crate) fn recall(&self) -> bool {
        let recalled = !self.cancel.is_cancelled() && self.turn(Standing::Benched, Standing::Live);
        if recalled && let Some(payload) = self.told().as_ref() {
            // It may have been lost with the queue when the link was benched.
            self.lanes.renew(Frame::control(Tag::MI, Lane::Priority, payload));
        }
        recalled
    }

    /// Tells the peer of this node's own interest, in place of an earlier one that still waits.
    pub(crate) fn tell_interest(&self, payload: &Bytes) {
        *self.told() = Some(payload.clone());
        self.lanes.renew(Frame::control(Tag::MI, Lane::Priority, payload));
    }

    fn told(&self) -> MutexGuard<'_, Option<Bytes>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when the link is not benched any more, be it recalled or ended.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is taken.
    pub(crate) async fn leaves_bench(&self) {
        let mut standing = self.standing.subscribe();
        let left = standing.wait_for(|standing| *standing != Standing::Benched);
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => {}
            // The sender is in the peer, which is borrowed here.
            _ = left => {}
        }
    }

    fn turn(&self, from: Standing, to: Standing) -> bool {
        self.standing.send_if_modified(|standing| {
            let turns = *standing == from;
            if turns {
                *standing = to;
            }
            turns
        })
    }

    /// Why the peer ends; a peer whose token was cancelled from above ends with the node.
    pub(crate) fn end_reason(&self) -> DisconnectReason {
        match *self.standing.borrow() {
            Standing::Live => DisconnectReason::LocalShutdown,
            Standing::Benched => DisconnectReason::Duplicate,
            Standing::Ended(reason) => reason,
        }
    }

    /// Sets its weight, and returns whether it is another one than before.
    pub(crate) fn weigh(&self, weight: u64) -> bool {
        self.weight.swap(weight, Ordering::Relaxed) != weight
    }

    /// Its place in the order in which messages are offered: first those that this node dialled, then the heavier, then
    /// the older.
    pub(crate) fn place(&self) -> (bool, Reverse<u64>, LinkId) {
        let is_inbound = self.direction == Direction::Inbound;
        (is_inbound, Reverse(self.weight.load(Ordering::Relaxed)), self.id)
    }

    pub(crate) fn interest(&self) -> Interest {
        Interest::from_bits(self.interest.load(Ordering::Relaxed))
    }

    /// Notes what the peer asked for.
    pub(crate) fn set_interest(&self, interest: Interest, table: &TagTable) {
        self.relays.store(interest.includes(table.relay_interest()), Ordering::Relaxed);
        self.interest.store(interest.to_bits(), Ordering::Relaxed);
    }

    /// Notes that the peer has the message with this digest.
    pub(crate) fn has(&self, digest: Digest) {
        // The filter tells whether the digest was known; that changes nothing here.
        let _ = self.known().note(digest);
        self.announces.store(true, Ordering::Release);
    }

    /// Returns `true` if the peer said that it has this message, and the message is long enough to leave it out.
    #[inline]
    pub(crate) fn knows(&self, frame: &Frame) -> bool {
        let Some(digest) = frame.digest() else { return false };
        self.announces.load(Ordering::Acquire) && self.known().contains(digest)
    }

    fn known(&self) -> MutexGuard<'_, DigestFilter> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what a write loop could not finish, for the peer's other link if there is one.
    pub(crate) fn keep_unsent(&self, batch: Vec<Queued>) {
        self.unsent.lock().unwrap_or_else(PoisonError::into_inner).extend(batch);
    }

    /// Takes out everything that was not written, what was being written first.
    pub(crate) fn take_unsent(&self) -> Vec<Queued> {
        let mut unsent =
            std::mem::take(&mut *self.unsent.lock().unwrap_or_else(PoisonError::into_inner));
        unsent.extend(self.lanes.close());
        unsent
    }
}
