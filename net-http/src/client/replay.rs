//! A copy of a request that may be sent a second time.
//!
//! # Invariants
//!
//! * Only idempotent requests without a body are copied (RFC 9110, 9.2.2): handling them twice has the same
//!   effect as handling them once, and there is no body that the first attempt has consumed.

use gossip::http::{HttpBody, HttpRequest};
use http::{HeaderMap, Method, Request, Uri};
use http_body::Body;

/// The parts of a request that are written to the connection.
#[derive(Debug)]
pub(super) struct Replay {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Replay {
    /// Copies a request; `None` if it must not be sent twice.
    pub(super) fn of(request: &HttpRequest) -> Option<Self> {
        let is_safe = request.method().is_idempotent() && request.body().is_end_stream();
        is_safe.then(|| Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
        })
    }

    /// Builds the request again.
    pub(super) fn into_request(self) -> HttpRequest {
        let mut request = Request::new(HttpBody::empty());
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        request
    }
}
