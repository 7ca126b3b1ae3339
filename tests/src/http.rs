//! What the HTTP of a node is judged with: a service, the ways that lead to it, and raw clients.
//!
//! ```text
//!   case ──▶ Reach ──┬─▶ TCP, TLS ─────────────────┐
//!                    ├─▶ libp2p stream ────────────┼─▶ Server or PeerProcess ─▶ service::router
//!                    └─▶ Forward ─▶ libp2p stream ─┘
//! ```
//!
//! # Invariants
//!
//! * A raw stream shares no HTTP code with the node it speaks to.
//! * Whatever waits here has a deadline, and panics when it passes.

pub mod certificate;
pub mod pattern;
pub mod peer;
pub mod raw;
pub mod route;
pub mod server;
pub mod service;
