//! Bans of peers, hosts and addresses.

use std::time::Duration;

use axum::{Json, body::Body, extract::State, http::StatusCode, response::Response};
use serde::Deserialize;
use tandem::{BanError, BanSubject};

use super::{
    asked::Asked,
    context::{Shared, bad, read_json},
    problem::refuse,
    route_table::Routes,
    wire::{BanOrder, Banned},
};

/// Longest order of a ban, in bytes. Chosen: an address and a reason of the longest kind.
const MAX_BAN_BYTES: usize = 16 * 1024;

/// Adds the routes.
pub(super) fn routes(to: Routes) -> Routes {
    to.get("/v1/bans", bans).post("/v1/bans", ban).delete("/v1/bans", unban)
}

async fn bans(State(context): Shared) -> Json<Vec<Banned>> {
    Json(context.control.bans().iter().map(Banned::of).collect())
}

async fn ban(State(context): Shared, body: Body) -> Result<Json<()>, Response> {
    let order: BanOrder = read_json(body, MAX_BAN_BYTES).await?;
    let subject = order.subject.parse::<BanSubject>().map_err(|error| bad(error.to_string()))?;
    let duration = Duration::from_secs(order.for_s);
    if duration.is_zero() {
        return Err(bad("a ban takes a second at least"));
    }
    context.control.ban(subject, duration, &order.reason).map(Json).map_err(|error| match error {
        BanError::TooMany(_) => refuse(StatusCode::CONFLICT, error.to_string()),
        error => refuse(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubjectQuery {
    subject: String,
}

/// Ends a ban, and tells whether there was one.
async fn unban(
    State(context): Shared,
    Asked(query): Asked<SubjectQuery>,
) -> Result<Json<bool>, Response> {
    let subject = query.subject.parse::<BanSubject>().map_err(|error| bad(error.to_string()))?;
    Ok(Json(context.control.unban(&subject)))
}
