//! `tandem run`: a node, until it is stopped.
//!
//! # Invariants
//!
//! * Signals are caught before anything is started, so none ends the node uncleanly.
//! * `ready` comes after the node listens and its admin API answers; what happened to peers before
//!   is told after it.
//! * A hangup makes a node with a configuration file or certificates read them again. Every other signal stops it, and
//!   a hangup one without.
//! * From the first signal on the program ends within [`STOP_TIME`]; from the second on, at once. With the setting `drain_s`
//!   SIGTERM drains the node first: its peers and requests go on, newcomers are sent elsewhere, and the next signal counts as the first.
//! * A reader of standard output that does not read, or that has gone, delays and ends nothing.

use std::{
    panic::AssertUnwindSafe,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use ::services::metrics::ServiceMetrics;
use broadcaster::PeerEvent;
use futures::FutureExt;
use gossip::PeerInfo;
use prometheus_client::registry::Registry;
use serde::Serialize;
use serde_json::json;
use tandem::{
    DataDir, Limits, Mdns, MeshLimits, Mode, NodeBuilder, Running, Shutdown, StartError,
    register_service_metrics,
};
use tokio::{sync::broadcast, task, time};
use tokio_util::sync::CancellationToken;

use super::{
    admin_ports::Admin,
    args::RunArgs,
    descriptors,
    failure::Failure,
    health::HealthGauge,
    notify, output,
    services::{self, Condition},
    signals::{Hangups, StopSignals},
    watch::{self, Change, Disk},
};
use crate::{
    admin::{
        self,
        wire::{Certificates, Reloaded},
    },
    config::{Layers, Settings},
    lines::Lines,
    live::Live,
    log,
    spans::{Exporting, Spans},
};

/// Longest time for the stop. Source: issue 3, within 5 s.
const STOP_TIME: Duration = Duration::from_millis(4_500);

/// The part of it that the tasks have to end by themselves.
const GRACE: Duration = Duration::from_secs(2);

/// Longest time to write the last events.
const FLUSH_TIME: Duration = Duration::from_millis(200);

/// The form in which a node prints its events.
#[derive(Clone, Copy, Debug)]
enum Format {
    Text,
    Json,
}

/// Where a node tells what happens to it: on standard output.
#[derive(Clone, Debug)]
struct Teller {
    format: Format,
    out: Lines,
    /// The events of late, for the admin API.
    journal: admin::Journal,
}

impl Teller {
    fn new(format: Format) -> Result<Self, Failure> {
        let missing: fn(u64) -> String = match format {
            Format::Text => |lost| format!("{lost} lines were lost: they could not be written"),
            Format::Json => |events| output::json(&Event::Missed { events }),
        };
        let out = Lines::to(std::io::stdout(), missing);
        let out =
            out.map_err(|source| Failure::System { what: "a copy of standard output", source })?;
        Ok(Self { format, out, journal: admin::Journal::default() })
    }

    fn line(&self, line: &str) {
        self.out.offer(format!("{line}\n").as_bytes());
    }

    /// Tells an event to programs, and notes it.
    fn event(&self, event: &Event<'_>) {
        self.journal.note(event);
        if let Format::Json = self.format {
            self.line(&output::json(event));
        }
    }
}

/// An event as `--json` prints it, one object a line.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event<'a> {
    Ready {
        ws: Option<&'a str>,
        p2p: &'a [String],
        /// Where collectors read what the node counts.
        #[serde(skip_serializing_if = "Option::is_none")]
        metrics: Option<String>,
        /// Where programs that name the token reach the admin API.
        #[serde(skip_serializing_if = "Option::is_none")]
        admin: Option<String>,
        peer_id: String,
    },
    PeerConnected(Peer<'a>),
    PeerIdentified(Peer<'a>),
    PeerDisconnected {
        #[serde(flatten)]
        peer: Peer<'a>,
        reason: &'static str,
    },
    /// A configured peer cannot be reached: told at once, after a minute, and then rarely.
    PeerUnreachable {
        address: String,
        error: String,
        failures: u64,
    },
    /// The libp2p side listens on other addresses than before; these are all of them.
    Listening {
        p2p: Vec<String>,
    },
    /// The configuration was read again.
    Reloaded {
        changed: &'a [String],
        needs_restart: &'a [String],
    },
    /// The configuration could not be read again, and stays as it is.
    ReloadRefused {
        error: &'a str,
    },
    /// So many events were left out because this program did not keep up.
    Missed {
        events: u64,
    },
}

#[derive(Debug, Serialize)]
struct Peer<'a> {
    peer: u64,
    transport: &'static str,
    direction: &'static str,
    address: &'a str,
    peer_id: Option<String>,
}

impl<'a> Peer<'a> {
    fn of(info: &'a PeerInfo) -> Self {
        Self {
            peer: info.id.0,
            transport: info.transport.label(),
            direction: info.direction.label(),
            address: &info.address,
            peer_id: info.identity.map(|identity| identity.to_string()),
        }
    }
}

/// Runs a node until a signal comes.
pub(crate) async fn run(args: RunArgs, mut signals: StopSignals) -> Result<ExitCode, Failure> {
    let layers = Layers::gather(args.source.config.as_deref(), &args.source.flags)?;
    let settings = Settings::check(&layers)?;
    let condition = Condition::default();
    let spans = begin_log(&settings, &layers, &condition);
    let teller = Teller::new(if args.json { Format::Json } else { Format::Text })?;
    let root = CancellationToken::new();
    let mode = settings.mode;
    let ports = (settings.metrics.clone(), settings.admin_listen.clone());
    let grace = settings.drain;
    let reloads = settings.has_certificates() || layers.has_file();
    let hangups = reloads.then(|| signals.take_hangups()).flatten();
    let peers = settings.peers.clone();
    let metrics = ServiceMetrics::default();
    let (collector, roots) = (settings.otlp.clone(), settings.tls_ca.clone());
    let starting = async { Ok(builder(settings, &condition, &metrics).await?.start(&root).await?) };
    let mut running = tokio::select! {
        biased;
        _ = signals.next() => return Ok(ExitCode::SUCCESS),
        started = starting => started.map_err(|error: Failure| error)?,
    };
    let export =
        |(spans, collector): (Spans, _)| spans.export(&collector, roots.as_deref(), &running);
    let exporting = spans.zip(collector).map(export).transpose()?;
    // Never set before.
    let _ = condition.view.set(running.view());
    let counters = admin::RefusalCounters::new(&teller.journal);
    let (refused, crowded) = (Arc::clone(&counters.refused), counters.crowded.clone());
    let mut registry = registry(&running, mode, (&condition, &metrics));
    registry.register_collector(Box::new(counters));
    let parts = (running.view(), running.peer_control(), running.broadcaster().clone());
    let own = (args.source.config, args.source.flags);
    let live = Arc::new(Live::new(own, (layers, peers), parts, descriptors::refit));
    let context = admin::Context {
        node: running.node(),
        broadcaster: running.broadcaster().clone(),
        mode,
        peer_id: running.identity().to_string(),
        view: running.view(),
        control: running.peer_control(),
        condition: condition.clone(),
        started: Instant::now(),
        out: teller.out.clone(),
        registry: Arc::new(registry),
        http: running.http_permits(),
        journal: teller.journal.clone(),
        live: Arc::clone(&live),
        admin_url: Arc::default(),
        rates: Arc::default(),
        refused,
        crowded,
    };
    let admin = Admin::start(&running, context, ports).await?;
    let told = tell_ready(&teller, &running, &admin);
    notify::ready().await;
    let (events, control) = (running.events(), running.peer_control());
    let drain = || {
        control.drain();
        condition.drain.begin(Some(grace));
        teller.journal.note(&json!({"event": "draining", "grace_s": grace.as_secs()}));
    };
    let outcome = tokio::select! {
        biased;
        () = stop_order(&mut signals, grace, drain) => Ok(ExitCode::SUCCESS),
        fault = running.faulted() => Err(Failure::Died { fault }),
        () = reload_on(hangups, &live, &teller.journal) => Ok(ExitCode::FAILURE),
        () = condition.drain.over() => Ok(ExitCode::SUCCESS),
        () = look_after(&running, told, condition.disk.clone(), &teller) => Ok(ExitCode::FAILURE),
        fault = admin.faulted() => Err(Failure::Died { fault }),
        () = notify::signs_of_life() => Ok(ExitCode::FAILURE),
        // Events end with the node, whose fault is told above.
        () = tell_events(&teller, events) => Ok(ExitCode::FAILURE),
    };
    if stop(&mut signals, admin, running, exporting).await == Stop::CutShort {
        return Ok(ExitCode::FAILURE);
    }
    teller.out.flush(FLUSH_TIME);
    outcome
}

/// Begins the log, with spans if they are to be exported, and tells what is odd about the settings.
fn begin_log(settings: &Settings, layers: &Layers, condition: &Condition) -> Option<Spans> {
    let (spans, layer) = match settings.otlp {
        Some(_) => Spans::begin(&condition.spans),
        None => (None, None),
    };
    log::to_stderr(&settings.log, settings.log_format, layer);
    for variable in layers.unknown() {
        tracing::warn!(variable, "a variable of the environment looks like a setting and is none");
    }
    if settings.joins_nobody() {
        tracing::warn!("no peer is configured: this node hears nothing until another one dials it");
    }
    if settings.mode == Mode::Hybrid && !settings.topics.is_empty() {
        log::note("topics go over libp2p only: peers over WebSocket do not get their messages");
    }
    spans
}

/// The end of a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// It took its course.
    Done,
    /// Another signal came.
    CutShort,
}

