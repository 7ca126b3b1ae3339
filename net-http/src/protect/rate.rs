//! The rate limit on the requests of each caller.
//!
//! # Invariants
//!
//! * In any period a caller gets at most `burst` requests, and `per_second` for each second of the period.
//! * The state of a caller is one instant: the time at which its burst is full again.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{body::Body, response::Response};
use futures::future::{Either, Ready, ready};
use gossip::Instant;
use http::Request;
use runtime::time;
use tower::{Layer, Service};

use super::{generations::Generations, key_of};
use crate::serve::{PeerKey, reply};

/// Largest number of callers that are remembered. Chosen: a forgotten caller gets a new burst, so this is more
/// than are likely to call; about 4 MiB. Source of the number: threats and goals, row 32.
const MAX_CALLERS: usize = 65_536;

/// A rate limit on requests: a steady rate, and a burst after a pause. Default: 1,000 of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestRate {
    /// Requests per second in the long run. Default: 1,000.
    pub per_second: NonZeroU32,
    /// Largest number of requests at once after a pause. Default: 1,000, the allowance of one second.
    pub burst: NonZeroU32,
}

gossip::setters!(RequestRate {
    with_per_second => per_second: NonZeroU32,
    with_burst => burst: NonZeroU32,
});

impl RequestRate {
    /// A rate of `per_second` in the long run, and of `burst` at once after a pause.
    #[must_use]
    pub const fn new(per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        Self { per_second, burst }
    }
}

/// The generic cell rate algorithm, as pure functions of time.
#[derive(Clone, Copy, Debug)]
struct Gcra {
    /// Time that one request costs.
    interval: Duration,
    /// Largest cost that a caller may owe.
    tolerance: Duration,
}

impl Gcra {
    fn new(rate: RequestRate) -> Self {
        // Never zero: threads read the clock one after the other, so a request can seem to come slightly before
        // the previous one, and must still be admitted.
        let interval = Duration::from_secs(1) / rate.per_second.get();
        let interval = interval.max(Duration::from_nanos(1));
        Self { interval, tolerance: interval.saturating_mul(rate.burst.get() - 1) }
    }

    /// Decides about a request at `now`. If it is admitted, its cost is added to `spent_until`.
    ///
    /// # Errors
    ///
    /// The time until the next request is admitted.
    fn admit(self, spent_until: &mut Instant, now: Instant) -> Result<(), Duration> {
        let ahead = spent_until.saturating_duration_since(now);
        match ahead.checked_sub(self.tolerance) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => {
                *spent_until = now + ahead + self.interval;
                Ok(())
            }
        }
    }
}

/// Answers requests beyond a rate per caller with 429 and `Retry-After`. A [`HttpServer`](crate::HttpServer)
/// delays these answers, so that a flood gains nothing.
#[derive(Clone, Debug)]
pub struct RateLayer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    gcra: Gcra,
    callers: Mutex<Generations<PeerKey, Instant>>,
}

impl RateLayer {
    /// Admits requests at this rate. Services made with this layer and its clones share the counts.
    #[must_use]
    pub fn new(rate: RequestRate) -> Self {
        let callers = Mutex::new(Generations::new(MAX_CALLERS));
        Self { shared: Arc::new(Shared { gcra: Gcra::new(rate), callers }) }
    }
}

impl Shared {
    fn admit(&self, key: PeerKey, now: Instant) -> Result<(), Duration> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        self.gcra.admit(callers.entry(key, || now), now)
    }
}

impl<S> Layer<S> for RateLayer {
    type Service = Rate<S>;

    fn layer(&self, inner: S) -> Rate<S> {
        Rate { inner, shared: Arc::clone(&self.shared) }
    }
}

/// The service of a [`RateLayer`].
#[derive(Clone, Debug)]
pub struct Rate<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S, B> Service<Request<B>> for Rate<S>
where
    S: Service<Request<B>, Response = Response>,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Either<Ready<Result<Response, S::Error>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let key = key_of(&request);
        let admitted =
            key.map_or(Ok(()), |key| self.shared.admit(key, time::into_std(time::Instant::now())));
        match admitted {
            Ok(()) => Either::Right(self.inner.call(request)),
            Err(wait) => {
                let refused = reply::too_many(wait);
                Either::Left(ready(Ok(refused.map(Body::new))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(per_second: u32, burst: u32) -> Gcra {
        let number = |number| NonZeroU32::new(number).unwrap();
        Gcra::new(RequestRate { per_second: number(per_second), burst: number(burst) })
    }

    #[test]
    fn exactly_the_rate_is_admitted_over_an_hour() {
        let (gcra, start) = (rate(10, 20), Instant::now());
        let (mut state, mut admitted) = (start, 0);
        for tick in 0..3_600_000_u64 {
            let now = start + Duration::from_millis(tick);
            admitted += u32::from(gcra.admit(&mut state, now).is_ok());
        }
        // The burst, and one request for each tenth of a second.
        assert_eq!(admitted, 20 + 35_999);
    }

    #[test]
    fn the_largest_rate_tolerates_clock_readings_out_of_order() {
        let (gcra, start) = (rate(u32::MAX, u32::MAX), Instant::now());
        let mut state = start;
        for _ in 0..1000 {
            assert_eq!(gcra.admit(&mut state, start + Duration::from_micros(50)), Ok(()));
            assert_eq!(gcra.admit(&mut state, start), Ok(()));
        }
    }

    proptest! {
        #[test]
        fn a_caller_is_admitted_after_retry_after_and_not_before(
            per_second in 1..2000_u32, burst in 1..50_u32, gaps in proptest::collection::vec(0..40_u64, 1..200),
        ) {
            let (gcra, mut now) = (rate(per_second, burst), Instant::now());
            let mut state = now;
            for gap in gaps {
                now += Duration::from_millis(gap);
                if let Err(wait) = gcra.admit(&mut state, now) {
                    prop_assert!(gcra.admit(&mut state, now + wait - Duration::from_nanos(1)).is_err());
                    now += wait;
                    prop_assert_eq!(gcra.admit(&mut state, now), Ok(()));
                }
            }
        }
    }
}
