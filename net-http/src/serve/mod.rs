//! The serving side: what stands between a stream of bytes and an [`HttpService`](gossip::http::HttpService).
//!
//! ```text
//!   bytes ─▶ HeadGuard (heads judged, deadlines) ─▶ hyper ─▶ HttpServer::answer ─▶ HttpService
//!               ▲                                              │
//!               └───────────── ConnState (idle, busy) ◀─────────────┘
//! ```
//!
//! # Invariants
//!
//! * The HTTP library sees nothing of a request until its whole head has been judged.
//! * A connection has a seat before it is read from, and gives it back when it ends.
//! * A request is answered or its connection ends; after a refused head nothing is answered any more.

mod asked;
mod chunks;
mod conn_state;
mod head;
mod head_guard;
mod limits;
mod metrics;
pub mod path;
mod permits;
mod refusal;
pub mod reply;
mod server;

pub use conn_state::{Answer, ConnState, Pipelined};
pub use head_guard::HeadGuard;
pub use limits::{LoopbackRule, ServeLimits, Terms, UpgradeOffer};
pub use metrics::{Incident, ServeMetrics};
pub(crate) use permits::PeerKey;
pub use permits::{ConnectionPermit, Refused};
pub use server::HttpServer;
