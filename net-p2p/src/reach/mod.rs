//! Reachability: nodes that others cannot dial find out that it is so, are reached by circuits through relays, and meet
//! directly where that can be.
//!
//! ```text
//!   Asker ─▶ verdict ─▶ AutoRelay ┐
//!   PortMapper ─▶ addresses to ask about
//!   keepers ──────────────────────┴─▶ Client: reserve, hold ─▶ [notices] ─▶ swarm task: addresses told
//!   relays  ─▶ Stops ─▶ [accepted] ─▶ Circuits ─▶ the node's transports, and its door
//!   clients ─▶ Relay: reservations, circuits within their limits
//! ```
//!
//! # Invariants
//!
//! * Without the feature `reachability`, as in a page, there are circuits, and places at relays that the configuration names
//!   (`relayed.rs`); the rest of the picture is left out.
//! * Nothing is relayed for others, and no relay is asked for a place, unless the configuration says so.
//! * Everything that others ask for is bounded in number, size and time (`places.rs`, `server.rs`, `circuits.rs`).
//! * A circuit passes the door like any other connection, from the address of its relay.

#[cfg(feature = "reachability")]
mod autonat;
#[cfg(feature = "reachability")]
mod autorelay;
mod circuits;
mod client;
#[cfg(feature = "reachability")]
mod config;
#[cfg(feature = "reachability")]
mod mapping;
mod notice;
#[cfg(feature = "reachability")]
mod observed;
#[cfg(feature = "reachability")]
mod parts;
#[cfg(feature = "reachability")]
mod places;
#[cfg(feature = "reachability")]
mod punch;
mod relayed;
#[cfg(feature = "reachability")]
mod server;
#[cfg_attr(
    not(feature = "reachability"),
    expect(dead_code, reason = "the rest are the words of relays, and of hole punching")
)]
mod wire;

use gossip::LinkPath;
use libp2p::{Multiaddr, StreamProtocol};

#[cfg(feature = "reachability")]
pub(crate) use self::client::Reservations;
#[cfg(not(feature = "reachability"))]
pub(crate) use self::relayed::Relayed;
pub(crate) use self::{circuits::Circuits, notice::ReachNotice};
#[cfg(feature = "reachability")]
pub use self::{
    config::{ReachConfig, ReachPart},
    mapping::{Carrier, MappedPort, MappingProtocol},
    places::RelayLimits,
};
#[cfg(feature = "reachability")]
pub(crate) use self::{
    mapping::MappedPorts,
    notice::Meet,
    observed::From as SeenFrom,
    parts::{Reach, ReachParts},
};
use crate::address::path_of;

/// Between clients and relays. Source: libp2p specifications, `relay/circuit-v2.md`.
pub(crate) const HOP: StreamProtocol = StreamProtocol::new("/libp2p/circuit/relay/0.2.0/hop");

/// Between relays and those whom circuits lead to. Source: there.
const STOP: StreamProtocol = StreamProtocol::new("/libp2p/circuit/relay/0.2.0/stop");

/// Between two ends of a circuit. Source: libp2p specifications, `relay/DCUtR.md`.
#[cfg(feature = "reachability")]
const DCUTR: StreamProtocol = StreamProtocol::new("/libp2p/dcutr");

/// Addresses told of one node, at most. Chosen: both address families of four interfaces.
const MAX_TOLD: usize = 8;

/// The addresses of a configuration that the node listens on itself.
pub(crate) fn own(listen: &[Multiaddr]) -> Vec<Multiaddr> {
    listen.iter().filter(|address| path_of(address) == LinkPath::Direct).cloned().collect()
}
