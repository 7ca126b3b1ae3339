//! A handler that records its messages.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use gossip::{BoxFuture, Handler, Inbound, Verdict};

use crate::wait::until;

/// Records every message in the order of handling. Clones share the list.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    heard: Arc<Mutex<Vec<Inbound>>>,
}

impl Recorder {
    fn lock(&self) -> MutexGuard<'_, Vec<Inbound>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of recorded messages.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Number of recorded messages with this body.
    #[must_use]
    pub fn times(&self, body: &[u8]) -> usize {
        self.lock().iter().filter(|message| message.body == body).count()
    }

    /// The recorded messages.
    #[must_use]
    pub fn messages(&self) -> Vec<Inbound> {
        self.lock().clone()
    }

    /// The bodies of the recorded messages.
    #[must_use]
    pub fn bodies(&self) -> Vec<Bytes> {
        self.lock().iter().map(|message| message.body.clone()).collect()
    }

    /// Waits for a message with this body.
    ///
    /// # Panics
    ///
    /// If it is not recorded in time.
    pub async fn hears(&self, body: &[u8]) {
        let shown = body.get(..24).unwrap_or(body).escape_ascii().to_string();
        until(&format!("hearing {shown:?}"), || self.times(body) > 0).await;
    }
}

impl Handler for Recorder {
    fn handle(&self, message: Inbound) -> BoxFuture<'_, Verdict> {
        self.lock().push(message);
        Box::pin(std::future::ready(Verdict::Ignore))
    }
}
