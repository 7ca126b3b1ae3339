//! The messages between the director and its nodes: one JSON object a line.
//!
//! # Invariants
//!
//! * The end of the director's lines is the end of the node.

use std::time::{Duration, UNIX_EPOCH};

use runtime::WallClock;
use serde::{Deserialize, Serialize};

/// An order to a node.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(crate) enum Order {
    /// Send a probe of each kind.
    Probe {
        /// Counts the rounds.
        round: u32,
    },
    /// Send what the schedule says.
    Load(Schedule),
    /// End.
    Stop,
}

/// When what is sent, by all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Schedule {
    /// When the first message is due, in nanoseconds since 1970.
    pub(crate) start_ns: u64,
    /// Time for which messages are sent.
    pub(crate) seconds: u64,
    /// Multiplies what is sent per second.
    pub(crate) rate: f64,
    /// Number of nodes that take turns with the proposals.
    pub(crate) nodes: u32,
}

/// The first message of a node, once it listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ready {
    /// Where others dial it, over either transport.
    pub(crate) addresses: Vec<String>,
}

/// The time, in nanoseconds since 1970: the one clock that processes share.
pub(crate) fn now_ns() -> u64 {
    let since = WallClock::system().now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A duration in nanoseconds.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
