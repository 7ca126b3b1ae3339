//! Streams of this crate's own protocols: gossip and HTTP, and those of applications.
//!
//! ```text
//!   inbound   connection task: negotiate ──offer──▶ [accept queue] ──▶ acceptor of the protocol
//!   outbound  gossip ──▶ Behaviour ────────▶ connection task: negotiate ──oneshot──▶ the caller
//!             others ──▶ Behaviour (dials) ─▶ connection task: a place, negotiate ──▶ the caller
//! ```
//!
//! # Invariants
//!
//! * Every inbound stream that is dropped is counted: one that finds its accept queue full is reset.
//! * A stream is handed over only after its negotiation is complete and flushed, so either side may write
//!   first, or read first.
//! * An outbound request is always answered, within its deadline.
//! * Streams other than gossip wait for each other, in every queue; gossip does not wait for them.

mod accept;
mod behaviour;
mod connections;
mod handler;
mod io;
mod pending_dials;

pub use accept::InboundStream;
pub(crate) use accept::{About, AcceptQueue, Acceptors, Bounds, GOSSIP, HTTP};
pub(crate) use behaviour::{Behaviour, DialWanted, StreamRequest, StreamTarget};
pub(crate) use connections::Usage;
pub use handler::{OpenError, OutboundStream};
pub(crate) use handler::{OpenRequest, Turn};
pub(crate) use io::StreamIo;
