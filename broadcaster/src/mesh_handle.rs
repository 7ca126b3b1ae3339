//! The handle of the mesh loop: its addresses and dialers, and the tickets that it gives out.
//!
//! ```text
//!   sources, operators ──▶ Mesh ──▶ DialSchedule ◀── mesh loop ──Ticket──▶ [orders] ──▶ Dialer of a transport
//!                                        ▲                                                   │
//!                                        └──── connected, failed, ended, or dropped ─────────┘
//! ```
//!
//! # Invariants
//!
//! * There is one phonebook, one fan-out and one set of dials under way for a node, whatever carries them.
//! * Every ticket gets a result; one that is dropped counts as a failed dial, or as the end of its link. So a transport
//!   that dies forgets no address.
//! * The lock is held for a few lines, and never while something else is called that can call back.
//! * A dialer that is gone gets no orders: its addresses wait for the next dialer of their transport.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use gossip::{DisconnectReason, Identity, NodeAddress, Transport};
use mesh::{
    Added, AddressSource, CliqueCheck, ConfiguredAddress, DialFailure, DialSchedule, Dials, Doors,
    LearntHosts, Listed, MeshLimits, Record, SourceId, SourceKind, Tell,
    phonebook::{Replaced, transport_of},
};
use prometheus_client::registry::Registry;
use runtime::{
    Environment, Random,
    time::{self, Instant, StdInstant},
};
use tokio::sync::{Notify, mpsc};
use tracing::{Span, field::Empty};

use crate::{
    mesh_gauges,
    mesh_metrics::{DialResult, MeshMetrics},
    mesh_sources::{MAX_SOURCES, Sources},
};

/// Orders that a dialer may be behind by. Chosen: more than dials may be under way by default.
const ORDERS: usize = 256;

/// There are 64 sources of addresses already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_SOURCES} sources of addresses are asked already, which is the most")]
pub struct TooManySources;

/// The choice of peers of a node, over all its transports. A cheap handle.
#[derive(Clone, Debug)]
pub struct Mesh {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    schedule: Mutex<DialSchedule>,
    /// The states of the configured addresses, as shown to the operator.
    dials: Dials,
    dialers: Mutex<Dialers>,
    sources: Mutex<Sources>,
    clique: Mutex<CliqueCheck>,
    limits: MeshLimits,
    metrics: MeshMetrics,
    doors: Doors,
    /// Signals that an address may have become due.
    changed: Notify,
    random: Random,
}

/// The dialer of each transport.
#[derive(Debug, Default)]
struct Dialers {
    next: u64,
    by_transport: BTreeMap<Transport, (u64, mpsc::Sender<Ticket>)>,
}

impl Mesh {
    pub(crate) fn new(limits: MeshLimits, environment: &Environment) -> Self {
        let (now, wall) = (time::into_std(Instant::now()), environment.clock().now());
        let mut random = environment.random();
        let mut schedule = DialSchedule::new(limits, now, wall, &mut random);
        let doors = Doors::default();
        doors.follow(schedule.access(now), now);
        Self {
            shared: Arc::new(Shared {
                schedule: Mutex::new(schedule),
                dials: Dials::default(),
                dialers: Mutex::default(),
                sources: Mutex::new(Sources::new(limits.source_time)),
                clique: Mutex::new(CliqueCheck::new(limits.clique_after)),
                limits,
                metrics: MeshMetrics::default(),
                doors,
                changed: Notify::new(),
                random,
            }),
        }
    }

    /// Adds an address that an operator named. It is dialled now, and whenever there is no link to its peer, for as long
    /// as a network is attached that carries it.
    #[must_use = "the address may have found no place"]
    pub fn configure(&self, address: NodeAddress) -> Added {
        self.shared.dials.add(&address);
        self.list(Listed::new(address, []), &SourceId::of(SourceKind::Configuration))
    }

    /// Lists an address for a source, such as one that is told of changes.
    #[must_use = "the address may have found no place"]
    pub fn list(&self, listed: Listed, source: &SourceId) -> Added {
        let added = self.schedule().book_mut().add(listed, source, now());
        self.wake();
        added
    }

    /// Takes back the listing of an address by a source. A link to it is not touched.
    pub fn unlist(&self, address: &NodeAddress, source: &SourceId) {
        self.schedule().book_mut().unlist(address, source, now());
        if source.kind() == SourceKind::Configuration {
            self.shared.dials.remove(address);
        }
        self.wake();
    }

    /// Replaces the addresses of a source. See [`Phonebook::replace`](mesh::Phonebook::replace).
    pub fn replace(&self, source: &SourceId, listed: impl IntoIterator<Item = Listed>) -> Replaced {
        let replaced = self.schedule().book_mut().replace(source, listed, now());
        self.wake();
        replaced
    }

    /// Forgets an address, whoever lists it, and its history. A link to it is not touched. Returns `false` if it was not
    /// known.
    #[must_use = "the address may not have been known"]
    pub fn remove(&self, address: &NodeAddress) -> bool {
        self.shared.dials.remove(address);
        self.schedule().book_mut().remove(address)
    }

