//! Counters of the services in the box: requests, refusals by reason, bytes, and requests under way.
//!
//! ```text
//!   request ─▶ Measured ─▶ router ─▶ answer ─▶ body, counted as it is sent
//!   UE      ─▶ MeasuredHandler ─▶ responder ─▶ verdict
//! ```
//!
//! # Invariants
//!
//! * A request is under way from its head to the last byte of its answer, or until either end gives it up.
//! * Nothing from a client is a label.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    middleware::{self, Next},
    response::Response,
};
use bytes::Bytes;
use gossip::{BoxFuture, Handler, Inbound, Verdict};
use http::StatusCode;
use http_body::{Frame, SizeHint};

use crate::blocks::is_refusal;

/// A service in the box, by the way in which it is asked. A closed set, so that it can label a metric.
#[repr(usize)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Service {
    /// Blocks over HTTP.
    Blocks,
    /// Blocks by message.
    BlockMessages,
    /// Files.
    Files,
    /// Keys and values.
    Kv,
    /// The state of the node.
    Status,
}

impl Service {
    /// All of them, in the order of the counters.
    pub const ALL: [Self; 5] =
        [Self::Blocks, Self::BlockMessages, Self::Files, Self::Kv, Self::Status];

    /// The value of the metric's label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Blocks => "blocks",
            Self::BlockMessages => "block_messages",
            Self::Files => "files",
            Self::Kv => "kv",
            Self::Status => "status",
        }
    }
}

/// Why a request was not served. A closed set, so that it can label a metric.
#[repr(usize)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refused {
    /// The request makes no sense: 400, 405, 414, 416 and other statuses of the client's that have no name here.
    Malformed,
    /// The caller may not do that: 401, 403.
    Forbidden,
    /// There is no such thing here: 404.
    Missing,
    /// A condition of the caller does not hold, or the content is not the one announced: 409, 412, 422.
    Condition,
    /// The body did not come in time: 408.
    Slow,
    /// The body is too long: 413.
    TooLong,
    /// The caller asks too often: 429.
    TooMany,
    /// There is no room for another request now: 503. A message for which there is none gets no answer.
    Busy,
    /// There is no room for what was sent: 507.
    Full,
    /// The service failed: any other status of the server's.
    Broken,
}

impl Refused {
    /// All of them, in the order of the counters.
    pub const ALL: [Self; 10] = [
        Self::Malformed,
        Self::Forbidden,
        Self::Missing,
        Self::Condition,
        Self::Slow,
        Self::TooLong,
        Self::TooMany,
        Self::Busy,
        Self::Full,
        Self::Broken,
    ];

    /// The value of the metric's label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Forbidden => "forbidden",
            Self::Missing => "missing",
            Self::Condition => "condition",
            Self::Slow => "slow",
            Self::TooLong => "too_long",
            Self::TooMany => "too_many",
            Self::Busy => "busy",
            Self::Full => "full",
            Self::Broken => "broken",
        }
    }

    /// The refusal that a status tells; `None` for an answer, a redirect included.
    fn of(status: StatusCode) -> Option<Self> {
        Some(match status.as_u16() {
            401 | 403 => Self::Forbidden,
            404 => Self::Missing,
            408 => Self::Slow,
            409 | 412 | 422 => Self::Condition,
            413 => Self::TooLong,
            429 => Self::TooMany,
            503 => Self::Busy,
            507 => Self::Full,
            _ if status.is_client_error() => Self::Malformed,
            _ if status.is_server_error() => Self::Broken,
            _ => return None,
        })
    }
}

#[derive(Debug, Default)]
struct Counters {
    requests: AtomicU64,
    answered: AtomicU64,
    refused: [AtomicU64; Refused::ALL.len()],
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
}

/// Counters of the services of a node. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct ServiceMetrics(Arc<[Counters; Service::ALL.len()]>);

impl ServiceMetrics {
    /// The routes of `router`, with every request counted as one of `service`.
    pub fn measure(&self, service: Service, router: Router) -> Router {
        let metrics = self.clone();
        router.layer(middleware::from_fn(move |request: Request, next: Next| {
            let metrics = metrics.clone();
            async move { metrics.serve(service, request, next).await }
        }))
    }

