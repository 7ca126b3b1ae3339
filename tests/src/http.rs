//! The parts of the HTTP tests: a service, the routes to it, and raw clients.
//!
//! ```text
//!   case ──▶ Reach ──┬─▶ TCP, TLS ─────────────────┐
//!                    ├─▶ libp2p stream ────────────┼─▶ Server or PeerProcess ─▶ service::router
//!                    └─▶ Forward ─▶ libp2p stream ─┘
//! ```
//!
//! # Invariants
//!
//! * A raw stream shares no HTTP code with the node at its other end.
//! * Every wait here has a deadline, and panics when it passes.

pub mod certificate;
pub mod pattern;
pub mod peer;
pub mod raw;
pub mod route;
pub mod server;
pub mod service;
