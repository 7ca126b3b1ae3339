//! The write half of a gossip stream.
//!
//! # Invariants
//!
//! * A batch is written in pieces of [`PIECE_BYTES`], with one flush at the end.
//! * A message that fills a piece by itself is written from where it is, without a copy.
//! * A stream has no memory of its own for its bytes; those of a thread share it.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use broadcaster::{Frame, FrameSink};
use futures::{AsyncWrite, AsyncWriteExt};
use gossip::{
    DisconnectReason,
    wire::frame::{FRAME_HEADER_BYTES, encode_header},
};

/// Size of one gathered write, in bytes. Chosen: a Yamux frame, which the library copies from here, and which stays in the
/// innermost cache until then.
const PIECE_BYTES: usize = 16 * 1024;

thread_local! {
    /// Memory to gather into; taken for the time of one write.
    static COMMON: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A place in the framed bytes of a batch.
#[derive(Clone, Copy, Debug)]
struct Place<'a> {
    /// The messages that are not written to their ends.
    left: &'a [Frame],
    /// Bytes of the first of them that are written, the length in front of it included.
    written: usize,
}

impl<'a> Place<'a> {
    /// Gathers the bytes from here on in `into`, which is empty, and returns the place behind them. It gathers nothing if
    /// the next bytes are better written from where they are.
    fn gather(mut self, into: &mut Vec<u8>) -> Self {
        while let Some((first, rest)) = self.left.split_first() {
            let wire = first.wire();
            if into.len() + FRAME_HEADER_BYTES > PIECE_BYTES {
                break;
            }
            if self.written < FRAME_HEADER_BYTES {
                let header = encode_header(wire.len());
                into.extend_from_slice(header.get(self.written..).unwrap_or_default());
                self.written = FRAME_HEADER_BYTES;
            }
            if wire.len() >= PIECE_BYTES {
                break;
            }
            let body = wire.get(self.written - FRAME_HEADER_BYTES..).unwrap_or_default();
            let piece = body.get(..PIECE_BYTES - into.len()).unwrap_or(body);
            into.extend_from_slice(piece);
            if piece.len() < body.len() {
                self.written += piece.len();
                break;
            }
            self = Self { left: rest, written: 0 };
        }
        self
    }

    /// The place so many bytes later.
    fn after(mut self, mut bytes: usize) -> Self {
        while let Some((first, rest)) = self.left.split_first() {
            let unwritten = FRAME_HEADER_BYTES + first.wire().len() - self.written;
            if bytes < unwritten {
                self.written += bytes;
                break;
            }
            bytes -= unwritten;
            self = Self { left: rest, written: 0 };
        }
        self
    }

    /// The rest of the first message, whose length is written.
    fn body(&self) -> &'a [u8] {
        let wire: &'a [u8] = self.left.first().map_or(&[], |first| first.wire());
        wire.get(self.written.saturating_sub(FRAME_HEADER_BYTES)..).unwrap_or_default()
    }

    /// Writes to the end of the batch.
    fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        io: &mut W,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.left.is_empty() {
            let mut common = COMMON.take();
            common.clear();
            common.reserve(PIECE_BYTES);
            let end = self.gather(&mut common);
            let piece = if common.is_empty() { self.body() } else { &common };
            let polled = Pin::new(&mut *io).poll_write(context, piece);
            let is_whole = matches!(polled, Poll::Ready(Ok(bytes)) if bytes == common.len());
            COMMON.set(common);
            match ready!(polled)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                _ if is_whole => *self = end,
                bytes => *self = self.after(bytes),
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The write half of a gossip stream.
#[derive(Debug)]
pub(crate) struct StreamSink<W> {
    /// `None` after the stream was reset.
    io: Option<W>,
}

impl<W: AsyncWrite + Unpin + Send + 'static> StreamSink<W> {
    pub(crate) const fn new(io: W) -> Self {
        Self { io: Some(io) }
    }
}

impl<W: AsyncWrite + Unpin + Send + 'static> FrameSink for StreamSink<W> {
    async fn write_batch(&mut self, batch: &[Frame]) -> io::Result<()> {
        let io = self.io.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let mut place = Place { left: batch, written: 0 };
        poll_fn(|context| place.poll_write(io, context)).await?;
        io.flush().await
    }

    async fn close(&mut self, reason: DisconnectReason) {
        let Some(mut io) = self.io.take() else { return };
        match reason {
            DisconnectReason::Duplicate
            | DisconnectReason::RemoteClosed
            | DisconnectReason::LocalShutdown => {
                // The close fails only if the peer has closed or reset the stream already.
                let _ = io.close().await;
            }
            _ => {} // Dropping both halves resets the stream.
        }
    }
}

#[cfg(test)]
mod tests {
    use gossip::{Lane, Tag};

    use super::*;

    #[derive(Default)]
    struct Record {
        writes: Vec<Vec<u8>>,
        flushes: usize,
        closed: bool,
        /// Most bytes taken at a time, every other time; `None` takes all, always.
        narrow: Option<usize>,
        is_full: bool,
    }

