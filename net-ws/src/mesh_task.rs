//! The task that keeps the node connected: it asks the schedule which addresses are due, and dials them.
//!
//! ```text
//!   add_peer, connect_outgoing ─┐
//!   broadcaster's peer events ──┼─▶ DialSchedule ──due──▶ dial task ─▶ peer ─▶ its end
//!                               └──────────▲──────────────────┴──────────────────┘
//! ```
//!
//! # Invariants
//!
//! * The schedule bounds the dials in progress. Each is one task, which also waits for the end of its link.
//! * The loop awaits only in its `select!`, cancellation first.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use broadcaster::PeerEvent;
use gossip::{DisconnectReason, Identity, NodeAddress, PeerClass, Tag, wire::identity};
use mesh::{
    Added, AddressKind, ConfiguredAddress, DialFailure, DialLimits, DialSchedule, Dials, Tell,
};
use runtime::TaskSet;
use tokio::{
    sync::{Notify, broadcast},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::TargetError,
    context::{Context, Exchange},
    dial::{self, DialError, Dialled, Target},
    frame::Role,
    link::{self, Established},
};

/// The dial schedule, shared by the loop, its dials and the handle.
#[derive(Debug)]
pub(crate) struct Mesh {
    context: Arc<Context>,
    schedule: Mutex<DialSchedule<Target>>,
    /// The states of the configured addresses by name, as shown to the operator.
    dials: Dials,
    /// Signals that an address may have become due.
    changed: Notify,
}

impl Mesh {
    /// Creates the schedule; nothing is dialled before [`run`].
    pub(crate) fn new(context: Arc<Context>, limits: DialLimits) -> Self {
        let schedule = Mutex::new(DialSchedule::new(limits));
        Self { context, schedule, dials: Dials::default(), changed: Notify::new() }
    }

    /// Adds a configured address.
    pub(crate) fn add(&self, address: &NodeAddress) -> Result<(), TargetError> {
        let target = Target::new(&self.context, address)?;
        // A host name may resolve to another node by the time its owner connects, so only a literal address may
        // be matched with inbound peers.
        if let NodeAddress::WebSocket(known) = address
            && let Ok(ip) = known.host().trim_matches(['[', ']']).parse()
        {
            self.context.door.configure_host(ip);
        }
        self.dials.add(&target.name);
        match self.schedule().add(target, AddressKind::Configured) {
            Added::New | Added::Known | Added::Evicted(_) => {}
            Added::Full => tracing::warn!(%address, "too many addresses are known; not added"),
        }
        self.changed.notify_one();
        Ok(())
    }

    /// The states of the configured addresses.
    pub(crate) const fn dials(&self) -> &Dials {
        &self.dials
    }

    fn configured(&self, name: &str) -> ConfiguredAddress {
        ConfiguredAddress { dials: self.dials.clone(), address: name.to_owned() }
    }

    /// Makes the loop look for due addresses at once.
    pub(crate) fn wake(&self) {
        self.changed.notify_one();
    }

    fn schedule(&self) -> MutexGuard<'_, DialSchedule<Target>> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that a dial to `target`, or the link it led to, ended for the reason `why`.
    fn failed(&self, target: &Target, why: DialFailure, error: String) {
        let now = Instant::now().into_std();
        let next_try = {
            let mut schedule = self.schedule();
            schedule.failed(target, why, now, &mut self.context.environment().random());
            schedule.next_try(target, now)
        };
        self.changed.notify_one();
        tracing::debug!(to = %target.name, error, "dial failed");
        if matches!(why, DialFailure::Duplicate(_)) {
            return self.dials.connected_otherwise(&target.name);
        }
        match self.dials.failed(&target.name, error.clone(), next_try, now) {
            Tell::Now(failures) => {
                tracing::warn!(peer = %target.name, error, failures, "a configured peer cannot be reached");
            }
            Tell::NotYet => {}
        }
    }
}

