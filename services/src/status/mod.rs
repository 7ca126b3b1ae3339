//! Whether a node is alive and what it is.
//!
//! | request | answer |
//! | --- | --- |
//! | any method, `/status` | 200, no body |
//! | `GET /health` | 200, or 503 while the node stops: a [`Health`] as JSON |
//!
//! # Invariants
//!
//! * `/status` answers exactly what existing nodes answer. Source: wire facts 9.4 and the cases
//!   `status` and `status_post` of the vectors of the block service.
//! * Nothing here knows the node: what is said comes from a function that must not wait.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use serde::{Deserialize, Serialize, Serializer};

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whether it serves.
    pub state: State,
    /// The network it belongs to.
    pub network: String,
    /// The profile it speaks, such as `tandem`.
    pub profile: String,
    /// Its transports, such as `hybrid`.
    pub mode: String,
    /// Its peers.
    pub peers: Peers,
    /// How long it runs; whole seconds in JSON.
    #[serde(
        rename = "uptime_seconds",
        serialize_with = "seconds",
        deserialize_with = "of_seconds"
    )]
    pub uptime: Duration,
    /// Its version.
    pub version: String,
}

/// Whether a node serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It does.
    Serving,
    /// It is about to end, and nothing should be sent to it any more.
    Stopping,
}

/// Connected peers by what carries their link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peers {
    /// WebSocket.
    pub ws: usize,
    /// libp2p.
    pub p2p: usize,
}

/// The routes of the status service. `health` is called for every request to `/health`; it must not wait.
pub fn router(health: impl Fn() -> Health + Send + Sync + 'static) -> Router {
    let health = Arc::new(health);
    Router::new()
        .route("/status", any(|| async {}))
        .route("/health", get(move || async move { answer(&health()) }))
}

fn answer(health: &Health) -> Response {
    let status = match health.state {
        State::Serving => StatusCode::OK,
        State::Stopping => StatusCode::SERVICE_UNAVAILABLE,
    };
    let fresh = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (status, fresh, Json(health)).into_response()
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(duration.as_secs())
}

fn of_seconds<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(Duration::from_secs)
}
