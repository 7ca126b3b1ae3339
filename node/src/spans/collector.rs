//! The collector, as the exporter of the library calls it: over the HTTP client that the node has for everything.
//!
//! # Invariants
//!
//! * A call has a deadline for all of it, and of an answer at most [`MAX_ANSWER_BYTES`] are kept.

use std::time::Duration;

use futures::future::BoxFuture;
use gossip::http::{HttpBody, HttpClient as Client, Timeout};
use http_body_util::{BodyExt, Limited};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};

/// Longest time of a call. Source: the default of the OTLP exporter's specification.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Longest answer, in bytes. Chosen: a collector answers with nothing, or with a sentence.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// A collector at an address.
#[derive(Debug)]
pub(super) struct Collector(pub(super) Client);

impl HttpClient for Collector {
    // As the library's macro for such methods writes it.
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> BoxFuture<'b, Result<Response<Bytes>, HttpError>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let mut request = request.map(HttpBody::full);
            // The client knows where it leads.
            *request.uri_mut() = request.uri().path().parse()?;
            request.extensions_mut().insert(Timeout(TIMEOUT));
            let (head, body) = self.0.send(request).await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?;
            Ok(Response::from_parts(head, body.to_bytes()))
        })
    }
}
