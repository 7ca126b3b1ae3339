//! HTTP over streams, in both directions.
//!
//! ```text
//!   connections ──try──▶ [accept queue] ──▶ StreamAcceptor ──▶ one task per stream: HttpServer ──▶ HttpService
//!   HttpClient ──▶ Clients ──▶ StreamConnect ──wait──▶ [wishes] ──▶ swarm task ──▶ stream
//! ```
//!
//! # Invariants
//!
//! * The stream_acceptor waits for streams and for nothing else: no handler, no body, no seat.
//! * What serves or sends is somebody else's; here streams become bytes with a verified peer behind them.
//! * A stream ends in an orderly way, after all that was written to it; only what was given up is reset.

mod connect;
mod stream;
mod stream_acceptor;
mod well_known;

pub(crate) use connect::{StreamConnect, unusable};
pub(crate) use stream_acceptor::StreamAcceptor;
pub use well_known::with_protocols_document;
