//! One connected peer: what the router, its loops and the application share of it.
//!
//! # Invariants
//!
//! * The first reason to end a peer is the one that counts.
//! * A peer that has ended takes no further message.

use std::sync::{
    Mutex, MutexGuard, OnceLock, PoisonError,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use gossip::{
    Direction, DisconnectReason, Identity, Interest, LinkId, PeerInfo, TagTable, Transport,
    wire::digest::{Digest, DigestFilter},
};
use std::sync::Arc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    frame::Frame,
    lanes::{Lanes, Queued},
    link::{LinkHooks, LinkInfo},
    requests::Requests,
};

/// Wire length, tag included, up to which a message is sent even to a peer that has it.
/// Source: wire facts 2.3.
const MAX_UNSUPPRESSED_BYTES: usize = 5_000;

pub(crate) struct Peer {
    pub(crate) id: LinkId,
    pub(crate) transport: Transport,
    direction: Direction,
    address: String,
    connected_at: Instant,
    /// Which attachment this was: later ones have larger numbers.
    pub(crate) joined: u64,
    pub(crate) lanes: Lanes,
    /// Cancelled when the peer is to end.
    pub(crate) cancel: CancellationToken,
    pub(crate) hooks: Option<Arc<dyn LinkHooks>>,
    identity: OnceLock<Identity>,
    end: OnceLock<DisconnectReason>,
    interest: AtomicU32,
    /// Whether `known` was ever written: most peers never announce a digest.
    announces: AtomicBool,
    known: Mutex<DigestFilter>,
    requests: Mutex<Requests>,
    /// What a write loop could not finish writing.
    unsent: Mutex<Vec<Queued>>,
}

/// What a peer is made of.
pub(crate) struct PeerParts {
    pub(crate) id: LinkId,
    pub(crate) about: LinkInfo,
    pub(crate) joined: u64,
    pub(crate) lanes: Lanes,
    pub(crate) cancel: CancellationToken,
    pub(crate) hooks: Option<Arc<dyn LinkHooks>>,
    pub(crate) interest: Interest,
}

impl Peer {
    pub(crate) fn new(parts: PeerParts) -> Self {
        let LinkInfo { transport, direction, address, identity } = parts.about;
        Self {
            id: parts.id,
            transport,
            direction,
            address,
            connected_at: Instant::now(),
            joined: parts.joined,
            lanes: parts.lanes,
            cancel: parts.cancel,
            hooks: parts.hooks,
            identity: identity.map_or_else(OnceLock::new, OnceLock::from),
            end: OnceLock::new(),
            interest: AtomicU32::new(parts.interest.to_bits()),
            announces: AtomicBool::new(false),
            known: Mutex::new(DigestFilter::outgoing()),
            requests: Mutex::default(),
            unsent: Mutex::default(),
        }
    }

    pub(crate) fn info(&self) -> PeerInfo {
        PeerInfo {
            id: self.id,
            transport: self.transport,
            direction: self.direction,
            address: self.address.clone(),
            identity: self.identity(),
            connected_at: self.connected_at.into_std(),
            queued_bytes: self.lanes.queued_bytes(),
        }
    }

    pub(crate) fn identity(&self) -> Option<Identity> {
        self.identity.get().copied()
    }

    /// Notes the verified identity. The first one stays.
    pub(crate) fn identify(&self, identity: Identity) {
        self.identity.get_or_init(|| identity);
    }

    /// Asks the peer's loops to end. Returns whether this was the first time.
    pub(crate) fn end(&self, reason: DisconnectReason) -> bool {
        let first = self.end.set(reason).is_ok();
        self.cancel.cancel();
        first
    }

    /// Settles that the peer ends as a duplicate, and leaves it to the other end to close it. Returns
    /// whether nothing was settled before.
    pub(crate) fn retire(&self) -> bool {
        self.end.set(DisconnectReason::Duplicate).is_ok()
    }

    /// Why the peer ends; a peer whose token was cancelled from above ends with the node.
    pub(crate) fn end_reason(&self) -> DisconnectReason {
        self.end.get().copied().unwrap_or(DisconnectReason::LocalShutdown)
    }

    pub(crate) fn interest(&self) -> Interest {
        Interest::from_bits(self.interest.load(Ordering::Relaxed))
    }

    pub(crate) fn set_interest(&self, interest: Interest) {
        self.interest.store(interest.to_bits(), Ordering::Relaxed);
    }

    /// Whether the peer asked for messages of this kind.
    pub(crate) fn wants(&self, frame: &Frame, table: &TagTable) -> bool {
        self.interest().contains(table, frame.tag())
    }

    /// Notes that the peer has the message with this digest.
    pub(crate) fn has(&self, digest: Digest) {
        // Whether it knew already is of interest to nobody here.
        let _ = self.known().note(digest);
        self.announces.store(true, Ordering::Release);
    }

    /// Whether the peer said that it has this message, and it is long enough to be worth leaving out.
    pub(crate) fn knows(&self, frame: &Frame) -> bool {
        let Some(digest) = frame.digest() else { return false };
        frame.wire().len() > MAX_UNSUPPRESSED_BYTES
            && self.announces.load(Ordering::Acquire)
            && self.known().contains(digest)
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
