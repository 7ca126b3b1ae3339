//! The DHT: searches, announcements, values, and the routing table.

use std::time::{Duration, UNIX_EPOCH};

use axum::{Json, body::Body, extract::State, http::StatusCode, response::Response};
use serde::Deserialize;
use tandem::{Capability, CapabilityError, DhtError, MAX_VALUE_BYTES, ValueKey, ValueKeyError};

use super::{
    asked::Asked,
    context::{Shared, bad, read_json},
    problem::refuse,
    route_table::Routes,
    wire::{FoundContent, FoundProvider, Offer, StoredValue, TableNode, ValueToPut},
};

/// Longest time of a search in the DHT. Source: wire facts 8.7.
const FIND_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest time to put a value. Chosen: two searches, for the nodes and for their answers.
const PUT_TIMEOUT: Duration = Duration::from_secs(10);

/// Providers that one search finds, at most. Chosen: what a table on a screen shows.
const MAX_FOUND: usize = 100;

/// Longest order to put a value, in bytes. Chosen: the longest value in hexadecimal digits, and a name.
const MAX_ORDER_BYTES: usize = 2 * MAX_VALUE_BYTES + 1_024;

/// Adds the routes.
pub(super) fn routes(to: Routes) -> Routes {
    to.get("/v1/dht/providers", providers)
        .post("/v1/dht/providers", provide)
        .get("/v1/dht/peers", table)
        .get("/v1/dht/values", get)
        .post("/v1/dht/values", put)
}

/// The refusal of what the DHT did not do.
fn refused(error: DhtError) -> Response {
    match error {
        DhtError::Busy | DhtError::Closed => {
            refuse(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
        }
        _ => bad(error.to_string()),
    }
}

fn capability(text: &str) -> Result<Capability, Response> {
    text.parse().map_err(|error: CapabilityError| bad(error.to_string()))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FindQuery {
    capability: String,
    count: usize,
}

/// Searches the DHT.
async fn providers(
    State(context): Shared,
    Asked(query): Asked<FindQuery>,
) -> Result<Json<Vec<FoundProvider>>, Response> {
    let capability = capability(&query.capability)?;
    if !(1..=MAX_FOUND).contains(&query.count) {
        return Err(bad(format!("the count is a number from 1 to {MAX_FOUND}")));
    }
    let found = context.view.find_providers(capability, query.count, FIND_TIMEOUT).await;
    Ok(Json(found.map_err(refused)?.iter().map(FoundProvider::of).collect()))
}

/// Announces a capability until the node ends.
async fn provide(State(context): Shared, body: Body) -> Result<Json<()>, Response> {
    let offer: Offer = read_json(body, MAX_ORDER_BYTES).await?;
    let capability = capability(&offer.capability)?;
    context.view.provide(capability).await.map_err(refused)?;
    Ok(Json(()))
}

/// The routing table.
async fn table(State(context): Shared) -> Result<Json<Vec<TableNode>>, Response> {
    let peers = context.view.dht_peers().await.map_err(refused)?;
    Ok(Json(peers.iter().map(TableNode::of).collect()))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyQuery {
    key: String,
}

/// Searches the DHT for a value; `null` if there is none.
async fn get(
    State(context): Shared,
    Asked(query): Asked<KeyQuery>,
) -> Result<Json<Option<FoundContent>>, Response> {
    let key: ValueKey = query.key.parse().map_err(|error: ValueKeyError| bad(error.to_string()))?;
    let found = context.view.get_value(key, FIND_TIMEOUT).await.map_err(refused)?;
    Ok(Json(found.map(FoundContent::of)))
}

/// Puts a value into the DHT: under its hash, or signed under a name.
async fn put(State(context): Shared, body: Body) -> Result<Json<StoredValue>, Response> {
    let order: ValueToPut = read_json(body, MAX_ORDER_BYTES).await?;
    let content = hex::decode(&order.content_hex).map_err(|error| bad(error.to_string()))?;
    let (key, value) = match order.name {
        None => (ValueKey::of_content(&content), content),
        Some(name) => {
            // The later of two values counts.
            let now = context.broadcaster.environment().clock().now();
            let since = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            let sequence = u64::try_from(since).unwrap_or(u64::MAX);
            let signed = context.view.sign_value(&name, sequence, &content);
            let signed = signed.map_err(|_| {
                bad("a name is 1 to 64 printable letters without spaces and slashes")
            })?;
            signed.ok_or_else(|| refused(DhtError::Off))?
        }
    };
    let nodes = context.view.put_value(key.clone(), value, PUT_TIMEOUT).await.map_err(refused)?;
    Ok(Json(StoredValue { key: key.to_string(), nodes }))
}
