//! HTTP over streams, in both directions.
//!
//! ```text
//!   connections ──try──▶ [accept queue] ──▶ StreamAcceptor ──▶ one task per stream: HttpServer
//!   HttpClient ──▶ Clients ──▶ StreamConnect ──wait──▶ [requests] ──▶ swarm task ──▶ stream
//! ```
//!
//! # Invariants
//!
//! * The acceptor waits for streams only, never for a handler, a body or a permit.
//! * `net-http` serves and sends requests. This module only turns streams into byte streams with a verified
//!   peer.
//! * A stream is closed in an orderly way after everything written to it; it is reset only when it is
//!   abandoned.

mod connect;
mod stream_acceptor;
mod well_known;

pub(crate) use connect::{StreamConnect, unusable};
pub(crate) use stream_acceptor::StreamAcceptor;
