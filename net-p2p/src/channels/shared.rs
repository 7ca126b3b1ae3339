//! One connection without I/O, which its streams and its task share.
//!
//! # Invariants
//!
//! * A panic of a library ends the connection, and nothing else: whoever locks the session gets a value or the end.
//! * Once a connection has ended, what came before can still be read, and nothing can be written.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError},
};

use tokio::sync::Notify;

use super::{Association, Channels, Ended};

/// A connection, with its channels.
pub(crate) trait Session: Send + 'static {
    type Association: Association;

    fn channels(&mut self) -> &mut Channels<Self::Association>;
}

/// A session, and the wake-up of its task.
pub(crate) struct Shared<S> {
    session: Mutex<S>,
    /// Told when a stream has changed something that the task has to send.
    pub(crate) changed: Notify,
}

impl<S> fmt::Debug for Shared<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl<S: Session> Shared<S> {
    pub(crate) fn new(session: S) -> Self {
        Self { session: Mutex::new(session), changed: Notify::new() }
    }

    /// Calls `with` with the session. `None` if a library panicked, now or before: the connection has ended then.
    pub(crate) fn with<T>(&self, with: impl FnOnce(&mut S) -> T) -> Option<T> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if session.channels().has_panicked() {
            return None;
        }
        let session = &mut *session;
        let done = catch_unwind(AssertUnwindSafe(|| with(session)));
        if done.is_err() {
            // Waking touches wakers only.
            session.channels().end(Ended::Panicked);
            self.changed.notify_one();
        }
        done.ok()
    }
}
