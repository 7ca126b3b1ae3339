//! The target of requests: a node at an address, over one transport.

use std::{sync::Arc, time::Duration};

use gossip::StreamUse;

use super::{Connect, Shared, pool::Pool, request::RequestDefaults};

/// State shared by the requests to one target.
pub(super) struct TargetConfig {
    /// The name of the target, for spans.
    pub(super) name: String,
    pub(super) pool: Arc<Pool>,
    pub(super) shared: Arc<Shared>,
    pub(super) defaults: RequestDefaults,
    pub(super) streams: StreamUse,
    pub(super) idle: Duration,
    pub(super) connect: Arc<dyn Connect>,
}

impl TargetConfig {
    /// Time for which a connection is kept after an exchange; `None` if it is closed.
    pub(super) fn keeps(&self) -> Option<Duration> {
        (self.streams == StreamUse::KeptAlive).then_some(self.idle)
    }
}
