//! The service: answers requests.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Response;
use http_body::Body;
use tower::{Service, ServiceExt};

use super::{Answering, BoxError, HttpBody, HttpRequest, HttpResponse};
use crate::handler::BoxFuture;

/// Serves HTTP requests, whatever carries them: an `axum::Router`, or any other tower service.
///
/// It is not asked whether it is ready: it has to take every request. To refuse one, it answers so; an
/// error of the service is logged and answered `500 Internal Server Error`.
#[derive(Clone)]
pub struct HttpService {
    /// One allocation less per request than a boxed service, which is cloned for each.
    answer: Arc<Answering<BoxError>>,
}

impl HttpService {
    /// Makes it of any service.
    pub fn new<S, B>(service: S) -> Self
    where
        S: Service<HttpRequest, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let service = service
            .map_err(Into::into)
            .map_response(|response: Response<B>| response.map(HttpBody::new));
        Self { answer: Arc::new(move |request| Box::pin(service.clone().call(request))) }
    }

    /// Answers a request.
    ///
    /// # Errors
    ///
    /// The error of the service.
    ///
    /// # Cancel safety
    ///
    /// The same as that of the service.
    pub fn answer(
        &self,
        request: HttpRequest,
    ) -> BoxFuture<'static, Result<HttpResponse, BoxError>> {
        (self.answer)(request)
    }
}

impl fmt::Debug for HttpService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpService").finish_non_exhaustive()
    }
}

impl Service<HttpRequest> for HttpService {
    type Response = HttpResponse;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<HttpResponse, BoxError>>;

    /// Always ready.
    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest) -> Self::Future {
        (self.answer)(request)
    }
}
