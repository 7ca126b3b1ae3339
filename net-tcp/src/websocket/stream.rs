//! A stream of bytes over a WebSocket: what is written travels as binary messages, and what comes in them is read.
//!
//! # Invariants
//!
//! * Payload goes straight to the reader: a frame costs no memory, however long it says it is.
//! * One frame of this end is kept until it is written, at most [`PIECE_BYTES`], and the newest pong.
//! * Closing sends what was written, then a close frame, then the end of the connection.
//! * A frame that breaks the rules is answered by a close frame, as far as the connection takes it at once, and ends the
//!   stream with an error.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use rand::Rng;
use runtime::Random;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use crate::frame::{
    self, CloseEcho, Control, Data, Header, MAX_HEADER_BYTES, OpCode, Part, Role, Violation,
    Within, apply_mask, close_payload,
};

/// Longest payload of a frame that is written. Chosen: a browser keeps a whole message before the page gets it, and a
/// priority message of libp2p waits for one frame at most.
const PIECE_BYTES: usize = 16 * 1024;

/// Size of the buffer for heads of frames. Chosen: a few control frames; payload beyond it is read in place.
const INPUT_BYTES: usize = 1024;

/// Memory for writing that an idle stream keeps. Chosen: a handshake message fits.
const KEPT_BYTES: usize = 1024;

/// Longest frame of a peer. Nothing is kept for it; a longer one is a mistake. Chosen: 256 times what libp2p writes at
/// once.
const MAX_FRAME_BYTES: u64 = 16 * 1024 * 1024;

/// Frames without payload that are handled in one poll. Chosen: few, so that a flood of them takes its turns.
const EMPTY_FRAMES: usize = 32;

/// The mistake of a peer that ended a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamFault {
    /// A frame breaks the rules of WebSocket.
    #[error("a WebSocket frame breaks the rules: {0:?}")]
    Frame(Violation),
    /// A message is text.
    #[error("a WebSocket message is text, where bytes are expected")]
    Text,
    /// The connection ended inside of a frame.
    #[error("the connection ended inside of a WebSocket frame")]
    CutOff,
}

/// A stream of bytes over a WebSocket whose upgrade is done.
#[derive(Debug)]
pub struct WsStream<Io> {
    io: Io,
    role: Role,
    /// Draws the masks of a client.
    random: Random,
    /// Bytes that were read and are no payload that was asked for yet.
    input: BytesMut,
    payload: Payload,
    within: Within,
    reading: Reading,
    /// A frame, from `written` on.
    out: Vec<u8>,
    written: usize,
    /// The answer to the newest ping.
    pong: Option<Bytes>,
    writing: Writing,
}

/// The rest of the frame that is being read.
#[derive(Debug, Default)]
struct Payload {
    left: u64,
    mask: [u8; 4],
    /// Position in the mask.
    at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Open,
    /// The peer has closed, or made a mistake.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writing {
    Open,
    /// The close frame is written, or on its way.
    Ended,
}

