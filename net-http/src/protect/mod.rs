//! Layers that keep one caller from using up the node's capacity. Each is a `tower` layer for a whole
//! `axum::Router` or for one route; [`Protection`] applies all of them.
//!
//! ```text
//!   request ─▶ rate ─▶ in flight ─▶ pace ─▶ body limit ─▶ handler
//!               429      429        408, 503   413
//! ```
//!
//! # Invariants
//!
//! * Callers are told apart by verified identity, or else by address; the tables of callers are bounded.
//! * A refusal costs one table look-up. A refusal for too many requests delays the caller as well.
//! * Requests that did not arrive over a network of the node are not limited: they have no caller to charge.

mod generations;
mod in_flight;
mod pace;
mod rate;

use std::{num::NonZeroU32, time::Duration};

use axum::{Router, body::Body, extract::DefaultBodyLimit};
use gossip::{
    Durations,
    http::{Caller, HttpBody, HttpRequest, HttpService},
};
use http::{Request, Response};
use tower::{Layer, ServiceExt};
/// Refuses request bodies longer than a given number of bytes with `413 Payload Too Large`.
pub use tower_http::limit::RequestBodyLimitLayer as BodyLimitLayer;

pub use in_flight::{InFlight, InFlightLayer};
pub use pace::{BodyRate, Pace, PaceLayer, TooSlow};
pub use rate::{Rate, RateLayer, RequestRate};

use crate::serve::{LoopbackRule, PeerKey};

/// Limits on the requests of one caller to a router.
///
/// The defaults fit services with short requests. A service that accepts files needs a larger
/// [`Protection::body_bytes`]; a rarely used service may want a lower [`Protection::rate`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Protection {
    /// Longest request body, in bytes; longer ones are answered 413. Default: 1 MiB. Source: threats and
    /// goals, row 30.
    pub body_bytes: usize,
    /// Slowest rate of a request body; slower ones are answered 408. Default: 16 KiB/s after 5 s.
    pub body_rate: BodyRate,
    /// Longest time from the last byte of the request body to the start of the handler's answer; then 503 is
    /// answered. Default: 30 s. Source: threats and goals, row 30.
    pub head_time: Duration,
    /// Requests of one caller in progress at a time; further ones are answered 429. Default: 64. Chosen: four
    /// times the connections of one peer, so that only callers with many connections reach it.
    pub in_flight: usize,
    /// Rate of requests of one caller; further ones are answered 429. Default: 1,000 a second.
    pub rate: RequestRate,
}

gossip::setters!(Protection {
    with_body_bytes => body_bytes: usize,
    with_body_rate => body_rate: BodyRate,
    with_head_time => head_time: Duration,
    with_in_flight => in_flight: usize,
    with_rate => rate: RequestRate,
});

impl Durations for Protection {
    fn each_duration(&mut self, visit: &mut dyn FnMut(&'static str, &mut Duration)) {
        visit("Protection::body_rate", &mut self.body_rate.grace);
        visit("Protection::head_time", &mut self.head_time);
    }
}

impl Default for Protection {
    fn default() -> Self {
        Self {
            body_bytes: 1024 * 1024,
            body_rate: BodyRate::default(),
            head_time: Duration::from_secs(30),
            in_flight: 64,
            rate: RequestRate::default(),
        }
    }
}

impl Protection {
    /// Wraps a router in all layers, its fallback included. Replaces `axum`'s default limit on bodies by
    /// [`Protection::body_bytes`].
    pub fn apply(&self, router: Router) -> Router {
        let rules = self.clone().bounded();
        router
            .layer(DefaultBodyLimit::disable())
            .layer(BodyLimitLayer::new(rules.body_bytes))
            .layer(PaceLayer::new(rules.body_rate, rules.head_time))
            .layer(InFlightLayer::new(rules.in_flight))
            .layer(RateLayer::new(rules.rate))
    }

    /// Wraps a service, as [`Protection::apply`] does a router. An error of the service stays one.
    #[must_use]
    pub fn around(&self, service: HttpService) -> HttpService {
        let rules = self.clone().bounded();
        let service = service.map_request(|request: Request<_>| request.map(HttpBody::new));
        let limited = BodyLimitLayer::new(rules.body_bytes).layer(service);
        let limited = limited.map_response(|response: Response<_>| response.map(Body::new));
        let paced = PaceLayer::new(rules.body_rate, rules.head_time).layer(limited);
        let counted = InFlightLayer::new(rules.in_flight).layer(paced);
        let counted = RateLayer::new(rules.rate).layer(counted);
        HttpService::new(counted.map_request(|request: HttpRequest| request.map(Body::new)))
    }
}

impl Default for RequestRate {
    /// 1,000 requests a second. Chosen: many times the rate of existing nodes, and a fraction of the capacity
    /// of one core.
    fn default() -> Self {
        const THOUSAND: NonZeroU32 = NonZeroU32::new(1000).unwrap();
        Self { per_second: THOUSAND, burst: THOUSAND }
    }
}

/// The caller that a request is charged to; `None` if it is not charged. The rule for loopback is that of the
/// server that the request came through.
fn key_of<B>(request: &Request<B>) -> Option<PeerKey> {
    let loopback = request.extensions().get::<LoopbackRule>().copied().unwrap_or_default();
    PeerKey::of(request.extensions().get::<Caller>()?, loopback)
}
