//! Messages: sent to the peers, and heard from them.
//!
//! # Invariants
//!
//! * A message is read to its end even if it is too long for its tag: who is still writing reads no answer.

use std::time::Duration;

use axum::{
    Json,
    body::{Body, Bytes},
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use broadcaster::{Broadcaster, DropReason};
use futures::{Stream, stream};
use gossip::{
    Compression, DeliveryError, Forwarding, Inbound, Lane, MAX_MESSAGE_BYTES, Outbound, PeerClass,
    SubmitError, Tag,
    wire::{digest::Digest, proposal::MAX_DECOMPRESSED},
};
use serde::Deserialize;
use tokio::{sync::broadcast, time};

use super::{
    asked::Asked,
    context::{Context, Shared, bad, read_body},
    problem::refuse,
    route_table::Routes,
    wire::{Heard, Line, Sent},
};

/// Longest time until every peer's link has written a message. Chosen: a little more than the
/// write deadline of a peer, so that a stalled peer is reported as given up.
pub(super) const DELIVERY_TIMEOUT: Duration = Duration::from_secs(12);

/// Adds the routes.
pub(super) fn routes(to: Routes) -> Routes {
    to.post("/v1/send", send).get("/v1/listen", listen)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SendQuery {
    tag: String,
}

async fn send(
    State(context): Shared,
    Asked(query): Asked<SendQuery>,
    body: Body,
) -> Result<Json<Sent>, Response> {
    let tag = query.tag.parse::<Tag>().map_err(|error| bad(error.to_string()))?;
    let max = largest_body(&context.broadcaster, tag).map_err(bad)?;
    // Read to its end even if it is too long for its tag: who is still writing reads no answer.
    // Read to its end even if it is too long for its tag: who is still writing reads no answer.
    let body = read_body(body, MAX_MESSAGE_BYTES).await?;
    if body.len() > max {
        let text = format!("the body has {} bytes: {tag} takes at most {max}", body.len());
        return Err(refuse(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
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
#[serde(deny_unknown_fields)]
struct ListenQuery {
    /// Tags between commas; all of them if there are none.
    tags: Option<String>,
}

async fn listen(
    State(context): Shared,
    Asked(query): Asked<ListenQuery>,
) -> Result<Response, Response> {
    let tags = query.tags.iter().flat_map(|tags| tags.split(',')).map(str::parse::<Tag>);
    let tags = tags.collect::<Result<Vec<_>, _>>().map_err(|error| bad(error.to_string()))?;
    for tag in &tags {
        is_tag(&context.broadcaster, *tag).map_err(bad)?;
    }
    // Kept for as long as somebody reads: peers need not send what nobody listens to.
    let kept = context.broadcaster.ask_for(&tags).map_err(|error| bad(error.to_string()))?;
    let lines = lines(context.broadcaster.clone(), tags, kept);
    let body = Body::from_stream(lines);
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// Every message that is heard from now on, a line each.
fn lines(
    broadcaster: Broadcaster,
    tags: Vec<Tag>,
    kept: tandem::Asked,
) -> impl Stream<Item = Result<Bytes, serde_json::Error>> + Send + 'static {
    // Subscribed before the first line says so.
    let messages = broadcaster.observe();
    let state = (Some(Line::Listening), messages, (tags, kept), broadcaster);
    stream::unfold(state, |(first, mut messages, wanted, broadcaster)| async move {
        let line = match first {
            Some(line) => line,
            None => next_line(&mut messages, &wanted.0, &broadcaster).await?,
        };
        let text = serde_json::to_vec(&line).map(|mut text| {
            text.push(b'\n');
            Bytes::from(text)
        });
        Some((text, (None, messages, wanted, broadcaster)))
    })
}

/// The next line; `None` once the node has stopped.
async fn next_line(
    messages: &mut broadcast::Receiver<Inbound>,
    tags: &[Tag],
    broadcaster: &Broadcaster,
) -> Option<Line<Heard>> {
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