/// Stops the node within [`STOP_TIME`], or at the next signal.
async fn stop(
    signals: &mut StopSignals,
    admin: Admin,
    running: Running,
    exporting: Option<Exporting>,
) -> Stop {
    let stopping = async {
        let (_, stopped) = tokio::join!(notify::stopping(), admin.stop(GRACE));
        let stopped = stopped.and(running.stop(GRACE).await);
        match exporting {
            Some(exporting) => stopped.and(exporting.stop().await),
            None => stopped,
        }
    };
    // A part that panicked panics again when it is stopped; the fault was told already.
    let stopping = AssertUnwindSafe(stopping).catch_unwind();
    tokio::select! {
        biased;
        _ = signals.next() => return Stop::CutShort,
        stopped = time::timeout(STOP_TIME, stopping) => match stopped {
            Ok(Ok(Shutdown::Clean) | Err(_)) => {}
            Ok(Ok(Shutdown::Forced(tasks))) => tracing::warn!(tasks, "tasks had to be aborted"),
            Err(_elapsed) => tracing::warn!("the node did not stop in time"),
        },
    }
    Stop::Done
}

/// Waits for the signal that stops the node. SIGTERM drains a node that has a grace; the end of the grace is told elsewhere.
async fn stop_order(signals: &mut StopSignals, grace: Duration, drain: impl FnOnce()) {
    let caught = signals.next().await;
    if grace.is_zero() || !caught.is_termination() {
        return;
    }
    drain();
    notify::draining(grace).await;
    signals.next().await;
}

