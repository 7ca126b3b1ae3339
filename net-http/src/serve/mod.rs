//! The HTTP server: everything between a byte stream and an [`HttpService`](gossip::http::HttpService).
//!
//! ```text
//!   bytes ─▶ HeadGuard (heads judged, deadlines) ─▶ Engine ─▶ hook ─▶ HttpService
//!               ▲                                              │
//!               └───────────── ConnState (idle, busy) ◀────────┘
//! ```
//!
//! A transport brings a [`Connection`] and a [`ConnectionHook`], and [`HttpServer::serve`] does the rest: the
//! same loop for sockets, TLS and libp2p streams.
//!
//! # Invariants
//!
//! * The HTTP library sees no byte of a request before its whole head has been checked.
//! * A connection holds a permit while it is served, and gives it back when it ends or is upgraded.
//! * Every request is answered, or its connection ends. After a refused head no further request is answered.

mod asked;
mod conn_state;
mod connection;
mod date;
mod engine;
mod guard;
mod hook;
mod limits;
mod metrics;
pub mod path;
mod permits;
mod plain;
mod portable;
pub mod reply;
mod server;

pub use conn_state::Pipelined;
pub use connection::{Connection, Upgraded};
pub use engine::Engine;
pub use gossip::LoopbackRule;
#[cfg(fuzzing)]
pub(crate) use guard::fuzzing;
pub use hook::{Action, ConnectionHook, NoHook, RequestHead};
pub use limits::{PermitRule, ServeLimits, Terms, UpgradeOffer};
pub use metrics::{Incident, ServeMetrics};
pub(crate) use permits::PeerKey;
pub use server::{HttpServer, ServeContext};
