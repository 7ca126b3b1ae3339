//! A request that may be sent a second time without being acted on twice.
//!
//! # Invariants
//!
//! * Only an idempotent request without a body is kept (RFC 9110, 9.2.2): its method says that acting on
//!   it twice is as acting on it once, and there is no body that has been used up.

use gossip::http::{HttpBody, HttpRequest};
use http::{HeaderMap, Method, Request, Uri};
use http_body::Body;

/// Everything of a request that goes over the wire.
#[derive(Debug)]
pub(super) struct Replay {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Replay {
    /// Keeps a request; `None` if it must not be sent a second time.
    pub(super) fn of(request: &HttpRequest) -> Option<Self> {
        let is_safe = request.method().is_idempotent() && request.body().is_end_stream();
        is_safe.then(|| Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
        })
    }

    /// The request once more.
    pub(super) fn into_request(self) -> HttpRequest {
        let mut request = Request::new(HttpBody::empty());
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        request
    }
}
