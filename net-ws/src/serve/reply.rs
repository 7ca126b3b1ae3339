//! Answers in the words of existing nodes. Source: wire facts 1.6 and the vectors.

use std::time::{Duration, SystemTime};

use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use super::{ResponseBody, full};

const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const NO_SNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// A status without a body.
pub(super) fn empty(status: StatusCode) -> Response<ResponseBody> {
    text_of(status, "", &[])
}

/// The peer said something that does not fit.
pub(super) fn refused(status: StatusCode, text: &str) -> Response<ResponseBody> {
    text_of(status, text, &[(header::CONTENT_TYPE, PLAIN)])
}

/// Nothing is known under that path.
pub(super) fn not_found() -> Response<ResponseBody> {
    let headers = [(header::CONTENT_TYPE, PLAIN), (header::X_CONTENT_TYPE_OPTIONS, NO_SNIFF)];
    text_of(StatusCode::NOT_FOUND, "404 page not found\n", &headers)
}

/// The request is no upgrade to a WebSocket that this node makes.
pub(super) fn no_upgrade(status: StatusCode) -> Response<ResponseBody> {
    let headers = [
        (header::CONTENT_TYPE, PLAIN),
        (header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")),
        (header::X_CONTENT_TYPE_OPTIONS, NO_SNIFF),
    ];
    text_of(status, &format!("{}\n", status.canonical_reason().unwrap_or_default()), &headers)
}

/// The host asks too often.
pub(super) fn too_many(retry_after: Duration) -> Response<ResponseBody> {
    let seconds = HeaderValue::from(retry_after.as_secs().max(1));
    text_of(StatusCode::TOO_MANY_REQUESTS, "", &[(header::RETRY_AFTER, seconds)])
}

/// What is asked for is elsewhere.
pub(super) fn moved(location: &str) -> Response<ResponseBody> {
    match HeaderValue::from_str(location) {
        Ok(location) => text_of(StatusCode::MOVED_PERMANENTLY, "", &[(header::LOCATION, location)]),
        Err(_) => not_found(),
    }
}

/// The service behind a path failed.
pub(super) fn failed() -> Response<ResponseBody> {
    empty(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Adds the time, unless it is there.
pub(super) fn dated(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS
        && !response.headers().contains_key(header::DATE)
    {
        let now = httpdate::fmt_http_date(SystemTime::now());
        if let Ok(now) = HeaderValue::from_str(&now) {
            response.headers_mut().insert(header::DATE, now);
        }
    }
    response
}

fn text_of(
    status: StatusCode,
    text: &str,
    headers: &[(HeaderName, HeaderValue)],
) -> Response<ResponseBody> {
    let mut response = Response::new(full(text.to_owned()));
    *response.status_mut() = status;
    response.headers_mut().extend(headers.iter().cloned());
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
    response
}
