//! The spans of requests, on both sides.
//!
//! # Invariants
//!
//! * A span nobody collects costs a look at one atomic.
//! * Of a path only the first [`MAX_PATH`] characters are told, so a peer decides little of what a collector stores.
//! * A span ends with the head of the response; its body may take longer.

use gossip::http::{Caller, HttpError, HttpRequest, HttpResponse};
use http::StatusCode;
use tracing::{Span, field::Empty};

use crate::trace_context;

/// Longest path in a span, in characters. Chosen: the paths of the services in the box fit, with a digest in them.
const MAX_PATH: usize = 256;

/// The span of a request that is served, within the trace that the caller names.
pub(crate) fn served(request: &HttpRequest) -> Span {
    let span = tracing::debug_span!(
        "http_served",
        otel.name = Empty,
        otel.kind = "server",
        http.request.method = Empty,
        url.path = Empty,
        client.address = Empty,
        peer_id = Empty,
        transport = Empty,
        http.response.status_code = Empty,
        otel.status_code = Empty,
    );
    if span.is_disabled() {
        return span;
    }
    describe(&span, request);
    if let Some(caller) = request.extensions().get::<Caller>() {
        span.record("client.address", &*caller.address);
        span.record("transport", caller.transport.label());
        if let Some(identity) = caller.identity {
            span.record("peer_id", tracing::field::display(identity));
        }
    }
    trace_context::adopt(&span, request.headers());
    span
}

/// The span of a request to the target called `name`, which tells the server of its trace.
pub(crate) fn called(request: &mut HttpRequest, name: &str) -> Span {
    let span = tracing::debug_span!(
        "http_called",
        otel.name = Empty,
        otel.kind = "client",
        http.request.method = Empty,
        url.path = Empty,
        server.address = name,
        http.response.status_code = Empty,
        error = Empty,
        otel.status_code = Empty,
    );
    if span.is_disabled() {
        return span;
    }
    describe(&span, request);
    trace_context::hand_on(&span, request.headers_mut());
    span
}

fn describe(span: &Span, request: &HttpRequest) {
    let path = request.uri().path();
    let end = path.char_indices().nth(MAX_PATH).map_or(path.len(), |(at, _)| at);
    let method = request.method().as_str();
    span.record("otel.name", method);
    span.record("http.request.method", method);
    span.record("url.path", &path[..end]);
}

/// Records the answer of a server.
pub(crate) fn answered(span: &Span, status: StatusCode) {
    // As a signed number, since those without a sign are exported as text.
    span.record("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
}

/// Records what came of a call.
pub(crate) fn returned(span: &Span, outcome: &Result<HttpResponse, HttpError>) {
    match outcome {
        Ok(response) => answered(span, response.status()),
        Err(error) => {
            span.record("error", tracing::field::display(error));
            span.record("otel.status_code", "ERROR");
        }
    }
}
