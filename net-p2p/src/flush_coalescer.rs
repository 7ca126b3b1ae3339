//! Coalescing of flushes, so that frames of several streams leave in one write.
//!
//! ```text
//!   Yamux ── frame, flush, frame, flush … ──▶ FlushCoalescer ── one flush a turn ──▶ Noise ──▶ socket
//! ```
//!
//! Yamux flushes after every frame. This layer delays a flush until the turn ends, so that the frames of all
//! streams that have data leave as one Noise message in one write to the socket. Until then the written bytes
//! stay in the buffer below.
//!
//! # Invariants
//!
//! * A turn ends when a read finds nothing, and then everything unflushed is flushed: Yamux takes the data of
//!   its streams before it reads, and reads before it sleeps.
//! * At most [`TURN_BYTES`] are unflushed. While they cannot be flushed, nothing more is written.
//! * A flush is delayed until at most [`TURN_BYTES`] have been read.
//! * Closing flushes first.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncWrite};

/// The largest frame that Yamux splits streams into, its header included, in bytes. Source: yamux 0.14,
/// `DEFAULT_SPLIT_SEND_SIZE`, and Yamux, "Framing".
const LARGEST_FRAME_BYTES: usize = 16 * 1024 + 12;

/// Most bytes that wait for the end of a turn, and most bytes read before they are flushed.
///
/// Chosen: two of the largest frames. Nothing overtakes written bytes, so this is also the longest queue of bulk in front
/// of a vote: 1.3 ms at 200 Mbit/s.
pub(crate) const TURN_BYTES: usize = 2 * LARGEST_FRAME_BYTES;

/// Delays flushes of the buffered stream `S`.
#[derive(Debug)]
pub(crate) struct FlushCoalescer<S> {
    stream: S,
    /// Bytes written and not flushed.
    owed_bytes: usize,
    /// Bytes read since the oldest unflushed write.
    read_bytes: usize,
}

impl<S> FlushCoalescer<S> {
    pub(crate) const fn new(stream: S) -> Self {
        Self { stream, owed_bytes: 0, read_bytes: 0 }
    }
}

impl<S: AsyncWrite + Unpin> FlushCoalescer<S> {
    /// Flushes everything that is unflushed.
    fn poll_settle(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.owed_bytes > 0 {
            ready!(Pin::new(&mut self.stream).poll_flush(context))?;
            (self.owed_bytes, self.read_bytes) = (0, 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for FlushCoalescer<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.stream).poll_read(context, into);
        if self.owed_bytes == 0 {
            return read;
        }
        if let Poll::Ready(Ok(bytes @ 1..)) = read {
            self.read_bytes += bytes;
            if self.read_bytes < TURN_BYTES {
                return read;
            }
        }
        match self.poll_settle(context) {
            Poll::Ready(Err(error)) if read.is_pending() => Poll::Ready(Err(error)),
            // Bytes were read, so Yamux polls again, and a failed flush shows then.
            _ => read,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FlushCoalescer<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.owed_bytes >= TURN_BYTES {
            ready!(self.poll_settle(context))?;
        }
        let (piece, _) = bytes.split_at(bytes.len().min(TURN_BYTES - self.owed_bytes));
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, piece))?;
        self.owed_bytes += written;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_settle(context))?;
        Pin::new(&mut self.stream).poll_close(context)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// A buffered stream in front of a socket that accepts everything or nothing.
    #[derive(Debug, Default)]
    struct Buffered {
        to_read: usize,
        written: usize,
        flushed: usize,
        flushes: usize,
        is_full: bool,
        is_closed: bool,
    }

