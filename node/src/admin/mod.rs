//! The admin API: how other processes of the same user speak to a running node.
//!
//! ```text
//!   tandem send, listen, peers ─▶ Client ─▶ admin.sock ─▶ Server ─▶ Broadcaster, GossipNode
//! ```
//!
//! # Invariants
//!
//! * The socket is its owner's alone from the moment it has its name.
//! * A client can stall nobody but itself: connections are bounded in number, and every read and
//!   write has a deadline.

mod choice;
mod client;
mod context;
mod deadline;
mod exporter;
mod routes;
mod server;
pub(crate) mod wire;

pub(crate) use client::{Client, ClientError};
pub(crate) use context::Context;
pub(crate) use exporter::{Exporter, ExporterError};
pub(crate) use server::{AdminError, Server};

#[cfg(test)]
mod tests;
