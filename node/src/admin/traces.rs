//! The ways of messages through the node: those that are kept, and the choice of further ones.

use std::{collections::HashMap, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::StatusCode,
    response::Response,
};
use gossip::{LinkId, PeerClass, wire::digest::Digest};
use serde_json::json;

use super::{
    context::{Shared, bad, read_json},
    problem::refuse,
    route_table::Routes,
    traced::{SampleOrder, Summary, Traces, WatchOrder, Way},
};

/// Longest order, in bytes. Chosen: a digest and two numbers, several times.
const MAX_ORDER_BYTES: usize = 1_024;

/// Longest time for which a message is waited for. Source: `Tracer::want`.
const MAX_WAIT: Duration = Duration::from_secs(3_600);

/// Adds the routes.
pub(super) fn routes(to: Routes) -> Routes {
    to.get("/v1/traces", traces)
        .put("/v1/traces", sample)
        .post("/v1/traces", watch)
        .get("/v1/traces/{digest}", trace)
}

/// A digest as people write it.
pub(crate) fn digest(text: &str) -> Result<Digest, &'static str> {
    const WRONG: &str =
        "a digest is 64 hexadecimal digits, as tandem send and tandem listen show them";
    let mut digest = [0; 32];
    if text.len() != 2 * digest.len() || !text.is_ascii() {
        return Err(WRONG);
    }
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| WRONG)?;
    }
    Ok(Digest(digest))
}

async fn traces(State(context): Shared) -> Json<Traces> {
    let tracer = context.broadcaster.tracer();
    let traces = tracer.traces().iter().map(Summary::of).collect();
    Json(Traces { one_in: tracer.one_in(), traces })
}

async fn trace(
    State(context): Shared,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Way>, Response> {
    let Path(text) = path.map_err(|error| bad(error.body_text()))?;
    let digest = digest(&text).map_err(bad)?;
    let Some(trace) = context.broadcaster.tracer().trace(&digest) else {
        let text = "the way of this message is not kept: it is not in the sample, was forgotten, or did not come";
        return Err(refuse(StatusCode::NOT_FOUND, text));
    };
    let peers = context.node.peers(PeerClass::Connected);
    let addresses: HashMap<LinkId, String> =
        peers.into_iter().map(|peer| (peer.id, peer.address)).collect();
    let address = |link| addresses.get(&link).cloned();
    Ok(Json(Way::of(&trace, &context.peer_id, address)))
}

/// Changes the rate of the sample, until the node stops.
async fn sample(State(context): Shared, body: Body) -> Result<Json<SampleOrder>, Response> {
    let SampleOrder { one_in } = read_json(body, MAX_ORDER_BYTES).await?;
    context.broadcaster.tracer().set_one_in(one_in);
    context.journal.note(&json!({"event": "trace_changed", "one_in": one_in}));
    Ok(Json(SampleOrder { one_in }))
}

/// Keeps the way of one message, should it come.
async fn watch(State(context): Shared, body: Body) -> Result<Json<()>, Response> {
    let WatchOrder { digest: text, wait_s } = read_json(body, MAX_ORDER_BYTES).await?;
    let (digest, wait) = (digest(&text).map_err(bad)?, Duration::from_secs(wait_s));
    if wait.is_zero() || wait > MAX_WAIT {
        return Err(bad(format!("it is waited for 1 to {} s", MAX_WAIT.as_secs())));
    }
    let wanted = context.broadcaster.tracer().want(digest, wait);
    wanted.map(Json).map_err(|error| refuse(StatusCode::CONFLICT, error.to_string()))
}
