//! Orders to the node as a whole: read the configuration again, change the log, take no further peers.

use std::{sync::Arc, time::Duration};

use axum::{Json, body::Body, extract::State, http::StatusCode, response::Response};
use gossip::PeerClass;
use serde_json::json;

use super::{
    context::{Shared, bad, read_json},
    problem::refuse,
    report::{DrainOrder, Draining, LogFilter},
    route_table::Routes,
    wire::{Reloaded, millis},
};
use crate::{config::MAX_DRAIN, log};

/// Longest order, in bytes. Chosen: a log filter with a word for every room, ten times.
const MAX_ORDER_BYTES: usize = 16 * 1024;

/// Adds the routes.
pub(super) fn routes(to: Routes) -> Routes {
    to.get("/v1/log", log_filter)
        .put("/v1/log", set_log_filter)
        .post("/v1/reload", reload)
        .post("/v1/drain", drain)
}

async fn log_filter() -> Json<LogFilter> {
    Json(LogFilter { filter: log::filter() })
}

async fn set_log_filter(State(context): Shared, body: Body) -> Result<Json<LogFilter>, Response> {
    let LogFilter { filter } = read_json(body, MAX_ORDER_BYTES).await?;
    log::set_filter(&filter).map_err(|error| bad(error.to_string()))?;
    context.journal.note(&json!({"event": "log_changed", "filter": filter}));
    Ok(Json(LogFilter { filter }))
}

/// Reads the configuration and the files of the certificates again.
async fn reload(State(context): Shared) -> Result<Json<Reloaded>, Response> {
    let live = Arc::clone(&context.live);
    let failed = |text: String| refuse(StatusCode::INTERNAL_SERVER_ERROR, text);
    let reading = tokio::task::spawn_blocking(move || live.reload());
    let outcome = reading.await.map_err(|_ended| failed("the node is stopping".to_owned()))?;
    match outcome {
        Ok(reloaded) => {
            let Reloaded { changed, needs_restart, .. } = &reloaded;
            let event =
                json!({"event": "reloaded", "changed": changed, "needs_restart": needs_restart});
            context.journal.note(&event);
            Ok(Json(reloaded))
        }
        Err(error) => {
            let error = log::in_one_line(&error);
            context.journal.note(&json!({"event": "reload_refused", "error": error}));
            Err(failed(error))
        }
    }
}

/// Takes no further peers from now on.
async fn drain(State(context): Shared, body: Body) -> Result<Json<Draining>, Response> {
    let DrainOrder { grace_s } = read_json(body, MAX_ORDER_BYTES).await?;
    let grace = grace_s.map(Duration::from_secs);
    if grace.is_some_and(|grace| grace > MAX_DRAIN) {
        return Err(bad(format!("the grace is {} s at most", MAX_DRAIN.as_secs())));
    }
    context.control.drain();
    let stops_in = context.condition.drain.begin(grace);
    context.journal.note(&json!({"event": "draining", "grace_s": grace_s}));
    let peers = context.node.peers(PeerClass::Connected).len();
    Ok(Json(Draining { peers, stops_in_ms: stops_in.map(millis) }))
}
