//! Both networks at once, over one broadcaster.
//!
//! ```text
//!                    ┌─▶ WsNetwork  ─┐
//!   HybridNetwork ───┤               ├─▶ one Broadcaster
//!                    └─▶ P2pNetwork ─┘
//! ```
//!
//! Bridging needs no code: both networks attach their peers, and GossipSub its topics, to the same
//! broadcaster, so a message heard on one transport reaches the peers of the other. Nor does it need
//! any to keep one link to a node that is met on both: both networks claim in the same broadcaster.
//!
//! # Invariants
//!
//! * Both halves are of one network and are recognised by one key.
//! * Nothing here is a special case for one transport.
//!
//! # Features
//!
//! `ws` and `p2p`, both by default. With one of them alone the crate is empty and has neither network.

#[cfg(all(feature = "ws", feature = "p2p"))]
mod network;

#[cfg(all(feature = "ws", feature = "p2p"))]
pub use network::{HybridConfig, HybridNetwork, StartError};