    #[derive(Clone, Default)]
    struct Wire(std::sync::Arc<std::sync::Mutex<Record>>);

    impl AsyncWrite for Wire {
        fn poll_write(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let mut record = self.0.lock().unwrap();
            let Some(most) = record.narrow else {
                record.writes.push(bytes.to_vec());
                return Poll::Ready(Ok(bytes.len()));
            };
            record.is_full = !record.is_full;
            if record.is_full {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let taken = bytes.len().min(most);
            record.writes.push(bytes[..taken].to_vec());
            Poll::Ready(Ok(taken))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.0.lock().unwrap().flushes += 1;
            Poll::Ready(Ok(()))
        }
        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.0.lock().unwrap().closed = true;
            Poll::Ready(Ok(()))
        }
    }

    fn frame(len: usize) -> Frame {
        Frame::control(Tag::VB, Lane::Bulk, &(1..=len).map(|at| at as u8).collect::<Vec<u8>>())
    }

    /// The bytes of a batch on the wire.
    fn framed(batch: &[Frame]) -> Vec<u8> {
        let each = |frame: &Frame| [&encode_header(frame.wire().len())[..], frame.wire()].concat();
        batch.iter().flat_map(each).collect()
    }

    #[tokio::test]
    async fn a_batch_of_small_messages_is_one_write_and_one_flush() {
        let wire = Wire::default();
        let mut sink = StreamSink::new(wire.clone());
        sink.write_batch(&[frame(5), frame(0)]).await.unwrap();
        let record = wire.0.lock().unwrap();
        assert_eq!(record.writes, [b"\0\0\0\x07VB\x01\x02\x03\x04\x05\0\0\0\x02VB".to_vec()]);
        assert_eq!(record.flushes, 1);
    }

    #[tokio::test]
    async fn a_large_message_is_not_gathered_and_the_order_stays() {
        let wire = Wire::default();
        let mut sink = StreamSink::new(wire.clone());
        sink.write_batch(&[frame(1), frame(100_000), frame(2), frame(65_530)]).await.unwrap();
        let record = wire.0.lock().unwrap();
        let sizes: Vec<usize> = record.writes.iter().map(Vec::len).collect();
        assert_eq!(sizes, [11, 100_002, 12, 65_532], "each behind its own length");
        assert_eq!(record.flushes, 1);
    }

    #[tokio::test]
    async fn a_batch_is_written_in_whole_pieces() {
        let wire = Wire::default();
        let batch: Vec<Frame> = (0..300).map(|number| frame(200 + number)).collect();
        StreamSink::new(wire.clone()).write_batch(&batch).await.unwrap();
        let record = wire.0.lock().unwrap();
        let (last, pieces) = record.writes.split_last().unwrap();
        assert!(pieces.iter().all(|piece| piece.len() > PIECE_BYTES - FRAME_HEADER_BYTES));
        assert!(last.len() <= PIECE_BYTES);
        assert_eq!(record.writes.concat(), framed(&batch));
    }

    // Issue 9, "Shown by": the memory for a write is shared, so a write that stops anywhere goes on from there.
    #[tokio::test]
    async fn a_batch_arrives_whole_however_much_is_taken_at_a_time() {
        let sizes = [0, 1, 200, PIECE_BYTES - 6, PIECE_BYTES - 2, PIECE_BYTES, 40_000, 3];
        for most in [1, 3, 5, 1_000, PIECE_BYTES, 1 << 20] {
            let (wire, other) = (Wire::default(), Wire::default());
            for wire in [&wire, &other] {
                wire.0.lock().unwrap().narrow = Some(most);
            }
            let batch: Vec<Frame> = if most < 5 { &sizes[..3] } else { &sizes[..] }
                .iter()
                .map(|len| frame(*len))
                .collect();
            let backwards: Vec<Frame> = batch.iter().rev().cloned().collect();
            let [mut one, mut two] = [&wire, &other].map(|wire| StreamSink::new(wire.clone()));
            let (first, second) =
                tokio::join!(one.write_batch(&batch), two.write_batch(&backwards));
            first.and(second).unwrap();
            assert_eq!(wire.0.lock().unwrap().writes.concat(), framed(&batch), "{most}");
            assert_eq!(other.0.lock().unwrap().writes.concat(), framed(&backwards), "{most}");
        }
    }

    #[tokio::test]
    async fn a_stream_that_takes_nothing_is_an_error() {
        let wire = Wire::default();
        wire.0.lock().unwrap().narrow = Some(0);
        let error = StreamSink::new(wire).write_batch(&[frame(5)]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    }

    #[tokio::test]
    async fn an_orderly_end_closes_the_stream_and_any_other_resets_it() {
        for (reason, closed) in [
            (DisconnectReason::Duplicate, true),
            (DisconnectReason::RemoteClosed, true),
            (DisconnectReason::Protocol, false),
        ] {
            let wire = Wire::default();
            let mut sink = StreamSink::new(wire.clone());
            sink.close(reason).await;
            assert_eq!(wire.0.lock().unwrap().closed, closed, "{reason}");
            assert!(sink.write_batch(&[]).await.is_err());
        }
    }
}
