//! The routes by which an operator says whom the node talks to: peers, bans, members.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{Query, State},
    http::StatusCode,
    response::Response,
    routing::{delete, get},
};
use gossip::{Identity, NodeAddress};
use serde::Deserialize;
use tandem::{BanError, BanSubject, Member, PeerControl, SetMembersError};

use super::{
    context::{Context, Shared, read_json, refuse},
    wire::{BanOrder, Banned, MemberSet, MembersNow},
};

/// Longest order of a ban, in bytes. Chosen: an address and a reason of the longest kind.
const MAX_BAN_BYTES: usize = 16 * 1024;

/// Longest set of members, in bytes. Chosen: as many as there may be, with all their addresses.
const MAX_SET_BYTES: usize = 1024 * 1024;

/// The routes.
pub(super) fn routes() -> Router<Arc<Context>> {
    Router::new()
        .route("/peer", delete(remove))
        .route("/bans", get(bans).post(ban).delete(unban))
        .route("/members", get(members).post(set_members))
}

fn bad(text: impl Into<String>) -> Response {
    refuse(StatusCode::BAD_REQUEST, text)
}

#[derive(Debug, Deserialize)]
struct AddressQuery {
    address: String,
}

/// Forgets an address and ends the links to it, and tells whether it was known.
async fn remove(
    State(context): Shared,
    Query(query): Query<AddressQuery>,
) -> Result<Json<bool>, Response> {
    let address = query.address.parse::<NodeAddress>().map_err(|error| bad(error.to_string()))?;
    Ok(Json(context.control.remove_peer(&address)))
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
struct SubjectQuery {
    subject: String,
}

/// Ends a ban, and tells whether there was one.
async fn unban(
    State(context): Shared,
    Query(query): Query<SubjectQuery>,
) -> Result<Json<bool>, Response> {
    let subject = query.subject.parse::<BanSubject>().map_err(|error| bad(error.to_string()))?;
    Ok(Json(context.control.unban(&subject)))
}

async fn members(State(context): Shared) -> Json<MembersNow> {
    Json(members_now(&context.control))
}

async fn set_members(State(context): Shared, body: Body) -> Result<Json<MembersNow>, Response> {
    let MemberSet { epoch, members } = read_json(body, MAX_SET_BYTES).await?;
    let mut set = Vec::new();
    for named in members {
        let identity = named.peer_id.parse::<Identity>().map_err(|error| bad(error.to_string()))?;
        let addresses = named.addresses.iter().map(|address| address.parse::<NodeAddress>());
        let addresses =
            addresses.collect::<Result<Vec<_>, _>>().map_err(|error| bad(error.to_string()))?;
        set.push(Member::new(identity, addresses));
    }
    match context.control.set_members(epoch, set) {
        Ok(_turnover) => Ok(Json(members_now(&context.control))),
        Err(error @ SetMembersError::Members(_)) => Err(bad(error.to_string())),
        Err(error) => Err(refuse(StatusCode::SERVICE_UNAVAILABLE, error.to_string())),
    }
}

fn members_now(control: &PeerControl) -> MembersNow {
    let (epoch, members) = control.members().unzip();
    let members: Vec<Identity> = members.unwrap_or_default();
    MembersNow { epoch, peer_ids: members.iter().map(ToString::to_string).collect() }
}
