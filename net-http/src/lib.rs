//! HTTP over any byte stream: a server, a client, and the limits that protect a node from both sides.
//!
//! ```text
//!   socket, TLS, libp2p stream ─▶ HttpServer ─▶ layers ─▶ HttpService
//!   HttpClient ─▶ limits ─▶ pool ─▶ Connect ─▶ socket, TLS, libp2p stream
//! ```
//!
//! # Invariants
//!
//! * This crate is independent of the transport, which brings accepted streams and opens new ones.
//! * Every connection, request and waiting caller is counted against a bound, and every wait has a deadline.

pub mod client;
pub mod protect;
pub mod serve;
mod span;
mod trace_context;

pub use protect::Protection;
#[cfg(fuzzing)]
pub mod fuzzing;
pub use serve::{
    HttpServer, Incident, LoopbackRule, ServeContext, ServeLimits, ServeMetrics, reply,
};