/// Tells what happens to a node beside what happens to its peers. Never ends.
async fn look_after(running: &Running, p2p: Vec<String>, disk: Disk, teller: &Teller) {
    let Some(dir) = running.data_dir() else { return std::future::pending().await };
    watch::watch(running.view(), p2p, (dir.path().to_owned(), disk), |change| match change {
        Change::Unreachable { address, error, failures } => {
            teller.event(&Event::PeerUnreachable { address, error, failures });
        }
        Change::Listening { p2p, added, removed } => {
            teller.event(&Event::Listening { p2p });
            if let Format::Text = teller.format {
                for address in added {
                    teller.line(&format!("listening p2p {address}"));
                }
                for address in removed {
                    teller.line(&format!("no longer listening p2p {address}"));
                }
            }
        }
    })
    .await;
}

/// Reads the configuration and the files of certificates again at each hangup. Never ends.
async fn reload_on(hangups: Option<Hangups>, live: &Arc<Live>, journal: &admin::Journal) {
    let Some(mut hangups) = hangups else { return std::future::pending().await };
    loop {
        hangups.next().await;
        let reading = Arc::clone(live);
        match task::spawn_blocking(move || reading.reload()).await {
            Ok(Ok(reloaded)) => {
                let Reloaded { certificates, changed, needs_restart } = &reloaded;
                match certificates {
                    Certificates::Changed => {
                        tracing::info!("hangup: the changed certificates are in use");
                    }
                    Certificates::Unchanged => {
                        tracing::info!("hangup: the certificates have not changed");
                    }
                    Certificates::None => {}
                }
                if !changed.is_empty() {
                    tracing::info!(?changed, "hangup: changed settings are in force");
                }
                if !needs_restart.is_empty() {
                    tracing::warn!(?needs_restart, "hangup: some settings need a restart");
                }
                journal.note(&Event::Reloaded { changed, needs_restart });
            }
            Ok(Err(failure)) => {
                let error = log::in_one_line(&failure);
                tracing::warn!(error, "hangup: everything stays as it is");
                journal.note(&Event::ReloadRefused { error: &error });
            }
            // The runtime drops the read only when it ends itself.
            Err(_ended) => {}
        }
    }
}

