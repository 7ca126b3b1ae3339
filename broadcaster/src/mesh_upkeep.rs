//! The upkeep of the peers that are there: those above the fan-out, the slowest and the idle ones are let go.
//!
//! ```text
//!   peer events ─▶ Outgoing ──surplus──▶ ┐
//!   way in ──────▶ Ranking ──slowest───▶ ├─▶ let go, with the schedule told first
//!   last messages ──────────idle───────▶ ┘
//! ```
//!
//! # Invariants
//!
//! * The schedule is told before a link is ended, so that its end is no failure of its address.
//! * The slowest peer is let go only if another address is due.
//! * Nothing here looks at all peers more often than `MeshLimits::idle_check` says.

use std::{sync::Arc, time::Duration};

use gossip::{Direction, DisconnectReason, LinkId, PeerClass, PeerInfo, Roles, Transport};
use mesh::{Outgoing, OutgoingPeer, Tenure, outgoing};
use runtime::time::{self, Instant};

use crate::{context::Context, mesh_handle::Mesh};

/// Time between two notes of round-trip times in the phonebook. Chosen: the store is written once a minute.
const NOTE_EVERY: Duration = Duration::from_secs(60);

/// The peers that this node dialled, and the times of the next looks.
pub(crate) struct Upkeep {
    mesh: Mesh,
    context: Arc<Context>,
    outgoing: Outgoing,
    next_idle_check: Instant,
    next_note: Instant,
    /// Version of the access list by which the tenures of the peers were judged.
    access: u64,
}

impl Upkeep {
    pub(crate) fn new(mesh: Mesh, context: Arc<Context>, slots: usize) -> Self {
        let (now, outgoing) = (Instant::now(), Outgoing::new(slots));
        let next_idle_check = now + mesh.limits().idle_check;
        Self { mesh, context, outgoing, next_idle_check, next_note: now + NOTE_EVERY, access: 0 }
    }

    /// A peer is connected, or its identity has become known.
    pub(crate) fn joined(&mut self, peer: &PeerInfo) {
        if peer.direction == Direction::Outbound {
            let tenure = if self.keeps(peer) { Tenure::Kept } else { Tenure::Learnt };
            let (link, transport, identity) = (peer.id, peer.transport, peer.identity);
            self.outgoing.joined(OutgoingPeer { link, transport, identity, tenure });
        }
    }

    /// Returns `true` if a peer is not let go: an operator named it, or it is a member.
    fn keeps(&self, peer: &PeerInfo) -> bool {
        let is_member = || peer.identity.is_some_and(|identity| self.mesh.is_member(&identity));
        peer.roles.contains(Roles::CONFIGURED) || is_member()
    }

    /// Judges the tenures of all peers anew, if bans or members have changed.
    fn judge_tenures(&mut self) {
        let version = self.mesh.doors().access().version();
        if std::mem::replace(&mut self.access, version) != version {
            let peers = self.context.registry.infos(PeerClass::ConnectedOut);
            peers.iter().for_each(|peer| self.joined(peer));
        }
    }

    /// A peer has ended.
    pub(crate) fn left(&mut self, peer: &PeerInfo) {
        if peer.direction == Direction::Outbound {
            self.note(peer);
            self.outgoing.left(peer.id);
        }
    }

    /// Events were missed: these are the peers.
    pub(crate) fn resync(&mut self, peers: &[PeerInfo]) {
        let there: std::collections::BTreeSet<LinkId> = peers.iter().map(|peer| peer.id).collect();
        let gone = self.outgoing.links().filter(|link| !there.contains(link)).collect::<Vec<_>>();
        gone.into_iter().for_each(|link| self.outgoing.left(link));
        peers.iter().for_each(|peer| self.joined(peer));
    }

    /// Lets go of those that are to go, and returns the time of the next look.
    pub(crate) fn tend(&mut self) -> Option<Instant> {
        self.judge_tenures();
        let limits = self.mesh.limits();
        for link in self.outgoing.surplus(&limits) {
            self.let_go(link, DisconnectReason::Surplus);
        }
        let next_round = self.rank();
        let now = Instant::now();
        if now >= self.next_idle_check {
            self.next_idle_check = now + limits.idle_check;
            self.drop_idle(now, limits.idle_after);
        }
        if now >= self.next_note {
            self.next_note = now + NOTE_EVERY;
            self.note_all();
        }
        next_round.into_iter().chain([self.next_idle_check, self.next_note]).min()
    }

    /// Lets go of the slowest peer, if a round of the ranking is over; and returns the end of the next one.
    fn rank(&mut self) -> Option<Instant> {
        let (now, limits) = (time::into_std(Instant::now()), self.mesh.limits());
        let (ranked, next) = {
            let random = &mut self.mesh.random();
            let mut ranking = self.context.performance.ranking();
            ranking.watch(self.outgoing.measured(&limits), now, random);
            (ranking.judge(now, random), ranking.next())
        };
        if let Some(ranked) = ranked
            && let Some(slowest) = self.outgoing.slowest(&ranked, &limits)
            && self.mesh.schedule().has_another(now)
        {
            tracing::debug!(?ranked, "mean delays of the outgoing peers");
            self.let_go(slowest, DisconnectReason::LeastPerforming);
        }
        next.map(time::from_std)
    }

    /// Ends the WebSocket links that carried nothing for long, while others did. Over libp2p topics use the connection
    /// besides (wire facts 11.4).
    fn drop_idle(&mut self, now: Instant, limit: Duration) {
        let peers = self.context.registry.list();
        let quiet: Vec<_> =
            peers.iter().map(|peer| (peer.id, peer.last_message.quiet(now))).collect();
        for link in outgoing::idle(&quiet, limit) {
            let info = self.context.registry.get(link).map(|peer| peer.info());
            let may_go = info
                .is_some_and(|info| info.transport == Transport::WebSocket && !self.keeps(&info));
            if may_go {
                self.let_go(link, DisconnectReason::Idle);
            }
        }
    }

    fn let_go(&mut self, link: LinkId, reason: DisconnectReason) {
        self.outgoing.left(link);
        let Some(peer) = self.context.registry.get(link) else { return };
        let info = peer.info();
        tracing::info!(peer = %link, address = info.address, %reason, "a peer is let go");
        let now = time::into_std(Instant::now());
        self.mesh.schedule().let_go(info.identity, info.http_address.as_ref(), now);
        self.mesh.metrics().let_go(reason, info.transport);
        self.context.registry.end(&peer, reason);
    }

    fn note_all(&self) {
        let peers = self.outgoing.links().filter_map(|link| self.context.registry.get(link));
        peers.for_each(|peer| self.note(&peer.info()));
    }

    /// Keeps the round-trip time of a peer with its address.
    fn note(&self, peer: &PeerInfo) {
        if let Some(rtt) = peer.rtt {
            let address = peer.http_address.as_ref();
            self.mesh.schedule().observed(peer.identity, address, (peer.transport, rtt));
        }
    }
}
