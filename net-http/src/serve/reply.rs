//! Answers in the words of existing nodes. Source: wire facts 1.6 and the vectors.

use std::time::Duration;

use gossip::http::{HttpBody, HttpResponse};
use http::{HeaderName, HeaderValue, Response, StatusCode, Uri, header};
use tokio::time;

/// The type of every text.
pub const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Says that the type of a text is to be believed.
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

/// Nothing is known under that path.
#[must_use]
pub fn not_found() -> HttpResponse {
    let headers = [(header::CONTENT_TYPE, PLAIN), (header::X_CONTENT_TYPE_OPTIONS, NO_SNIFF)];
    text(StatusCode::NOT_FOUND, "404 page not found\n", &headers)
}

/// A refusal of somebody who may come back, after so long; rounded up to seconds, at least one.
#[must_use]
pub fn come_back(status: StatusCode, after: Duration) -> HttpResponse {
    let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
    text(status, "", &[(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)))])
}

/// How long whoever asks too often waits for being told so. Chosen: a flood of 64 connections is worth
/// 256 refusals a second then, and nobody else notices them; who misjudged a rate hardly does.
const PAUSE: Duration = Duration::from_millis(250);

/// An extension of an answer that is to be given only after a pause. Whoever has it sent does the waiting:
/// it knows that a connection waits for one answer at a time, so that all waits together are bounded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pause;

/// The caller asks too often, and may come back after so long. It is told so only after a pause: a flood
/// costs the one who makes it more time than the one who refuses it.
#[must_use]
pub fn too_many(after: Duration) -> HttpResponse {
    let mut response = come_back(StatusCode::TOO_MANY_REQUESTS, after);
    response.extensions_mut().insert(Pause);
    response
}

/// An answer that has waited.
///
/// # Cancel safety
///
/// A dropped future drops the answer.
pub async fn after_pause(mut response: HttpResponse) -> HttpResponse {
    response.extensions_mut().remove::<Pause>();
    time::sleep(PAUSE).await;
    response
}

/// What is asked for is elsewhere.
#[must_use]
pub fn moved(location: &str) -> HttpResponse {
    match HeaderValue::from_str(location) {
        Ok(location) => text(StatusCode::MOVED_PERMANENTLY, "", &[(header::LOCATION, location)]),
        Err(_) => not_found(),
    }
}

/// Whether a path has no cleaner form, as far as can be told at a glance.
#[must_use]
pub fn is_clean(uri: &Uri) -> bool {
    super::path::is_plain(uri.path())
}

/// The answer to a request for a path that has a cleaner form; `None` where it has not.
#[must_use]
pub fn elsewhere(uri: &Uri) -> Option<HttpResponse> {
    let path = super::path::elsewhere(uri.path())?;
    Some(match uri.query() {
        Some(query) => moved(&format!("{path}?{query}")),
        None => moved(&path),
    })
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