/// The node that the settings describe.
async fn builder(
    settings: Settings,
    condition: &Condition,
    metrics: &ServiceMetrics,
) -> Result<NodeBuilder, Failure> {
    // Before anything in it is touched: it may be another node's.
    let dir = DataDir::open(settings.data_dir.clone()).map_err(StartError::from)?;
    let builder = describe(&settings).inbound_limits(descriptors::fit(settings.inbound())?);
    let builder = services::offer(builder, &settings, dir.path(), (condition, metrics)).await?;
    Ok(builder.opened_data_dir(dir))
}

/// The node that the settings describe, but for what it keeps in its data directory.
pub(super) fn describe(settings: &Settings) -> NodeBuilder {
    let mut builder = NodeBuilder::new(settings.network.clone())
        .profile(settings.profile)
        .mode(settings.mode)
        .listen_ws(settings.listen_ws.clone())
        .listen_p2p(settings.listen_p2p.clone())
        .announce(settings.announce.clone())
        .relaying(settings.relaying)
        .on_topics(settings.tag_topics.clone())
        .want(settings.wanted.clone())
        .mesh_limits(MeshLimits::default().with_learnt_hosts(settings.learnt_hosts))
        .vote_packing(settings.vote_packing)
        .traced_one_in(settings.trace_one_in)
        .limits(limits(settings))
        .inbound_limits(settings.inbound())
        .admit(settings.admit)
        .security(settings.security.clone())
        .mdns(if settings.mdns { Mdns::On } else { Mdns::Off })
        .dht(settings.dht.clone())
        .reachability(settings.reach.clone());
    builder = builder.dns_servers(settings.dns_servers.clone()).dnssec(settings.dnssec.clone());
    for bootstrap in &settings.bootstrap {
        builder = builder.bootstrap(bootstrap.clone());
    }
    if !settings.peer_store {
        builder = builder.no_peer_store();
    }
    for peer in &settings.peers {
        builder = builder.peer(peer.clone());
    }
    for topic in &settings.topics {
        builder = builder.topic(topic.clone());
    }
    if let Some(address) = &settings.public_address {
        builder = builder.public_address(address.clone());
    }
    if let Some(file) = &settings.key_file {
        builder = builder.key_file(file);
    }
    if settings.shares_port {
        builder = builder.share_port();
    }
    if let Some(file) = &settings.private_network {
        builder = builder.private_network(file);
    }
    builder = builder.proxies(settings.proxies.clone()).page_origins(settings.page_origins.clone());
    if let Some(files) = &settings.tls {
        builder = match &settings.tls_client_ca {
            Some(authorities) => builder.tls_demanding(files.clone(), authorities),
            None => builder.tls(files.clone()),
        };
    }
    if let Some(roots) = &settings.tls_ca {
        builder = builder.tls_roots(roots);
    }
    if let Some(files) = &settings.tls_client {
        builder = builder.tls_client(files.clone());
    }
    builder
}

/// The bounds of the node's queues.
pub(super) fn limits(settings: &Settings) -> Limits {
    let (budget_bytes, limits) = (settings.budget_bytes, Limits::default());
    let remembered_bytes = limits.remembered_bytes.min(budget_bytes / 4);
    limits.with_budget_bytes(budget_bytes).with_remembered_bytes(remembered_bytes)
}

