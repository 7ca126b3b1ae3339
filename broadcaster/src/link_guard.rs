//! The end of a link together with the task that owns its connection.

use gossip::{DisconnectReason, LinkId};

use crate::broadcaster::Broadcaster;

/// Disconnects a link when it is dropped; a link that has ended already is left alone.
///
/// A transport keeps it in the task that waits for the end of the link. Such a task may be aborted instead of cancelled,
/// when the last handle of its network is dropped, and the link would stay with nobody to end it.
#[must_use = "the link ends when this is dropped"]
#[derive(Debug)]
pub struct LinkGuard {
    broadcaster: Broadcaster,
    link: LinkId,
}

impl LinkGuard {
    /// Guards a link that is attached to a broadcaster.
    pub fn new(broadcaster: &Broadcaster, link: LinkId) -> Self {
        Self { broadcaster: broadcaster.clone(), link }
    }
}

impl Drop for LinkGuard {
    fn drop(&mut self) {
        self.broadcaster.disconnect(self.link, DisconnectReason::LocalShutdown);
    }
}
