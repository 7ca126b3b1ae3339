//! Peers that do their worst, and the honest ones beside them.
//!
//! ```text
//!   honest WebSocket peer ──votes, transactions──▶ hub ──▶ honest libp2p peer      and back
//!   newcomers ─────────── one dial after another ─▶ ▲
//!   attack ─────────────────────────────────────────┘
//! ```
//!
//! # Invariants
//!
//! * Everything is on loopback, and each attack is bounded in rate and in what it keeps open. It lasts as
//!   long as its future.
//! * An attack comes from addresses and keys of its own, and begins anew when it was cut off.
//! * Latencies count from when a message was due, whatever became of those before it.

mod attack;
mod bombs;
mod control;
mod counters;
mod crowd;
mod deaf;
mod endless;
mod flood;
mod honest;
mod hub;
mod line;
mod neighbour;
mod newcomers;
mod sockets;
mod storm;
mod tally;
mod thread;
mod topic;

pub use attack::Attack;
pub use counters::{Counters, counters, growth};
pub use honest::{Heard, Measured, Pair};
pub use hub::{Target, hub, hub_with};
pub use line::Carrier;
pub use neighbour::{NEIGHBOURS_VOTE, Neighbour, neighbour};
pub use newcomers::{Newcomers, newcomers};
pub use tally::{Counts, Tally};
pub use thread::Attacker;
