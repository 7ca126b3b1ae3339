//! The `Date` header of answers.

use std::{cell::RefCell, time::UNIX_EPOCH};

use gossip::http::HttpResponse;
use http::{
    HeaderValue, StatusCode,
    header::{self, Entry},
};
use runtime::WallClock;

/// Adds the `Date` header if it is missing. An answer to an upgrade has none at existing nodes; the HTTP
/// library would add it there too, which is why its own `Date` is switched off.
pub(super) fn date(response: &mut HttpResponse, clock: &WallClock) {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS
        && let Entry::Vacant(missing) = response.headers_mut().entry(header::DATE)
        && let Some(now) = today(clock)
    {
        missing.insert(now);
    }
}

thread_local! {
    /// The latest date that was formatted, and its second.
    static DATE: RefCell<(u64, Option<HeaderValue>)> = const { RefCell::new((0, None)) };
}

/// The current time as a header value, formatted once per second.
fn today(clock: &WallClock) -> Option<HeaderValue> {
    let now = clock.now();
    let second = now.duration_since(UNIX_EPOCH).ok()?.as_secs();
    DATE.with_borrow_mut(|(written, value)| {
        if *written != second || value.is_none() {
            *written = second;
            *value = HeaderValue::from_str(&httpdate::fmt_http_date(now)).ok();
        }
        value.clone()
    })
}
