//! Limits of the HTTP clients of a node.

use std::{num::NonZeroUsize, time::Duration};

use gossip::Durations;

/// Idle time after which a kept TCP connection is closed. Chosen: one second less than existing nodes keep one,
/// so that the client closes it first and no request crosses the server's close.
pub const TCP_IDLE: Duration = Duration::from_secs(3);

/// Idle time after which a kept libp2p stream is closed. Chosen: 5 s less than a Tandem server keeps one.
pub const STREAM_IDLE: Duration = Duration::from_secs(25);

/// Limit on the new requests to one peer in a sliding window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestWindow {
    /// Largest number of new requests in any period as long as `window`. Default: 60. Source: wire facts 9.2.
    pub requests: NonZeroUsize,
    /// Length of the window. Default: 1 s. Source: wire facts 9.2.
    pub window: Duration,
}

impl Default for RequestWindow {
    fn default() -> Self {
        let requests = NonZeroUsize::MIN.saturating_add(59);
        Self { requests, window: Duration::from_secs(1) }
    }
}

/// Limits and deadlines of all clients of a node. Limits that name a peer apply to each peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientLimits {
    /// Rate of new requests to one peer; `None` sets no limit. Default: [`RequestWindow::default`].
    pub window: Option<RequestWindow>,
    /// Connections to one peer, idle ones included. Default: 16. Chosen: a Tandem server serves as many of one
    /// peer at a time.
    pub connections: NonZeroUsize,
    /// Callers that wait for one peer; further ones get an error. Default: 1,024. Chosen: more than the default
    /// window admits while the first of them waits.
    pub waiting: usize,
    /// Longest wait of a caller, for the window and then for a connection. Default: 10 s. Source: wire facts
    /// 9.2.
    pub queue: Duration,
    /// Longest time to open a connection. Default: 10 s. Source: wire facts 9.1.
    pub connect: Duration,
    /// Longest time from the last byte of a request to the head of its response. Default: 60 s, enforced up to
    /// a sixteenth late. Chosen: as common servers and proxies do with a slow handler.
    pub response: Duration,
    /// Longest time in which a peer neither reads from a request nor writes to a response. Default: 60 s,
    /// enforced up to a sixteenth late. Chosen: as `response`.
    pub still: Duration,
    /// Peers whose limits and connections are remembered. Default: 1,024. Chosen: more peers than a node calls.
    pub targets: NonZeroUsize,
}

gossip::setters!(ClientLimits {
    with_window => window: Option<RequestWindow>,
    with_connections => connections: NonZeroUsize,
    with_waiting => waiting: usize,
    with_queue => queue: Duration,
    with_connect => connect: Duration,
    with_response => response: Duration,
    with_still => still: Duration,
    with_targets => targets: NonZeroUsize,
});

impl Durations for ClientLimits {
    fn each_duration(&mut self, visit: &mut dyn FnMut(&'static str, &mut Duration)) {
        if let Some(window) = &mut self.window {
            visit("ClientLimits::window", &mut window.window);
        }
        visit("ClientLimits::queue", &mut self.queue);
        visit("ClientLimits::connect", &mut self.connect);
        visit("ClientLimits::response", &mut self.response);
        visit("ClientLimits::still", &mut self.still);
    }
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
