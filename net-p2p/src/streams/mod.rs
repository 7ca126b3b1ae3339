//! Streams of our own protocols, whatever they are for.
//!
//! ```text
//!   inbound   connection task: negotiate ──offer──▶ [accept queue] ──▶ whoever accepts the protocol
//!   outbound  StreamOpener ──▶ Behaviour ──▶ connection task: negotiate ──oneshot──▶ the caller
//! ```
//!
//! # Invariants
//!
//! * No stream is dropped in silence: one that finds no place in its accept queue is reset and counted.
//! * A stream is handed over only when its negotiation is complete and flushed, so either side may
//!   write first, or read first.
//! * An outbound request is always answered, within its deadline.

mod accept;
mod behaviour;
mod handler;

pub use accept::InboundStream;
pub(crate) use accept::{About, AcceptQueue, Acceptors, PER_QUEUE};
pub(crate) use behaviour::Behaviour;
pub(crate) use handler::OpenRequest;
pub use handler::{OpenError, OutboundStream};
