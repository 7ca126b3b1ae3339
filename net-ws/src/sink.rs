//! The outbound half of a WebSocket.
//!
//! ```text
//!   batch ─▶ scratch (headers, small messages) ─┐
//!   Port ──▶ pong, ping, close ────────────────┴─ one vectored write ─▶ wire
//!            large messages of a server, as they are ─┘
//! ```
//!
//! # Invariants
//!
//! * What has been started is finished before anything else is written, also after a write was given
//!   up: so a close frame never lands inside another frame.
//! * A batch takes no memory of its own beyond the scratch buffer: at most 64 KiB and one frame.
//! * After a close frame nothing is written.

use std::{
    future::Future,
    io::{self, IoSlice},
    sync::Arc,
    time::Duration,
};

use broadcaster::{Frame, FrameSink};
use bytes::{Buf, Bytes};
use gossip::DisconnectReason;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::oneshot,
    time,
};
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::{
    frame::{self, MAX_HEADER_BYTES, Part, Role, close_payload},
    port::Port,
};

/// Payload of the frames that a client cuts its messages into. Source: wire facts 1.7.
const CLIENT_FRAME_BYTES: usize = 4096;
/// What the scratch buffer gathers before it is written. Source: architecture, "One broadcaster".
const SCRATCH_BYTES: usize = 64 * 1024;
/// What the scratch buffer keeps between batches.
const KEPT_BYTES: usize = 4 * 1024;
/// Messages of a server up to this length are copied behind their header; longer ones are written from
/// where they are. Chosen: below it a copy is cheaper than one more part of a vectored write.
const COPIED_BYTES: usize = 8 * 1024;
/// How long to wait for the peer's last bytes after everything was sent. A socket that is closed
/// with bytes unread takes back what it sent. Chosen: some round trips.
const LINGER: Duration = Duration::from_secs(1);

/// The outbound half of one connection.
#[derive(Debug)]
pub(crate) struct WsSink<W, R> {
    io: W,
    role: Role,
    port: Arc<Port>,
    /// Gives the read half once the source is done with it.
    returned: oneshot::Receiver<R>,
    /// Frames and headers to be written next.
    scratch: Vec<u8>,
    /// How much of `scratch` has been written.
    written: usize,
    /// What follows `scratch`: the rest of a large message.
    tail: Bytes,
}

impl<W, R> WsSink<W, R>
where
    W: AsyncWrite + Unpin + Send + 'static,
    R: AsyncRead + Unpin + Send + 'static,
{
    /// A sink over `io`. `returned` gives the read half of the connection at the source's end.
    pub(crate) fn new(io: W, role: Role, port: Arc<Port>, returned: oneshot::Receiver<R>) -> Self {
        let (scratch, tail) = (Vec::new(), Bytes::new());
        Self { io, role, port, returned, scratch, written: 0, tail }
    }

    /// Adds what the source wants said.
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
        frame::write_frame(&mut self.scratch, self.role, kind, payload);
    }

    /// Adds one message, writing whenever enough has gathered.
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
            frame::write_frame(&mut self.scratch, Role::Server, kind, message);
            return Ok(());
        }
        frame::write_header(&mut self.scratch, Role::Server, kind, message.len());
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
            frame::write_frame(&mut self.scratch, Role::Client, kind, piece);
            if after.is_empty() {
                return Ok(());
            }
            (data, rest) = (Data::Continue, after);
        }
    }

    /// Writes everything that was started. Dropped, it goes on where it stopped when called again.
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
        for message in batch {
            self.put_message(message.wire()).await?;
        }
        self.flush().await?;
        self.scratch.shrink_to(KEPT_BYTES);
        self.io.flush().await
    }

    async fn end(&mut self) -> io::Result<()> {
        self.flush().await?;
        let payload = self.port.take_close().unwrap_or_else(|| close_payload(1000, ""));
        self.put_control(Control::Close, &payload);
        self.flush().await?;
        self.io.shutdown().await
    }

    /// Reads until the peer ends its half too.
    async fn drain(&mut self) {
        let Ok(mut io) = (&mut self.returned).await else { return };
        let mut discarded = [0; 2048];
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

    fn close(&mut self, reason: DisconnectReason) -> impl Future<Output = ()> + Send {
        async move {
            let ended = self.end().await;
            // The source still reads what a replaced link brings; a broken one brings nothing.
            if ended.is_ok() && reason != DisconnectReason::Duplicate {
                let _ = time::timeout(LINGER, self.drain()).await;
            }
        }
    }
}
