//! A connection whose writes may not stall.
//!
//! # Invariants
//!
//! * A write or flush that makes no progress for [`WRITE_TIMEOUT`] ends the connection.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{self, Instant, Sleep},
};

/// Longest time for which a client may leave written bytes unread. Chosen: longer than any program is
/// stopped in a debugger's step, shorter than an operator's patience.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection with a deadline on every write.
#[derive(Debug)]
pub(crate) struct Deadline<T> {
    inner: T,
    /// When the write that waits is given up. Unused while none waits.
    timer: Pin<Box<Sleep>>,
    waiting: bool,
}

impl<T> Deadline<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self { inner, timer: Box::pin(time::sleep(WRITE_TIMEOUT)), waiting: false }
    }

    /// Passes on what became of a write, unless it has waited too long.
    fn within<O>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<O>>,
    ) -> Poll<io::Result<O>> {
        if outcome.is_ready() {
            self.waiting = false;
            return outcome;
        }
        if !self.waiting {
            self.waiting = true;
            self.timer.as_mut().reset(Instant::now() + WRITE_TIMEOUT);
        }
        self.timer.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Deadline<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Deadline<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.within(context, outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_flush(context);
        self.within(context, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_shutdown(context);
        self.within(context, outcome)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stopped_ends_the_connection_at_the_deadline() {
        let (ours, _theirs) = tokio::io::duplex(8);
        let mut connection = Deadline::new(ours);
        let began = Instant::now();
        let error = connection.write_all(&[0; 9]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed(), WRITE_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_that_goes_on_is_waited_for() {
        let (ours, mut theirs) = tokio::io::duplex(8);
        let mut connection = Deadline::new(ours);
        let slowly = async {
            for _ in 0..4 {
                time::sleep(WRITE_TIMEOUT - Duration::from_secs(1)).await;
                let mut buffer = [0; 8];
                tokio::io::AsyncReadExt::read_exact(&mut theirs, &mut buffer).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(connection.write_all(&[0; 32]), slowly);
        written.unwrap();
    }
}
