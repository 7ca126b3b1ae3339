//! The serving side: what stands between a stream of bytes and an [`HttpService`](gossip::http::HttpService).
//!
//! ```text
//!   bytes ─▶ Screen (heads judged, deadlines) ─▶ hyper ─▶ Reception::answer ─▶ HttpService
//!               ▲                                              │
//!               └───────────── Line (idle, busy) ◀─────────────┘
//! ```
//!
//! # Invariants
//!
//! * The HTTP library sees nothing of a request until its whole head has been judged.
//! * A connection has a seat before it is read from, and gives it back when it ends.
//! * A request is answered or its connection ends; after a refused head nothing is answered any more.

mod asked;
mod chunks;
mod head;
mod limits;
mod line;
mod metrics;
pub mod path;
mod reception;
mod refusal;
pub mod reply;
mod screen;
mod seats;

pub use limits::{LoopbackRule, ServeLimits, Terms, UpgradeOffer};
pub use line::{Answer, Behind, Line};
pub use metrics::{Incident, ServeMetrics};
pub use reception::Reception;
pub use screen::Screen;
pub(crate) use seats::PeerKey;
pub use seats::{Refused, Seat};
