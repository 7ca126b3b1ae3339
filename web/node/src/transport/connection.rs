//! A connection of JavaScript as a stream of bytes.
//!
//! # Invariants
//!
//! * The iterator is asked for the next piece only when the last one was read, and by a reader.
//! * One piece is written at a time: the next one waits for the promise of the last.
//! * A connection that is dropped is closed, and asked for nothing more.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use js_sys::{Array, ArrayBuffer, Function, Object, Reflect, Uint8Array, global};
use send_wrapper::SendWrapper;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;

use super::{
    call::{Pulls, failed, method, promised, property},
    close,
};

/// Longest piece that is written at once, in bytes. Chosen: as long as the longest message of Noise.
const PIECE_BYTES: usize = 64 * 1024;

/// Longest piece that is taken, in bytes. Chosen: the largest message of a network and more.
const MAX_PIECE_BYTES: u32 = 16 * 1024 * 1024;

/// Pieces without bytes that are taken in a row. Chosen: few, since nothing else runs between them.
const MAX_EMPTY: usize = 16;

/// A connection.
#[derive(Debug)]
pub(super) struct Connection(SendWrapper<Parts>);

#[derive(Debug)]
struct Parts {
    object: Object,
    pulls: Pulls,
    write: Function,
    /// The piece that was asked for.
    asked: Option<JsFuture>,
    /// The piece that is being read, and the number of its bytes that were.
    piece: Option<(Uint8Array, u32)>,
    /// Pieces without bytes in a row.
    empty: usize,
    /// Set at the end of the bytes.
    is_over: bool,
    /// The piece that is being written.
    writing: Option<JsFuture>,
    /// The order to end the direction to the peer.
    ending: Option<JsFuture>,
}

impl Connection {
    /// Takes an object with `read` and `write`, which is closed if it has them not.
    pub(super) fn new(object: Object) -> io::Result<Self> {
        let parts = (Pulls::of(&property(&object, "read")), method(&object, "write"));
        let (Some(pulls), Some(write)) = parts else {
            close(&object);
            return Err(io::Error::other(
                "a connection of the transport has no iterator read, or no method write",
            ));
        };
        Ok(Self(SendWrapper::new(Parts {
            object,
            pulls,
            write,
            asked: None,
            piece: None,
            empty: 0,
            is_over: false,
            writing: None,
            ending: None,
        })))
    }
}

impl Parts {
    /// Waits for the piece that is being written.
    fn poll_written(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(writing) = &mut self.writing else { return Poll::Ready(Ok(())) };
        let written = ready!(Pin::new(writing).poll(context));
        self.writing = None;
        Poll::Ready(written.map(drop).map_err(|thrown| failed(&thrown)))
    }

    /// Waits for a piece with bytes, unless there is one; `false` at the end.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.piece.is_none() {
            if self.is_over {
                return Poll::Ready(Ok(false));
            }
            let asked = match self.asked.take() {
                Some(asked) => asked,
                None => self.pulls.ask()?,
            };
            let given = match Pin::new(self.asked.insert(asked)).poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(given) => given,
            };
            self.asked = None;
            match Pulls::item(given)?.filter(|value| !value.is_null() && !value.is_undefined()) {
                None => self.is_over = true,
                Some(value) => {
                    let piece = bytes_of(value)?;
                    if piece.length() > 0 {
                        (self.piece, self.empty) = (Some((piece, 0)), 0);
                    } else if self.empty == MAX_EMPTY {
                        return Poll::Ready(Err(io::Error::other(
                            "the transport gives pieces without bytes",
                        )));
                    } else {
                        self.empty += 1;
                    }
                }
            }
        }
        Poll::Ready(Ok(true))
    }
}

/// A copy of the bytes that JavaScript gave: what it does to them later, or did to their type, is of no effect.
pub(super) fn bytes_of(value: JsValue) -> io::Result<Uint8Array> {
    let is_bytes = match value.dyn_ref::<Uint8Array>() {
        Some(_) => ArrayBuffer::is_view(&value),
        None => value.is_instance_of::<ArrayBuffer>(),
    };
    if !is_bytes {
        return Err(io::Error::other("the transport gave something else than bytes"));
    }
    // The engine's own constructor, which throws if the bytes were taken away.
    let constructor: Function = property(&global(), "Uint8Array").unchecked_into();
    let copy = Reflect::construct(&constructor, &Array::of1(&value));
    let copy: Uint8Array = copy.map_err(|thrown| failed(&thrown))?.unchecked_into();
    if copy.length() > MAX_PIECE_BYTES {
        return Err(io::Error::other("the transport gave more bytes at once than are taken"));
    }
    Ok(copy)
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let parts = &mut *self.get_mut().0;
        if into.remaining() == 0 || !ready!(parts.poll_piece(context))? {
            return Poll::Ready(Ok(()));
        }
        if let Some((piece, read)) = &mut parts.piece {
            let left = piece.length() - *read;
            let taken = left.min(u32::try_from(into.remaining()).unwrap_or(u32::MAX));
            let end = *read + taken;
            piece.subarray(*read, end).copy_to(into.initialize_unfilled_to(taken as usize));
            into.advance(taken as usize);
            *read = end;
            if taken == left {
                parts.piece = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let parts = &mut *self.get_mut().0;
        ready!(parts.poll_written(context))?;
        let (piece, _) = bytes.split_at(bytes.len().min(PIECE_BYTES));
        let given = JsValue::from(Uint8Array::from(piece));
        parts.writing = Some(promised(&parts.object, &parts.write, &[given])?);
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().0.poll_written(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let parts = &mut *self.get_mut().0;
        ready!(parts.poll_written(context))?;
        if parts.ending.is_none() {
            let Some(end) = method(&parts.object, "shutdown") else { return Poll::Ready(Ok(())) };
            parts.ending = Some(promised(&parts.object, &end, &[])?);
        }
        let Some(ending) = &mut parts.ending else { return Poll::Ready(Ok(())) };
        let ended = ready!(Pin::new(ending).poll(context));
        parts.ending = None;
        Poll::Ready(ended.map(drop).map_err(|thrown| failed(&thrown)))
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        close(&self.object);
        self.pulls.end();
    }
}
