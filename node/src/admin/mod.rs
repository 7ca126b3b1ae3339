//! The admin API: how other processes of the same user speak to a running node.
//!
//! ```text
//!   tandem send, listen, peers ─▶ Client ─▶ admin.sock ─▶ Server ─▶ Broadcaster, GossipNode
//! ```
//!
//! # Invariants
//!
//! * The socket is its owner's alone from the moment it has its name.
//! * Everything stands under `/v1`, but for `/health` and `/metrics`, which other programs know by these names.
//! * A client can stall nobody but itself: connections are bounded in number, and every read and
//!   write has a deadline.

#![allow(clippy::result_large_err, reason = "a refusal is an answer, and made once")]

mod accept;
mod actions;
mod api;
mod asked;
mod bans;
mod client;
mod context;
mod dashboard;
mod deadline;
mod dht;
mod events;
mod exporter;
mod journal;
mod limits;
mod members;
mod messages;
mod named_node;
mod peers;
mod phonebook;
mod places;
mod problem;
mod rates;
mod refusals;
mod remote;
pub(crate) mod report;
mod route_table;
mod server;
mod state;
mod token;
mod topics;
pub(crate) mod trace_tree;
pub(crate) mod traced;
mod traces;
pub(crate) mod wire;

pub(crate) use accept::{Crowded, Open, Port};
pub(crate) use client::{Client, ClientError, Lines};
pub(crate) use context::Context;
pub(crate) use exporter::{Exporter, ExporterError};
pub(crate) use journal::Journal;
pub(crate) use named_node::NamedNode;
pub(crate) use places::Places;
pub(crate) use refusals::RefusalCounters;
pub(crate) use remote::{Remote, RemoteError};
pub(crate) use server::{AdminError, Server};
pub(crate) use token::{Token, TokenError};
pub(crate) use traces::digest;

#[cfg(test)]
mod tests;
