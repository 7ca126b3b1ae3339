//! HTTP over streams, in both directions.
//!
//! ```text
//!   connections ──try──▶ [accept queue] ──▶ StreamAcceptor ──▶ one task per stream: HttpServer
//!   HttpClient ──▶ Clients ──▶ StreamConnect ──wait──▶ [wishes] ──▶ swarm task ──▶ stream
//! ```
//!
//! # Invariants
//!
//! * The acceptor waits for streams and for nothing else: no handler, no body, no permit.
//! * Serving and sending is the work of `net-http`; here streams become bytes with a verified peer behind them.
//! * A stream ends in an orderly way, after all that was written to it; only a stream that was given up is reset.

mod connect;
mod stream;
mod stream_acceptor;
mod well_known;

pub(crate) use connect::{StreamConnect, unusable};
pub(crate) use stream_acceptor::StreamAcceptor;
