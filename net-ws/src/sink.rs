//! The write half of a WebSocket link.
//!
//! ```text
//!   batch ─▶ scratch (headers, small messages) ─┐
//!   Port ──▶ pong, ping, close ────────────────┴─ one vectored write ─▶ wire
//!            large messages of a server, as they are ─┘
//! ```
//!
//! # Invariants
//!
//! * A frame that was started is finished before anything else is written, also after its write was
//!   cancelled. A close frame therefore never lands inside another frame.
//! * A batch takes no memory beyond the scratch buffer, which holds at most 64 KiB and one frame.
//! * Nothing is written after a close frame.

use std::{
    future::Future,
    io::{self, IoSlice},
    sync::Arc,
    time::Duration,
};

use broadcaster::{Frame, FrameSink};
use bytes::{Buf, Bytes};
use gossip::DisconnectReason;
use net_tcp::frame::{Control, Data, OpCode};
use rand::Rng;
use runtime::Random;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::oneshot,
    time,
};

use crate::{
    frame::{self, MAX_HEADER_BYTES, MaskKey, Part, Role, close_payload},
    port::Port,
};

/// Payload of the frames that a client splits its messages into, in bytes. Source: wire facts 1.7.
const CLIENT_FRAME_BYTES: usize = 4096;
/// Size at which the scratch buffer is written, in bytes. Source: architecture, "One broadcaster".
const SCRATCH_BYTES: usize = 64 * 1024;
/// Capacity that the scratch buffer keeps after a small batch, in bytes. Chosen: it holds a batch of votes.
const KEPT_BYTES: usize = 4 * 1024;
/// Longest message of a server that is copied behind its header, in bytes; longer ones are written from where
/// they are. Chosen: below this a copy is cheaper than one more part of a vectored write.
const COPIED_BYTES: usize = 8 * 1024;
/// Longest wait for the peer's end of stream after everything was sent. A socket closed with unread bytes
/// resets the connection, and the peer may lose what was sent. Chosen: several round trips.
const LINGER: Duration = Duration::from_secs(1);
/// Most bytes discarded during that wait. Chosen: more than an honest peer has in flight.
const LINGER_BYTES: u64 = 1024 * 1024;

/// The write half of one connection.
#[derive(Debug)]
pub(crate) struct WsSink<W, R> {
    io: W,
    role: Role,
    /// Source of the mask keys of a client.
    random: Random,
    port: Arc<Port>,
    /// Yields the read half when the source is dropped.
    returned: oneshot::Receiver<R>,
    /// Headers and copied frames that will be written next.
    scratch: Vec<u8>,
    /// Number of bytes of `scratch` that have been written.
    written: usize,
    /// The rest of a large message, written after `scratch`.
    tail: Bytes,
}