    /// Asks a source for addresses from now on, at once and then as often as it says.
    ///
    /// # Errors
    ///
    /// [`TooManySources`] when there are 64. A source of the same name takes the place of an earlier one.
    pub fn add_source(&self, source: Arc<dyn AddressSource>) -> Result<(), TooManySources> {
        let is_added = self.sources().add(source, Instant::now());
        self.wake();
        if is_added { Ok(()) } else { Err(TooManySources) }
    }

    /// Every address in the phonebook that somebody lists; [`Record::is_kept`] says which are worth keeping on disk.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        self.schedule().book().records(now())
    }

    /// Takes back what was kept, and returns the number of addresses that found a place.
    pub fn restore(&self, records: impl IntoIterator<Item = Record>) -> usize {
        let restored = self.schedule().book_mut().restore(records, now());
        self.wake();
        restored
    }

    /// Consensus made progress, so the outgoing peers are no clique.
    pub fn network_advanced(&self) {
        if self.clique().advanced(now()) {
            // The loop did not have to wait for that before.
            self.wake();
        }
    }

    /// The states of the configured addresses.
    #[must_use]
    pub fn dials(&self) -> &Dials {
        &self.shared.dials
    }

    /// The configured address with which the state of its dials is found.
    #[must_use]
    pub fn configured(&self, address: &NodeAddress) -> ConfiguredAddress {
        ConfiguredAddress { dials: self.shared.dials.clone(), address: address.clone() }
    }

    /// Attaches the dialer of a transport, in place of an earlier one.
    #[must_use = "the transport's addresses are dialled until it is dropped"]
    pub fn attach(&self, transport: Transport) -> Dialer {
        let (sender, orders) = mpsc::channel(ORDERS);
        let number = {
            let mut dialers = self.dialers();
            dialers.next += 1;
            let number = dialers.next;
            dialers.by_transport.insert(transport, (number, sender));
            number
        };
        self.schedule().carry(transport);
        self.wake();
        Dialer { mesh: self.clone(), transport, number, orders }
    }

    /// The values by which the loop goes.
    #[must_use]
    pub fn limits(&self) -> MeshLimits {
        self.shared.limits
    }

    /// The counters of the loop.
    #[must_use]
    pub fn metrics(&self) -> &MeshMetrics {
        &self.shared.metrics
    }

    /// Adds what the loop counts to a registry: `mesh_dials_total{outcome,transport}`, `mesh_let_go_total{reason,transport}`,
    /// `mesh_addresses{state}` and `mesh_phonebook{source}`.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.shared.metrics.register(registry);
        let shared = Arc::downgrade(&self.shared);
        let count = move || {
            let mesh = Self { shared: shared.upgrade()? };
            Some(mesh.schedule().book().counts(now()))
        };
        mesh_gauges::register(Box::new(count), registry);
    }

    /// Makes the loop look for due addresses at once.
    pub(crate) fn wake(&self) {
        self.shared.changed.notify_one();
    }

    /// Resolves when something may have become due.
    ///
    /// # Cancel safety
    ///
    /// Safe: a signal that nobody has waited for is kept.
    pub(crate) async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    pub(crate) fn schedule(&self) -> MutexGuard<'_, DialSchedule> {
        self.shared.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn sources(&self) -> MutexGuard<'_, Sources> {
        self.shared.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn clique(&self) -> MutexGuard<'_, CliqueCheck> {
        self.shared.clique.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The doors of the node, which go by its bans and members.
    pub(crate) fn doors(&self) -> &Doors {
        &self.shared.doors
    }

    fn dialers(&self) -> MutexGuard<'_, Dialers> {
        self.shared.dialers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Orders a dial to every address that is due, and returns the time of the next ones.
    pub(crate) fn dial_due(&self) -> Option<StdInstant> {
        let (due, next) = {
            let mut schedule = self.schedule();
            let due = schedule.due(now(), &mut self.random());
            (due, schedule.next_wake(now()))
        };
        for address in due {
            tracing::debug!(to = %address, "dialling");
            let transport = transport_of(&address);
            let span = dial_span(&address);
            let ticket = Ticket { mesh: self.clone(), address, stage: Stage::Dialling, span };
            let dialer =
                self.dialers().by_transport.get(&transport).map(|(_, sender)| sender.clone());
            // A dialer that is gone or too busy drops the ticket, which puts the address off.
            if let Some(dialer) = dialer {
                drop(dialer.try_send(ticket));
            }
        }
        next
    }

    pub(crate) fn random(&self) -> Random {
        self.shared.random.clone()
    }
}

pub(crate) fn now() -> StdInstant {
    time::into_std(Instant::now())
}

/// The end of a transport, which gets the orders to dial.
#[derive(Debug)]
pub struct Dialer {
    mesh: Mesh,
    transport: Transport,
    number: u64,
    orders: mpsc::Receiver<Ticket>,
}

