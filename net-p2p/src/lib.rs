//! The libp2p network: gossip over streams, transactions over topics.
//!
//! ```text
//!   P2pNetwork ──▶ supervisor ──▶ swarm task ──▶ connections (TCP, Noise, Yamux)
//!                                  │    ▲             │ streams
//!                      link tasks ◀┘    └─ topics     ▼
//!                          └── handshake, claim, attach ──▶ Broadcaster
//! ```
//!
//! # Queues
//!
//! | queue | producers -> consumer | bound | when full | counted as |
//! | --- | --- | --- | --- | --- |
//! | commands | handles, topics -> swarm task | 1,024; publications also in bytes | caller is told | `PublishQueueFull` |
//! | verdicts | workers -> swarm task | 4,096 | verdict is lost | `VerdictLost` |
//! | notices | link tasks -> swarm task | 256 | sender waits | - |
//! | accept queue | connections -> swarm task | 256; 64 of one connection | stream is reset | `AcceptQueueFull…` |
//! | opening | swarm task -> connection | 256; 64 of one connection | caller is told | - |
//! | GossipSub, per connection | library | 256 | library drops, lowers the score | - |
//!
//! # Invariants
//!
//! * One task owns the swarm and waits only in its `select!`; it is restarted when it panics.
//! * A peer has at most one gossip link, whoever dialled and however often.
//! * Nothing here knows the other transport; what the two share is the broadcaster and the ledger.

mod behaviour;
mod command;
mod config;
mod conventions;
mod dialing;
mod handshake;
mod keys;
mod link;
mod listening;
mod metrics;
mod network;
mod peers;
mod pubsub;
mod sink;
mod source;
mod streams;
mod supervisor;
mod swarm;
mod topic;
mod transport;

pub use config::{GossipStreams, Mdns, P2pConfig, PeerAddressError, Subscription};
pub use keys::{KeyError, NodeKey};
pub use libp2p::{Multiaddr, StreamProtocol};
pub use link::SharedLedger;
pub use metrics::{P2pEvent, P2pMetrics};
pub use network::{AddPeerError, P2pNetwork, StartError};
pub use streams::{InboundStream, OpenError, OutboundStream};

#[cfg(test)]
mod tests;