/// The meaning of the next bytes.
enum Next {
    /// Payload.
    Payload,
    /// More bytes are needed.
    Bytes,
    /// A frame without payload was handled.
    Handled,
    /// The peer has closed.
    End,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> WsStream<Io> {
    /// A stream over `io`, whose upgrade is done; `early` are bytes that were read after it.
    pub fn new(io: Io, role: Role, random: Random, early: BytesMut) -> Self {
        Self {
            io,
            role,
            random,
            input: early,
            payload: Payload::default(),
            within: Within::Nothing,
            reading: Reading::Open,
            out: Vec::new(),
            written: 0,
            pong: None,
            writing: Writing::Open,
        }
    }

    /// The connection below.
    pub const fn carrier(&self) -> &Io {
        &self.io
    }

    /// Appends a frame to what is to be written.
    fn put(&mut self, kind: OpCode, payload: &[u8]) {
        let mask = match self.role {
            Role::Server => None,
            Role::Client => Some(self.random.random()),
        };
        frame::write_frame(&mut self.out, mask, (Part::Last, kind), payload);
    }

    fn put_close(&mut self, payload: &[u8]) {
        if self.writing == Writing::Open {
            self.put(OpCode::Control(Control::Close), payload);
            self.writing = Writing::Ended;
        }
    }

    /// Writes what was put.
    fn poll_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.io).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
        }
        self.out.clear();
        self.out.shrink_to(KEPT_BYTES);
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    /// Writes what was put and then the pong, as far as the connection takes it at once. Its error comes up with the next
    /// write.
    fn answer(&mut self, context: &mut Context<'_>) {
        if self.out.is_empty() && self.pong.is_none() {
            return;
        }
        if self.poll_out(context).is_pending() {
            return;
        }
        if let Some(pong) = self.pong.take().filter(|_| self.writing == Writing::Open) {
            self.put(OpCode::Control(Control::Pong), &pong);
            if self.poll_out(context).is_pending() {
                return;
            }
        }
        // The rest is sent with the next flush.
        let _ = Pin::new(&mut self.io).poll_flush(context);
    }

    /// Ends the stream for a mistake of the peer.
    fn refuse(&mut self, fault: StreamFault, context: &mut Context<'_>) -> io::Error {
        let close = match fault {
            StreamFault::Frame(violation) => violation.close_payload(),
            StreamFault::Text => close_payload(1003, "binary messages only"),
            StreamFault::CutOff => Bytes::new(),
        };
        self.reading = Reading::Ended;
        self.put_close(&close);
        self.answer(context);
        io::Error::new(io::ErrorKind::InvalidData, fault)
    }

    /// Reads the head of a frame, and the whole frame if it is a control frame.
    fn next(&mut self) -> Result<Next, StreamFault> {
        if self.payload.left > 0 {
            return Ok(Next::Payload);
        }
        let header = frame::read_header(&self.input, self.role, self.within);
        let Some(header) = header.map_err(StreamFault::Frame)? else { return Ok(Next::Bytes) };
        match header.opcode {
            OpCode::Data(Data::Text) => Err(StreamFault::Text),
            OpCode::Data(_) if header.len > MAX_FRAME_BYTES => {
                Err(StreamFault::Frame(Violation::TooBig))
            }
            OpCode::Data(_) => {
                self.input.advance(header.size);
                self.within = match header.part {
                    Part::More => Within::Message,
                    Part::Last => Within::Nothing,
                };
                self.payload = Payload { left: header.len, mask: header.mask, at: 0 };
                Ok(if header.len == 0 { Next::Handled } else { Next::Payload })
            }
            OpCode::Control(kind) => self.control(header, kind),
        }
    }

    fn control(&mut self, header: Header, kind: Control) -> Result<Next, StreamFault> {
        let length = usize::try_from(header.len).unwrap_or(usize::MAX);
        if self.input.len() < header.size.saturating_add(length) {
            return Ok(Next::Bytes);
        }
        self.input.advance(header.size);
        let mut payload = self.input.split_to(length);
        apply_mask(&mut payload, header.mask, 0);
        match kind {
            Control::Ping => self.pong = Some(Bytes::copy_from_slice(&payload)),
            Control::Close => {
                let CloseEcho(echo) = frame::read_close(&payload).map_err(StreamFault::Frame)?;
                self.put_close(&echo);
                self.reading = Reading::Ended;
                return Ok(Next::End);
            }
            Control::Pong | Control::Reserved(_) => {}
        }
        Ok(Next::Handled)
    }

    /// Reads payload into `into`.
    fn poll_payload(
        &mut self,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let most = usize::try_from(self.payload.left).unwrap_or(usize::MAX).min(into.remaining());
        let place = into.initialize_unfilled_to(most);
        let count = if self.input.is_empty() {
            let mut read = ReadBuf::new(place);
            ready!(Pin::new(&mut self.io).poll_read(context, &mut read))?;
            read.filled().len()
        } else {
            let count = most.min(self.input.len());
            if let Some(place) = place.get_mut(..count) {
                self.input.copy_to_slice(place);
            }
            count
        };
        if count == 0 {
            return Poll::Ready(Err(self.refuse(StreamFault::CutOff, context)));
        }
        let Payload { left, mask, at } = &mut self.payload;
        if let Some(bytes) = into.initialize_unfilled_to(most).get_mut(..count) {
            apply_mask(bytes, *mask, *at);
        }
        into.advance(count);
        *left -= count as u64;
        *at = (*at + count) % 4;
        Poll::Ready(Ok(()))
    }

    /// Reads more bytes of heads. `Ready(false)` is the end of the connection.
    fn poll_input(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.input.capacity() < INPUT_BYTES {
            self.input.reserve(INPUT_BYTES - self.input.len());
        }
        let count = ready!(poll_read_buf(Pin::new(&mut self.io), context, &mut self.input))?;
        if count > 0 {
            return Poll::Ready(Ok(true));
        }
        match self.input.is_empty() && self.within == Within::Nothing {
            true => Poll::Ready(Ok(false)),
            false => Poll::Ready(Err(self.refuse(StreamFault::CutOff, context))),
        }
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncRead for WsStream<Io> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if into.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        for _ in 0..EMPTY_FRAMES {
            this.answer(context);
            if this.reading == Reading::Ended {
                return Poll::Ready(Ok(()));
            }
            match this.next() {
                Ok(Next::Payload) => return this.poll_payload(context, into),
                Ok(Next::Handled | Next::End) => {}
                Ok(Next::Bytes) => match ready!(this.poll_input(context))? {
                    true => {}
                    false => {
                        this.reading = Reading::Ended;
                        return Poll::Ready(Ok(()));
                    }
                },
                Err(fault) => return Poll::Ready(Err(this.refuse(fault, context))),
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WsStream<Io> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.writing == Writing::Ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(this.poll_out(context))?;
        let count = bytes.len().min(PIECE_BYTES);
        let Some(piece) = bytes.get(..count).filter(|piece| !piece.is_empty()) else {
            return Poll::Ready(Ok(0));
        };
        this.out.reserve(MAX_HEADER_BYTES + count);
        this.put(OpCode::Data(Data::Binary), piece);
        // The piece is taken either way; the rest of it is written by the next write or flush.
        match this.poll_out(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(count)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_out(context))?;
        Pin::new(&mut this.io).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_out(context))?;
        this.put_close(&close_payload(1000, ""));
        ready!(this.poll_out(context))?;
        ready!(Pin::new(&mut this.io).poll_flush(context))?;
        Pin::new(&mut this.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    fn pair(room: usize) -> (WsStream<DuplexStream>, WsStream<DuplexStream>) {
        let (one, other) = duplex(room);
        let stream = |io, role| WsStream::new(io, role, Random::seeded(1), BytesMut::new());
        (stream(one, Role::Client), stream(other, Role::Server))
    }

    fn server(room: usize) -> (WsStream<DuplexStream>, DuplexStream) {
        let (ours, theirs) = duplex(room);
        (WsStream::new(ours, Role::Server, Random::seeded(1), BytesMut::new()), theirs)
    }

    /// A masked frame of a client.
    fn frame(kind: OpCode, part: Part, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        frame::write_frame(&mut out, Some([1, 2, 3, 4]), (part, kind), payload);
        out
    }

    const BINARY: OpCode = OpCode::Data(Data::Binary);

    // Issue 11, 1.
    #[tokio::test]
    async fn bytes_written_and_closed_at_once_arrive_whole_in_both_directions() {
        for room in [1, 100, 1 << 16] {
            let (mut client, mut server) = pair(room);
            let sent: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
            let talk = |mut end: WsStream<DuplexStream>, bytes: Vec<u8>| async move {
                end.write_all(&bytes).await.unwrap();
                end.shutdown().await.unwrap();
                end
            };
            let listen = async {
                let mut heard = Vec::new();
                server.read_to_end(&mut heard).await.unwrap();
                heard
            };
            let (mut end, heard) = tokio::join!(talk(client, sent.clone()), listen);
            assert_eq!(heard, sent, "{room}");
            let mut rest = Vec::new();
            let (ended, read) = tokio::join!(server.shutdown(), end.read_to_end(&mut rest));
            assert!(ended.is_ok() && read.is_ok());
            (client, server) = pair(room);
            let listen = async {
                let mut heard = Vec::new();
                client.read_to_end(&mut heard).await.unwrap();
                heard
            };
            let (_, heard) = tokio::join!(talk(server, sent.clone()), listen);
            assert_eq!(heard, sent, "{room}");
        }
    }

    #[tokio::test]
    async fn fragments_and_control_frames_between_them_are_one_stream_of_bytes() {
        let (mut server, mut client) = server(1 << 16);
        let bytes = [
            frame(BINARY, Part::More, b"he"),
            frame(OpCode::Control(Control::Ping), Part::Last, b"hi"),
            frame(OpCode::Data(Data::Continue), Part::More, b""),
            frame(OpCode::Data(Data::Continue), Part::Last, b"llo"),
            frame(OpCode::Control(Control::Close), Part::Last, b"\x03\xe8bye"),
        ];
        client.write_all(&bytes.concat()).await.unwrap();
        let mut heard = Vec::new();
        server.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"hello");
        drop(server);
        let mut answered = Vec::new();
        client.read_to_end(&mut answered).await.unwrap();
        assert_eq!(answered, b"\x8a\x02hi\x88\x02\x03\xe8");
    }

    #[tokio::test]
    async fn a_mistake_of_the_peer_ends_the_stream_with_its_name_and_a_close_frame() {
        let long = {
            let mut head = Vec::new();
            let kind = (Part::Last, BINARY);
            frame::write_header(&mut head, Some([0; 4]), kind, 1 << 40);
            head
        };
        for (bytes, fault, code) in [
            (b"\x82\x01x".to_vec(), StreamFault::Frame(Violation::IncorrectMask), 1002),
            (frame(OpCode::Data(Data::Text), Part::Last, b"x"), StreamFault::Text, 1003),
            (long, StreamFault::Frame(Violation::TooBig), 1009),
            (b"\xf2\x80".to_vec(), StreamFault::Frame(Violation::ReservedBits(0x70)), 1002),
        ] {
            let (mut server, mut client) = server(1 << 16);
            client.write_all(&bytes).await.unwrap();
            let error = server.read_u8().await.unwrap_err();
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<StreamFault>());
            assert_eq!(inner, Some(&fault));
            assert!(server.write_all(b"more").await.is_err());
            let mut answered = [0; 4];
            client.read_exact(&mut answered).await.unwrap();
            assert_eq!(u16::from_be_bytes([answered[2], answered[3]]), code, "{fault}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_ends_inside_of_a_frame_is_an_error() {
        for cut in 1..10 {
            let (mut server, mut client) = server(1 << 16);
            client.write_all(&frame(BINARY, Part::Last, b"hello")[..cut]).await.unwrap();
            drop(client);
            let error = server.read_to_end(&mut Vec::new()).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{cut}");
        }
    }

    #[tokio::test]
    async fn a_flood_of_pings_to_a_peer_that_does_not_read_keeps_one_pong() {
        let (mut server, mut client) = server(64);
        let flood = async {
            for _ in 0..2_000 {
                let ping = frame(OpCode::Control(Control::Ping), Part::Last, &[7; 125]);
                client.write_all(&ping).await.unwrap();
            }
            client.write_all(&frame(BINARY, Part::Last, b"x")).await.unwrap();
        };
        let (_, byte) = tokio::join!(flood, server.read_u8());
        assert_eq!(byte.unwrap(), b'x');
        assert!(server.out.capacity() <= PIECE_BYTES && server.input.capacity() <= 2 * INPUT_BYTES);
    }
}