impl Dialer {
    /// Waits for the next address to dial; `None` once another dialer has taken its place.
    ///
    /// # Cancel safety
    ///
    /// Safe: no order is lost.
    pub async fn next(&mut self) -> Option<Ticket> {
        self.orders.recv().await
    }
}

impl Drop for Dialer {
    fn drop(&mut self) {
        let is_current = {
            let mut dialers = self.mesh.dialers();
            let current = dialers.by_transport.get(&self.transport).map(|(number, _)| *number);
            let is_current = current == Some(self.number);
            if is_current {
                dialers.by_transport.remove(&self.transport);
            }
            is_current
        };
        if is_current {
            self.mesh.schedule().cease(self.transport);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Dialling,
    Linked,
    Done,
}

/// An order to dial an address, and the duty to say what came of it.
#[derive(Debug)]
#[must_use = "a ticket that is dropped counts as a failed dial"]
pub struct Ticket {
    mesh: Mesh,
    address: NodeAddress,
    stage: Stage,
    /// Open from the order to its first result.
    span: Span,
}

/// The span of a dial, over any transport.
fn dial_span(address: &NodeAddress) -> Span {
    tracing::debug_span!(
        "dial",
        otel.kind = "client",
        address = %address.shown(),
        transport = transport_of(address).label(),
        outcome = Empty,
        peer_id = Empty,
        error = Empty,
        otel.status_code = Empty,
    )
}

impl Ticket {
    /// The address to dial.
    #[must_use]
    pub const fn address(&self) -> &NodeAddress {
        &self.address
    }

    /// The span of the dial, for what a transport does on its behalf. It ends with the first result.
    #[must_use]
    pub const fn span(&self) -> &Span {
        &self.span
    }

    /// The address as a configured one, if it is.
    #[must_use]
    pub fn configured(&self) -> Option<ConfiguredAddress> {
        let configured = self.mesh.configured(&self.address);
        configured.state().map(|_| configured)
    }

    /// The hosts that the dial may lead to, where the address is a name.
    #[must_use]
    pub fn hosts(&self) -> LearntHosts {
        self.mesh.schedule().hosts(&self.address)
    }

    /// Returns `true` once a link was reported.
    #[must_use]
    pub fn is_linked(&self) -> bool {
        self.stage == Stage::Linked
    }

    /// Reports that the dial led to a link to `identity`, if that is known; or that the peer is kept connected for other
    /// reasons. The address counts as connected until [`Ticket::ended`].
    pub fn connected(&mut self, identity: Option<Identity>) {
        self.stage = Stage::Linked;
        self.mesh.schedule().connected(&self.address, identity, now());
        if let Some(identity) = identity {
            self.span.record("peer_id", tracing::field::display(identity));
        }
        self.count(DialResult::Connected);
        self.mesh.shared.dials.connected(&self.address);
    }

    /// Reports that the dial, or the link it led to, came to nothing, and tells an operator who named the address.
    pub fn failed(mut self, why: DialFailure, error: &str) {
        if self.stage == Stage::Dialling {
            self.span.record("error", error).record("otel.status_code", "ERROR");
            self.count(DialResult::Failed(why));
        }
        let next_try = self.fail(why);
        tracing::debug!(to = %self.address, ?why, error, "dial came to nothing");
        let dials = &self.mesh.shared.dials;
        if matches!(why, DialFailure::Duplicate(_)) {
            return dials.connected_otherwise(&self.address);
        }
        match dials.failed(&self.address, error.to_owned(), next_try, now()) {
            Tell::Now(failures) => {
                let peer = self.address.shown();
                tracing::warn!(peer, error, failures, "a configured peer cannot be reached");
            }
            Tell::NotYet => {}
        }
    }

    /// Reports that the link has ended, and why.
    pub fn ended(mut self, reason: DisconnectReason) {
        {
            let mut schedule = self.mesh.schedule();
            let identity = schedule.book().identity(&self.address);
            schedule.parted(identity, Some(&self.address), reason, now());
        }
        self.end();
    }

    /// Counts the first result, and ends the span with it.
    fn count(&mut self, result: DialResult) {
        self.span.record("outcome", result.label());
        self.span = Span::none();
        self.mesh.shared.metrics.dialled(result, transport_of(&self.address));
    }

    fn fail(&mut self, why: DialFailure) -> Option<StdInstant> {
        self.stage = Stage::Done;
        let next_try = {
            let mut schedule = self.mesh.schedule();
            schedule.failed(&self.address, why, now(), &mut self.mesh.random());
            schedule.next_try(&self.address, now())
        };
        self.mesh.wake();
        next_try
    }

    fn end(&mut self) {
        self.stage = Stage::Done;
        self.mesh.schedule().ended(&self.address, now(), &mut self.mesh.random());
        self.mesh.shared.dials.ended(&self.address);
        self.mesh.wake();
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        match self.stage {
            Stage::Done => {}
            Stage::Linked => self.end(),
            Stage::Dialling => {
                // The transport died or stops, which says nothing of the peer to an operator.
                self.count(DialResult::Dropped);
                let _ = self.fail(DialFailure::Unreachable);
            }
        }
    }
}
