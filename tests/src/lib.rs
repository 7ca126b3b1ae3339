//! The test kit: nodes over in-memory links, scripted peers of every transport, and helpers for the tests that
//! span several crates.
//!
//! ```text
//!   conformance case ──Harness──▶ a node of one network ◀──frames── RawPeer, scripted
//!                    ◀─Recorder── its handlers
//! ```
//!
//! # Invariants
//!
//! * Nothing here sleeps to wait for a state: it polls with a deadline, or waits for an event.
//! * A raw peer shares no code with the transport it speaks to, beyond the wire format of `gossip`.

pub mod admin;
pub mod corpus;
pub mod dial_log;
pub mod dns;
pub mod group;
pub mod harness;
pub mod hostile;
pub mod http;
pub mod interop;
pub mod libp2p;
#[cfg(doctest)]
mod manual;
pub mod memory;
pub mod networks;
pub mod path;
pub mod process;
pub mod recorder;
pub mod rig;
pub mod simulation;
pub mod sources;
pub mod votes;
pub mod wait;
pub mod websocket;
