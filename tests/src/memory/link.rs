//! A link within this process: two byte pipes, framed as on a libp2p stream.
//!
//! ```text
//!   MemorySink ──▶ [pipe] ──(delay)──▶ MemorySource       in each direction
//! ```
//!
//! # Invariants
//!
//! * A pipe holds a bounded number of bytes: an end that stops reading stalls the other.
//! * A pipe that ends between two messages counts as closed; one that ends within a message counts as broken.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use broadcaster::{
    AssembledSource, AssemblyRules, Frame, FrameSink, FrameSource, LengthPrefix, PipeGauge,
    PipeSample, Received, SourceEnd,
};
use bytes::{Bytes, BytesMut};
use gossip::{
    DisconnectReason,
    wire::frame::{FRAME_HEADER_BYTES, encode_header},
};
use runtime::TaskSet;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

/// Most bytes in transit on a pipe with a delay. Chosen: one large message.
const UNDER_WAY_BYTES: usize = 8 * 1024 * 1024;

/// The properties of a link.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Capacity of each direction, in bytes. A full pipe stalls its writer. Default: see [`Shape::default`].
    pub pipe_bytes: usize,
    /// Transit time of each byte.
    pub delay: Duration,
}

impl Default for Shape {
    fn default() -> Self {
        Self { pipe_bytes: 64 * 1024, delay: Duration::ZERO }
    }
}

/// One end of a link.
#[derive(Debug)]
pub struct End {
    pub(crate) reader: ReadHalf<DuplexStream>,
    pub(crate) writer: WriteHalf<DuplexStream>,
    /// Breaks the link in both directions at once.
    pub(crate) cut: CancellationToken,
    delay: Duration,
    /// The bytes that this end sends, and those that the other end sends.
    flows: [Arc<Flow>; 2],
}

/// Byte counts of one direction.
#[derive(Debug, Default)]
struct Flow {
    written: AtomicU64,
    read: AtomicU64,
}

/// The gauge of the bytes in transit from one end.
#[derive(Debug)]
struct FlowGauge {
    flow: Arc<Flow>,
    delay: Duration,
}

impl PipeGauge for FlowGauge {
    fn sample(&self) -> Option<PipeSample> {
        let acked_bytes = self.flow.read.load(Ordering::Relaxed);
        let in_flight_bytes = self.flow.written.load(Ordering::Relaxed) - acked_bytes;
        let (round_trip, min_round_trip) = (2 * self.delay, 2 * self.delay);
        Some(PipeSample { acked_bytes, in_flight_bytes, round_trip, min_round_trip })
    }
}

/// Creates the two ends of a link. A delay takes two tasks of `tasks`.
#[must_use]
pub fn pair(shape: Shape, tasks: &TaskSet) -> (End, End) {
    let cut = CancellationToken::new();
    let (near, far) = if shape.delay.is_zero() {
        tokio::io::duplex(shape.pipe_bytes)
    } else {
        let (near, near_inner) = tokio::io::duplex(shape.pipe_bytes);
        let (far, far_inner) = tokio::io::duplex(shape.pipe_bytes);
        let (near_reader, near_writer) = tokio::io::split(near_inner);
        let (far_reader, far_writer) = tokio::io::split(far_inner);
        for (from, to) in [(near_reader, far_writer), (far_reader, near_writer)] {
            tasks.spawn("delay", |cancel| async move {
                cancel.run_until_cancelled(delayed(from, to, shape.delay)).await;
            });
        }
        (near, far)
    };
    let [there, back] = [Arc::<Flow>::default(), Arc::default()];
    let end = |stream, flows| {
        let (reader, writer) = tokio::io::split(stream);
        End { reader, writer, cut: cut.clone(), delay: shape.delay, flows }
    };
    (end(near, [Arc::clone(&there), Arc::clone(&back)]), end(far, [back, there]))
}

/// Carries bytes from one pipe to the other, each after a `delay`.
async fn delayed(
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    delay: Duration,
) {
    let mut under_way: VecDeque<(Instant, Bytes)> = VecDeque::new();
    let (mut bytes, mut open) = (0, true);
    while open || !under_way.is_empty() {
        let due = under_way.front().map(|(due, _)| *due);
        let mut chunk = BytesMut::with_capacity(16 * 1024);
        tokio::select! {
            biased;
            () = time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                let Some((_, chunk)) = under_way.pop_front() else { continue };
                bytes -= chunk.len();
                if to.write_all(&chunk).await.is_err() {
                    return;
                }
            }
            read = from.read_buf(&mut chunk), if open && bytes < UNDER_WAY_BYTES => match read {
                Ok(0) | Err(_) => open = false,
                Ok(read) => {
                    bytes += read;
                    under_way.push_back((Instant::now() + delay, chunk.freeze()));
                }
            },
        }
    }
    // Shutdown fails only if the other end has been dropped.
    let _ = to.shutdown().await;
}

/// Length of a message on the pipe, in bytes, its prefix included.
fn framed(wire: &Bytes) -> u64 {
    (FRAME_HEADER_BYTES + wire.len()) as u64
}

fn broken() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

/// The write half of one end.
#[derive(Debug)]
pub struct MemorySink {
    writer: WriteHalf<DuplexStream>,
    cut: CancellationToken,
    flow: Arc<Flow>,
}

impl FrameSink for MemorySink {
    async fn write_batch(&mut self, batch: &[Frame]) -> io::Result<()> {
        let Self { writer, cut, flow } = self;
        let write = async {
            for frame in batch {
                writer.write_all(&encode_header(frame.wire().len())).await?;
                writer.write_all(frame.wire()).await?;
                flow.written.fetch_add(framed(frame.wire()), Ordering::Relaxed);
            }
            writer.flush().await
        };
        cut.run_until_cancelled(write).await.unwrap_or_else(|| Err(broken()))
    }

    async fn close(&mut self, _reason: DisconnectReason) {
        // Shutdown fails only if the other end has been dropped.
        let _ = self.writer.shutdown().await;
    }
}

/// The read half of one end.
#[derive(Debug)]
pub struct MemorySource {
    messages: AssembledSource<ReadHalf<DuplexStream>, LengthPrefix>,
    cut: CancellationToken,
    flow: Arc<Flow>,
}

impl FrameSource for MemorySource {
    async fn next_message(&mut self) -> Result<Received, SourceEnd> {
        let received = self.cut.run_until_cancelled(self.messages.next_message()).await;
        let received = received.unwrap_or_else(|| Err(broken().into()))?;
        self.flow.read.fetch_add(framed(&received.wire), Ordering::Relaxed);
        Ok(received)
    }
}

impl End {
    /// The pipe to the other end, for a test that writes or closes it directly.
    pub fn writer(&mut self) -> &mut WriteHalf<DuplexStream> {
        &mut self.writer
    }

    /// The gauge of the bytes in transit from this end.
    pub(crate) fn gauge(&self) -> Arc<dyn PipeGauge> {
        Arc::new(FlowGauge { flow: Arc::clone(&self.flows[0]), delay: self.delay })
    }

    /// Splits the end into the halves that a node attaches.
    #[must_use]
    pub fn into_halves(self, rules: AssemblyRules) -> (MemorySink, MemorySource) {
        let Self { reader, writer, cut, flows: [sent, heard], .. } = self;
        let messages = AssembledSource::new(reader, BytesMut::new(), LengthPrefix, rules);
        let sink = MemorySink { writer, cut: cut.clone(), flow: sent };
        (sink, MemorySource { messages, cut, flow: heard })
    }
}