impl<W, R> WsSink<W, R>
where
    W: AsyncWrite + Unpin + Send + 'static,
    R: AsyncRead + Unpin + Send + 'static,
{
    /// Creates a sink over `io`. `returned` yields the read half when the source is dropped.
    pub(crate) fn new(
        io: W,
        (role, random): (Role, Random),
        port: Arc<Port>,
        returned: oneshot::Receiver<R>,
    ) -> Self {
        let (scratch, tail) = (Vec::new(), Bytes::new());
        Self { io, role, random, port, returned, scratch, written: 0, tail }
    }

    /// Draws the mask key for the next frame; `None` for a server.
    fn mask(&mut self) -> MaskKey {
        match self.role {
            Role::Server => None,
            Role::Client => Some(self.random.random()),
        }
    }

    /// Appends the control frames that the source has queued.
    fn put_urgent(&mut self) {
        let urgent = self.port.take_urgent();
        if let Some(payload) = urgent.pong {
            self.put_control(Control::Pong, &payload);
        }
        if urgent.ping {
            self.put_control(Control::Ping, &[]);
        }
    }

    fn put_control(&mut self, kind: Control, payload: &[u8]) {
        let kind = (Part::Last, OpCode::Control(kind));
        let mask = self.mask();
        frame::write_frame(&mut self.scratch, mask, kind, payload);
    }

    /// Appends one message, and writes when the scratch buffer is full.
    async fn put_message(&mut self, message: &Bytes) -> io::Result<()> {
        match self.role {
            Role::Server => self.put_whole(message).await,
            Role::Client => self.put_pieces(message).await,
        }
    }

    async fn put_whole(&mut self, message: &Bytes) -> io::Result<()> {
        let kind = (Part::Last, OpCode::Data(Data::Binary));
        if message.len() <= COPIED_BYTES {
            if self.scratch.len() + MAX_HEADER_BYTES + message.len() > SCRATCH_BYTES {
                self.flush().await?;
            }
            frame::write_frame(&mut self.scratch, None, kind, message);
            return Ok(());
        }
        frame::write_header(&mut self.scratch, None, kind, message.len());
        self.tail = message.clone();
        self.flush().await
    }

    async fn put_pieces(&mut self, message: &[u8]) -> io::Result<()> {
        let mut data = Data::Binary;
        let mut rest = message;
        loop {
            let (piece, after) = rest.split_at(rest.len().min(CLIENT_FRAME_BYTES));
            if self.scratch.len() + MAX_HEADER_BYTES + piece.len() > SCRATCH_BYTES {
                self.flush().await?;
            }
            let part = if after.is_empty() { Part::Last } else { Part::More };
            let kind = (part, OpCode::Data(data));
            let mask = self.mask();
            frame::write_frame(&mut self.scratch, mask, kind, piece);
            if after.is_empty() {
                return Ok(());
            }
            (data, rest) = (Data::Continue, after);
        }
    }

    /// Writes everything that was started. After cancellation the next call continues where this one stopped.
    async fn flush(&mut self) -> io::Result<()> {
        loop {
            let gathered = self.scratch.get(self.written..).unwrap_or_default();
            let count = match (gathered.is_empty(), self.tail.is_empty()) {
                (true, true) => break,
                (false, true) => self.io.write(gathered).await?,
                (true, false) => self.io.write(&self.tail).await?,
                (false, false) => {
                    let parts = [IoSlice::new(gathered), IoSlice::new(&self.tail)];
                    self.io.write_vectored(&parts).await?
                }
            };
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            let of_scratch = count.min(gathered.len());
            self.written += of_scratch;
            self.tail.advance(count - of_scratch);
        }
        self.tail = Bytes::new();
        self.scratch.clear();
        self.written = 0;
        Ok(())
    }

    async fn write_everything(&mut self, batch: &[Frame]) -> io::Result<()> {
        self.put_urgent();
        let lengths = batch.iter().map(|message| message.wire().len());
        let gathered: usize = match self.role {
            Role::Server => lengths.filter(|length| *length <= COPIED_BYTES).sum(),
            Role::Client => lengths.sum(),
        };
        if gathered <= KEPT_BYTES / 2 {
            // A quiet link keeps little memory; a busy one fills the buffer again at once.
            self.scratch.shrink_to(KEPT_BYTES);
        } else {
            let headers = batch.len() * MAX_HEADER_BYTES;
            self.scratch.reserve((gathered + headers).min(SCRATCH_BYTES));
        }
        for message in batch {
            self.put_message(message.wire()).await?;
        }
        self.flush().await?;
        self.io.flush().await
    }

    async fn end(&mut self) -> io::Result<()> {
        self.flush().await?;
        let payload = self.port.take_close().unwrap_or_else(|| close_payload(1000, ""));
        self.put_control(Control::Close, &payload);
        self.flush().await?;
        self.io.shutdown().await
    }

    /// Reads and discards bytes until the peer ends its half.
    async fn drain(&mut self) {
        let Ok(io) = (&mut self.returned).await else { return };
        let (mut io, mut discarded) = (io.take(LINGER_BYTES), vec![0; 2048]);
        while io.read(&mut discarded).await.is_ok_and(|count| count > 0) {}
    }
}

