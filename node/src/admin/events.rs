//! The events of late, as a list and as a stream.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::HeaderMap,
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use futures::{Stream, stream};
use serde::Deserialize;
use serde_json::json;

use super::{
    asked::Asked,
    context::{Shared, bad},
    journal::{Journal, MAX_KEPT, Noted, Reader},
    report::EventPage,
    route_table::Routes,
};

/// Header in which a reader says which event it read last. Source: HTML, server-sent events.
const LAST_EVENT_ID: &str = "last-event-id";

/// Time after which a stream without events has a comment, so that nobody on the path takes it for dead. Chosen: half
/// of what proxies wait by default.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Adds the routes.
pub(super) fn routes(to: Routes) -> Routes {
    to.get("/v1/events", events).get("/v1/events/stream", follow)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    /// Number of the last event that is known.
    #[serde(default)]
    after: u64,
    limit: Option<usize>,
}

async fn events(
    State(context): Shared,
    Asked(query): Asked<EventsQuery>,
) -> Result<Json<EventPage>, Response> {
    let limit = query.limit.unwrap_or(MAX_KEPT);
    if !(1..=MAX_KEPT).contains(&limit) {
        return Err(bad(format!("the limit is a number from 1 to {MAX_KEPT}")));
    }
    let since = context.journal.since(query.after);
    let dropped_readers = context.journal.dropped_readers();
    let events = since.events.iter().take(limit).map(|event| Noted::clone(event)).collect();
    Ok(Json(EventPage { last: since.last, missed: since.missed, dropped_readers, events }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamQuery {
    after: Option<u64>,
}

/// Streams the events after the one that is named, and those that follow; only the latter if none is named.
async fn follow(
    State(context): Shared,
    headers: HeaderMap,
    Asked(query): Asked<StreamQuery>,
) -> Result<Response, Response> {
    let header = headers.get(LAST_EVENT_ID).map(|value| value.to_str().unwrap_or_default());
    let last = header.map(|text| {
        text.trim().parse::<u64>().map_err(|_| bad(format!("{text:?} is no number of an event")))
    });
    let after = last.transpose()?.or(query.after);
    Ok(Sse::new(told(&context.journal, after))
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response())
}

/// A stream that tells events.
fn told(
    journal: &Journal,
    after: Option<u64>,
) -> impl Stream<Item = Result<Event, Infallible>> + Send + 'static + use<> {
    let (since, reader) = journal.follow(after.unwrap_or(0));
    let mut waiting = VecDeque::new();
    if after.is_some() {
        if since.missed > 0 {
            let told = json!({"event": "missed", "events": since.missed});
            waiting.push_back(Event::default().event("missed").data(told.to_string()));
        }
        waiting.extend(since.events.iter().map(event));
    }
    stream::unfold((waiting, reader), |(mut waiting, mut reader): (VecDeque<_>, Reader)| async {
        let next = match waiting.pop_front() {
            Some(event) => event,
            None => event(&reader.next().await?),
        };
        Some((Ok(next), (waiting, reader)))
    })
}

fn event(noted: &Arc<Noted>) -> Event {
    // Nothing that is noted has keys that are no strings, or anything else that JSON has not.
    let text = serde_json::to_string(&**noted).unwrap_or_default();
    Event::default().id(noted.seq.to_string()).event(&noted.event).data(text)
}
