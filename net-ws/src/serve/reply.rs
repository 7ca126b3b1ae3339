//! Answers of the gossip path and of the gate, in the words of existing nodes. Source: wire facts 1.6
//! and the vectors.

use std::{
    cell::RefCell,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use gossip::http::HttpResponse;
use http::{HeaderValue, StatusCode, header};
use net_http::reply::{NO_SNIFF, PLAIN, come_back, text};
pub(super) use net_http::reply::{
    after_pause, elsewhere, empty, is_clean, not_found, refused, too_many,
};

/// The request is no upgrade to a WebSocket that this node makes.
pub(super) fn no_upgrade(status: StatusCode) -> HttpResponse {
    let headers = [
        (header::CONTENT_TYPE, PLAIN),
        (header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")),
        (header::X_CONTENT_TYPE_OPTIONS, NO_SNIFF),
    ];
    text(status, &format!("{}\n", status.canonical_reason().unwrap_or_default()), &headers)
}

/// There is no seat at the moment.
pub(super) fn unavailable() -> HttpResponse {
    come_back(StatusCode::SERVICE_UNAVAILABLE, Duration::from_secs(1))
}

/// Adds the time, unless it is there. An upgrade has none, which is why the HTTP library is not asked to.
pub(super) fn dated(mut response: HttpResponse) -> HttpResponse {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS
        && !response.headers().contains_key(header::DATE)
        && let Some(now) = date()
    {
        response.headers_mut().insert(header::DATE, now);
    }
    response
}

thread_local! {
    /// The last date that was written, and its second.
    static DATE: RefCell<(u64, Option<HeaderValue>)> = const { RefCell::new((0, None)) };
}

/// The time, written once in a second.
fn date() -> Option<HeaderValue> {
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).ok()?.as_secs();
    DATE.with_borrow_mut(|(written, value)| {
        if *written != second || value.is_none() {
            *written = second;
            *value = HeaderValue::from_str(&httpdate::fmt_http_date(now)).ok();
        }
        value.clone()
    })
}
