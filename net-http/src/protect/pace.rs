//! Time limits on a request: for its body to arrive, and for its answer to begin.
//!
//! # Invariants
//!
//! * Only the time in which a handler waits for the client is charged to the client, and only the time since
//!   the client's last byte to the handler.
//! * A body that is too slow ends in an error, and the request is answered 408 whatever the handler returns.
//! * A request that is answered at once sets no timer.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;
use runtime::time::{Instant, Sleep, sleep_until};
use tower::{Layer, Service};

use crate::serve::reply;

/// The lowest rate allowed for a request body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BodyRate {
    /// Bytes per second. Default: 16,384. Source: threats and goals, row 30.
    pub bytes_per_second: u32,
    /// Additional time. Default: 5 s. Source: threats and goals, row 30.
    pub grace: Duration,
}

impl Default for BodyRate {
    fn default() -> Self {
        Self { bytes_per_second: 16 * 1024, grace: Duration::from_secs(5) }
    }
}

gossip::setters!(BodyRate {
    with_bytes_per_second => bytes_per_second: u32,
    with_grace => grace: Duration,
});

impl BodyRate {
    /// So many bytes a second, and `grace` on top.
    #[must_use]
    pub const fn new(bytes_per_second: u32, grace: Duration) -> Self {
        Self { bytes_per_second, grace }
    }

    /// Longest time that a handler may have waited for this many bytes.
    fn allowed(&self, bytes: u64) -> Duration {
        let rate = u64::from(self.bytes_per_second.max(1));
        let rest = Duration::from_millis((bytes % rate).saturating_mul(1000) / rate);
        self.grace.saturating_add(Duration::from_secs(bytes / rate)).saturating_add(rest)
    }
}

/// The error of a request body that arrived too slowly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body of the request arrived too slowly")]
pub struct TooSlow;

/// Answers 408 if a request body arrives too slowly, and 503 if the handler does not begin its answer in time.
#[derive(Clone, Copy, Debug)]
pub struct PaceLayer {
    rate: BodyRate,
    head_time: Duration,
}

impl PaceLayer {
    /// Limits bodies to `rate`, and handlers to `head_time`.
    #[must_use]
    pub const fn new(rate: BodyRate, head_time: Duration) -> Self {
        Self { rate, head_time }
    }
}

impl<S> Layer<S> for PaceLayer {
    type Service = Pace<S>;

    fn layer(&self, inner: S) -> Pace<S> {
        Pace { inner, terms: *self }
    }
}

/// The service of a [`PaceLayer`].
#[derive(Clone, Copy, Debug)]
pub struct Pace<S> {
    inner: S,
    terms: PaceLayer,
}

/// State shared by the body of a request and its answer.
#[derive(Debug)]
struct Shared {
    began: Instant,
    /// Time of the last byte of the body, in milliseconds since the request began.
    last_byte_ms: AtomicU64,
    state: AtomicU8,
}

/// The handler reads the body, or does something else.
const READING: u8 = 0;
/// The handler waits for the client.
const WAITING: u8 = 1;
/// The client was too slow.
const TOO_SLOW: u8 = 2;

impl Shared {
    fn last_byte(&self) -> Instant {
        self.began + Duration::from_millis(self.last_byte_ms.load(Ordering::Relaxed))
    }

    fn note_byte(&self) {
        let passed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_byte_ms.store(passed, Ordering::Relaxed);
    }
}

/// A request body with a minimum rate.
struct Paced {
    body: Body,
    shared: Arc<Shared>,
    rate: BodyRate,
    bytes: u64,
    /// Time for which the handler has waited, without the current wait.
    waited: Duration,
    waiting_since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Paced {
    /// Checks whether the handler has waited for the client for too long.
    fn poll_patience(&mut self, context: &mut Context<'_>) -> Poll<TooSlow> {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        self.shared.state.store(WAITING, Ordering::Relaxed);
        let due = since + self.rate.allowed(self.bytes).saturating_sub(self.waited);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        ready!(timer.as_mut().poll(context));
        self.shared.state.store(TOO_SLOW, Ordering::Relaxed);
        Poll::Ready(TooSlow)
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) else {
            let TooSlow = ready!(this.poll_patience(context));
            return Poll::Ready(Some(Err(TooSlow.into())));
        };
        if let Some(since) = this.waiting_since.take() {
            this.waited += since.elapsed();
            this.shared.state.store(READING, Ordering::Relaxed);
        }
        this.shared.note_byte();
        if let Some(Ok(frame)) = &frame {
            this.bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

pin_project! {
    /// The response future of a request with time limits.
    #[derive(Debug)]
    pub struct PacedAnswer<F> {
        #[pin]
        inner: F,
        #[pin]
        timer: Option<Sleep>,
        // State shared with the body; `None` if the request has no body.
        shared: Option<Arc<Shared>>,
        head_time: Duration,
    }
}

impl<F, E> Future for PacedAnswer<F>
where
    F: Future<Output = Result<Response, E>>,
{
    type Output = Result<Response, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let answered = this.inner.poll(context);
        let state = |shared: &Option<Arc<Shared>>| {
            shared.as_ref().map_or(READING, |shared| shared.state.load(Ordering::Relaxed))
        };
        if state(this.shared) == TOO_SLOW {
            return Poll::Ready(Ok(too_slow()));
        }
        if answered.is_ready() {
            return answered;
        }
        loop {
            let now = Instant::now();
            let since = match (&this.shared, state(this.shared)) {
                // While the handler waits for the body, the body's own deadline applies.
                (_, WAITING) => now,
                (Some(shared), _) => shared.last_byte(),
                (None, _) => now,
            };
            if this.timer.is_none() {
                this.timer.set(Some(sleep_until(since + *this.head_time)));
            }
            let Some(mut timer) = this.timer.as_mut().as_pin_mut() else { return Poll::Pending };
            ready!(timer.as_mut().poll(context));
            let due = since + *this.head_time;
            if this.shared.is_none() || due <= now {
                return Poll::Ready(Ok(
                    reply::empty(StatusCode::SERVICE_UNAVAILABLE).map(Body::new)
                ));
            }
            timer.set(sleep_until(due));
        }
    }
}

/// The answer to a body that is too slow. The rest of the body is not read.
fn too_slow() -> Response {
    let mut response = reply::refused(StatusCode::REQUEST_TIMEOUT, "408 Request Timeout");
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response.map(Body::new)
}

impl<S> Service<Request<Body>> for Pace<S>
where
    S: Service<Request<Body>, Response = Response>,
{
    type Response = Response;
    type Error = S::Error;
    type Future = PacedAnswer<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let PaceLayer { rate, head_time } = self.terms;
        if request.body().is_end_stream() {
            let inner = self.inner.call(request);
            return PacedAnswer { inner, timer: None, shared: None, head_time };
        }
        let shared = Arc::new(Shared {
            began: Instant::now(),
            last_byte_ms: AtomicU64::new(0),
            state: AtomicU8::new(READING),
        });
        let paced = Arc::clone(&shared);
        let request = request.map(|body| {
            Body::new(Paced {
                body,
                shared: paced,
                rate,
                bytes: 0,
                waited: Duration::ZERO,
                waiting_since: None,
                timer: None,
            })
        });
        let inner = self.inner.call(request);
        PacedAnswer { inner, timer: None, shared: Some(shared), head_time }
    }
}
