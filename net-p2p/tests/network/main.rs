//! Whole libp2p networks on the loopback interface.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod kit;

#[cfg(all(feature = "quic", feature = "webrtc", feature = "websocket"))]
mod crossed;
mod given;
mod gossip_flows;
mod links;
mod refusals;
mod shared;
