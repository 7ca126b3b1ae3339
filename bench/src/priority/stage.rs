//! The terms between a drive and its contenders.

use std::sync::Arc;

use bytes::Bytes;
use gossip::{BoxFuture, http::HttpClient};
use runtime::TaskSet;

use super::probe::Probe;
use crate::error::Failure;

/// A connected contender.
pub(super) trait Contending: Send + Sync + 'static {
    /// Sends a priority message, without waiting.
    fn priority(&self, body: Bytes) -> Result<(), Failure>;

    /// Queues a bulk message, and resolves when it has left the queue.
    fn bulk(&self, body: Bytes) -> BoxFuture<'static, Result<(), Failure>>;

    /// A client of the sending node, at the receiving end. Default: none.
    fn http(&self) -> Option<HttpClient> {
        None
    }
}

/// The parts from which a contender is set up.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    pub(super) probe: Arc<Probe>,
    pub(super) tasks: TaskSet,
}
