//! The members that an application names, for tests and for operators.

use axum::{Json, body::Body, extract::State, http::StatusCode, response::Response};
use gossip::{Identity, NodeAddress};
use tandem::{Member, PeerControl, SetMembersError};

use super::{
    context::{Shared, bad, read_json},
    problem::refuse,
    route_table::Routes,
    wire::{MemberSet, MembersNow},
};

/// Longest set of members, in bytes. Chosen: as many as there may be, with all their addresses.
const MAX_SET_BYTES: usize = 1024 * 1024;

/// Adds the routes.
pub(super) fn routes(to: Routes) -> Routes {
    to.get("/v1/members", members).post("/v1/members", set_members)
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
