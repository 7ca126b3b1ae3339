//! What all networks of a node share to serve HTTP.
//!
//! # Invariants
//!
//! * Connections of all transports count against the same bounds.
//! * A panic of a handler is an answer, and ends nothing else.
//! * Who is refused for asking too often waits for the refusal, and has no turn meanwhile.

use std::{
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::Either, stream::FuturesUnordered};
use gossip::{
    StreamUse,
    http::{BoxError, Caller, HttpBody, HttpRequest, HttpResponse, HttpService},
};
use http::{HeaderValue, Request, StatusCode, header};
use hyper::{
    body::{Body, Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::{Semaphore, SemaphorePermit},
    time,
};
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::{
    asked::Asked,
    conn_state::{ConnState, Panic},
    head_guard::HeadGuard,
    limits::ServeLimits,
    metrics::{Incident, ServeMetrics},
    permits::{ConnectionPermit, ConnectionPermits, Refused},
    refusal::Refusal,
    reply,
};

/// How much of a body is read or written at once, in bytes. Chosen: sixteen megabytes of both for all
/// connections of one peer; the library's own 400 KiB are no faster.
const MAX_BUFFER_BYTES: usize = 256 * 1024;

/// The serving side of a node: one for all of its networks. A cheap handle.
#[derive(Clone, Debug)]
pub struct HttpServer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    service: HttpService,
    limits: ServeLimits,
    metrics: Arc<ServeMetrics>,
    seats: Arc<ConnectionPermits>,
    turns: Semaphore,
}

impl HttpServer {
    /// Serves what comes with `service`.
    #[must_use]
    pub fn new(service: HttpService, limits: ServeLimits) -> Self {
        let metrics = Arc::new(ServeMetrics::default());
        let seats = Arc::new(ConnectionPermits::new(limits.clone(), Arc::clone(&metrics)));
        let turns = Semaphore::new(limits.requests.min(Semaphore::MAX_PERMITS));
        Self { shared: Arc::new(Shared { service, limits, metrics, seats, turns }) }
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &ServeMetrics {
        &self.shared.metrics
    }

    /// The bounds.
    #[must_use]
    pub fn limits(&self) -> &ServeLimits {
        &self.shared.limits
    }

    /// Connections and streams that are served at the moment.
    #[must_use]
    pub fn served(&self) -> usize {
        self.shared.seats.served()
    }

    /// Connections and streams that wait for a seat at the moment.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.seats.waiting()
    }

    /// What the ends of a connection's service tell each other, for a network that runs the HTTP library
    /// itself.
    #[must_use]
    pub fn line(&self) -> Arc<ConnState> {
        Arc::new(ConnState::new(Arc::clone(&self.shared.metrics)))
    }

    /// Takes a seat for a connection, waiting for one if need be.
    ///
    /// # Errors
    ///
    /// [`Refused`]: the connection is not to be served.
    ///
    /// # Cancel safety
    ///
    /// Safe: whoever stops waiting loses its turn and nothing else.
    pub async fn enter(
        &self,
        caller: &Caller,
        line: &Arc<ConnState>,
    ) -> Result<ConnectionPermit, Refused> {
        self.shared.seats.enter(caller, line).await
    }

