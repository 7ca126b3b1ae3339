//! How much is served at one time, and how long anything may take.

use std::time::Duration;

use gossip::{StreamUse, Transport};

/// Longest request head: request line, headers and blank line, in bytes. Source: wire facts 1.6, row 3.
pub(crate) const MAX_HEAD_BYTES: usize = 8192;

/// Whether callers of this very machine, who prove no identity, count as one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoopbackRule {
    /// Each of their connections counts for itself: they are many programs behind one address, such as
    /// a reverse proxy's clients. The default. Source: wire facts 1.6, the exemption of localhost.
    #[default]
    Exempt,
    /// They do.
    Counted,
}

/// Bounds on what is served over all networks of a node together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeLimits {
    /// Connections and streams served at one time. Default: 1,024. Chosen: as many as idle callers of
    /// 64 peers; memory of each is some 20 KiB.
    pub connections: usize,
    /// Connections and streams that wait for a seat at one time. Default: 1,024. Chosen: as many again.
    pub waiting: usize,
    /// Of these, served at one time for one peer. Default: 16. Source: threats and goals, row 30.
    pub per_peer: usize,
    /// Of these, waiting at one time for one peer. Default: 512. Chosen: as many streams as one
    /// connection may have waiting before they are handed over, so that a client that opens hundreds at
    /// once, a stream per request, loses none.
    pub waiting_per_peer: usize,
    /// How long a connection waits for a seat. Default: 10 s. Source: wire facts 9.2, the queueing time
    /// of clients.
    pub wait: Duration,
    /// Requests being handled at one time. Default: 256. Source: threats and goals, row 30.
    pub requests: usize,
    /// How long a request waits for its turn. Default: 1 s. Chosen: longer is better told to the client.
    pub request_wait: Duration,
    /// How long a head may take, from the start of the connection or of a later head. Default: 10 s.
    /// Source: wire facts 1.6.
    pub head_time: Duration,
    /// How long a socket may idle between two requests. Default: 4 s. Source: wire facts 1.6.
    pub socket_idle: Duration,
    /// How long a stream may idle between two requests. Default: 30 s. Chosen: a stream costs no
    /// socket, and opening one costs a turn.
    pub stream_idle: Duration,
    /// How long a reader or writer may stand still in a message. Default: 30 s. Source: threats and
    /// goals, row 30.
    pub stall: Duration,
    /// How callers without an identity on this machine count.
    pub loopback: LoopbackRule,
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self {
            connections: 1024,
            waiting: 1024,
            per_peer: 16,
            waiting_per_peer: 512,
            wait: Duration::from_secs(10),
            requests: 256,
            request_wait: Duration::from_secs(1),
            head_time: Duration::from_secs(10),
            socket_idle: Duration::from_secs(4),
            stream_idle: Duration::from_secs(30),
            stall: Duration::from_secs(30),
            loopback: LoopbackRule::default(),
        }
    }
}

/// Whether a connection may become something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpgradeOffer {
    /// `Upgrade` is passed on, as on sockets: what is not upgraded is answered.
    Offered,
    /// `Upgrade` is refused, as on streams.
    Refused,
}

/// How one connection is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How many requests it carries.
    pub streams: StreamUse,
    /// Whether it may become something else.
    pub upgrade: UpgradeOffer,
    /// See [`ServeLimits::head_time`].
    pub head_time: Duration,
    /// How long it may idle between two requests.
    pub idle: Duration,
    /// See [`ServeLimits::stall`].
    pub stall: Duration,
}

impl ServeLimits {
    /// The terms for a connection over `transport`.
    #[must_use]
    pub const fn terms(&self, transport: Transport, streams: StreamUse) -> Terms {
        let (upgrade, idle) = match transport {
            Transport::WebSocket => (UpgradeOffer::Offered, self.socket_idle),
            Transport::Libp2p | Transport::Memory => (UpgradeOffer::Refused, self.stream_idle),
        };
        Terms { streams, upgrade, head_time: self.head_time, idle, stall: self.stall }
    }
}
