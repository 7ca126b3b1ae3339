//! Who is at the other end.

use std::{fmt, time::Instant};

use crate::identity::Identity;

/// Names one connected peer for as long as the process lives. Never reused, never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u64);

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// What carries a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// A WebSocket over TCP.
    WebSocket,
    /// Streams of a libp2p connection.
    Libp2p,
    /// A pipe inside this process, for tests and embedders.
    Memory,
}

impl Transport {
    /// Label used in metrics and in output for programs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::WebSocket => "ws",
            Self::Libp2p => "p2p",
            Self::Memory => "memory",
        }
    }
}

/// Which end dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The peer dialled us.
    Inbound,
    /// We dialled the peer.
    Outbound,
}

impl Direction {
    /// Label used in metrics and in output for programs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Inbound => "in",
            Self::Outbound => "out",
        }
    }
}

/// A selection of peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerClass {
    /// Every connected peer.
    Connected,
    /// Connected peers that we dialled.
    ConnectedOut,
    /// Connected peers that dialled us.
    ConnectedIn,
    /// Connected peers carried by one transport.
    Carried(Transport),
}

impl PeerClass {
    /// Whether a peer belongs to the class.
    #[must_use]
    pub fn includes(self, peer: &PeerInfo) -> bool {
        match self {
            Self::Connected => true,
            Self::ConnectedOut => peer.direction == Direction::Outbound,
            Self::ConnectedIn => peer.direction == Direction::Inbound,
            Self::Carried(transport) => peer.transport == transport,
        }
    }
}

/// What is known of a connected peer. A snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Name of the connection.
    pub id: LinkId,
    /// What carries it.
    pub transport: Transport,
    /// Who dialled.
    pub direction: Direction,
    /// The address dialled, or the one the peer came from. Text of the peer's may be in it: show it, never parse it.
    pub address: String,
    /// The verified identity, once there is one.
    pub identity: Option<Identity>,
    /// When the connection was attached.
    pub connected_at: Instant,
    /// Bytes that wait in this node for the peer to read them.
    pub queued_bytes: usize,
}
