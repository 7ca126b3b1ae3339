//! The routes about messages, the phonebook and the state of the node.
//!
//! # Invariants
//!
//! * A message is read to its end even if it is too long for its tag: who is still writing reads no answer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use broadcaster::{Broadcaster, DropReason};
use futures::{Stream, stream};
use gossip::{
    AddressError, Compression, DeliveryError, Forwarding, Inbound, Lane, MAX_MESSAGE_BYTES,
    NodeAddress, Outbound, PeerClass, PeerInfo, SubmitError, Tag, Transport,
    wire::{digest::Digest, proposal::MAX_DECOMPRESSED},
};
use mesh::{Added, Listed, Role, RoleSet, SourceId, SourceKind};
use prometheus_client::registry::Registry;
use serde::Deserialize;
use tandem::{CapabilityError, FindError};
use tokio::{sync::broadcast, time};

use super::{
    context::{BODY_TIMEOUT, Context, Shared, read_json, refuse},
    wire::{
        Additions, Certificates, Dial, Entry, FoundProvider, Heard, Line, LinesLost, Peer,
        Reloaded, Sent, Status, millis,
    },
};
use crate::log;

/// Longest time until every peer's link has written a message. Chosen: a little more than the
/// write deadline of a peer, so that a stalled peer is reported as given up.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(12);

/// The routes about messages, the phonebook and the state of the node.
pub(super) fn routes() -> Router<Arc<Context>> {
    Router::new()
        .route("/status", get(status))
        .route("/peers", get(peers))
        .route("/phonebook", get(phonebook).post(add).delete(remove))
        .route("/dht/providers", get(providers))
        .route("/metrics", get(metrics))
        .route("/reload", post(reload))
        .route("/send", post(send))
        .route("/listen", get(listen))
}

async fn status(State(context): Shared) -> Json<Status> {
    let (state, reasons) = context.condition.state(context.mode);
    let now = Instant::now();
    Json(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        network: context.node.network_id().to_string(),
        profile: context.broadcaster.profile().name.to_owned(),
        mode: context.mode.name().to_owned(),
        state,
        reasons,
        peer_id: context.peer_id.clone(),
        ws: context.view.ws_url(),
        p2p: context.view.p2p_addresses(),
        dials: context.node.dials().iter().map(|dial| Dial::of(dial, now)).collect(),
        peers: context.node.peers(PeerClass::Connected).len(),
        uptime_ms: millis(context.started.elapsed()),
        lines_lost: LinesLost { log: log::lost(), out: context.out.lost() },
    })
}

async fn peers(State(context): Shared) -> Json<Vec<Peer>> {
    let mut peers = context.node.peers(PeerClass::Connected);
    peers.sort_by_key(|peer| peer.id);
    let score = |peer: &PeerInfo| {
        let identity = peer.identity.filter(|_| peer.transport == Transport::Libp2p)?;
        context.view.topic_score(&identity)
    };
    let now = Instant::now();
    Json(peers.iter().map(|peer| Peer::of(peer, score(peer), now)).collect())
}

/// Longest time of a search in the DHT. Source: wire facts 8.7.
const FIND_TIMEOUT: Duration = Duration::from_secs(5);

/// Providers that one search finds, at most. Chosen: what a table on a screen shows.
const MAX_FOUND: usize = 100;

#[derive(Debug, Deserialize)]
struct FindQuery {
    capability: String,
    count: usize,
}

