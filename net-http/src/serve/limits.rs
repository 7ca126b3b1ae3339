//! Bounds on what is served at one time, and on how long anything may take.

use std::time::Duration;

use gossip::{HeaderCase, LoopbackRule, StreamUse};

/// Longest request head: request line, headers and blank line, in bytes. Source: wire facts 1.6, row 3.
pub(crate) const MAX_HEAD_BYTES: usize = 8192;

/// Bounds on what is served over all networks of a node together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeLimits {
    /// Connections and streams served at one time. Default: 1,024. Chosen: as many as idle callers of
    /// 64 peers; memory of each is some 20 KiB.
    pub connections: usize,
    /// Connections and streams that wait for a permit at one time. Default: 1,024. Chosen: as many again.
    pub waiting: usize,
    /// Of these, served at one time for one peer. Default: 16. Source: threats and goals, row 30.
    pub per_peer: usize,
    /// Of these, waiting at one time for one peer. Default: 512. Chosen: as many streams as one
    /// connection may have waiting before they are handed over, so that a client that opens hundreds at
    /// once, a stream per request, loses none.
    pub waiting_per_peer: usize,
    /// Longest wait of a connection for a permit. Default: 10 s. Source: wire facts 9.2, the queueing time
    /// of clients.
    pub wait: Duration,
    /// Requests being handled at one time. Default: 256. Source: threats and goals, row 30.
    pub requests: usize,
    /// Longest wait of a request for its permit. Default: 1 s. Chosen: what takes longer is better told
    /// to the client.
    pub request_wait: Duration,
    /// Longest time for a head, from the start of the connection or of a later head. Default: 10 s.
    /// Source: wire facts 1.6.
    pub head_time: Duration,
    /// Longest time of a socket between two requests. Default: 4 s. Source: wire facts 1.6.
    pub socket_idle: Duration,
    /// Longest time of a stream between two requests. Default: 30 s. Chosen: a stream costs no
    /// socket, and opening one costs a round trip.
    pub stream_idle: Duration,
    /// Longest time that reading or writing a message may stand still. Default: 30 s. Source: threats and
    /// goals, row 30.
    pub stall: Duration,
    /// The rule for callers of this very machine that prove no identity: as one peer, or, while they are
    /// exempt, each connection for itself. Default: exempt.
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

/// The treatment of an `Upgrade` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpgradeOffer {
    /// It is passed on, as on sockets: a request whose upgrade no hook accepts is answered as any other.
    Offered,
    /// The request is refused as ambiguous, as on streams.
    Refused,
}

/// The time at which a connection takes its permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PermitRule {
    /// Before anything is read, as on streams. Without one the connection is told so and ends.
    BeforeReading,
    /// With the first request that the node's service answers, as on sockets: gossip takes no permit, and
    /// the sockets themselves are bounded elsewhere. Without one the request is answered 503.
    WithFirstRequest,
}

/// The terms on which one connection is served. Made by [`ServeLimits::for_socket`] and
/// [`ServeLimits::for_stream`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Number of requests that it carries: one, or any.
    pub streams: StreamUse,
    /// Spelling of header names in answers.
    pub header_case: HeaderCase,
    /// Treatment of an `Upgrade` header.
    pub upgrade: UpgradeOffer,
    /// Time at which it takes its permit.
    pub permit: PermitRule,
    /// See [`ServeLimits::head_time`].
    pub head_time: Duration,
    /// Longest time between two requests: [`ServeLimits::socket_idle`] or [`ServeLimits::stream_idle`].
    pub idle: Duration,
    /// See [`ServeLimits::stall`].
    pub stall: Duration,
}

impl ServeLimits {
    /// The terms for a socket, plain or in TLS.
    #[must_use]
    pub const fn for_socket(&self, header_case: HeaderCase) -> Terms {
        Terms {
            streams: StreamUse::KeptAlive,
            header_case,
            upgrade: UpgradeOffer::Offered,
            permit: PermitRule::WithFirstRequest,
            head_time: self.head_time,
            idle: self.socket_idle,
            stall: self.stall,
        }
    }

    /// The terms for a stream of a connection that carries many.
    #[must_use]
    pub const fn for_stream(&self, streams: StreamUse, header_case: HeaderCase) -> Terms {
        Terms {
            streams,
            header_case,
            upgrade: UpgradeOffer::Refused,
            permit: PermitRule::BeforeReading,
            head_time: self.head_time,
            idle: self.stream_idle,
            stall: self.stall,
        }
    }
}