    /// Serves one stream of bytes to its end. After `cancel` a request under way is answered, and then
    /// the stream is closed.
    ///
    /// # Cancel safety
    ///
    /// A dropped future drops the stream and the request under way.
    pub async fn serve<Io>(
        &self,
        io: Io,
        caller: Caller,
        streams: StreamUse,
        cancel: CancellationToken,
    ) where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let line = self.line();
        let terms = self.shared.limits.terms(caller.transport, streams);
        let Some(entered) = cancel.run_until_cancelled(self.enter(&caller, &line)).await else {
            return;
        };
        let mut screen = HeadGuard::new(io, Arc::clone(&line), terms);
        let seat = match entered {
            Ok(seat) => seat,
            // As many as that are not worth a word each.
            Err(Refused::Full) => return,
            Err(Refused::PeerFull | Refused::WaitedInVain) => {
                screen.refuse(Refusal::NoSeat);
                // A client that is gone needs no refusal.
                let _ = screen.shutdown().await;
                return;
            }
        };
        let service = service_fn(|request: Request<Incoming>| {
            let answering = match reply::elsewhere(request.uri()) {
                Some(moved) => Either::Left(reply::after_pause(moved)),
                None => Either::Right(self.answer(request, &caller, &line, &seat)),
            };
            answering.map(|response| Ok::<_, Infallible>(line.answer(response)))
        });
        let connection = http1::Builder::new()
            .keep_alive(streams == StreamUse::KeptAlive)
            .max_buf_size(MAX_BUFFER_BYTES)
            .title_case_headers(true)
            .serve_connection(TokioIo::new(screen), service);
        let served = async {
            let mut connection = pin!(connection);
            // In a set of one, so that it is asked only when it has something to say.
            let mut cancelled: FuturesUnordered<_> = [cancel.cancelled()].into_iter().collect();
            tokio::select! {
                biased;
                served = connection.as_mut() => served,
                Some(()) = cancelled.next() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        };
        line.run(served, &caller.address).await;
    }

    /// Answers one request of a connection that has a seat.
    ///
    /// # Cancel safety
    ///
    /// A dropped future drops the request.
    pub fn answer<'a, B>(
        &'a self,
        request: Request<B>,
        caller: &'a Caller,
        line: &Arc<ConnState>,
        seat: &'a ConnectionPermit,
    ) -> impl Future<Output = HttpResponse> + Send + use<'a, B>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        // Made ready here and not below, where the request would be moved about once more.
        let mut request = request.map(|body| match body.is_end_stream() {
            true => HttpBody::empty(),
            false => HttpBody::new(Asked::new(body, line)),
        });
        request.extensions_mut().insert(caller.clone());
        // With a turn at hand the service is called at once: the future that is left to wait for is small.
        match self.shared.turns.try_acquire() {
            Ok(turn) => Either::Left(self.handle(request, turn, seat)),
            Err(_taken) => Either::Right(Box::pin(self.answer_later(request, seat))),
        }
    }

    /// Waits for a turn, and answers.
    async fn answer_later(&self, request: HttpRequest, seat: &ConnectionPermit) -> HttpResponse {
        let wait = time::timeout(self.shared.limits.request_wait, self.shared.turns.acquire());
        let Ok(Ok(turn)) = wait.await else {
            self.shared.metrics.note(Incident::Busy);
            return reply::come_back(StatusCode::SERVICE_UNAVAILABLE, Duration::from_secs(1));
        };
        self.handle(request, turn, seat).await
    }

    /// Has the service answer a request whose turn it is.
    fn handle<'a>(
        &'a self,
        request: HttpRequest,
        turn: SemaphorePermit<'a>,
        seat: &'a ConnectionPermit,
    ) -> impl Future<Output = HttpResponse> + Send + 'a {
        self.shared.metrics.note_request();
        // A service is always ready.
        let mut service = self.shared.service.clone();
        let handling = catch_unwind(AssertUnwindSafe(|| service.call(request)));
        async move {
            let handled = match handling {
                Ok(handling) => AssertUnwindSafe(handling).catch_unwind().await,
                Err(panic) => Err(panic),
            };
            let mut response = self.settle(handled);
            drop(turn);
            if response.extensions().get::<reply::Pause>().is_some() {
                response = Box::pin(reply::after_pause(response)).await;
            }
            if seat.is_wanted() {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            response
        }
    }

    /// Makes an answer of whatever a service did.
    fn settle(&self, handled: Result<Result<HttpResponse, BoxError>, Panic>) -> HttpResponse {
        match handled {
            Ok(Ok(response)) => return response,
            Ok(Err(error)) => {
                tracing::warn!(%error, "an HTTP service failed");
                self.shared.metrics.note(Incident::Failed);
            }
            Err(_panic) => {
                tracing::error!("an HTTP handler panicked");
                self.shared.metrics.note(Incident::Panicked);
            }
        }
        reply::empty(StatusCode::INTERNAL_SERVER_ERROR)
    }
}
