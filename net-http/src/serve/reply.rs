//! Answers in the words of existing nodes. Source: wire facts 1.6 and the vectors.

use std::time::Duration;

use gossip::http::{HttpBody, HttpResponse};
use http::{HeaderName, HeaderValue, Response, StatusCode, Uri, header};
use tokio::time;

/// `Content-Type` of every text.
pub const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// `X-Content-Type-Options`: the type of a text is to be believed.
pub const NO_SNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// A status without a body.
#[must_use]
pub fn empty(status: StatusCode) -> HttpResponse {
    text(status, "", &[])
}

/// A status and words about it.
#[must_use]
pub fn refused(status: StatusCode, words: &str) -> HttpResponse {
    text(status, words, &[(header::CONTENT_TYPE, PLAIN)])
}

/// 404, in the words of existing nodes.
#[must_use]
pub fn not_found() -> HttpResponse {
    let headers = [(header::CONTENT_TYPE, PLAIN), (header::X_CONTENT_TYPE_OPTIONS, NO_SNIFF)];
    text(StatusCode::NOT_FOUND, "404 page not found\n", &headers)
}

/// A refusal with `Retry-After`: `after` rounded up to seconds, at least one.
#[must_use]
pub fn come_back(status: StatusCode, after: Duration) -> HttpResponse {
    let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
    text(status, "", &[(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)))])
}

/// Wait of a caller that asks too often before it is told so. Chosen: a flood of 64 connections is worth
/// 256 refusals a second then, which costs other callers nothing; a caller that misjudged a rate hardly
/// notices it.
const PAUSE: Duration = Duration::from_millis(250);

/// An extension of an answer that is to be given only after a pause. The server does the waiting: a
/// connection waits for one answer at a time, so that all waits together are bounded.
#[derive(Clone, Copy, Debug)]
struct Pause;

/// Has the server give an answer only after 250 ms: a flood costs the client that makes it more time than
/// the node that refuses it.
#[must_use]
pub fn paused(mut response: HttpResponse) -> HttpResponse {
    response.extensions_mut().insert(Pause);
    response
}

/// 429, with `Retry-After` and after a pause: the caller asks too often.
#[must_use]
pub fn too_many(after: Duration) -> HttpResponse {
    paused(come_back(StatusCode::TOO_MANY_REQUESTS, after))
}

/// The answer is to be given only after a pause.
pub(crate) fn has_pause(response: &HttpResponse) -> bool {
    response.extensions().get::<Pause>().is_some()
}

/// An answer that has waited, if it was to.
///
/// # Cancel safety
///
/// A dropped future drops the answer.
pub(crate) async fn after_its_pause(mut response: HttpResponse) -> HttpResponse {
    if response.extensions_mut().remove::<Pause>().is_some() {
        time::sleep(PAUSE).await;
    }
    response
}

/// 301 to another path.
#[must_use]
pub fn moved(location: &str) -> HttpResponse {
    match HeaderValue::from_str(location) {
        Ok(location) => text(StatusCode::MOVED_PERMANENTLY, "", &[(header::LOCATION, location)]),
        Err(_) => not_found(),
    }
}

/// The answer to a request for a path that has a cleaner form; `None` where it has not. It comes after a
/// pause, because no limit of a service stands before it.
#[must_use]
pub fn elsewhere(uri: &Uri) -> Option<HttpResponse> {
    let path = super::path::elsewhere(uri.path())?;
    Some(paused(match uri.query() {
        Some(query) => moved(&format!("{path}?{query}")),
        None => moved(&path),
    }))
}

/// A status, a text and headers. The length of the text is added.
#[must_use]
pub fn text(status: StatusCode, text: &str, headers: &[(HeaderName, HeaderValue)]) -> HttpResponse {
    let mut response = Response::new(HttpBody::full(text.to_owned()));
    *response.status_mut() = status;
    response.headers_mut().extend(headers.iter().cloned());
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
    response
}
