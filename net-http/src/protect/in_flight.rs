//! The bound on requests in progress per caller.
//!
//! # Invariants
//!
//! * The table has an entry for a caller only while one of its requests is in progress.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{body::Body, response::Response};
use futures::future::{Either, Ready, ready};
use http::Request;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::key_of;
use crate::serve::{PeerKey, reply};

/// `Retry-After` of a refusal. Chosen: the shortest time that the header can express.
const COME_BACK: Duration = Duration::from_secs(1);

/// Answers a request with 429 while too many requests of its caller are in progress. A request is in progress
/// until its answer begins.
#[derive(Clone, Debug)]
pub struct InFlightLayer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bound: usize,
    callers: Mutex<HashMap<PeerKey, usize>>,
}

impl InFlightLayer {
    /// Allows `bound` requests of each caller at a time. Services made with this layer and its clones share the
    /// counts.
    #[must_use]
    pub fn new(bound: usize) -> Self {
        Self { shared: Arc::new(Shared { bound, callers: Mutex::default() }) }
    }
}

impl Shared {
    fn callers(&self) -> MutexGuard<'_, HashMap<PeerKey, usize>> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(self: &Arc<Self>, key: PeerKey) -> Option<Handled> {
        let mut callers = self.callers();
        let count = callers.entry(key).or_default();
        if *count >= self.bound {
            // Removes an entry without requests, which exists here only with a bound of zero.
            if *count == 0 {
                callers.remove(&key);
            }
            return None;
        }
        *count += 1;
        Some(Handled { shared: Arc::clone(self), key })
    }
}

/// A request in progress, counted until dropped.
#[derive(Debug)]
struct Handled {
    shared: Arc<Shared>,
    key: PeerKey,
}

impl Drop for Handled {
    fn drop(&mut self) {
        let mut callers = self.shared.callers();
        if let Some(count) = callers.get_mut(&self.key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                callers.remove(&self.key);
            }
        }
    }
}

impl<S> Layer<S> for InFlightLayer {
    type Service = InFlight<S>;

    fn layer(&self, inner: S) -> InFlight<S> {
        InFlight { inner, shared: Arc::clone(&self.shared) }
    }
}

/// The service of an [`InFlightLayer`].
#[derive(Clone, Debug)]
pub struct InFlight<S> {
    inner: S,
    shared: Arc<Shared>,
}

pin_project! {
    /// The response future of a request that is counted.
    #[derive(Debug)]
    pub struct Counted<F> {
        #[pin]
        inner: F,
        handled: Option<Handled>,
    }
}

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let polled = this.inner.poll(context);
        if polled.is_ready() {
            *this.handled = None;
        }
        polled
    }
}

impl<S, B> Service<Request<B>> for InFlight<S>
where
    S: Service<Request<B>, Response = Response>,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Either<Ready<Result<Response, S::Error>>, Counted<S::Future>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let handled = match key_of(&request) {
            None => None,
            Some(key) => match self.shared.enter(key) {
                Some(handled) => Some(handled),
                None => {
                    let refused = reply::too_many(COME_BACK);
                    return Either::Left(ready(Ok(refused.map(Body::new))));
                }
            },
        };
        Either::Right(Counted { inner: self.inner.call(request), handled })
    }
}
