//! The client: sends requests to one peer.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Body;
use tower::Service;

use super::{Answering, BoxError, HttpBody, HttpError};
use crate::handler::BoxFuture;

/// A request, its body streamed.
pub type HttpRequest = Request<HttpBody>;

/// A response, its body streamed.
pub type HttpResponse = Response<HttpBody>;

/// The longest time that an exchange may take, from the call of the client to the last byte of the response: an
/// extension of a request. Without it a client has deadlines for the head of the response and for
/// standing still, and none for the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout(pub Duration);

/// Sends requests to one peer, over whatever leads there. A cheap handle; clones share connections,
/// limits and the queue.
///
/// The URI of a request is its path and query; what else it names is left out, because the address
/// of the client says whom to ask. A `Host` header is set unless there is one. Connections are kept
/// and used again. A request is sent at most once, except when it certainly did not leave.
///
/// # Cancel safety
///
/// Dropping the future of a call ends the exchange; the peer may have received the request.
#[derive(Clone)]
pub struct HttpClient {
    /// One allocation less per request than a boxed service, which is cloned for each.
    send: Arc<Answering<HttpError>>,
}

impl HttpClient {
    /// Makes a client of a service that takes every request: [`HttpClient::send`] does not ask whether it is
    /// ready. One that has to wait does so in its future.
    pub fn new<S>(service: S) -> Self
    where
        S: Service<HttpRequest, Response = HttpResponse, Error = HttpError>,
        S: Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        Self { send: Arc::new(move |request| Box::pin(service.clone().call(request))) }
    }

    /// Sends a request, and resolves with the head of the response.
    ///
    /// # Errors
    ///
    /// [`HttpError`], which tells whether the request may have reached the peer. A response with an
    /// error status is a response.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the request up: its connection is closed, or its stream reset. Whether the
    /// request has reached the peer is unknown then.
    pub async fn send<B>(&self, request: Request<B>) -> Result<HttpResponse, HttpError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        (self.send)(request.map(HttpBody::new)).await
    }

    /// Asks for a path.
    ///
    /// # Errors
    ///
    /// As [`HttpClient::send`]; also when `path` is no path.
    ///
    /// # Cancel safety
    ///
    /// As [`HttpClient::send`].
    pub async fn get(&self, path: &str) -> Result<HttpResponse, HttpError> {
        let request = Request::builder().method(Method::GET).uri(path).body(HttpBody::empty());
        let request = request.map_err(|source| HttpError::Invalid { source: source.into() })?;
        (self.send)(request).await
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").finish_non_exhaustive()
    }
}

impl Service<HttpRequest> for HttpClient {
    type Response = HttpResponse;
    type Error = HttpError;
    type Future = BoxFuture<'static, Result<HttpResponse, HttpError>>;

    /// Always ready, see [`HttpClient::new`].
    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), HttpError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest) -> Self::Future {
        (self.send)(request)
    }
}
