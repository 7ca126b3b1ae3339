//! Limits of the HTTP server: on numbers, and on times.

use std::time::Duration;

use gossip::{Durations, HeaderCase, StreamUse};

/// Longest request head: request line, headers and blank line, in bytes. Source: wire facts 1.6, row 3.
pub(crate) const MAX_HEAD_BYTES: usize = 8192;

/// Limits of the HTTP server, for all networks of a node together.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServeLimits {
    /// Connections and streams served at a time. Default: 1,024. Chosen: those of 64 peers at their bound; each
    /// takes about 20 KiB of memory.
    pub connections: usize,
    /// Connections and streams that wait for a permit; further ones are refused. Default: 1,024. Chosen: as
    /// many as are served.
    pub waiting: usize,
    /// Connections and streams of one peer served at a time. Default: 16. Source: threats and goals, row 30.
    pub per_peer: usize,
    /// Connections and streams of one peer that wait for a permit; further ones are refused. Default: 512.
    /// Chosen: the streams of one connection that may wait to be accepted, so that a client that opens hundreds
    /// at once, one per request, loses none.
    pub waiting_per_peer: usize,
    /// Longest wait of a connection for a permit. Default: 10 s. Source: wire facts 9.2, the queueing time of
    /// clients.
    pub wait: Duration,
    /// Requests in progress at a time. Default: 256. Source: threats and goals, row 30.
    pub requests: usize,
    /// Longest wait of a request for its permit; then it is answered 503. Default: 1 s. Chosen: after a second
    /// the client does better to try another node.
    pub request_wait: Duration,
    /// Longest time for a head to arrive, from the start of the connection or of a later head. Default: 10 s.
    /// Source: wire facts 1.6.
    pub head_time: Duration,
    /// Longest time between two requests on a socket. Default: 4 s. Source: wire facts 1.6.
    pub socket_idle: Duration,
    /// Longest time between two requests on a stream. Default: 30 s. Chosen: a stream needs no socket, and
    /// opening one costs a round trip.
    pub stream_idle: Duration,
    /// Longest time in which no byte of a message can be read or written. Default: 30 s. Source: threats and
    /// goals, row 30.
    pub stall: Duration,
}

gossip::setters!(ServeLimits {
    with_connections => connections: usize,
    with_waiting => waiting: usize,
    with_per_peer => per_peer: usize,
    with_waiting_per_peer => waiting_per_peer: usize,
    with_wait => wait: Duration,
    with_requests => requests: usize,
    with_request_wait => request_wait: Duration,
    with_head_time => head_time: Duration,
    with_socket_idle => socket_idle: Duration,
    with_stream_idle => stream_idle: Duration,
    with_stall => stall: Duration,
});

impl Durations for ServeLimits {
    fn each_duration(&mut self, visit: &mut dyn FnMut(&'static str, &mut Duration)) {
        visit("ServeLimits::wait", &mut self.wait);
        visit("ServeLimits::request_wait", &mut self.request_wait);
        visit("ServeLimits::head_time", &mut self.head_time);
        visit("ServeLimits::socket_idle", &mut self.socket_idle);
        visit("ServeLimits::stream_idle", &mut self.stream_idle);
        visit("ServeLimits::stall", &mut self.stall);
    }
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
        }
    }
}

/// The treatment of requests with an `Upgrade` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpgradeOffer {
    /// The header is passed on, as on sockets. A request whose upgrade no hook accepts is answered like any
    /// other.
    Offered,
    /// The request is refused as ambiguous, as on streams.
    Refused,
}

/// The time at which a connection takes its permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PermitRule {
    /// Before the first byte is read, as on streams. Without a permit the connection is refused and closed.
    BeforeReading,
    /// With the first request for the node's service, as on sockets: gossip takes no permit, and the door
    /// bounds the sockets. Without a permit the request is answered 503.
    WithFirstRequest,
    /// The same for a proxy, which uses the connection for many clients: the permit counts in total only, so that the
    /// proxy is not limited as one peer.
    WithFirstRequestOfProxy,
}

/// The limits and rules for one connection, made by [`ServeLimits::for_socket`] or [`ServeLimits::for_stream`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Number of requests per connection: one, or any number.
    pub streams: StreamUse,
    /// Spelling of header names in answers; existing nodes write title case.
    pub header_case: HeaderCase,
    /// Treatment of requests with an `Upgrade` header.
    pub upgrade: UpgradeOffer,
    /// Time at which the connection takes its permit.
    pub permit: PermitRule,
    /// Longest time for a head to arrive: [`ServeLimits::head_time`].
    pub head_time: Duration,
    /// Longest time between two requests: [`ServeLimits::socket_idle`] or [`ServeLimits::stream_idle`].
    pub idle: Duration,
    /// Longest time without progress on a message: [`ServeLimits::stall`].
    pub stall: Duration,
}

impl ServeLimits {
    /// The terms for a socket, with or without TLS.
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

    /// The terms for a libp2p stream.
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