    impl AsyncRead for Buffered {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _context: &mut Context<'_>,
            into: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            let bytes = self.to_read.min(into.len());
            self.to_read -= bytes;
            if bytes == 0 { Poll::Pending } else { Poll::Ready(Ok(bytes)) }
        }
    }

    impl AsyncWrite for Buffered {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.written += bytes.len();
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(
            mut self: Pin<&mut Self>,
            _context: &mut Context<'_>,
        ) -> Poll<io::Result<()>> {
            if self.is_full {
                return Poll::Pending;
            }
            self.flushed = self.written;
            self.flushes += 1;
            Poll::Ready(Ok(()))
        }

        fn poll_close(
            mut self: Pin<&mut Self>,
            _context: &mut Context<'_>,
        ) -> Poll<io::Result<()>> {
            assert_eq!(self.flushed, self.written, "closed with something owed");
            self.is_closed = true;
            Poll::Ready(Ok(()))
        }
    }

    fn write(to: &mut FlushCoalescer<Buffered>, bytes: usize) -> Poll<usize> {
        let mut context = Context::from_waker(Waker::noop());
        let written = Pin::new(&mut *to).poll_write(&mut context, &vec![7; bytes]);
        assert!(Pin::new(to).poll_flush(&mut context).is_ready());
        written.map(Result::unwrap)
    }

    fn read(from: &mut FlushCoalescer<Buffered>, bytes: usize) -> Poll<usize> {
        let mut context = Context::from_waker(Waker::noop());
        Pin::new(from).poll_read(&mut context, &mut vec![0; bytes]).map(Result::unwrap)
    }

    #[test]
    fn frames_of_a_turn_are_flushed_once_and_when_nothing_is_left_to_read() {
        let mut io = FlushCoalescer::new(Buffered { to_read: 100, ..Buffered::default() });
        for _ in 0..20 {
            assert_eq!(write(&mut io, 212), Poll::Ready(212));
        }
        assert_eq!(read(&mut io, 100), Poll::Ready(100));
        assert_eq!(io.stream.flushes, 0);
        assert_eq!(read(&mut io, 100), Poll::Pending);
        assert_eq!((io.stream.flushes, io.stream.flushed), (1, 20 * 212));
        assert_eq!(read(&mut io, 100), Poll::Pending);
        assert_eq!(io.stream.flushes, 1, "nothing is owed any more");
    }

    // Issue 9, "Shown by": the end of the second frame left in a write of its own.
    #[test]
    fn two_of_the_largest_frames_leave_in_one_write() {
        let mut io = FlushCoalescer::new(Buffered::default());
        for part in [12, 16 * 1024, 12, 16 * 1024] {
            assert_eq!(write(&mut io, part), Poll::Ready(part));
        }
        assert_eq!(read(&mut io, 1), Poll::Pending);
        assert_eq!((io.stream.flushes, io.stream.flushed), (1, TURN_BYTES));
    }

    #[test]
    fn a_turn_coalesces_at_most_its_bytes() {
        let mut io = FlushCoalescer::new(Buffered::default());
        assert_eq!(write(&mut io, TURN_BYTES - 1), Poll::Ready(TURN_BYTES - 1));
        assert_eq!(write(&mut io, 100), Poll::Ready(1), "a piece of it");
        assert_eq!(write(&mut io, 99), Poll::Ready(99));
        assert_eq!((io.stream.flushes, io.stream.flushed), (1, TURN_BYTES));
    }

    #[test]
    fn nothing_is_written_while_a_full_turn_cannot_be_flushed() {
        let mut io = FlushCoalescer::new(Buffered { is_full: true, ..Buffered::default() });
        assert_eq!(write(&mut io, 2 * TURN_BYTES), Poll::Ready(TURN_BYTES));
        for _ in 0..3 {
            assert_eq!(write(&mut io, 1), Poll::Pending);
            assert_eq!(read(&mut io, 1), Poll::Pending);
        }
        assert_eq!(io.stream.written, TURN_BYTES);
        io.stream.is_full = false;
        assert_eq!(write(&mut io, 1), Poll::Ready(1));
        assert_eq!(io.stream.flushed, TURN_BYTES);
    }

    #[test]
    fn an_endless_sender_does_not_delay_the_flush() {
        let mut io = FlushCoalescer::new(Buffered { to_read: usize::MAX, ..Buffered::default() });
        assert_eq!(write(&mut io, 1), Poll::Ready(1));
        assert_eq!(read(&mut io, TURN_BYTES - 1), Poll::Ready(TURN_BYTES - 1));
        assert_eq!(io.stream.flushes, 0);
        assert_eq!(read(&mut io, 1), Poll::Ready(1));
        assert_eq!(io.stream.flushes, 1);
    }

    #[test]
    fn closing_flushes_first() {
        let mut context = Context::from_waker(Waker::noop());
        let mut io = FlushCoalescer::new(Buffered { is_full: true, ..Buffered::default() });
        assert_eq!(write(&mut io, 1), Poll::Ready(1));
        assert!(Pin::new(&mut io).poll_close(&mut context).is_pending());
        assert!(!io.stream.is_closed);
        io.stream.is_full = false;
        assert!(Pin::new(&mut io).poll_close(&mut context).is_ready());
        assert!(io.stream.is_closed);
    }
}
