//! The HTTP server shared by all networks of a node: its service, permits and counters.
//!
//! # Invariants
//!
//! * Connections of all transports count against the same bounds.
//! * A panic of a handler is answered 500, and ends nothing else.
//! * A caller that sends too many requests waits for its refusal without a request permit.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, future::Either};
use gossip::{
    Durations, LoopbackRule,
    http::{BoxError, Caller, HttpBody, HttpRequest, HttpResponse, HttpService},
};
use http::{HeaderValue, Request, StatusCode, header};
use hyper::body::{Body, Bytes};
use runtime::{WallClock, time};
use tokio::sync::{Semaphore, SemaphorePermit};
use tracing::Instrument;

use super::{
    asked::Asked,
    conn_state::ConnState,
    engine::Engine,
    limits::ServeLimits,
    metrics::{Incident, ServeMetrics},
    permits::{ConnectionPermit, ConnectionPermits, Refused},
    reply,
};
use crate::span;

/// The HTTP server of a node, shared by all of its networks: a cheap handle.
#[derive(Clone, Debug)]
pub struct HttpServer {
    shared: Arc<Shared>,
}

/// The parts of a server that are shared with the rest of its node.
#[derive(Clone, Debug)]
pub struct ServeContext {
    /// The time of day that answers show. Default: the system's.
    pub clock: WallClock,
    /// The rule for callers of this very machine that prove no identity, for the permits of the server and for
    /// the protection layers behind it: all of them as one peer, or, while they are exempt, each connection for
    /// itself. Default: exempt. A node gives its server the rule of its door.
    pub loopback: LoopbackRule,
    /// The implementation of HTTP/1.1. Default: hyper; in WebAssembly the portable one.
    pub engine: Engine,
}

impl Default for ServeContext {
    fn default() -> Self {
        Self {
            clock: WallClock::system(),
            loopback: LoopbackRule::default(),
            engine: Engine::default(),
        }
    }
}

#[derive(Debug)]
struct Shared {
    service: HttpService,
    limits: ServeLimits,
    context: ServeContext,
    metrics: Arc<ServeMetrics>,
    connections: Arc<ConnectionPermits>,
    requests: Semaphore,
}

impl HttpServer {
    /// Creates a server that answers requests with `service`, outside of a node.
    #[must_use]
    pub fn new(service: HttpService, limits: ServeLimits) -> Self {
        Self::within(service, limits, ServeContext::default())
    }

    /// As [`HttpServer::new`], as a part of what `context` comes from.
    #[must_use]
    pub fn within(service: HttpService, limits: ServeLimits, context: ServeContext) -> Self {
        let (limits, metrics) = (limits.bounded(), Arc::new(ServeMetrics::default()));
        let permits =
            ConnectionPermits::new(limits.clone(), context.loopback, Arc::clone(&metrics));
        let (connections, requests) =
            (Arc::new(permits), Semaphore::new(limits.requests.min(Semaphore::MAX_PERMITS)));
        let shared = Shared { service, limits, context, metrics, connections, requests };
        Self { shared: Arc::new(shared) }
    }

    /// Creates a server without a service, with default limits: every path is answered 404.
    #[must_use]
    pub fn without_service() -> Self {
        let unknown = tower::service_fn(|_request: HttpRequest| {
            std::future::ready(Ok::<_, std::convert::Infallible>(reply::not_found()))
        });
        Self::new(HttpService::new(unknown), ServeLimits::default())
    }

    /// The counters of this server, for all transports together.
    #[must_use]
    pub fn metrics(&self) -> &ServeMetrics {
        &self.shared.metrics
    }

    /// The clock of the `Date` header.
    pub(super) fn clock(&self) -> &WallClock {
        &self.shared.context.clock
    }

    /// The implementation of HTTP/1.1.
    pub(super) fn engine(&self) -> Engine {
        self.shared.context.engine
    }

    /// The limits of this server.
    #[must_use]
    pub fn limits(&self) -> &ServeLimits {
        &self.shared.limits
    }

    /// Returns the number of connections and streams that hold a permit now.
    #[must_use]
    pub fn served(&self) -> usize {
        self.shared.connections.served()
    }

