//! Topics of the node's own: messages published on them, and heard there.
//!
//! # Invariants
//!
//! * A body is read to its end even if it is too long, as for messages of tags.
//! * A text is shown only if it is one: bytes that are no UTF-8 never reach a terminal.

use axum::{
    Json,
    body::{Body, Bytes},
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::{Stream, stream};
use gossip::{MAX_MESSAGE_BYTES, PublishError, TopicInbound};
use serde::Deserialize;
use tokio::{sync::broadcast, time};

use super::{
    asked::Asked,
    context::{Context, Shared, bad, read_body},
    messages::DELIVERY_TIMEOUT,
    problem::refuse,
    route_table::Routes,
    wire::{HeardOnTopic, Line, Published},
};

/// Adds the routes.
pub(super) fn routes(to: Routes) -> Routes {
    to.post("/v1/topics/publish", publish).get("/v1/topics/listen", listen)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TopicQuery {
    topic: String,
}

/// Says which topics there are, if this is none of them.
fn is_own(context: &Context, topic: &str) -> Result<(), Response> {
    let mut known = context.view.own_topics();
    if known.iter().any(|known| known == topic) {
        return Ok(());
    }
    known.sort();
    Err(bad(if known.is_empty() {
        format!("{topic:?} is no topic of this node, which has none: start it with --topic {topic}")
    } else {
        format!("{topic:?} is no topic of this node: use one of {}", known.join(", "))
    }))
}

async fn publish(
    State(context): Shared,
    Asked(query): Asked<TopicQuery>,
    body: Body,
) -> Result<Json<Published>, Response> {
    let TopicQuery { topic } = query;
    let body = read_body(body, MAX_MESSAGE_BYTES).await?;
    is_own(&context, &topic)?;
    let bytes = body.len();
    let status = |error: &PublishError| match error {
        PublishError::UnknownTopic { .. } | PublishError::Empty => StatusCode::BAD_REQUEST,
        PublishError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        PublishError::Duplicate => StatusCode::CONFLICT,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    match time::timeout(DELIVERY_TIMEOUT, context.node.publish(&topic, body)).await {
        Ok(Ok(peers)) => Ok(Json(Published { topic, bytes, peers })),
        Ok(Err(error)) => Err(refuse(status(&error), error.to_string())),
        Err(_elapsed) => {
            Err(refuse(StatusCode::SERVICE_UNAVAILABLE, "the message was not published in time"))
        }
    }
}

async fn listen(
    State(context): Shared,
    Asked(query): Asked<TopicQuery>,
) -> Result<Response, Response> {
    is_own(&context, &query.topic)?;
    let gone = || refuse(StatusCode::SERVICE_UNAVAILABLE, "the node is stopping");
    // Subscribed before the first line says so.
    let messages = context.view.observe_topics().ok_or_else(gone)?;
    let body = Body::from_stream(lines(messages, query.topic));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// Every message that is heard on a topic from now on, a line each.
fn lines(
    messages: broadcast::Receiver<TopicInbound>,
    topic: String,
) -> impl Stream<Item = Result<Bytes, serde_json::Error>> + Send + 'static {
    let state = (Some(Line::Listening), messages, topic);
    stream::unfold(state, |(first, mut messages, topic)| async move {
        let line = match first {
            Some(line) => line,
            None => next_line(&mut messages, &topic).await?,
        };
        let text = serde_json::to_vec(&line).map(|mut text| {
            text.push(b'\n');
            Bytes::from(text)
        });
        Some((text, (None, messages, topic)))
    })
}

/// The next line; `None` once the node has stopped.
async fn next_line(
    messages: &mut broadcast::Receiver<TopicInbound>,
    topic: &str,
) -> Option<Line<HeardOnTopic>> {
    loop {
        match messages.recv().await {
            Ok(message) if &*message.topic == topic => {
                return Some(Line::Message(HeardOnTopic::of(&message)));
            }
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(messages)) => {
                return Some(Line::Missed { messages });
            }
            Err(broadcast::error::RecvError::Closed) => return None,
        }
    }
}
