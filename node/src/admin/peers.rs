//! The peers, what they do, and orders to connect and to disconnect.

use std::{collections::HashMap, time::Instant};

use axum::{
    Json,
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::StatusCode,
    response::Response,
};
use gossip::{ApplicationReason, LinkId, NodeAddress, PeerClass, PeerInfo, Transport};
use serde::Deserialize;
use serde_json::Value;
use tandem::{AddPeerError, DropReason, LinkTraffic};

use super::{
    asked::Asked,
    context::{Context, Shared, bad, read_json},
    problem::refuse,
    report::{Connect, PeerPage},
    route_table::Routes,
    wire::{About, Peer},
};

/// Peers of one page, at most, and if nobody says how many. Source: NATS, `/connz`.
pub(crate) const MAX_PEERS: usize = 1_024;

/// Longest order to connect, in bytes. Chosen: an address of the longest kind.
const MAX_CONNECT_BYTES: usize = 16 * 1024;

/// The numbers of a peer, by their paths in its description. The counts of `drops` are further ones.
pub(super) const NUMBERS: [&str; 29] = [
    "peer",
    "connected_ms",
    "queued_bytes",
    "rtt_us",
    "weight",
    "topic_score",
    "dropped",
    "dial.failures",
    "dial.next_try_ms",
    "lanes.priority.queued_messages",
    "lanes.priority.queued_bytes",
    "lanes.priority.received_messages",
    "lanes.priority.received_bytes",
    "lanes.priority.sent_messages",
    "lanes.priority.sent_bytes",
    "lanes.priority.received_messages_per_s",
    "lanes.priority.received_bytes_per_s",
    "lanes.priority.sent_messages_per_s",
    "lanes.priority.sent_bytes_per_s",
    "lanes.bulk.queued_messages",
    "lanes.bulk.queued_bytes",
    "lanes.bulk.received_messages",
    "lanes.bulk.received_bytes",
    "lanes.bulk.sent_messages",
    "lanes.bulk.sent_bytes",
    "lanes.bulk.received_messages_per_s",
    "lanes.bulk.received_bytes_per_s",
    "lanes.bulk.sent_messages_per_s",
    "lanes.bulk.sent_bytes_per_s",
];

