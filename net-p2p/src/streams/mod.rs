//! Streams of our own protocols, whatever they are for.
//!
//! ```text
//!   inbound   connection task: negotiate ──offer──▶ [accept queue] ──▶ whoever accepts the protocol
//!   outbound  gossip ──▶ Behaviour ────────▶ connection task: negotiate ──oneshot──▶ the caller
//!             others ──▶ Behaviour (dials) ─▶ connection task: a place, negotiate ──▶ the caller
//! ```
//!
//! # Invariants
//!
//! * No stream is dropped in silence: one that finds no place in its accept queue is reset and counted.
//! * A stream is handed over only when its negotiation is complete and flushed, so either side may
//!   write first, or read first.
//! * An outbound request is always answered, within its deadline.
//! * Streams that are no gossip wait for each other, in every queue; gossip waits for none of them.

mod accept;
mod behaviour;
mod connections;
mod handler;
mod pending_dials;

pub use accept::InboundStream;
pub(crate) use accept::{About, AcceptQueue, Acceptors, GOSSIP, HTTP};
pub(crate) use behaviour::{Behaviour, DialWanted, StreamTarget, Wish};
pub(crate) use connections::Usage;
pub use handler::{OpenError, OutboundStream};
pub(crate) use handler::{OpenRequest, Turn};
