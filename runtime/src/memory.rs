//! A network in memory: hosts with addresses and names, and pipes between them.
//!
//! ```text
//!   Network::new(seed) ─▶ host(ip) ─▶ Environment ─▶ a node
//!            │                            │ dial, bind
//!            └── names, delays, cuts ─────┴──▶ Pipe ⇄ Pipe
//! ```
//!
//! With tokio's clock paused and on one thread, everything that happens here is decided by the seed.
//!
//! # Invariants
//!
//! * Bytes arrive in the order and after the delay of their path, whole or not at all.
//! * A pipe holds at most [`PIPE_BYTES`]; a listener keeps at most [`BACKLOG`] callers.
//! * A path that is cut loses nothing: what was sent arrives once it is whole again.

mod network;
mod path;
mod pipe;

pub use network::{BACKLOG, Network};
pub(crate) use network::{Host, PipeListener};
pub use pipe::PIPE_BYTES;
pub(crate) use pipe::{PipeReader, PipeStream, PipeWriter};
