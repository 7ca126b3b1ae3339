//! One stream of a connection over data channels.
//!
//! # Invariants
//!
//! * A stream that is dropped before it was closed is reset, so that the peer never takes half a message for a whole
//!   one. Once the connection closes, dropped streams are finished, so that what was written arrives.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{AsyncRead, AsyncWrite};
use runtime::time::{Instant, into_std};

use super::{
    shared::{Session, Shared},
    streams::{Key, gone},
};

/// The connection of a stream.
pub(super) trait Connection: fmt::Debug + Send + Sync {
    fn read(&self, key: Key, context: &Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>>;
    fn write(&self, key: Key, context: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;
    fn finish(&self, key: Key);
    fn release(&self, key: Key);
}

impl<S: Session> Connection for Shared<S> {
    fn read(&self, key: Key, context: &Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let now = into_std(Instant::now());
        let read = self.with(|session| session.channels().read(key, context, into, now));
        self.told(read.unwrap_or_else(gone))
    }

    fn write(&self, key: Key, context: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.with(|session| session.channels().write(key, context, bytes));
        self.told(written.unwrap_or_else(gone))
    }

    fn finish(&self, key: Key) {
        // After a panic there is nothing to finish.
        let _ = self.with(|session| session.channels().finish(key));
        self.changed.notify_one();
    }

    fn release(&self, key: Key) {
        let now = into_std(Instant::now());
        // After a panic there is nothing to release.
        let _ = self.with(|session| session.channels().release(key, now));
        self.changed.notify_one();
    }
}

impl<S> Shared<S> {
    /// Wakes the task after something was done.
    fn told<T>(&self, done: Poll<T>) -> Poll<T> {
        if done.is_ready() {
            self.changed.notify_one();
        }
        done
    }
}

/// A stream in both directions.
#[derive(Debug)]
pub(crate) struct ChannelStream {
    connection: Arc<dyn Connection>,
    key: Key,
}

impl ChannelStream {
    pub(super) fn new(connection: Arc<dyn Connection>, key: Key) -> Self {
        Self { connection, key }
    }

    /// The stream of the Noise handshake.
    #[cfg(test)]
    #[cfg(feature = "webrtc")]
    pub(crate) fn handshake<S: Session>(shared: Arc<Shared<S>>) -> Self {
        Self::new(shared, super::streams::HANDSHAKE_KEY)
    }

    /// Reads into `into`; 0 bytes at the end.
    pub(crate) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.connection.read(self.key, context, into)
    }

    /// Writes as much as one message takes, once there is room.
    pub(crate) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.connection.write(self.key, context, bytes)
    }

    /// Ends the direction to the peer: all that was written still arrives.
    pub(crate) fn finish(&mut self) {
        self.connection.finish(self.key);
    }
}

impl Drop for ChannelStream {
    fn drop(&mut self) {
        self.connection.release(self.key);
    }
}

impl AsyncRead for ChannelStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Self::poll_read(&mut self, context, into)
    }
}

impl AsyncWrite for ChannelStream {
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