/// Adds the routes.
pub(super) fn routes(to: Routes) -> Routes {
    to.get("/v1/peers", peers)
        .post("/v1/peers", connect)
        .delete("/v1/peers", remove)
        .get("/v1/peers/{peer}", peer)
        .delete("/v1/peers/{peer}", disconnect)
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Order {
    /// The largest first.
    #[default]
    Desc,
    Asc,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PeersQuery {
    /// One of [`NUMBERS`], or a reason such as `drops.duplicate`. In the order of their numbers if left out.
    sort: Option<String>,
    #[serde(default)]
    order: Order,
    limit: Option<usize>,
    #[serde(default)]
    offset: usize,
    transport: Option<String>,
}

async fn peers(
    State(context): Shared,
    Asked(query): Asked<PeersQuery>,
) -> Result<Json<PeerPage>, Response> {
    let limit = query.limit.unwrap_or(MAX_PEERS);
    if !(1..=MAX_PEERS).contains(&limit) {
        return Err(bad(format!("the limit is a number from 1 to {MAX_PEERS}")));
    }
    let transport = query.transport.as_deref().map(transport).transpose()?;
    let mut peers = described(&context, |peer| transport.is_none_or(|of| peer.transport == of));
    if let Some(sort) = &query.sort {
        peers = sorted(peers, sort, query.order)?;
    }
    let (total, offset) = (peers.len(), query.offset);
    let peers = peers.into_iter().skip(offset).take(limit).collect();
    Ok(Json(PeerPage { total, offset, limit, peers }))
}

fn transport(name: &str) -> Result<Transport, Response> {
    let known = [Transport::WebSocket, Transport::Libp2p];
    let found = known.into_iter().find(|transport| transport.label() == name);
    found.ok_or_else(|| bad(format!("{name:?} is no transport: write ws or p2p")))
}

/// The descriptions of those peers that `which` is `true` for, in the order of their numbers.
fn described(context: &Context, which: impl Fn(&PeerInfo) -> bool) -> Vec<Peer> {
    let mut peers = context.node.peers(PeerClass::Connected);
    peers.retain(which);
    peers.sort_by_key(|peer| peer.id);
    let traffic: HashMap<LinkId, LinkTraffic> =
        context.broadcaster.traffic().into_iter().map(|link| (link.link, link)).collect();
    let now = Instant::now();
    let describe = |peer: &PeerInfo| {
        let identity = peer.identity.filter(|_| peer.transport == Transport::Libp2p);
        let about = About {
            topics: identity.and_then(|identity| context.view.topic_score(&identity)),
            words: identity.and_then(|identity| context.view.about(&identity)),
            traffic: traffic.get(&peer.id),
            rates: context.rates.of(peer.id),
        };
        Peer::of(peer, about, now)
    };
    peers.iter().map(describe).collect()
}

/// Sorts by a number; peers that have none come last, and equal ones stay in the order of their numbers.
fn sorted(peers: Vec<Peer>, by: &str, order: Order) -> Result<Vec<Peer>, Response> {
    let is_reason = |name: &str| DropReason::all().any(|reason| reason.label() == name);
    if !NUMBERS.contains(&by) && !by.strip_prefix("drops.").is_some_and(is_reason) {
        return Err(bad(format!(
            "{by:?} is no number of a peer: use one of {}, or drops. and a reason",
            NUMBERS.join(", ")
        )));
    }
    let mut numbered: Vec<(Option<f64>, Peer)> =
        peers.into_iter().map(|peer| (number(&peer, by), peer)).collect();
    numbered.sort_by(|(one, _), (other, _)| match (one, other, order) {
        (Some(one), Some(other), Order::Asc) => one.total_cmp(other),
        (Some(one), Some(other), Order::Desc) => other.total_cmp(one),
        (one, other, _) => other.is_some().cmp(&one.is_some()),
    });
    Ok(numbered.into_iter().map(|(_, peer)| peer).collect())
}

/// The number of a peer at a path.
pub(super) fn number(peer: &Peer, path: &str) -> Option<f64> {
    let mut value = serde_json::to_value(peer).ok()?;
    for part in path.split('.') {
        value = value.get_mut(part).map(Value::take)?;
    }
    value.as_f64()
}

/// The number of a peer, as a path has it.
type Named = Result<Path<String>, PathRejection>;

fn named(path: Named) -> Result<LinkId, Response> {
    let Path(text) = path.map_err(|error| bad(error.body_text()))?;
    text.parse().map(LinkId).map_err(|_| bad(format!("{text:?} is no number of a peer")))
}

fn unknown(peer: LinkId) -> Response {
    refuse(StatusCode::NOT_FOUND, format!("no peer is connected as {peer}"))
}

async fn peer(State(context): Shared, peer: Named) -> Result<Json<Peer>, Response> {
    let id = named(peer)?;
    let mut found = described(&context, |peer| peer.id == id);
    found.pop().map(Json).ok_or_else(|| unknown(id))
}

/// Ends the link to a peer. One that is configured is dialled again.
async fn disconnect(State(context): Shared, peer: Named) -> Result<Json<()>, Response> {
    let id = named(peer)?;
    if !context.node.peers(PeerClass::Connected).iter().any(|peer| peer.id == id) {
        return Err(unknown(id));
    }
    context.node.disconnect(id, ApplicationReason::Requested);
    Ok(Json(()))
}

/// Dials an address now and whenever there is no link to its peer, until it is removed.
async fn connect(State(context): Shared, body: Body) -> Result<Json<()>, Response> {
    let order: Connect = read_json(body, MAX_CONNECT_BYTES).await?;
    let address = order.address.parse::<NodeAddress>().map_err(|error| bad(error.to_string()))?;
    context.control.add_peer(&address).map(Json).map_err(|error| match error {
        AddPeerError::Address(_) => bad(error.to_string()),
        AddPeerError::Full => refuse(StatusCode::CONFLICT, error.to_string()),
        error => refuse(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AddressQuery {
    address: String,
}

/// Forgets an address and ends the links to it, and tells whether it was known.
async fn remove(
    State(context): Shared,
    Asked(query): Asked<AddressQuery>,
) -> Result<Json<bool>, Response> {
    let address = query.address.parse::<NodeAddress>().map_err(|error| bad(error.to_string()))?;
    Ok(Json(context.control.remove_peer(&address)))
}
