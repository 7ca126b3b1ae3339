//! Answers with the texts of existing nodes. Source: wire facts 1.6 and the vectors.

use std::time::Duration;

use gossip::http::{HttpBody, HttpResponse};
use http::{HeaderName, HeaderValue, Response, StatusCode, Uri, header};
use runtime::time;

/// `Content-Type` of every text answer.
pub const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Value of `X-Content-Type-Options`, so that clients do not guess another type.
pub const NO_SNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// Returns an answer with this status, no body and `Content-Length: 0`.
#[must_use]
pub fn empty(status: StatusCode) -> HttpResponse {
    text(status, "", &[])
}

/// Returns an answer with this status and the text `words` as its body.
#[must_use]
pub fn refused(status: StatusCode, words: &str) -> HttpResponse {
    text(status, words, &[(header::CONTENT_TYPE, PLAIN)])
}

/// Returns the 404 of existing nodes, byte for byte: status, headers and the text `404 page not found`.
#[must_use]
pub fn not_found() -> HttpResponse {
    let headers = [(header::CONTENT_TYPE, PLAIN), (header::X_CONTENT_TYPE_OPTIONS, NO_SNIFF)];
    text(StatusCode::NOT_FOUND, "404 page not found\n", &headers)
}

/// Returns a refusal with `Retry-After`: `after` rounded up to whole seconds, at least one.
#[must_use]
pub fn come_back(status: StatusCode, after: Duration) -> HttpResponse {
    let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
    text(status, "", &[(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)))])
}

/// Delay of the refusal for too many requests. Chosen: a flood over 64 connections then gets 256 refusals a
/// second, which costs other callers nothing; a caller that slightly exceeds its rate hardly notices.
const PAUSE: Duration = Duration::from_millis(250);

/// Extension that marks an answer as delayed. The server waits; a connection waits for one answer at a time,
/// so the number of waits is bounded.
#[derive(Clone, Copy, Debug)]
struct Pause;

/// Makes the server delay an answer by 250 ms, so that a flood costs its client more time than the node.
#[must_use]
pub fn paused(mut response: HttpResponse) -> HttpResponse {
    response.extensions_mut().insert(Pause);
    response
}

/// Returns a 429 with `Retry-After`, delayed as by [`paused`].
#[must_use]
pub fn too_many(after: Duration) -> HttpResponse {
    paused(come_back(StatusCode::TOO_MANY_REQUESTS, after))
}

/// Returns `true` if an answer is to be delayed.
pub(crate) fn has_pause(response: &HttpResponse) -> bool {
    response.extensions().get::<Pause>().is_some()
}

/// Waits if the answer is marked as delayed, and returns it.
///
/// # Cancel safety
///
/// Not safe: a dropped future drops the answer.
pub(crate) async fn after_its_pause(mut response: HttpResponse) -> HttpResponse {
    if response.extensions_mut().remove::<Pause>().is_some() {
        time::sleep(PAUSE).await;
    }
    response
}

/// Returns a 301 to the path `location`.
#[must_use]
pub fn moved(location: &str) -> HttpResponse {
    match HeaderValue::from_str(location) {
        Ok(location) => text(StatusCode::MOVED_PERMANENTLY, "", &[(header::LOCATION, location)]),
        Err(_) => not_found(),
    }
}

/// Returns the redirect for a path that has a cleaner form; `None` if the path is clean. It is delayed, because
/// no rate limit of a service applies to it.
#[must_use]
pub fn elsewhere(uri: &Uri) -> Option<HttpResponse> {
    let path = super::path::elsewhere(uri.path())?;
    Some(paused(match uri.query() {
        Some(query) => moved(&format!("{path}?{query}")),
        None => moved(&path),
    }))
}

/// Returns a text answer with `headers` and its `Content-Length`.
#[must_use]
pub fn text(status: StatusCode, text: &str, headers: &[(HeaderName, HeaderValue)]) -> HttpResponse {
    let mut response = Response::new(HttpBody::full(text.to_owned()));
    *response.status_mut() = status;
    response.headers_mut().extend(headers.iter().cloned());
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
    response
}
