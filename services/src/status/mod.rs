//! The state of a node, for tools and load balancers.
//!
//! | request | answer |
//! | --- | --- |
//! | any method, `/status` | 200, no body |
//! | `GET` or `HEAD` of `/health` or `/` | 200, or 503 while the node stops or cannot do its work: a [`Health`] as JSON |
//! | `OPTIONS` of `/health` or `/` | the same status, no body, `Allow` |
//!
//! # Invariants
//!
//! * `/status` answers exactly what existing nodes answer. Source: wire facts 9.4 and the cases
//!   `status` and `status_post` of the vectors of the block service.
//! * A load balancer learns the same from each of its methods: HAProxy's default check is `OPTIONS /`.
//! * Nothing here knows the node: the state comes from a function that must not wait.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use serde::{Deserialize, Serialize, Serializer};

/// The state of a node, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Serving, or about to end.
    pub state: State,
    /// The faults by their names, such as `disk_full`; empty if there are none.
    #[serde(default)]
    pub reasons: Vec<String>,
    /// The network it belongs to.
    pub network: String,
    /// The profile it speaks, such as `tandem`.
    pub profile: String,
    /// Its transports, such as `hybrid`.
    pub mode: String,
    /// Its peers.
    pub peers: Peers,
    /// Time since its start; whole seconds in JSON.
    #[serde(
        rename = "uptime_seconds",
        serialize_with = "seconds",
        deserialize_with = "of_seconds"
    )]
    pub uptime: Duration,
    /// Its version.
    pub version: String,
}

/// The state of a node, for load balancers and others that send requests to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum State {
    /// The node serves.
    Serving,
    /// The node serves, with something wrong: see [`Health::reasons`].
    Degraded,
    /// The node cannot do its work: see [`Health::reasons`].
    Failing,
    /// The node is about to end, and nothing should be sent to it any more.
    Stopping,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Serving, Self::Degraded, Self::Failing, Self::Stopping];

    /// Its name in JSON and as a label of a metric.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Degraded => "degraded",
            Self::Failing => "failing",
            Self::Stopping => "stopping",
        }
    }
}

/// Connected peers by what carries their link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peers {
    /// WebSocket.
    pub ws: usize,
    /// libp2p.
    pub p2p: usize,
}

/// The routes of the status service. `health` is called for every request to `/health` and `/`; it must not
/// wait.
pub fn router(health: impl Fn() -> Health + Send + Sync + 'static) -> Router {
    let health = Arc::new(health);
    let asked = Arc::clone(&health);
    let checks = get(move || async move { described(&health()) })
        .options(move || async move { allowed(&asked()) });
    Router::new()
        .route("/status", any(|| async {}))
        .route("/health", checks.clone())
        .route("/", checks)
}

/// A load balancer must not take an old answer for a new one.
const FRESH: (HeaderName, HeaderValue) =
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));

fn described(health: &Health) -> Response {
    (status(health), [FRESH], Json(health)).into_response()
}

fn allowed(health: &Health) -> Response {
    let allow = (header::ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
    (status(health), [FRESH, allow]).into_response()
}

const fn status(health: &Health) -> StatusCode {
    match health.state {
        State::Serving | State::Degraded => StatusCode::OK,
        State::Failing | State::Stopping => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(duration.as_secs())
}

fn of_seconds<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(Duration::from_secs)
}
