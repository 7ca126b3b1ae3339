//! A copy of a request that may be sent a second time.
//!
//! # Invariants
//!
//! * Only idempotent requests without a body are copied (RFC 9110, 9.2.2): handling them twice has the same
//!   effect as handling them once, and there is no body that the first attempt has consumed.
//! * Nothing of a request is kept after its exchange but the memory of the copy, for the next request.

use gossip::http::{HttpBody, HttpRequest};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use http_body::Body;

/// The parts of a request that are written to a connection. It belongs to the connection, so that a copy allocates
/// nothing.
#[derive(Debug, Default)]
pub(super) struct Replay {
    target: Option<(Method, Uri)>,
    /// In the order of the request. A list, because a second map of headers would cost more than the rest of the copy.
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Replay {
    /// Copies a request, unless it must not be sent twice.
    pub(super) fn keep(&mut self, request: &HttpRequest) {
        if request.method().is_idempotent() && request.body().is_end_stream() {
            self.target = Some((request.method().clone(), request.uri().clone()));
            let headers = request.headers().iter();
            self.headers.extend(headers.map(|(name, value)| (name.clone(), value.clone())));
        }
    }

    /// Forgets the request.
    pub(super) fn forget(&mut self) {
        self.target = None;
        self.headers.clear();
    }

    /// Builds the request again; `None` if there is no copy.
    pub(super) fn take(&mut self) -> Option<HttpRequest> {
        let (method, uri) = self.target.take()?;
        let mut request = Request::new(HttpBody::empty());
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        let mut headers = HeaderMap::with_capacity(self.headers.len());
        self.headers.drain(..).for_each(|(name, value)| {
            headers.append(name, value);
        });
        *request.headers_mut() = headers;
        Some(request)
    }
}
