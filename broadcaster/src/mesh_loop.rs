//! The task that keeps the node connected, over all transports together.
//!
//! ```text
//!   peer events ─▶ ┌───────────┐ ──due──▶ tickets ──▶ dialers
//!   tickets     ─▶ │ mesh loop │
//!   sources     ─▶ └───────────┘ ──due──▶ a task that asks a source
//! ```
//!
//! # Invariants
//!
//! * The loop awaits only in its `select!`, cancellation first. One task for each source that is being asked waits for
//!   it.
//! * Events of peers are taken in before the schedule is asked, so that a peer whose end is known is not dialled by an
//!   older picture.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use gossip::{
    Direction, DisconnectReason, Identity, LinkId, PeerClass, PeerInfo, Roles, Transport,
};
use mesh::AddressSource;
use rand::seq::IteratorRandom;
use runtime::{
    TaskSet,
    time::{self, Instant},
};
use tokio::sync::broadcast::{self, error::TryRecvError};
use tokio_util::sync::CancellationToken;

use crate::{
    context::Context, events::PeerEvent, mesh_handle::Mesh, mesh_sources::Need, mesh_upkeep::Upkeep,
};

/// The state of the loop.
pub(crate) struct MeshLoop {
    pub(crate) mesh: Mesh,
    pub(crate) context: Arc<Context>,
    pub(crate) events: broadcast::Receiver<PeerEvent>,
    pub(crate) tasks: TaskSet,
    /// The links reported to the schedule as connected, each with its identity.
    pub(crate) known: BTreeMap<LinkId, (Identity, Transport)>,
    /// The number of those links of each identity, over each transport.
    pub(crate) links_of: BTreeMap<(Identity, Transport), usize>,
    pub(crate) upkeep: Upkeep,
}

impl MeshLoop {
    /// Keeps the node connected until it stops.
    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        self.resync();
        loop {
            self.take_events();
            let upkeep = self.upkeep.tend();
            let next_dial = self.mesh.dial_due().map(time::from_std);
            let next = next_dial.into_iter().chain(self.ask_due()).chain(self.resolve_clique());
            let next = next.chain(upkeep).min();
            let sleep = async {
                match next {
                    Some(at) => time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                event = self.events.recv() => match event {
                    Ok(event) => self.note(&event),
                    Err(broadcast::error::RecvError::Lagged(_)) => self.resync(),
                    // The broadcaster has ended, and this task is about to.
                    Err(broadcast::error::RecvError::Closed) => return cancel.cancelled().await,
                },
                () = self.mesh.changed() => {}
                () = sleep => {}
            }
        }
    }

