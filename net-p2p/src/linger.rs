//! A socket that keeps reading after its end, so that the peer receives everything that was sent.
//!
//! If data arrives at a closed socket, the kernel answers with a reset, and the peer's kernel may then discard
//! bytes that it has received but not yet delivered. So this socket shuts its write half down and keeps reading
//! until the peer has closed too.
//!
//! # Invariants
//!
//! * Bytes read after the end are discarded.
//! * Closing takes at most [`LINGER`], whatever the peer does.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{AsyncRead, AsyncWrite};
use runtime::time::{Sleep, sleep};

/// Longest wait for the peer to close. Chosen: a round trip on the longest path, and less than
/// a stopping node allows its connections.
const LINGER: Duration = Duration::from_millis(400);

/// Size of the buffer for discarded bytes.
const PIECE_BYTES: usize = 4 * 1024;

/// A socket whose close lingers.
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
    async fn a_closing_socket_reads_until_the_peer_has_closed() {
        let (ours, theirs) = duplex(16);
        let (mut ours, mut theirs) = (Lingering::new(ours.compat()), theirs.compat());
        let other = async {
            let mut heard = String::new();
            theirs.read_to_string(&mut heard).await.unwrap();
            // More than the pipe holds, so the write ends only if the other side reads.
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
    async fn closing_does_not_wait_for_a_silent_peer() {
        let (ours, _theirs) = duplex(16);
        let begun = Instant::now();
        Lingering::new(ours.compat()).close().await.unwrap();
        assert!(begun.elapsed() < LINGER + Duration::from_millis(5));
    }
}
