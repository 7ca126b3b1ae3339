//! The node that the admin API speaks about, and the reading that all its routes do.
//!
//! # Invariants
//!
//! * A body is read under a bound and a deadline.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::StatusCode,
    response::Response,
};
use broadcaster::Broadcaster;
use gossip::GossipNode;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use prometheus_client::registry::Registry;
use serde::de::DeserializeOwned;
use tandem::{HttpPermits, Mode, PeerControl, View};
use tokio::time;

use super::{accept::Crowded, journal::Journal, problem::refuse, rates::Rates, token::Refused};
use crate::{cli::Condition, lines::Lines, live::Live};

/// Longest time for the body of a request to arrive. Chosen: a local process writes megabytes in
/// milliseconds; standard input may be somebody typing, but that is read before it is sent.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The running node that the admin API speaks about.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) node: Arc<dyn GossipNode>,
    pub(crate) broadcaster: Broadcaster,
    pub(crate) mode: Mode,
    pub(crate) peer_id: String,
    pub(crate) view: View,
    pub(crate) control: PeerControl,
    pub(crate) condition: Condition,
    pub(crate) started: Instant,
    /// Standard output of the node.
    pub(crate) out: Lines,
    /// Everything that the node counts.
    pub(crate) registry: Arc<Registry>,
    /// Permits of the HTTP server, if the node serves HTTP.
    pub(crate) http: Option<HttpPermits>,
    /// The events of late.
    pub(crate) journal: Journal,
    /// The configuration in force.
    pub(crate) live: Arc<Live>,
    /// Requests over TCP that named no right token.
    pub(crate) refused: Arc<Refused>,
    pub(crate) crowded: Crowded,
    /// URL of the admin port, once the node listens on one.
    pub(crate) admin_url: Arc<OnceLock<String>>,
    /// The traffic of peers a second.
    pub(crate) rates: Arc<Rates>,
}

pub(super) type Shared = State<Arc<Context>>;

/// Reads a body of at most `most` bytes, within [`BODY_TIMEOUT`].
pub(super) async fn read_body(body: Body, most: usize) -> Result<Bytes, Response> {
    match time::timeout(BODY_TIMEOUT, Limited::new(body, most).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let text = format!("the body is longer than {most} bytes");
            Err(refuse(StatusCode::PAYLOAD_TOO_LARGE, text))
        }
        Ok(Err(_)) => Err(bad("the body could not be read")),
        Err(_elapsed) => {
            Err(refuse(StatusCode::REQUEST_TIMEOUT, "the body took too long to arrive"))
        }
    }
}

/// Reads a body of JSON.
pub(super) async fn read_json<T: DeserializeOwned>(body: Body, most: usize) -> Result<T, Response> {
    let body = read_body(body, most).await?;
    serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))
}

/// The refusal of a request that is wrong in itself.
pub(super) fn bad(text: impl Into<String>) -> Response {
    refuse(StatusCode::BAD_REQUEST, text)
}