    /// Returns the number of connections and streams that wait for a permit now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.connections.waiting()
    }

    /// Returns the number of requests that hold a request permit now.
    #[must_use]
    pub fn requests_in_flight(&self) -> usize {
        let most = self.shared.limits.requests.min(Semaphore::MAX_PERMITS);
        most.saturating_sub(self.shared.requests.available_permits())
    }

    /// The state of a new connection.
    pub(super) fn conn_state(&self) -> Arc<ConnState> {
        Arc::new(ConnState::new(Arc::clone(&self.shared.metrics)))
    }

    /// Takes a permit for a connection, and waits for one if necessary. Without a caller it counts in total only.
    ///
    /// # Cancel safety
    ///
    /// Safe: a dropped future loses its place in the queue, and nothing else.
    pub(super) async fn permit(
        &self,
        caller: Option<&Caller>,
        conn: &Arc<ConnState>,
    ) -> Result<ConnectionPermit, Refused> {
        self.shared.connections.acquire(caller, conn).await
    }

    /// Calls the service for one request of a connection that holds a permit. The request has its [`Caller`] already.
    /// The response goes through `finish`, which is called in here: a layer around this future would move it once more.
    ///
    /// # Cancel safety
    ///
    /// Not safe: a dropped future drops the request.
    pub(super) fn answer<'a, B, R, F>(
        &'a self,
        request: Request<B>,
        conn: &Arc<ConnState>,
        permit: &'a ConnectionPermit,
        finish: F,
    ) -> impl Future<Output = R> + Send + use<'a, B, R, F>
    where
        F: FnOnce(HttpResponse) -> R + Send + 'a,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        // The request is prepared here because below it would have to be moved once more.
        let mut request = request.map(|body| match body.is_end_stream() {
            true => HttpBody::empty(),
            false => HttpBody::new(Asked::new(body, conn)),
        });
        if self.shared.context.loopback != LoopbackRule::default() {
            request.extensions_mut().insert(self.shared.context.loopback);
        }
        // If a permit is free, the service is called at once, which leaves a small future.
        match self.shared.requests.try_acquire() {
            Ok(at_once) => Either::Left(self.handle(request, at_once, permit, finish)),
            Err(_taken) => Either::Right(Box::pin(self.answer_later(request, permit, finish))),
        }
    }

    /// Waits for a request permit, then calls the service.
    async fn answer_later<R>(
        &self,
        request: HttpRequest,
        connection: &ConnectionPermit,
        finish: impl FnOnce(HttpResponse) -> R + Send,
    ) -> R {
        let acquire = self.shared.requests.acquire();
        let Ok(Ok(permit)) = time::timeout(self.shared.limits.request_wait, acquire).await else {
            self.shared.metrics.note(Incident::Busy);
            return finish(reply::come_back(
                StatusCode::SERVICE_UNAVAILABLE,
                Duration::from_secs(1),
            ));
        };
        self.handle(request, permit, connection, finish).await
    }

    /// Calls the service for a request that holds a permit.
    fn handle<'a, R, F>(
        &'a self,
        request: HttpRequest,
        permit: SemaphorePermit<'a>,
        connection: &'a ConnectionPermit,
        finish: F,
    ) -> impl Future<Output = R> + Send + use<'a, R, F>
    where
        F: FnOnce(HttpResponse) -> R + Send + 'a,
    {
        self.shared.metrics.note_request();
        let (service, span) = (&self.shared.service, span::served(&request));
        let answering = || span.in_scope(|| service.answer(request));
        let handling = catch_unwind(AssertUnwindSafe(answering));
        async move {
            let handled = match handling {
                Ok(handling) => {
                    let handling = handling.instrument(span.clone());
                    AssertUnwindSafe(handling).catch_unwind().await
                }
                Err(panic) => Err(panic),
            };
            // Matched here: a response that is passed through one more function is moved once more.
            let mut response = match handled {
                Ok(Ok(response)) => response,
                Ok(Err(error)) => self.failed(&error),
                Err(_panic) => self.panicked(),
            };
            span::answered(&span, response.status());
            drop((permit, span));
            if reply::has_pause(&response) {
                response = Box::pin(reply::after_its_pause(response)).await;
            }
            if connection.is_wanted() {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            finish(response)
        }
    }

    /// The answer for an error of the service.
    fn failed(&self, error: &BoxError) -> HttpResponse {
        self.shared.metrics.note_failure(error);
        reply::empty(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The answer for a panic of the service.
    fn panicked(&self) -> HttpResponse {
        self.shared.metrics.note_panic();
        reply::empty(StatusCode::INTERNAL_SERVER_ERROR)
    }
}