/// Everything that the node counts, and how it is.
fn registry(
    running: &Running,
    mode: Mode,
    (condition, metrics): (&Condition, &ServiceMetrics),
) -> Registry {
    let mut registry = Registry::with_prefix("tandem");
    running.register_metrics(&mut registry);
    register_service_metrics(metrics, &mut registry);
    registry.register_collector(Box::new(HealthGauge { mode, condition: condition.clone() }));
    registry.register_collector(Box::new(condition.spans.clone()));
    registry
}

/// Tells that the node is ready, and returns the libp2p addresses that were told.
fn tell_ready(teller: &Teller, running: &Running, admin: &Admin) -> Vec<String> {
    let (ws, p2p) = (running.ws_url(), running.p2p_addresses());
    let (metrics, admin) = (admin.metrics_url(), admin.remote_url());
    match teller.format {
        Format::Text => {
            if let Some(url) = &ws {
                teller.line(&format!("listening ws {url}"));
            }
            for address in &p2p {
                teller.line(&format!("listening p2p {address}"));
            }
            if let Some(url) = &metrics {
                teller.line(&format!("listening metrics {url}"));
            }
            if let Some(url) = &admin {
                teller.line(&format!("listening admin {url}"));
            }
            teller.line("ready");
        }
        Format::Json => {
            let peer_id = running.identity().to_string();
            teller.event(&Event::Ready { ws: ws.as_deref(), p2p: &p2p, metrics, admin, peer_id });
        }
    }
    p2p
}

/// Tells what happens to peers until the node has ended.
async fn tell_events(teller: &Teller, mut events: broadcast::Receiver<PeerEvent>) {
    let mut told_of_reader = false;
    loop {
        if teller.out.is_closed() && !std::mem::replace(&mut told_of_reader, true) {
            tracing::warn!("nobody reads standard output any more; the node goes on without");
        }
        let event = match events.recv().await {
            Ok(event) => event,
            Err(broadcast::error::RecvError::Lagged(events)) => {
                tracing::warn!(events, "events were missed");
                teller.event(&Event::Missed { events });
                continue;
            }
            Err(broadcast::error::RecvError::Closed) => return,
        };
        log_event(&event);
        teller.event(&match &event {
            PeerEvent::Connected(info) => Event::PeerConnected(Peer::of(info)),
            PeerEvent::Identified(info) => Event::PeerIdentified(Peer::of(info)),
            PeerEvent::Disconnected(info, reason) => {
                Event::PeerDisconnected { peer: Peer::of(info), reason: reason.label() }
            }
            // Programs are told of what the manual names.
            _ => continue,
        });
    }
}

fn log_event(event: &PeerEvent) {
    let (what, reason) = match event {
        PeerEvent::Connected(_) => ("a peer connected", None),
        PeerEvent::Identified(_) => ("a peer was identified", None),
        PeerEvent::Disconnected(_, reason) => ("a peer disconnected", Some(reason.label())),
        _ => return,
    };
    let Peer { peer, transport, direction, address, peer_id } = Peer::of(event.peer());
    tracing::info!(peer, transport, direction, ?address, peer_id, reason, "{what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_the_fields_of_the_manual() {
        let p2p = ["/ip4/127.0.0.1/tcp/4190/p2p/12D3KooW".to_owned()];
        let ready = Event::Ready {
            ws: Some("http://127.0.0.1:4160"),
            p2p: &p2p,
            metrics: None,
            admin: None,
            peer_id: "12D3".into(),
        };
        let expected = serde_json::json!({
            "event": "ready",
            "ws": "http://127.0.0.1:4160",
            "p2p": ["/ip4/127.0.0.1/tcp/4190/p2p/12D3KooW"],
            "peer_id": "12D3",
        });
        assert_eq!(serde_json::json!(ready), expected);
        let peer =
            Peer { peer: 1, transport: "ws", direction: "in", address: "a:1", peer_id: None };
        let gone = serde_json::json!(Event::PeerDisconnected { peer, reason: "slow" });
        let expected = serde_json::json!({
            "event": "peer_disconnected", "peer": 1, "transport": "ws", "direction": "in",
            "address": "a:1", "peer_id": null, "reason": "slow",
        });
        assert_eq!(gone, expected);
    }
}