    /// A handler that counts every message for `handler` as a request of `service`.
    pub fn measure_handler<H: Handler>(&self, service: Service, handler: H) -> impl Handler {
        MeasuredHandler { handler, metrics: self.clone(), service }
    }

    /// Requests that came, refused ones included.
    #[must_use]
    pub fn requests(&self, service: Service) -> u64 {
        self.of(service).requests.load(Relaxed)
    }

    /// Requests that are under way.
    #[must_use]
    pub fn in_flight(&self, service: Service) -> u64 {
        let counters = self.of(service);
        // In this order, so that none ends unseen between the two.
        let answered = counters.answered.load(Relaxed);
        counters.requests.load(Relaxed).saturating_sub(answered)
    }

    /// Requests that were refused for a reason.
    #[must_use]
    pub fn refused(&self, service: Service, why: Refused) -> u64 {
        self.of(service).refused.get(why as usize).map_or(0, |count| count.load(Relaxed))
    }

    /// Bytes of the bodies of requests, as far as they were read.
    #[must_use]
    pub fn received_bytes(&self, service: Service) -> u64 {
        self.of(service).received_bytes.load(Relaxed)
    }

    /// Bytes of the bodies of answers, as far as they were sent.
    #[must_use]
    pub fn sent_bytes(&self, service: Service) -> u64 {
        self.of(service).sent_bytes.load(Relaxed)
    }

    fn of(&self, service: Service) -> &Counters {
        // One for each service.
        &self.0[service as usize]
    }

