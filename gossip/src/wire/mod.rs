//! The wire format, as pure functions on bytes.
//!
//! ```text
//!   frame ──▶ tag + payload ──▶ topics ──▶ interest (MI)
//!                          │          └──▶ request ──▶ block (UE, TS)
//!                          ├──▶ digest (MS)
//!                          ├──▶ proposal (PP)
//!                          ├──▶ vote (AV, VP)
//!                          └──▶ identity (NI), priority (NP) ──▶ msgpack
//!   handshake ──▶ hello, features, identity ──▶ metainfo (libp2p) ──▶ msgpack
//! ```
//!
//! # Invariants
//!
//! * Every decoder is total: any bytes give a value or an error, never a panic.
//! * A length is checked against its bound before memory is taken for what it announces.
//! * A reader here reads everything that a writer here writes, up to and including every bound.

pub mod block;
pub mod digest;
pub mod features;
pub mod frame;
pub mod hello;
pub mod hello_query;
pub mod identity;
pub mod interest;
pub mod metainfo;
pub mod msgpack;
pub mod priority;
pub mod proposal;
pub mod request;
pub mod topics;
pub mod varint;
pub mod vote;
