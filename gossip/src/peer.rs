//! Peers: the nodes at the other ends of links.

use std::{fmt, time::Duration};

use crate::{Instant, address::NodeAddress, dial_state::DialState, identity::Identity};

/// Names one connected peer for as long as the process lives. Never reused, never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u64);

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// The transport of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
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

/// The way of a connection to its peer. The better one is the smaller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkPath {
    /// Between the two nodes alone. Default.
    #[default]
    Direct,
    /// Through a relay, whose limits apply.
    Relayed,
}

impl LinkPath {
    /// Label used in output for programs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Relayed => "relayed",
        }
    }
}

/// A selection of peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
    /// Returns `true` if a peer belongs to the class.
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

/// The parts that a peer plays for this node and its network, as far as they are known. A set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Roles(u8);

impl Roles {
    /// The empty set.
    pub const NONE: Self = Self(0);
    /// The operator of this node named the peer, by its address or by its identity.
    pub const CONFIGURED: Self = Self(1);
    /// The peer passes on the messages of others. It says so by what it asks for
    /// ([`TagTable::relay_interest`](crate::TagTable::relay_interest)), which peers do over WebSocket only.
    pub const RELAY: Self = Self(2);

    /// Every single role with its name, for output.
    const NAMES: [(Self, &'static str); 2] =
        [(Self::CONFIGURED, "configured"), (Self::RELAY, "relay")];

    /// This set and another one.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns whether every role of `other` is in this set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The names of the roles, as output for programs has them.
    pub fn labels(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(role, _)| self.contains(*role)).map(|(_, name)| name)
    }
}

/// A snapshot of a connected peer.
///
/// A node makes these; [`PeerInfo::new`] is for those who write another [`GossipNode`](crate::GossipNode).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerInfo {
    /// Name of the connection.
    pub id: LinkId,
    /// Transport of the link.
    pub transport: Transport,
    /// The end that dialled.
    pub direction: Direction,
    /// Its way to the peer.
    pub path: LinkPath,
    /// The address dialled, or the one the peer came from. Text of the peer's may be in it: show it, never parse it.
    pub address: String,
    /// The verified identity, once there is one.
    pub identity: Option<Identity>,
    /// Time at which the link was attached.
    pub connected_at: Instant,
    /// Bytes that wait in this node for the peer to read them.
    pub queued_bytes: usize,
    /// The parts it plays.
    pub roles: Roles,
    /// Where HTTP calls reach it, if that is known: over libp2p by its identity; over WebSocket at the address
    /// that was dialled, or at the host that the peer came from and the port that it says it listens on.
    /// Only libp2p proves who answers there.
    pub http_address: Option<NodeAddress>,
    /// The last measured round-trip time of its connection; `None` before the first measurement.
    pub rtt: Option<Duration>,
    /// Its weight among the peers of this node, as a [`PriorityScheme`](crate::PriorityScheme) tells; zero without one.
    pub weight: u64,
    /// The state of the configured address that leads to it; `None` if the operator named none, as for strangers. Over
    /// WebSocket an address is known to lead to a peer only if the link was dialled there. The states of all configured
    /// addresses, also of those without a link, are in [`GossipNode::dials`](crate::GossipNode::dials).
    pub dial: Option<DialState>,
}

impl PeerInfo {
    /// A peer of which nothing else is known, connected now.
    #[must_use]
    pub fn new(id: LinkId, transport: Transport, direction: Direction) -> Self {
        Self {
            id,
            transport,
            direction,
            path: LinkPath::default(),
            address: String::new(),
            identity: None,
            connected_at: Instant::now(),
            queued_bytes: 0,
            roles: Roles::NONE,
            http_address: None,
            rtt: None,
            weight: 0,
            dial: None,
        }
    }
}
