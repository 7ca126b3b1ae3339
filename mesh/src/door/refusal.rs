//! Why somebody is not let in, or has to go again.

use std::time::Duration;

/// Why a connection or a request was refused, or a connection given up. A closed set, so that it can label a
/// metric: whatever comes to nothing at the door is counted under exactly one of them.
#[repr(usize)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// There are as many sockets as allowed, and none of a more crowded part of the network.
    #[error("all sockets are taken")]
    Sockets,
    /// The host connected more often than allowed.
    #[error("the host connects too often")]
    HostRate,
    /// The subnet connected more often than allowed.
    #[error("the subnet connects too often")]
    SubnetRate,
    /// An unfinished handshake gave way to a newer one.
    #[error("a newer connection needed the room of this unfinished handshake")]
    HalfOpen,
    /// A socket that is no peer gave way to one of a less crowded part of the network.
    #[error("a connection of a less crowded part of the network needed the socket")]
    SocketEvicted,
    /// There are as many inbound peers as allowed, and none of a more crowded part of the network.
    #[error("all places for inbound peers are taken")]
    Total,
    /// There are as many peers of this host as allowed.
    #[error("the places for peers of one host are taken")]
    PerIp,
    /// There are as many peers of this subnet as allowed.
    #[error("the places for peers of one subnet are taken")]
    PerSubnet,
    /// There are as many pages of this web origin as allowed.
    #[error("the places for pages of one web origin are taken")]
    PerOrigin,
    /// A peer gave way to one of a less crowded part of the network, or to a configured one.
    #[error("a peer of a less crowded part of the network needed the place")]
    PeerEvicted,
    /// The host sent more HTTP requests than allowed; each of them counts, not its connection.
    #[error("the host sends too many requests")]
    RequestRate,
    /// An operator banned the host, the identity or the announced address; also of connections that were there before
    /// the ban.
    #[error("the peer is banned")]
    Banned,
    /// The node admits members only, and the peer is none, or is none any more.
    #[error("only members are let in")]
    NotMember,
    /// The host, or the peer, was disconnected for misbehaviour a short while ago, and comes again too soon.
    #[error("it misbehaved a short while ago, and comes again too soon")]
    Penalty,
    /// There are as many outbound connections as allowed.
    #[error("all outbound connections are in use")]
    Outbound,
    /// The node is being drained: it takes and dials no further peers.
    #[error("the node takes no further peers: it is being drained")]
    Draining,
}

impl Refusal {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 16] = [
        Self::Sockets,
        Self::HostRate,
        Self::SubnetRate,
        Self::HalfOpen,
        Self::SocketEvicted,
        Self::Total,
        Self::PerIp,
        Self::PerSubnet,
        Self::PerOrigin,
        Self::PeerEvicted,
        Self::RequestRate,
        Self::Banned,
        Self::NotMember,
        Self::Penalty,
        Self::Outbound,
        Self::Draining,
    ];

    /// Label used in metrics and in output for programs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Sockets => "sockets",
            Self::HostRate => "host_rate",
            Self::SubnetRate => "subnet_rate",
            Self::HalfOpen => "half_open",
            Self::SocketEvicted => "socket_evicted",
            Self::Total => "total",
            Self::PerIp => "per_ip",
            Self::PerSubnet => "per_subnet",
            Self::PerOrigin => "per_origin",
            Self::PeerEvicted => "peer_evicted",
            Self::RequestRate => "request_rate",
            Self::Banned => "banned",
            Self::NotMember => "not_member",
            Self::Penalty => "penalty",
            Self::Outbound => "outbound",
            Self::Draining => "draining",
        }
    }
}

/// Too many requests of one host: 429. Wire facts 1.6, row 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many requests, retry after {retry_after:?}")]
pub struct TooMany {
    /// The value to announce in `Retry-After`: the length of the window.
    pub retry_after: Duration,
}