/// Searches the DHT.
async fn providers(
    State(context): Shared,
    Query(query): Query<FindQuery>,
) -> Result<Json<Vec<FoundProvider>>, Response> {
    let bad = |text: String| refuse(StatusCode::BAD_REQUEST, text);
    let capability = query.capability.parse();
    let capability = capability.map_err(|error: CapabilityError| bad(error.to_string()))?;
    if !(1..=MAX_FOUND).contains(&query.count) {
        return Err(bad(format!("the count is a number from 1 to {MAX_FOUND}")));
    }
    let found = context.view.find_providers(capability, query.count, FIND_TIMEOUT).await;
    let found = found.map_err(|error| match error {
        FindError::Off => bad(error.to_string()),
        _ => refuse(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    })?;
    Ok(Json(found.iter().map(FoundProvider::of).collect()))
}

/// Longest list of addresses to add, in bytes. Chosen: as many as there may be, each of the longest kind.
const MAX_ADDITIONS_BYTES: usize = 1024 * 1024;

async fn phonebook(State(context): Shared) -> Json<Vec<Entry>> {
    Json(context.broadcaster.mesh().records().iter().map(Entry::of).collect())
}

/// Adds addresses, all of them or none if one cannot be dialled, and tells how many found a place.
async fn add(State(context): Shared, body: Body) -> Result<Json<usize>, Response> {
    let bad = |text: String| refuse(StatusCode::BAD_REQUEST, text);
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
struct RemoveQuery {
    address: String,
}

/// Forgets an address, and tells whether it was known.
async fn remove(
    State(context): Shared,
    Query(query): Query<RemoveQuery>,
) -> Result<Json<bool>, Response> {
    let address = query.address.parse::<NodeAddress>();
    let address = address.map_err(|error| refuse(StatusCode::BAD_REQUEST, error.to_string()))?;
    Ok(Json(context.broadcaster.mesh().remove(&address)))
}

/// Type of the text format of OpenMetrics. Source: OpenMetrics 1.0, content type.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

async fn metrics(State(context): Shared) -> Response {
    encode_metrics(&context.registry)
}

/// Everything in a registry, as collectors read it.
pub(super) fn encode_metrics(registry: &Registry) -> Response {
    let mut text = String::new();
    // Writing to a string does not fail.
    match prometheus_client::encoding::text::encode(&mut text, registry) {
        Ok(()) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// Reads the files of the certificates again.
async fn reload(State(context): Shared) -> Result<Json<Reloaded>, Response> {
    let view = context.view.clone();
    let failed = |text: String| refuse(StatusCode::INTERNAL_SERVER_ERROR, text);
    let reading = tokio::task::spawn_blocking(move || view.reload_certificates());
    let outcome = reading.await.map_err(|_ended| failed("the node is stopping".to_owned()))?;
    let outcome = outcome.map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        failed(format!("{error}{}; what was read before stays in use", cause.unwrap_or_default()))
    })?;
    Ok(Json(Reloaded { certificates: Certificates::of(outcome) }))
}

#[derive(Debug, Deserialize)]
struct SendQuery {
    tag: String,
}

async fn send(
    State(context): Shared,
    Query(query): Query<SendQuery>,
    body: Body,
) -> Result<Json<Sent>, Response> {
    let bad = |text: String| refuse(StatusCode::BAD_REQUEST, text);
    let tag = query.tag.parse::<Tag>().map_err(|error| bad(error.to_string()))?;
    let max = largest_body(&context.broadcaster, tag).map_err(bad)?;
    // Read to its end even if it is too long for its tag: who is still writing reads no answer.
    let read = axum::body::to_bytes(body, MAX_MESSAGE_BYTES);
    let body = match time::timeout(BODY_TIMEOUT, read).await {
        Ok(Ok(body)) if body.len() <= max => body,
        Ok(Ok(body)) => {
            let text = format!("the body has {} bytes: {tag} takes at most {max}", body.len());
            return Err(refuse(StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        Ok(Err(_)) => return Err(bad("the body could not be read".to_owned())),
        Err(_elapsed) => {
            return Err(refuse(StatusCode::REQUEST_TIMEOUT, "the body took too long to arrive"));
        }
    };
    deliver(&context, tag, body).await
}

/// Gives a message to the node and waits until it is with the peers.
async fn deliver(context: &Context, tag: Tag, body: Bytes) -> Result<Json<Sent>, Response> {
    let peers = context.node.peers(PeerClass::Connected).len();
    let (bytes, digest) = (body.len(), Digest::of(tag, &body).to_string());
    let delivery = context.node.broadcast_and_wait(Outbound::new(tag, body));
    let unavailable = |text: &str| refuse(StatusCode::SERVICE_UNAVAILABLE, text);
    match time::timeout(DELIVERY_TIMEOUT, delivery).await {
        Ok(Ok(delivery)) => Ok(Json(Sent {
            tag: tag.to_string(),
            bytes,
            digest,
            peers,
            written: delivery.written,
            given_up: delivery.given_up,
        })),
        Ok(Err(DeliveryError::Refused(error @ SubmitError::TooLarge { .. }))) => {
            Err(refuse(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()))
        }
        Ok(Err(DeliveryError::Refused(error))) => {
            Err(refuse(StatusCode::BAD_REQUEST, error.to_string()))
        }
        Ok(Err(DeliveryError::Full)) => {
            Err(unavailable("the node's queues are full: try again later"))
        }
        Ok(Err(_closed)) => Err(unavailable("the node is stopping")),
        Err(_elapsed) => Err(unavailable("the peers did not take the message in time")),
    }
}

/// The longest body that can be sent under a tag, or why none can.
fn largest_body(broadcaster: &Broadcaster, tag: Tag) -> Result<usize, String> {
    let rules = broadcaster.profile().tags.rules();
    let gossip = rules.iter().filter(|rule| rule.forwarding == Forwarding::Gossip);
    match gossip.clone().find(|rule| rule.tag == tag) {
        Some(rule) => Ok(match rule.compression {
            Compression::None => rule.max_payload.min(MAX_MESSAGE_BYTES - Tag::BYTES),
            Compression::Zstd => MAX_DECOMPRESSED,
        }),
        None => {
            let known: Vec<String> = gossip.map(|rule| rule.tag.to_string()).collect();
            Err(format!("{tag} cannot be sent in this network: use one of {}", known.join(", ")))
        }
    }
}

/// Says which tags there are, if this is none of them.
fn is_tag(broadcaster: &Broadcaster, tag: Tag) -> Result<(), String> {
    let table = &broadcaster.profile().tags;
    if table.rule(tag).is_some() {
        return Ok(());
    }
    let known: Vec<String> = table.rules().iter().map(|rule| rule.tag.to_string()).collect();
    Err(format!("{tag} is no tag of this network: use some of {}", known.join(", ")))
}

#[derive(Debug, Deserialize)]
struct ListenQuery {
    /// Tags between commas; all of them if there are none.
    tags: Option<String>,
}

async fn listen(
    State(context): Shared,
    Query(query): Query<ListenQuery>,
) -> Result<Response, Response> {
    let tags = query.tags.iter().flat_map(|tags| tags.split(',')).map(str::parse::<Tag>);
    let bad = |text: String| refuse(StatusCode::BAD_REQUEST, text);
    let tags = tags.collect::<Result<Vec<_>, _>>().map_err(|error| bad(error.to_string()))?;
    for tag in &tags {
        is_tag(&context.broadcaster, *tag).map_err(bad)?;
    }
    let lines = lines(context.broadcaster.clone(), tags);
    let body = Body::from_stream(lines);
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// Every message that is heard from now on, a line each.
fn lines(
    broadcaster: Broadcaster,
    tags: Vec<Tag>,
) -> impl Stream<Item = Result<Bytes, serde_json::Error>> + Send + 'static {
    // Subscribed before the first line says so.
    let messages = broadcaster.observe();
    let state = (Some(Line::Listening), messages, tags, broadcaster);
    stream::unfold(state, |(first, mut messages, tags, broadcaster)| async move {
        let line = match first {
            Some(line) => line,
            None => next_line(&mut messages, &tags, &broadcaster).await?,
        };
        let text = serde_json::to_vec(&line).map(|mut text| {
            text.push(b'\n');
            Bytes::from(text)
        });
        Some((text, (None, messages, tags, broadcaster)))
    })
}

/// The next line; `None` once the node has stopped.
async fn next_line(
    messages: &mut broadcast::Receiver<Inbound>,
    tags: &[Tag],
    broadcaster: &Broadcaster,
) -> Option<Line> {
    loop {
        match messages.recv().await {
            Ok(message) if tags.is_empty() || tags.contains(&message.tag) => {
                return Some(Line::Message(Heard::of(&message)));
            }
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(messages)) => {
                for _ in 0..messages {
                    broadcaster.metrics().dropped(DropReason::ObserverLagged, Lane::Bulk);
                }
                return Some(Line::Missed { messages });
            }
            Err(broadcast::error::RecvError::Closed) => return None,
        }
    }
}