/// Dials every address that is due until the network stops.
pub(crate) async fn run(mesh: Arc<Mesh>, tasks: TaskSet, cancel: CancellationToken) {
    let mut events = mesh.context.broadcaster.events();
    let mut known = Known::default();
    known.resync(&mesh);
    loop {
        let now = Instant::now();
        let (due, next) = {
            let mut schedule = mesh.schedule();
            let due = schedule.due(now.into_std(), &mut mesh.context.environment().random());
            (due, schedule.next_wake(now.into_std()))
        };
        for target in due {
            let mesh = Arc::clone(&mesh);
            tasks.spawn("dial", |cancel| keep_dialled(mesh, target, cancel));
        }
        let sleep = async {
            match next {
                Some(at) => time::sleep_until(Instant::from_std(at)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            () = mesh.changed.notified() => {}
            event = events.recv() => match event {
                Ok(event) => known.note(&mesh, &event),
                Err(broadcast::error::RecvError::Lagged(_)) => known.resync(&mesh),
                // The broadcaster has ended, so the network is about to.
                Err(broadcast::error::RecvError::Closed) => return,
            },
            () = sleep => {}
        }
    }
}

/// The identities reported to the schedule as connected.
#[derive(Default)]
struct Known(BTreeSet<Identity>);

impl Known {
    fn note(&mut self, mesh: &Mesh, event: &PeerEvent) {
        match event {
            PeerEvent::Connected(peer) | PeerEvent::Identified(peer) => {
                if let Some(identity) = peer.identity {
                    self.0.insert(identity);
                    mesh.schedule().identity_connected(identity);
                }
            }
            PeerEvent::Disconnected(peer, _) => {
                let Some(identity) = peer.identity else { return };
                if mesh.context.broadcaster.peer_of(&identity).is_none() {
                    self.gone(mesh, &identity);
                }
            }
            // Nothing else changes who is connected.
            _ => {}
        }
    }

    /// Rebuilds the set from the broadcaster's current peers after events were missed.
    fn resync(&mut self, mesh: &Mesh) {
        let peers = mesh.context.broadcaster.peers(PeerClass::Connected);
        let present: BTreeSet<Identity> = peers.iter().filter_map(|peer| peer.identity).collect();
        for gone in self.0.difference(&present).copied().collect::<Vec<_>>() {
            self.gone(mesh, &gone);
        }
        for &identity in &present {
            mesh.schedule().identity_connected(identity);
        }
        self.0 = present;
    }

    fn gone(&mut self, mesh: &Mesh, identity: &Identity) {
        self.0.remove(identity);
        let now = Instant::now().into_std();
        mesh.schedule().identity_gone(identity, now, &mut mesh.context.environment().random());
    }
}

/// Dials `target` once, and waits for the end of the link.
async fn keep_dialled(mesh: Arc<Mesh>, target: Target, cancel: CancellationToken) {
    let _departure = match mesh.context.door.depart() {
        Ok(departure) => departure,
        Err(refusal) => {
            return mesh.failed(&target, DialFailure::Unreachable, refusal.to_string());
        }
    };
    let dialled = cancel.run_until_cancelled(dial::dial(&mesh.context, &target));
    let outcome = match dialled.await {
        None => return,
        Some(Err(error)) => Err(error),
        Some(Ok(dialled)) => link_up(&mesh, &target, dialled, &cancel).await,
    };
    if let Err(error) = outcome {
        if let Some(refusal) = error.refusal() {
            mesh.context.metrics.note_dial(refusal);
        }
        let told = match std::error::Error::source(&error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
        mesh.failed(&target, error.failure(), told);
    }
}

/// Attaches a dialled connection and returns when its link has ended.
async fn link_up(
    mesh: &Mesh,
    target: &Target,
    dialled: Dialled,
    cancel: &CancellationToken,
) -> Result<(), DialError> {
    let Dialled { mut stream, early, features, verified, priority_challenge } = dialled;
    let context = &mesh.context;
    let peer = context.broadcaster.next_link_id();
    let session = context.session(context.node_random());
    let mut greeting: Vec<_> = context.interest(features).into_iter().collect();
    let (mut identity, mut claim) = (None, None);
    let mut exchange = identity::ListenerIdentity::Anonymous;
    if let (Some(seen), Exchange::On { key, .. }) = (verified, &context.exchange) {
        let made = link::claim(peer, seen.key, key.identity(), (session, seen.response_challenge));
        let made = context.broadcaster.claim(made);
        let prevails = cancel.run_until_cancelled(context.broadcaster.prevails(&made)).await;
        if !prevails.ok_or(DialError::Stopping)? {
            let error = DialError::Duplicate(seen.key);
            dial::abort(context, &mut stream, &error).await;
            return Err(error);
        }
        claim = Some(made);
        greeting.push((Tag::NI, identity::verification(key, seen.response_challenge)));
        exchange = identity::ListenerIdentity::Verified { key: seen.key };
        identity = Some(seen.key);
    }
    let priority = context.priority.as_ref().zip(priority_challenge);
    greeting.extend(priority.and_then(|(priority, challenge)| priority.respond(&challenge)));
    let established = Established {
        halves: stream.into_split(),
        early,
        role: Role::Client,
        address: target.name.clone(),
        configured: Some(mesh.configured(&target.name)),
        http_address: target.address.parse().ok(),
        features,
        exchange,
        session,
        greeting,
        priority_challenge: None,
        merit: None,
    };
    let attached = link::attach(context, (peer, claim), established)
        .map_err(|_stopping| DialError::Stopping)?;
    mesh.schedule().connected(target, identity, Instant::now().into_std());
    mesh.dials.connected(&target.name);
    tracing::debug!(%peer, to = %target.name, "peer connected");
    let reason = link::ended(context, attached, cancel).await;
    tracing::debug!(%peer, to = %target.name, %reason, "peer gone");
    match (reason, identity) {
        (DisconnectReason::Duplicate, Some(identity)) => {
            let told = DialError::Duplicate(identity).to_string();
            mesh.failed(target, DialFailure::Duplicate(identity), told);
        }
        _ => {
            let now = Instant::now().into_std();
            mesh.schedule().ended(target, now, &mut mesh.context.environment().random());
            mesh.dials.ended(&target.name);
            mesh.changed.notify_one();
        }
    }
    Ok(())
}
