//! AutoNAT v2: nodes ask each other whether their addresses can be dialled.
//!
//! ```text
//!   client ──request: addresses, nonce──▶ server
//!          ◀── a new connection, nonce ── dialled by the server, under an identity of its own
//!          ◀──response──────────────────
//! ```
//!
//! # Invariants
//!
//! * A server dials only hosts that the request comes from, so nobody has it dial a third party.
//! * A client believes that an address can be dialled only if the nonce came in on a connection to this node.

mod ask;
mod serve;
mod wire;

use libp2p::StreamProtocol;

pub(super) use self::{
    ask::{Asker, Nonces},
    serve::{DialBacker, Server},
};
use crate::streams::Bounds;

/// Requests. Source: libp2p specifications, `autonat/autonat-v2.md`.
pub(super) const REQUEST: StreamProtocol = StreamProtocol::new("/libp2p/autonat/2/dial-request");

/// On connections that a server dialled. Source: there.
pub(super) const DIAL_BACK: StreamProtocol = StreamProtocol::new("/libp2p/autonat/2/dial-back");

/// Bounds on streams that wait. Chosen: a peer asks for one address at a time.
pub(super) const WAITING: Bounds = Bounds { per_connection: 4, in_all: 64 };
