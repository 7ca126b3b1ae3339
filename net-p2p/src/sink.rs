//! The write half of a gossip stream.
//!
//! # Invariants
//!
//! * A batch is written in pieces of [`PIECE_BYTES`], or lent to a stream that keeps it, with one flush at the end.
//! * A message that fills a piece by itself is written from where it is, without a copy.

use std::{
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

use crate::gathering::{Gathered, PIECE_BYTES, in_common_memory};
#[cfg(feature = "quic")]
use crate::{lent, pieces};

/// Bytes that are lent to a stream at once. Chosen: a batch of a write loop.
#[cfg(feature = "quic")]
const OFFERED_BYTES: usize = 64 * 1024;

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

    /// Writes the next piece, and returns the place behind what was taken of it.
    fn poll_write<W: AsyncWrite + Unpin>(
        self,
        io: &mut W,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Self>> {
        in_common_memory(|common| {
            let end = self.gather(common);
            let piece = if common.is_empty() { self.body() } else { &*common };
            let taken = ready!(Pin::new(io).poll_write(context, piece))?;
            let is_whole = taken > 0 && taken == common.len();
            Poll::Ready(if is_whole { Ok(end) } else { self.after_write(taken) })
        })
    }

    /// Offers the next messages to a stream that keeps what it is lent, `wanted` bytes or a little more. Returns the place behind
    /// what was taken.
    #[cfg(feature = "quic")]
    fn poll_lend<W: AsyncWrite + Unpin>(
        self,
        io: &mut W,
        context: &mut Context<'_>,
        wanted: &mut usize,
    ) -> Poll<io::Result<Self>> {
        let chunks = pieces::chunks(self.left, self.written, *wanted);
        let offered: usize = chunks.iter().map(bytes::Bytes::len).sum();
        let polled = lent::lend(&chunks, |parts| Pin::new(io).poll_write_vectored(context, parts));
        let is_whole = matches!(polled, Poll::Ready(Ok(taken)) if taken == offered);
        // A stream that is full takes a little at a time, so it is offered little.
        *wanted = if is_whole { OFFERED_BYTES } else { 1 };
        let taken = ready!(polled)?;
        Poll::Ready(self.after_write(taken))
    }

    /// The place after a write that took so many bytes.
    fn after_write(self, taken: usize) -> io::Result<Self> {
        if taken == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(self.after(taken)) }
    }
}

/// The write half of a gossip stream.
#[derive(Debug)]
pub(crate) struct StreamSink<W> {
    /// `None` after the stream was reset.
    io: Option<W>,
    gathered: Gathered,
}

impl<W: AsyncWrite + Unpin + Send + 'static> StreamSink<W> {
    pub(crate) const fn new(io: W, gathered: Gathered) -> Self {
        Self { io: Some(io), gathered }
    }
}

