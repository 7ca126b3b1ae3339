//! The body of a request, on its way from the connection to the handler.
//!
//! ```text
//!   HeadGuard ─▶ Feeder (decodes) ─[two pieces]─▶ Incoming ─▶ handler
//!                   ▲                                 │
//!                   └──────────[one demand]───────────┘
//! ```
//!
//! # Invariants
//!
//! * The first piece is read at once, as hyper reads it, unless the client waits to be asked for the body. Each further one is
//!   read when the handler asks: at most two pieces wait.
//! * A body that does not arrive whole ends in an error.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use http_body::{Body, Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::{mpsc, oneshot},
};

use super::head::Expect;
use crate::serve::guard::{Chunks, Length};

/// Largest piece of a body that is read at once, in bytes. Chosen: more than the guard holds of a body that came with
/// its head.
const PIECE_BYTES: usize = 16 * 1024;

/// The part of a body that was decoded so far.
#[derive(Clone, Copy, Debug)]
enum Decoder {
    Known(u64),
    Chunked(Chunks),
}

impl Decoder {
    const fn is_over(&self) -> bool {
        match self {
            Self::Known(left) => *left == 0,
            Self::Chunked(chunks) => chunks.is_over(),
        }
    }

    /// Decodes bytes of the body, all of which belong to it.
    fn decode(&mut self, raw: BytesMut) -> io::Result<Bytes> {
        match self {
            Self::Known(left) => {
                *left = left.saturating_sub(raw.len() as u64);
                Ok(raw.freeze())
            }
            Self::Chunked(chunks) => {
                let mut data = BytesMut::with_capacity(raw.len());
                let passed = chunks.pass_with(&raw, |piece| data.extend_from_slice(piece));
                passed.map_err(|bad| io::Error::new(io::ErrorKind::InvalidData, bad))?;
                Ok(data.freeze())
            }
        }
    }
}

/// The body of a request, for the handler.
#[derive(Debug)]
pub(crate) struct Incoming {
    /// Bytes that are still to come, if that is known.
    left: Option<u64>,
    demand: Demand,
    demands: mpsc::Sender<()>,
    pieces: mpsc::Receiver<io::Result<Bytes>>,
}

/// The handler's wish for a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Demand {
    None,
    Sent,
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        if this.left == Some(0) {
            return Poll::Ready(None);
        }
        if this.demand == Demand::None {
            // There is room for one demand, and the last one was answered. It fails only if the connection has ended.
            let _ = this.demands.try_send(());
            this.demand = Demand::Sent;
        }
        let piece = ready!(this.pieces.poll_recv(context));
        this.demand = Demand::None;
        Poll::Ready(match piece {
            Some(Ok(piece)) => {
                this.left = this.left.map(|left| left.saturating_sub(piece.len() as u64));
                Some(Ok(Frame::data(piece)))
            }
            Some(Err(error)) => {
                this.left = Some(0);
                Some(Err(error))
            }
            // A chunked body has ended. One with a length ends with its last byte, or with an error.
            None => this.left.map(|_| Err(io::ErrorKind::UnexpectedEof.into())),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// The connection's side of a body.
#[derive(Debug)]
pub(super) struct Feeder {
    decoder: Decoder,
    demand: Demand,
    demands: mpsc::Receiver<()>,
    pieces: Option<mpsc::Sender<io::Result<Bytes>>>,
    /// Taken with the first piece.
    begins: Option<oneshot::Sender<()>>,
}

/// The outcome of feeding a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fed {
    /// All of it was read.
    Whole,
    /// Some of it was not read, and never will be.
    Partly,
}

/// Makes a body. The receiver is told when its first piece is read.
pub(super) fn body(length: Length, expect: Expect) -> (Incoming, Feeder, oneshot::Receiver<()>) {
    let (demands, demanded) = mpsc::channel(1);
    let (pieces, came) = mpsc::channel(2);
    let (begins, begun) = oneshot::channel();
    let (left, decoder) = match length {
        Length::Known(left) => (Some(left), Decoder::Known(left)),
        Length::Chunked => (None, Decoder::Chunked(Chunks::new())),
    };
    let incoming = Incoming { left, demand: Demand::None, demands, pieces: came };
    let pieces = Some(pieces).filter(|_| !decoder.is_over());
    let demand = if expect == Expect::Continue { Demand::None } else { Demand::Sent };
    let feeder = Feeder { decoder, demand, demands: demanded, pieces, begins: Some(begins) };
    (incoming, feeder, begun)
}

impl Feeder {
    /// Feeds the body until all of it was read, or the handler has dropped it.
    ///
    /// # Cancel safety
    ///
    /// Safe: the next call goes on where this one was dropped.
    pub(super) async fn feed(&mut self, io: &mut (impl AsyncRead + Unpin)) -> Fed {
        while let Some(pieces) = &self.pieces {
            if self.demand == Demand::None && self.demands.recv().await.is_none() {
                return self.drain(io);
            }
            self.demand = Demand::Sent;
            if let Some(begins) = self.begins.take() {
                // The send fails unless the client waits to be asked for the body.
                let _ = begins.send(());
            }
            let piece = match read(&mut self.decoder, io).await {
                // Lines between two chunks; the demand is still open.
                Ok(piece) if piece.is_empty() && !self.decoder.is_over() => continue,
                piece => piece,
            };
            self.demand = Demand::None;
            let is_broken = piece.is_err();
            if piece.as_ref().map_or(true, |piece| !piece.is_empty()) {
                // There is room: one piece at most was read unasked. It fails if the handler has dropped the body since.
                let _ = pieces.try_send(piece);
            }
            if is_broken || self.decoder.is_over() {
                self.pieces = None;
            }
        }
        if self.decoder.is_over() { Fed::Whole } else { Fed::Partly }
    }

    /// Reads the rest of a body that nobody wants if it is there already in one piece.
    fn drain(&mut self, io: &mut (impl AsyncRead + Unpin)) -> Fed {
        self.pieces = None;
        // The bytes are dropped, and nothing more is read then.
        let _ = read(&mut self.decoder, io).now_or_never();
        if self.decoder.is_over() { Fed::Whole } else { Fed::Partly }
    }
}

/// Reads and decodes the next bytes of a body.
///
/// # Cancel safety
///
/// Safe: nothing was read if the future is dropped.
async fn read(decoder: &mut Decoder, io: &mut (impl AsyncRead + Unpin)) -> io::Result<Bytes> {
    let mut raw = BytesMut::with_capacity(PIECE_BYTES);
    if io.read_buf(&mut raw).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    decoder.decode(raw)
}
