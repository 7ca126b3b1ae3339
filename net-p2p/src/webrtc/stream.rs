//! One stream of a connection over WebRTC.
//!
//! # Invariants
//!
//! * A stream that is dropped before it was closed is reset, so that the peer never takes half a message for a whole
//!   one. Once the connection closes, dropped streams are finished, so that what was written arrives.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::{
    channels::Key,
    session::{Session, Shared, gone},
};

/// A stream in both directions.
#[derive(Debug)]
pub(crate) struct WebRtcStream {
    shared: Arc<Shared>,
    key: Key,
}

impl WebRtcStream {
    pub(super) const fn new(shared: Arc<Shared>, key: Key) -> Self {
        Self { shared, key }
    }

    fn with<T>(
        &self,
        with: impl FnOnce(&mut Session) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let done = self.shared.with(with).unwrap_or_else(gone);
        if done.is_ready() {
            self.shared.changed.notify_one();
        }
        done
    }

    /// Reads into `into`; 0 bytes at the end.
    pub(crate) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let now = Instant::now().into_std();
        self.with(|session| session.read(self.key, context, into, now))
    }

    /// Writes as much as one message takes, once there is room.
    pub(crate) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.with(|session| session.write(self.key, context, bytes))
    }

    /// Ends the direction to the peer: all that was written still arrives.
    pub(crate) fn finish(&mut self) {
        // After a panic there is nothing to finish.
        let _ = self.shared.with(|session| session.channels().finish(self.key));
        self.shared.changed.notify_one();
    }
}

impl Drop for WebRtcStream {
    fn drop(&mut self) {
        let now = Instant::now().into_std();
        // After a panic there is nothing to release.
        let _ = self.shared.with(|session| session.channels().release(self.key, now));
        self.shared.changed.notify_one();
    }
}

impl AsyncRead for WebRtcStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Self::poll_read(&mut self, context, into)
    }
}

impl AsyncWrite for WebRtcStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Self::poll_write(&mut self, context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}
