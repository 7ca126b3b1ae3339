//! A network over both transports at once, with one broadcaster.
//!
//! ```text
//!                    ┌─▶ WsNetwork  ─┐
//!   HybridNetwork ───┤               ├─▶ one Broadcaster
//!                    └─▶ P2pNetwork ─┘
//! ```
//!
//! Bridging needs no code of its own: both networks attach their links, and GossipSub its topics, to the same
//! broadcaster, so a message from one transport reaches the peers of the other. Keeping one link to a node that
//! is reachable over both needs none either: both networks claim the identity in the same broadcaster.
//!
//! # Invariants
//!
//! * Both halves belong to one network and use one key.
//! * No transport is treated specially here.
//!
//! # Features
//!
//! `ws` and `p2p`, both enabled by default. With only one of them the crate is empty. `websocket`: the port of the WebSocket
//! half can serve libp2p too.

#[cfg(all(feature = "ws", feature = "p2p"))]
mod network;

#[cfg(all(feature = "ws", feature = "p2p"))]
pub use network::{HybridConfig, HybridNetwork, StartError};
