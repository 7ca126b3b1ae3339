//! The state of the node: what it is, what it has and what bounds it.

use std::{collections::BTreeMap, time::Instant};

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use gossip::{Lane, PeerClass, PeerInfo};
use prometheus_client::registry::Registry;
use services::status::State as Health;
use tandem::LatencyStage;

use super::{
    context::{Context, Shared},
    limits,
    problem::refuse,
    report::{
        Bucket, ConfigInForce, DhtState, HttpState, LaneLatency, Latency, Ledger, LimitsInForce,
        LinkState, SettingInForce, Standing, Topic,
    },
    route_table::Routes,
    wire::{Dial, LinesLost, RouterPort, Status, millis},
};
use crate::log;

/// Adds the routes.
pub(super) fn routes(to: Routes) -> Routes {
    to.get("/v1/node", node)
        .get("/v1/links", links)
        .get("/v1/topics", topics)
        .get("/v1/http", http)
        .get("/v1/dht", dht)
        .get("/v1/latency", latency)
        .get("/v1/limits", limits_in_force)
        .get("/v1/config", config)
        .get("/health", health)
        .get("/metrics", metrics)
}

fn status(context: &Context) -> Status {
    let (state, reasons) = context.condition.state(context.mode);
    let now = Instant::now();
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        network: context.node.network_id().to_string(),
        profile: context.broadcaster.profile().name.to_owned(),
        mode: context.mode.name().to_owned(),
        state,
        reasons,
        peer_id: context.peer_id.clone(),
        ws: context.view.ws_url(),
        p2p: context.view.p2p_addresses(),
        admin: context.admin_url.get().cloned(),
        dials: context.node.dials().iter().map(|dial| Dial::of(dial, now)).collect(),
        peers: context.node.peers(PeerClass::Connected).len(),
        uptime_ms: millis(context.started.elapsed()),
        lines_lost: LinesLost { log: log::lost(), out: context.out.lost() },
        mapped_ports: (context.view.mapped_ports().iter())
            .map(|port| RouterPort::of(port, now))
            .collect(),
    }
}

async fn node(State(context): Shared) -> Json<Status> {
    Json(status(&context))
}

/// The same, for load balancers and probes: 503 while the node cannot do its work.
async fn health(State(context): Shared) -> (StatusCode, Json<Status>) {
    let status = status(&context);
    let code = match status.state {
        Health::Serving | Health::Degraded => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    (code, Json(status))
}

/// The links, and which of them its node is reached by.
async fn links(State(context): Shared) -> Json<Ledger> {
    let now = Instant::now();
    let describe = |peer: &PeerInfo, standing| LinkState {
        link: peer.id.0,
        standing,
        transport: peer.transport.label().to_owned(),
        direction: peer.direction.label().to_owned(),
        address: peer.address.clone(),
        peer_id: peer.identity.map(|identity| identity.to_string()),
        holder: peer
            .identity
            .and_then(|identity| context.broadcaster.holder(&identity))
            .map(|link| link.0),
        connected_ms: millis(now.saturating_duration_since(peer.connected_at)),
    };
    let (used, benched) =
        (context.broadcaster.peers(PeerClass::Connected), context.broadcaster.benched());
    let used = used.iter().map(|peer| describe(peer, Standing::Used));
    let benched = benched.iter().map(|peer| describe(peer, Standing::Benched));
    let mut links: Vec<LinkState> = used.chain(benched).collect();
    links.sort_by_key(|link| link.link);
    Json(Ledger { claims: context.broadcaster.claimed(), links })
}

async fn topics(State(context): Shared) -> Json<Vec<Topic>> {
    Json(context.view.topic_meshes().iter().map(Topic::of).collect())
}

async fn http(State(context): Shared) -> Result<Json<HttpState>, Response> {
    let none = || refuse(StatusCode::NOT_FOUND, "the node serves no HTTP");
    context.http.as_ref().map(|permits| Json(HttpState::of(permits))).ok_or_else(none)
}

async fn dht(State(context): Shared) -> Json<DhtState> {
    let part = context.live.setting("dht").unwrap_or_default();
    let identities = context.node.peers(PeerClass::Connected).into_iter();
    let words = identities.filter_map(|peer| context.view.about(&peer.identity?));
    let serves = |protocols: &[String]| protocols.iter().any(|name| name.contains("/kad/"));
    let servers = words.filter(|words| serves(&words.protocols)).count();
    Json(DhtState { part, servers })
}

async fn latency(State(context): Shared) -> Json<Latency> {
    let metrics = context.broadcaster.metrics();
    let lane = |lane| LaneLatency {
        handling: Bucket::of(&metrics.durations(LatencyStage::Handling, lane)),
        sending: Bucket::of(&metrics.durations(LatencyStage::Sending, lane)),
    };
    Json(Latency { priority: lane(Lane::Priority), bulk: lane(Lane::Bulk) })
}

async fn limits_in_force(State(context): Shared) -> Json<LimitsInForce> {
    let (door, door_taken) = match context.view.door() {
        Some(door) => limits::of_door(&door),
        // The node has ended.
        None => (BTreeMap::new(), BTreeMap::new()),
    };
    Json(LimitsInForce {
        messages: limits::of_messages(context.broadcaster.limits()),
        door,
        door_taken,
        mesh: limits::of_mesh(&context.broadcaster.mesh().limits()),
    })
}

async fn config(State(context): Shared) -> Json<ConfigInForce> {
    let (settings, unknown) = context.live.shown();
    let settings = settings.into_iter().map(|(key, value, origin)| SettingInForce {
        key: key.to_owned(),
        value,
        origin,
    });
    Json(ConfigInForce { settings: settings.collect(), unknown })
}

/// Type of the text format of OpenMetrics. Source: OpenMetrics 1.0, content type.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

async fn metrics(State(context): Shared) -> Response {
    encode_metrics(&context.registry)
}

/// Everything in a registry, as collectors read it.
pub(super) fn encode_metrics(registry: &Registry) -> Response {
    let mut text = String::new();
    // Writing to a string does not fail.
    match prometheus_client::encoding::text::encode(&mut text, registry) {
        Ok(()) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}
