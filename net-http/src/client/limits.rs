//! Bounds of the clients of a node.

use std::{num::NonZeroUsize, time::Duration};

/// Longest time that a kept-alive TCP connection lies idle. Chosen: a second less than the servers of
/// existing nodes keep one, so that the client is the one who closes it.
pub const TCP_IDLE: Duration = Duration::from_secs(3);

/// Longest time that a kept-alive libp2p stream lies idle. Chosen: a little less than a Tandem server
/// keeps one.
pub const STREAM_IDLE: Duration = Duration::from_secs(25);

/// The longest wait that a limit can set. Chosen: whoever sets more means for ever, and clocks end.
pub(super) const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Most new requests to one peer in any stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestWindow {
    /// New requests in any stretch as long as `window`. Default 60. Source: wire facts 9.2.
    pub requests: NonZeroUsize,
    /// Default 1 s. Source: wire facts 9.2.
    pub window: Duration,
}

impl Default for RequestWindow {
    fn default() -> Self {
        let requests = NonZeroUsize::MIN.saturating_add(59);
        Self { requests, window: Duration::from_secs(1) }
    }
}

/// The bounds and deadlines of all clients of a node. Those that speak of a peer hold for each one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// New requests to a peer; `None` sets no limit.
    pub window: Option<RequestWindow>,
    /// Connections to a peer at a time, the idle ones included. Default 16. Chosen: as many as a Tandem
    /// server serves of one peer at a time.
    pub connections: NonZeroUsize,
    /// Callers that wait for a peer. Default 1,024. Chosen: more than the default window
    /// lets through while the first of them waits.
    pub waiting: usize,
    /// Longest wait of a caller for room in the window and then for a connection.
    /// Default 10 s. Source: wire facts 9.2.
    pub queue: Duration,
    /// Longest time to open a connection. Default 10 s. Source: wire facts 9.1.
    pub connect: Duration,
    /// Longest time of a peer to start its response once it has the request. Default 60 s, and up
    /// to a sixteenth more. Chosen: a slow handler is given up, as in common servers and proxies.
    pub response: Duration,
    /// Longest time in which a peer neither reads of a request nor writes of a response. Default 60 s,
    /// and up to a sixteenth more. Chosen: as `response`.
    pub still: Duration,
    /// Peers that are remembered, with their limits and connections. Default 1,024. Chosen: more peers
    /// than a node ever asks.
    pub targets: NonZeroUsize,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            window: Some(RequestWindow::default()),
            connections: NonZeroUsize::MIN.saturating_add(15),
            waiting: 1024,
            queue: Duration::from_secs(10),
            connect: Duration::from_secs(10),
            response: Duration::from_secs(60),
            still: Duration::from_secs(60),
            targets: NonZeroUsize::MIN.saturating_add(1023),
        }
    }
}

impl ClientLimits {
    /// The same limits, with no wait longer than [`LONGEST`].
    pub(super) fn within_reason(self) -> Self {
        Self {
            queue: self.queue.min(LONGEST),
            connect: self.connect.min(LONGEST),
            response: self.response.min(LONGEST),
            still: self.still.min(LONGEST),
            ..self
        }
    }
}
