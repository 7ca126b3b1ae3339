//! A gossip node over two transports, put together.
//!
//! ```text
//!   NodeBuilder ──start──▶ Running ──stop──▶ Shutdown
//!                            └─ node(): Arc<dyn GossipNode>
//! ```
//!
//! Required things are arguments of [`NodeBuilder::new`], optional ones its methods, and a started
//! node is another type that owns the tasks.
//!
//! # Invariants
//!
//! * A node that did not start has left nothing behind: no task, no socket, no lock.
//! * After [`Running::stop`] no task of the node runs.
//! * A data directory belongs to one node at a time.

mod blocks;
mod builder;
mod data_dir;
mod error;
mod network;
mod running;

pub use blocks::NoBlocks;
pub use broadcaster::{Broadcaster, Limits, Metrics, PeerEvent, Relaying, Shutdown};
pub use builder::{Mode, NodeBuilder};
pub use data_dir::{DataDir, DataDirError};
pub use error::StartError;
pub use gossip;
pub use mesh::{DialLimits, InboundLimits};
pub use net_p2p::Mdns;
pub use running::Running;
