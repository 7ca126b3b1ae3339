//! TLS and WebSocket over TCP: the parts that both networks of a node need below their protocols.
//!
//! ```text
//!   socket ─▶ tls ─▶ websocket: upgrade ─┬─▶ frame: messages, for gossip
//!                                        └─▶ WsStream: bytes, for libp2p
//!   the port of one network ──hand_over──▶ the other network
//! ```
//!
//! # Invariants
//!
//! * Everything that a peer sends is bounded before memory is taken for it.
//! * Nothing here knows a network, or spawns a task.

pub mod frame;
pub mod hand_over;
pub mod origins;
pub mod tls;
pub mod websocket;

pub use tokio_rustls::rustls::pki_types::CertificateDer;