    fn refuse(&self, service: Service, why: Refused) {
        if let Some(count) = self.of(service).refused.get(why as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    async fn serve(self, service: Service, request: Request, next: Next) -> Response {
        let under_way = UnderWay::begin(&self, service);
        let counted = CountedBody { metrics: self.clone(), service, way: Way::In };
        let request = request.map(|body| Body::new(Counted { body, counted, _under_way: None }));
        let response = next.run(request).await;
        if let Some(why) = Refused::of(response.status()) {
            self.refuse(service, why);
        }
        let counted = CountedBody { metrics: self, service, way: Way::Out };
        response.map(|body| Body::new(Counted { body, counted, _under_way: Some(under_way) }))
    }
}

/// One request, from its head to the end of its answer.
struct UnderWay {
    metrics: ServiceMetrics,
    service: Service,
}

impl UnderWay {
    fn begin(metrics: &ServiceMetrics, service: Service) -> Self {
        metrics.of(service).requests.fetch_add(1, Relaxed);
        Self { metrics: metrics.clone(), service }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.metrics.of(self.service).answered.fetch_add(1, Relaxed);
    }
}

/// The direction of a body.
#[derive(Clone, Copy)]
enum Way {
    In,
    Out,
}

struct CountedBody {
    metrics: ServiceMetrics,
    service: Service,
    way: Way,
}

impl CountedBody {
    fn add(&self, bytes: usize) {
        let counters = self.metrics.of(self.service);
        let count = match self.way {
            Way::In => &counters.received_bytes,
            Way::Out => &counters.sent_bytes,
        };
        count.fetch_add(bytes as u64, Relaxed);
    }
}

/// A body whose bytes are counted as they pass.
struct Counted {
    body: Body,
    counted: CountedBody,
    _under_way: Option<UnderWay>,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.counted.add(data.len());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

struct MeasuredHandler<H> {
    handler: H,
    metrics: ServiceMetrics,
    service: Service,
}

impl<H: Handler> Handler for MeasuredHandler<H> {
    fn handle(&self, message: Inbound) -> BoxFuture<'_, Verdict> {
        let Self { handler, metrics, service } = self;
        let under_way = UnderWay::begin(metrics, *service);
        metrics.of(*service).received_bytes.fetch_add(message.body.len() as u64, Relaxed);
        Box::pin(async move {
            let verdict = handler.handle(message).await;
            match &verdict {
                Verdict::Respond(answer) => {
                    let bytes = answer.encoded_len() as u64;
                    metrics.of(*service).sent_bytes.fetch_add(bytes, Relaxed);
                    if is_refusal(answer) {
                        metrics.refuse(*service, Refused::Missing);
                    }
                }
                _ => metrics.refuse(*service, Refused::Busy),
            }
            drop(under_way);
            verdict
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use axum::routing::{get, post};
    use gossip::{Tag, Transport, wire::topics::Topics};
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    fn request(method: &str, path: &str, body: &'static str) -> Request {
        http::Request::builder().method(method).uri(path).body(Body::from(body)).unwrap()
    }

    // Issue 8, 30: services had no metrics.
    #[tokio::test]
    async fn requests_refusals_and_bytes_of_each_service_are_counted() {
        let metrics = ServiceMetrics::default();
        let routes = Router::new()
            .route("/echo", post(|body: Bytes| async { body }))
            .route("/full", get(|| async { StatusCode::INSUFFICIENT_STORAGE }));
        let router = metrics.measure(Service::Kv, routes);
        let answer = router.clone().oneshot(request("POST", "/echo", "12345")).await.unwrap();
        assert_eq!(metrics.in_flight(Service::Kv), 1, "its answer is not sent yet");
        assert_eq!(http_body::Body::size_hint(answer.body()).exact(), Some(5));
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "12345");
        for path in ["/full", "/echo"] {
            drop(router.clone().oneshot(request("GET", path, "")).await.unwrap());
        }
        let counts = |service| {
            let bytes = (metrics.received_bytes(service), metrics.sent_bytes(service));
            (metrics.requests(service), metrics.in_flight(service), bytes)
        };
        assert_eq!(counts(Service::Kv), (3, 0, (5, 5)));
        assert_eq!(counts(Service::Files), (0, 0, (0, 0)));
        let refused = Refused::ALL.map(|why| metrics.refused(Service::Kv, why));
        assert_eq!(refused.iter().sum::<u64>(), 2);
        assert_eq!(metrics.refused(Service::Kv, Refused::Full), 1);
        assert_eq!(metrics.refused(Service::Kv, Refused::Malformed), 1);
    }

    // Issue 8, 30.
    #[tokio::test]
    async fn an_answer_that_nobody_reads_to_its_end_is_not_under_way_for_ever() {
        let metrics = ServiceMetrics::default();
        let routes = Router::new().route("/", get(|| async { "abc" }));
        let answer = metrics.measure(Service::Files, routes).oneshot(request("GET", "/", ""));
        let answer = answer.await.unwrap();
        assert_eq!(metrics.in_flight(Service::Files), 1);
        drop(answer);
        assert_eq!((metrics.in_flight(Service::Files), metrics.sent_bytes(Service::Files)), (0, 0));
    }

    // Issue 8, 30.
    #[tokio::test]
    async fn messages_that_are_not_answered_or_answered_with_an_error_are_refusals() {
        let metrics = ServiceMetrics::default();
        let handler = |message: Inbound| async move {
            match message.body.len() {
                1 => Verdict::Respond(Topics::new().with("Error", "none")),
                2 => Verdict::Respond(Topics::new().with("blockData", "b")),
                _ => Verdict::Ignore,
            }
        };
        let handler = metrics.measure_handler(Service::BlockMessages, handler);
        for body in ["1", "22", "333"] {
            let message = Inbound {
                tag: Tag::UE,
                body: Bytes::from_static(body.as_bytes()),
                from: None,
                identity: None,
                transport: Transport::Memory,
                received: Instant::now(),
            };
            handler.handle(message).await;
        }
        let service = Service::BlockMessages;
        assert_eq!((metrics.requests(service), metrics.in_flight(service)), (3, 0));
        assert_eq!(metrics.received_bytes(service), 6);
        assert!(metrics.sent_bytes(service) > 0);
        assert_eq!(metrics.refused(service, Refused::Missing), 1);
        assert_eq!(metrics.refused(service, Refused::Busy), 1);
    }

    #[test]
    fn every_label_has_its_own_counter() {
        for (index, service) in Service::ALL.into_iter().enumerate() {
            assert_eq!(service as usize, index, "{}", service.label());
        }
        for (index, why) in Refused::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, index, "{}", why.label());
        }
    }
}
