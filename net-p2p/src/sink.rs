//! The write half of a gossip stream.
//!
//! # Invariants
//!
//! * A batch is written in as few writes as its size allows, [`SCRATCH_BYTES`] each, with one flush at the end.
//! * A larger message is written from where it is, without a copy.

use std::io;

use broadcaster::{Frame, FrameSink};
use futures::{AsyncWrite, AsyncWriteExt};
use gossip::{
    DisconnectReason,
    wire::frame::{FRAME_HEADER_BYTES, encode_header},
};

/// Size of one gathered write, in bytes. Chosen: the bound of a batch, see `Limits::batch_bytes`.
const SCRATCH_BYTES: usize = 64 * 1024;

/// Capacity that the scratch buffer keeps after a small batch, in bytes. Chosen: a batch of votes.
const KEPT_BYTES: usize = 4 * 1024;

/// The write half of a gossip stream.
#[derive(Debug)]
pub(crate) struct StreamSink<W> {
    /// `None` after the stream was reset.
    io: Option<W>,
    scratch: Vec<u8>,
}

impl<W: AsyncWrite + Unpin + Send + 'static> StreamSink<W> {
    pub(crate) fn new(io: W) -> Self {
        Self { io: Some(io), scratch: Vec::new() }
    }
}

impl<W: AsyncWrite + Unpin + Send + 'static> FrameSink for StreamSink<W> {
    async fn write_batch(&mut self, batch: &[Frame]) -> io::Result<()> {
        let io = self.io.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        self.scratch.clear();
        let gathered: usize = batch.iter().map(|frame| frame.wire().len()).sum();
        if gathered <= KEPT_BYTES / 2 {
            // A quiet link keeps little memory; a busy one fills the buffer again at once.
            self.scratch.shrink_to(KEPT_BYTES);
        }
        for frame in batch {
            let wire = frame.wire();
            let needed = FRAME_HEADER_BYTES + wire.len();
            if !self.scratch.is_empty() && self.scratch.len() + needed > SCRATCH_BYTES {
                io.write_all(&self.scratch).await?;
                self.scratch.clear();
            }
            self.scratch.extend_from_slice(&encode_header(wire.len()));
            if needed <= SCRATCH_BYTES {
                self.scratch.extend_from_slice(wire);
            } else {
                io.write_all(&self.scratch).await?;
                self.scratch.clear();
                io.write_all(wire).await?;
            }
        }
        io.write_all(&self.scratch).await?;
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
    use std::{
        pin::Pin,
        task::{Context, Poll},
    };

    use gossip::{Lane, Tag};

    use super::*;

    #[derive(Default)]
    struct Record {
        writes: Vec<Vec<u8>>,
        flushes: usize,
        closed: bool,
    }

    #[derive(Clone, Default)]
    struct Wire(std::sync::Arc<std::sync::Mutex<Record>>);

    impl AsyncWrite for Wire {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.0.lock().unwrap().writes.push(bytes.to_vec());
            Poll::Ready(Ok(bytes.len()))
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
        Frame::control(Tag::VB, Lane::Bulk, &vec![1; len])
    }

    #[tokio::test]
    async fn a_batch_of_small_messages_is_one_write_and_one_flush() {
        let wire = Wire::default();
        let mut sink = StreamSink::new(wire.clone());
        sink.write_batch(&[frame(5), frame(0)]).await.unwrap();
        let record = wire.0.lock().unwrap();
        assert_eq!(record.writes, [b"\0\0\0\x07VB\x01\x01\x01\x01\x01\0\0\0\x02VB".to_vec()]);
        assert_eq!(record.flushes, 1);
    }

    #[tokio::test]
    async fn a_large_message_is_not_gathered_and_the_order_stays() {
        let wire = Wire::default();
        let mut sink = StreamSink::new(wire.clone());
        sink.write_batch(&[frame(1), frame(100_000), frame(2), frame(65_530)]).await.unwrap();
        let record = wire.0.lock().unwrap();
        let sizes: Vec<usize> = record.writes.iter().map(Vec::len).collect();
        assert_eq!(sizes, [7, 4, 100_002, 8, 65_536]);
        assert_eq!(record.flushes, 1);
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
