//! A socket that is closed without taking back what was sent.
//!
//! A system that is sent something on a socket that is closed answers with a reset, and the other side's
//! system may then forget what it has received and not yet handed over. So the socket says that it is done
//! and goes on to read, until the other side is done too.
//!
//! # Invariants
//!
//! * What is read after the end is forgotten; nothing is kept of it.
//! * Closing ends after [`LINGER`], whatever the other side does.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{AsyncRead, AsyncWrite};
use tokio::time::{Sleep, sleep};

/// How long the other side may take to be done. Chosen: a round trip on the longest path, and less than
/// the connections of a node that stops are given.
const LINGER: Duration = Duration::from_millis(400);

/// Bytes that are read at once.
const PIECE_BYTES: usize = 4 * 1024;

/// A socket.
#[derive(Debug)]
pub(crate) struct Lingering<S> {
    stream: S,
    closing: Closing,
}

#[derive(Debug)]
enum Closing {
    Not,
    Until(Pin<Box<Sleep>>),
    Done,
}

impl<S> Lingering<S> {
    pub(crate) const fn new(stream: S) -> Self {
        Self { stream, closing: Closing::Not }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            match &mut this.closing {
                Closing::Not => {
                    ready!(Pin::new(&mut this.stream).poll_close(context))?;
                    this.closing = Closing::Until(Box::pin(sleep(LINGER)));
                }
                Closing::Until(end) => {
                    let mut piece = [0; PIECE_BYTES];
                    let read = Pin::new(&mut this.stream).poll_read(context, &mut piece);
                    let is_over = match read {
                        Poll::Ready(Ok(1..)) => end.is_elapsed(),
                        Poll::Ready(Ok(0) | Err(_)) => true,
                        Poll::Pending => {
                            ready!(end.as_mut().poll(context));
                            true
                        }
                    };
                    if is_over {
                        this.closing = Closing::Done;
                    }
                }
                Closing::Done => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{AsyncReadExt, AsyncWriteExt};
    use tokio::{io::duplex, time::Instant};
    use tokio_util::compat::TokioAsyncReadCompatExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_still_comes_is_read_until_the_other_side_is_done() {
        let (ours, theirs) = duplex(16);
        let (mut ours, mut theirs) = (Lingering::new(ours.compat()), theirs.compat());
        let other = async {
            let mut heard = String::new();
            theirs.read_to_string(&mut heard).await.unwrap();
            // More than the pipe holds: it has to be read.
            theirs.write_all(&[7; 10_000]).await.unwrap();
            theirs.close().await.unwrap();
            heard
        };
        ours.write_all(b"last words").await.unwrap();
        let (closed, heard) = tokio::join!(ours.close(), other);
        closed.unwrap();
        assert_eq!(heard, "last words");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_waited_for_long() {
        let (ours, _theirs) = duplex(16);
        let begun = Instant::now();
        Lingering::new(ours.compat()).close().await.unwrap();
        assert!(begun.elapsed() < LINGER + Duration::from_millis(5));
    }
}
