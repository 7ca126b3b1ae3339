//! Gossip over the host's WebSocket: that of a browser, of Node.js, or of the package `ws`.
//!
//! ```text
//!   mesh loop ──Ticket──▶ dial: hello in the query ─▶ identity ─▶ link ─▶ Broadcaster
//!                                                          Socket ─┬─ Inbox ─▶ read loop
//!                                                                  └─ Sink  ◀─ write loop
//! ```
//!
//! # Invariants
//!
//! * A link is the same to everything above as one of the native WebSocket network: same claim, same tickets.
//! * The bytes that wait to be read are bounded, and so are those that the host has not sent yet.

mod dial;
mod inbox;
mod link;
mod page;
mod sink;
mod socket;

pub(crate) use page::WsPage;
