//! The addresses that a node knows.

use axum::{Json, body::Body, extract::State, response::Response};
use gossip::{AddressError, NodeAddress};
use mesh::{Added, Listed, Role, RoleSet, SourceId, SourceKind};
use serde::Deserialize;

use super::{
    asked::Asked,
    context::{Shared, bad, read_json},
    route_table::Routes,
    wire::{Additions, Entry},
};

/// Longest list of addresses to add, in bytes. Chosen: as many as there may be, each of the longest kind.
const MAX_ADDITIONS_BYTES: usize = 1024 * 1024;

/// Adds the routes.
pub(super) fn routes(to: Routes) -> Routes {
    to.get("/v1/phonebook", phonebook).post("/v1/phonebook", add).delete("/v1/phonebook", remove)
}

async fn phonebook(State(context): Shared) -> Json<Vec<Entry>> {
    Json(context.broadcaster.mesh().records().iter().map(Entry::of).collect())
}

/// Adds addresses, all of them or none if one cannot be dialled, and tells how many found a place.
async fn add(State(context): Shared, body: Body) -> Result<Json<usize>, Response> {
    let additions: Additions = read_json(body, MAX_ADDITIONS_BYTES).await?;
    let roles = additions.roles.iter().map(|role| role.parse::<Role>());
    let roles: RoleSet = roles.collect::<Result<_, _>>().map_err(|error| bad(error.to_string()))?;
    let mut addresses = Vec::new();
    for address in &additions.addresses {
        let address: NodeAddress =
            address.parse().map_err(|error: AddressError| bad(error.to_string()))?;
        context.mode.check_peer(&address).map_err(|error| bad(error.to_string()))?;
        addresses.push(address);
    }
    let (mesh, operator) = (context.broadcaster.mesh(), SourceId::of(SourceKind::Operator));
    let add = |address| mesh.list(Listed { address, roles: roles.clone() }, &operator);
    let placed = addresses.into_iter().map(add).filter(|added| *added != Added::Full).count();
    Ok(Json(placed))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveQuery {
    address: String,
}

/// Forgets an address, and tells whether it was known.
async fn remove(
    State(context): Shared,
    Asked(query): Asked<RemoveQuery>,
) -> Result<Json<bool>, Response> {
    let address = query.address.parse::<NodeAddress>().map_err(|error| bad(error.to_string()))?;
    Ok(Json(context.broadcaster.mesh().remove(&address)))
}
