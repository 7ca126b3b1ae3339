//! Layers that keep one caller from taking what all need. Each is a `tower` layer that can be set for a
//! whole `axum::Router` or for one route; [`Protection`] sets all of them.
//!
//! ```text
//!   request ─▶ rate ─▶ in flight ─▶ pace ─▶ body limit ─▶ handler
//!               429      429        408, 503   413
//! ```
//!
//! # Invariants
//!
//! * Callers are told apart by verified identity, else by address; tables of them are bounded.
//! * A refusal costs no more than a look into a table; one for asking too often costs the caller a pause.
//! * What did not come in over a network of the node passes: there is nobody to count it for.

mod generations;
mod in_flight;
mod pace;
mod rate;

use std::{num::NonZeroU32, time::Duration};

use axum::{Router, extract::DefaultBodyLimit};
use gossip::http::Caller;
use http::Request;
/// Refuses bodies longer than so many bytes with `413 Payload Too Large`.
pub use tower_http::limit::RequestBodyLimitLayer as BodyLimitLayer;

pub use in_flight::{InFlight, InFlightLayer};
pub use pace::{BodyRate, Pace, PaceLayer, TooSlow};
pub use rate::{Rate, RateLayer, RequestRate};

use crate::serve::{LoopbackRule, PeerKey};

/// Bounds on what one caller may do to a router.
///
/// The defaults fit services of short requests. A service that takes files needs a higher
/// [`Protection::body_bytes`]; a service that is asked rarely may want a lower [`Protection::rate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protection {
    /// Longest request body, in bytes; longer ones are answered 413. Default: 1 MiB. Source: threats and
    /// goals, row 30.
    pub body_bytes: usize,
    /// Slowest rate of a request body; slower ones are answered 408. Default: 16 KiB/s after 5 s.
    pub body_rate: BodyRate,
    /// Longest time of a handler to begin its answer, from the last byte of the body that it has read;
    /// then 503 is answered. Default: 30 s. Source: threats and goals, row 30.
    pub head_time: Duration,
    /// Requests of one caller being handled at one time; more are answered 429. Default: 64. Chosen: four
    /// times as many as it has streams, so that only callers with many connections meet it.
    pub in_flight: usize,
    /// Most requests of one caller; more are answered 429. Default: 1,000 a second.
    pub rate: RequestRate,
    /// The rule for callers without an identity on this machine, for the last two.
    pub loopback: LoopbackRule,
}

impl Default for Protection {
    fn default() -> Self {
        Self {
            body_bytes: 1024 * 1024,
            body_rate: BodyRate::default(),
            head_time: Duration::from_secs(30),
            in_flight: 64,
            rate: RequestRate::default(),
            loopback: LoopbackRule::default(),
        }
    }
}

impl Protection {
    /// Puts a router behind all layers. The router's own fallback is behind them too. The limit that
    /// `axum` sets on bodies is lifted; this one is in its place.
    pub fn apply(&self, router: Router) -> Router {
        router
            .layer(DefaultBodyLimit::disable())
            .layer(BodyLimitLayer::new(self.body_bytes))
            .layer(PaceLayer::new(self.body_rate, self.head_time))
            .layer(InFlightLayer::new(self.in_flight, self.loopback))
            .layer(RateLayer::new(self.rate, self.loopback))
    }
}

impl Default for RequestRate {
    /// 1,000 requests a second. Chosen: many times what existing nodes ask of each other, a fraction of
    /// what one core answers.
    fn default() -> Self {
        const THOUSAND: NonZeroU32 = NonZeroU32::new(1000).unwrap();
        Self { per_second: THOUSAND, burst: THOUSAND }
    }
}

/// For whom a request is counted; `None` for nobody.
fn key_of<B>(request: &Request<B>, loopback: LoopbackRule) -> Option<PeerKey> {
    PeerKey::of(request.extensions().get::<Caller>()?, loopback)
}
