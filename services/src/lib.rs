//! Services in the box: routers that a node may serve over any transport, and protocols of byte streams.
//!
//! # Invariants
//!
//! * A service does not know what carries its requests, and calls peers through
//!   [`gossip::http::HttpClient`] only.
//! * A service names its files on disk itself, never by a path from the wire.

pub mod blocks;
pub mod files;
pub mod kv;
pub mod metrics;
pub mod perf;
pub mod status;