impl<W, R> FrameSink for WsSink<W, R>
where
    W: AsyncWrite + Unpin + Send + 'static,
    R: AsyncRead + Unpin + Send + 'static,
{
    fn write_batch(&mut self, batch: &[Frame]) -> impl Future<Output = io::Result<()>> + Send {
        self.write_everything(batch)
    }

    fn urgent(&mut self) -> impl Future<Output = ()> + Send {
        self.port.urgent()
    }

    async fn close(&mut self, reason: DisconnectReason) {
        let ended = self.end().await;
        // A replaced link's source still reads, so its read half does not come back in time; after a failed
        // write there is no peer to wait for.
        if ended.is_ok() && reason != DisconnectReason::Duplicate {
            let _ = time::timeout(LINGER, self.drain()).await;
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
    use tokio::io::{DuplexStream, ReadBuf, ReadHalf, WriteHalf, duplex, split};

    use super::*;

    type Sink = WsSink<WriteHalf<DuplexStream>, ReadHalf<DuplexStream>>;

    struct Rig {
        sink: Sink,
        peer: DuplexStream,
        port: Arc<Port>,
        returns: oneshot::Sender<ReadHalf<DuplexStream>>,
        read_half: ReadHalf<DuplexStream>,
    }

    fn rig(role: Role, room: usize) -> Rig {
        let (ours, peer) = duplex(room);
        let (read_half, write_half) = split(ours);
        let (returns, returned) = oneshot::channel();
        let port = Arc::new(Port::default());
        let sink = WsSink::new(write_half, (role, Random::system()), Arc::clone(&port), returned);
        Rig { sink, peer, port, returns, read_half }
    }

    fn batch(lens: &[usize]) -> Vec<Frame> {
        let frame = |len: &usize| Frame::control(Tag::TX, Lane::Bulk, &vec![7; *len]);
        lens.iter().map(frame).collect()
    }

    async fn everything(peer: &mut DuplexStream) -> Vec<u8> {
        let mut all = Vec::new();
        peer.read_to_end(&mut all).await.unwrap();
        all
    }

    /// A writer that accepts everything and counts the calls.
    #[derive(Default)]
    struct Counting {
        writes: usize,
        bytes: usize,
    }

    impl AsyncWrite for Counting {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.writes += 1;
            self.bytes += bytes.len();
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            parts: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all: Vec<u8> = parts.iter().flat_map(|part| part.to_vec()).collect();
            self.poll_write(context, &all)
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncRead for Counting {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_client_masks_with_a_new_key_each_time() {
        let (_gives, returned) = oneshot::channel::<DuplexStream>();
        let client = (Role::Client, Random::system());
        let mut sink = WsSink::new(Counting::default(), client, Arc::default(), returned);
        let keys: std::collections::HashSet<MaskKey> = (0..16).map(|_| sink.mask()).collect();
        assert!(keys.len() > 14 && !keys.contains(&None));
    }

    #[tokio::test]
    async fn a_batch_of_small_messages_is_one_write() {
        for (role, overhead) in [(Role::Server, 4), (Role::Client, 8)] {
            let (_returns, returned) = oneshot::channel::<Counting>();
            let mut sink = WsSink::new(
                Counting::default(),
                (role, Random::system()),
                Arc::default(),
                returned,
            );
            sink.write_batch(&batch(&[198; 256])).await.unwrap();
            assert_eq!((sink.io.writes, sink.io.bytes), (1, 256 * (200 + overhead)));
            assert!(sink.scratch.capacity() <= SCRATCH_BYTES);
            sink.write_batch(&batch(&[198])).await.unwrap();
            assert!(sink.scratch.capacity() <= KEPT_BYTES, "a small batch gives memory back");
        }
    }

    #[tokio::test]
    async fn a_large_message_of_a_server_is_written_with_its_header_at_once() {
        let (_returns, returned) = oneshot::channel::<Counting>();
        let mut sink = WsSink::new(
            Counting::default(),
            (Role::Server, Random::system()),
            Arc::default(),
            returned,
        );
        sink.write_batch(&batch(&[1_000_000])).await.unwrap();
        assert_eq!((sink.io.writes, sink.io.bytes), (1, 1_000_002 + 10));
        assert!(sink.scratch.capacity() <= KEPT_BYTES);
    }

    #[tokio::test]
    async fn control_frames_are_written_before_messages() {
        let mut rig = rig(Role::Server, 1 << 16);
        rig.port.pong(Bytes::from_static(b"hi"));
        rig.port.ping();
        rig.sink.urgent().await;
        rig.sink.write_batch(&batch(&[1])).await.unwrap();
        let mut got = [0; 11];
        rig.peer.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"\x8a\x02hi\x89\x00\x82\x03TX\x07");
    }

    #[tokio::test]
    async fn a_cancelled_batch_is_finished_before_the_close() {
        for (role, len) in [(Role::Server, 50_000), (Role::Server, 3_000), (Role::Client, 50_000)] {
            let mut rig = rig(role, 1_000);
            let frames = batch(&[len]);
            let given_up = time::timeout(Duration::from_millis(10), rig.sink.write_batch(&frames));
            assert!(given_up.await.is_err());
            drop(rig.read_half);
            drop(rig.returns);
            let close = rig.sink.close(DisconnectReason::Slow);
            let ((), got) = tokio::join!(close, everything(&mut rig.peer));
            let end: &[u8] = match role {
                Role::Server => b"\x88\x02\x03\xe8",
                Role::Client => &[0x88, 0x82],
            };
            let from_end = if role == Role::Server { 4 } else { 8 };
            assert!(got[got.len() - from_end..].starts_with(end), "{role:?} {len}");
        }
    }

    #[tokio::test]
    async fn the_close_frame_settled_by_the_source_is_sent() {
        let mut rig = rig(Role::Server, 1 << 16);
        rig.port.close(Bytes::from_static(b"\x03\xea"));
        drop(rig.read_half);
        drop(rig.returns);
        rig.sink.close(DisconnectReason::Protocol).await;
        drop(rig.sink);
        assert_eq!(everything(&mut rig.peer).await, b"\x88\x02\x03\xea");
    }

    #[tokio::test(start_paused = true)]
    async fn the_peer_has_1_s_to_end_its_half() {
        let mut rig = rig(Role::Server, 1 << 16);
        rig.returns.send(rig.read_half).map_err(drop).unwrap();
        let began = time::Instant::now();
        rig.sink.close(DisconnectReason::Protocol).await;
        assert_eq!(began.elapsed(), LINGER);
        drop(rig.sink);
        assert_eq!(everything(&mut rig.peer).await, b"\x88\x02\x03\xe8");
    }
}