impl<W: AsyncWrite + Unpin + Send + 'static> FrameSink for StreamSink<W> {
    async fn write_batch(&mut self, batch: &[Frame]) -> io::Result<()> {
        let io = self.io.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let (mut place, gathered) = (Place { left: batch, written: 0 }, self.gathered);
        #[cfg(feature = "quic")]
        let mut wanted = OFFERED_BYTES;
        let write = poll_fn(|context| {
            while !place.left.is_empty() {
                place = match gathered {
                    Gathered::Copied => ready!(place.poll_write(io, context))?,
                    #[cfg(feature = "quic")]
                    Gathered::Shared => ready!(place.poll_lend(io, context, &mut wanted))?,
                };
            }
            Poll::Ready(io::Result::Ok(()))
        });
        write.await?;
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

    /// Each place, with a sink that has its batches put together there.
    fn sinks() -> Vec<(Gathered, Wire, StreamSink<Wire>)> {
        let all = [
            Gathered::Copied,
            #[cfg(feature = "quic")]
            Gathered::Shared,
        ];
        let each = |gathered| {
            let wire = Wire::default();
            (gathered, wire.clone(), StreamSink::new(wire, gathered))
        };
        all.into_iter().map(each).collect()
    }

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
        fn poll_write_vectored(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            parts: &[io::IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.poll_write(
                context,
                &parts.iter().flat_map(|part| part.iter().copied()).collect::<Vec<_>>(),
            )
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
        for (gathered, wire, mut sink) in sinks() {
            sink.write_batch(&[frame(5), frame(0)]).await.unwrap();
            let record = wire.0.lock().unwrap();
            let written = b"\0\0\0\x07VB\x01\x02\x03\x04\x05\0\0\0\x02VB".to_vec();
            assert_eq!(record.writes, [written], "{gathered:?}");
            assert_eq!(record.flushes, 1);
        }
    }

    #[tokio::test]
    async fn a_large_message_is_not_gathered_and_the_order_stays() {
        let wire = Wire::default();
        let mut sink = StreamSink::new(wire.clone(), Gathered::Copied);
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
        StreamSink::new(wire.clone(), Gathered::Copied).write_batch(&batch).await.unwrap();
        let record = wire.0.lock().unwrap();
        let (last, pieces) = record.writes.split_last().unwrap();
        assert!(pieces.iter().all(|piece| piece.len() > PIECE_BYTES - FRAME_HEADER_BYTES));
        assert!(last.len() <= PIECE_BYTES);
        assert_eq!(record.writes.concat(), framed(&batch));
    }

    // Issue 11: a stream of QUIC is lent a batch in one write.
    #[cfg(feature = "quic")]
    #[tokio::test]
    async fn a_stream_that_keeps_what_it_is_lent_is_lent_a_batch_at_once() {
        let wire = Wire::default();
        let batch: Vec<Frame> = (0..256).map(|_| frame(200)).collect();
        let mut sink = StreamSink::new(wire.clone(), Gathered::Shared);
        sink.write_batch(&batch).await.unwrap();
        assert_eq!(wire.0.lock().unwrap().writes, [framed(&batch)]);
    }

    // Issue 9, "Shown by": the memory for a write is shared, so a write that stops anywhere goes on from there.
    #[tokio::test]
    async fn a_batch_arrives_whole_however_much_is_taken_at_a_time() {
        let sizes = [0, 1, 200, PIECE_BYTES - 6, PIECE_BYTES - 2, PIECE_BYTES, 40_000, 3];
        for most in [1, 3, 5, 1_000, PIECE_BYTES, 1 << 20] {
            for ((gathered, wire, mut one), (_, other, mut two)) in sinks().into_iter().zip(sinks())
            {
                for wire in [&wire, &other] {
                    wire.0.lock().unwrap().narrow = Some(most);
                }
                let sizes = if most < 5 { &sizes[..3] } else { &sizes[..] };
                let batch: Vec<Frame> = sizes.iter().map(|len| frame(*len)).collect();
                let backwards: Vec<Frame> = batch.iter().rev().cloned().collect();
                let (first, second) =
                    tokio::join!(one.write_batch(&batch), two.write_batch(&backwards));
                first.and(second).unwrap();
                let written = |wire: &Wire| wire.0.lock().unwrap().writes.concat();
                assert_eq!(written(&wire), framed(&batch), "{gathered:?} {most}");
                assert_eq!(written(&other), framed(&backwards), "{gathered:?} {most}");
            }
        }
    }

    #[tokio::test]
    async fn a_stream_that_takes_nothing_is_an_error() {
        for (gathered, wire, mut sink) in sinks() {
            wire.0.lock().unwrap().narrow = Some(0);
            for len in [5, PIECE_BYTES] {
                let error = sink.write_batch(&[frame(len)]).await.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::WriteZero, "{gathered:?}");
            }
        }
    }

    #[tokio::test]
    async fn an_orderly_end_closes_the_stream_and_any_other_resets_it() {
        for (reason, closed) in [
            (DisconnectReason::Duplicate, true),
            (DisconnectReason::RemoteClosed, true),
            (DisconnectReason::Protocol, false),
        ] {
            let wire = Wire::default();
            let mut sink = StreamSink::new(wire.clone(), Gathered::Copied);
            sink.close(reason).await;
            assert_eq!(wire.0.lock().unwrap().closed, closed, "{reason}");
            assert!(sink.write_batch(&[]).await.is_err());
        }
    }
}