    fn take_events(&mut self) {
        loop {
            match self.events.try_recv() {
                Ok(event) => self.note(&event),
                Err(TryRecvError::Lagged(_)) => self.resync(),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    fn note(&mut self, event: &PeerEvent) {
        match event {
            PeerEvent::Connected(peer) | PeerEvent::Identified(peer) => {
                self.mesh.sources().in_company();
                self.upkeep.joined(peer);
                self.connected(peer);
                self.judge(peer);
            }
            PeerEvent::Disconnected(peer, reason) => {
                let now = time::into_std(Instant::now());
                self.mesh.schedule().parted(peer.identity, None, *reason, now);
                self.gone(peer.id);
                self.upkeep.left(peer);
                if self.context.registry.is_empty() {
                    self.mesh.sources().lonely(Instant::now(), &mut self.mesh.random());
                }
            }
        }
    }

    /// Rebuilds the set from the current peers after events were missed.
    fn resync(&mut self) {
        let peers = self.context.registry.infos(PeerClass::Connected);
        self.upkeep.resync(&peers);
        let there: BTreeSet<LinkId> = peers.iter().map(|peer| peer.id).collect();
        let is_gone = |link: &LinkId| !there.contains(link);
        for gone in self.known.keys().copied().filter(is_gone).collect::<Vec<_>>() {
            self.gone(gone);
        }
        for peer in &peers {
            self.connected(peer);
            self.judge(peer);
        }
    }

    fn connected(&mut self, peer: &PeerInfo) {
        let Some(identity) = peer.identity else { return };
        if self.known.insert(peer.id, (identity, peer.transport)).is_none() {
            *self.links_of.entry((identity, peer.transport)).or_default() += 1;
        }
        self.mesh.schedule().identity_connected(identity, peer.transport);
    }

    /// Ends a link that the door could not judge, because this node dialled it, or because the identity at its other end
    /// was known later.
    fn judge(&self, peer: &PeerInfo) {
        let is_own = peer.direction == Direction::Outbound;
        let admits = || self.mesh.schedule().admits(peer.identity, peer.http_address.as_ref());
        let reason = match () {
            () if self.mesh.is_banned(peer) => DisconnectReason::Banned,
            () if is_own && !admits() => DisconnectReason::NotMember,
            () => return,
        };
        let is_it = |other: &PeerInfo| {
            other.id == peer.id || peer.identity.is_some() && other.identity == peer.identity
        };
        self.context.registry.end_where(is_it, reason);
    }

    fn gone(&mut self, link: LinkId) {
        let Some(gone) = self.known.remove(&link) else { return };
        if let Some(count) = self.links_of.get_mut(&gone).filter(|count| **count > 1) {
            *count -= 1;
            return;
        }
        self.links_of.remove(&gone);
        let ((identity, transport), now) = (gone, time::into_std(Instant::now()));
        let random = &mut self.mesh.random();
        self.mesh.schedule().identity_gone(&identity, transport, now, random);
    }

    /// Gives up one of the outgoing peers, by chance, if they are suspected to be a clique; and returns the time of the
    /// next suspicion. Members and peers that an operator named stay: they would only be dialled again.
    fn resolve_clique(&self) -> Option<Instant> {
        let (suspects, next) = {
            let mut clique = self.mesh.clique();
            (clique.suspects(time::into_std(Instant::now())), clique.next())
        };
        if suspects && self.mesh.schedule().dialling() == 0 {
            let outgoing = self.context.registry.infos(PeerClass::ConnectedOut);
            let is_member = |peer: &PeerInfo| {
                peer.identity.is_some_and(|identity| self.mesh.is_member(&identity))
            };
            let learnt = outgoing.iter().filter(|peer| !peer.roles.contains(Roles::CONFIGURED));
            let learnt = learnt.filter(|peer| !is_member(peer));
            let link = learnt.choose(&mut self.mesh.random());
            if let Some(link) = link.and_then(|peer| self.context.registry.get(peer.id)) {
                tracing::info!(peer = %link.id, "no progress: an outgoing peer is replaced");
                self.context.registry.end(&link, DisconnectReason::CliqueResolving);
            }
        }
        next.map(time::from_std)
    }

    /// Asks every source that is due, and returns the time of the next one.
    fn ask_due(&self) -> Option<Instant> {
        let is_in_need = self.mesh.schedule().has_too_few_links();
        let (due, patience, next) = {
            let mut sources = self.mesh.sources();
            if is_in_need {
                sources.in_need(Instant::now());
            }
            let due = sources.due(Instant::now());
            (due, sources.patience, sources.next_wake())
        };
        for source in due {
            let mesh = self.mesh.clone();
            self.tasks.spawn("address source", move |cancel| async move {
                let asked = time::timeout(patience, source.fetch());
                let Some(answer) = cancel.run_until_cancelled(asked).await else { return };
                note_answer(&mesh, &*source, answer);
            });
        }
        next
    }
}

/// Lists the answer of a source, unless there is none.
fn note_answer(
    mesh: &Mesh,
    source: &dyn AddressSource,
    answer: Result<Result<Vec<mesh::Listed>, mesh::SourceError>, time::error::Elapsed>,
) {
    let id = source.id();
    match answer {
        Ok(Ok(listed)) if listed.is_empty() => {
            tracing::debug!(source = %id, "no addresses, so the last ones stay");
        }
        Ok(Ok(listed)) => {
            let replaced = mesh.replace(&id, listed);
            tracing::debug!(source = %id, ?replaced, "addresses");
        }
        Ok(Err(error)) => {
            tracing::debug!(source = %id, %error, cause = %error.cause, "no addresses")
        }
        Err(_elapsed) => tracing::debug!(source = %id, "no addresses in time"),
    }
    let need = if mesh.schedule().has_too_few_links() { Need::Links } else { Need::None };
    let random = &mut mesh.random();
    mesh.sources().answered(source, need, Instant::now(), random);
    mesh.wake();
}
