//! Writes answers.
//!
//! # Invariants
//!
//! * An answer counts as sent when its body was dropped and its last byte flushed: the guard below relies on this order.
//! * [`WRITE_BYTES`] of an answer are gathered at most, beside the piece being written.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use futures::FutureExt;
use gossip::http::BoxError;
use http::Response;
use http_body::Body;
use http_body_util::BodyExt;
use tokio::io::AsyncWrite;

use super::{
    ConnectionError,
    answer::{Asked, put_head},
    head::After,
};

/// Bytes of an answer that are gathered before they are written. Chosen: a piece of a body.
const WRITE_BYTES: usize = 16 * 1024;

/// Shortest piece of a body that is written from where it is, in bytes. Chosen: copying a shorter one costs less than a
/// write of two parts.
const LONG_BYTES: usize = 4 * 1024;

/// Bytes for which room is kept between two answers. Chosen: a head with a short body.
const KEPT_BYTES: usize = 1024;

/// The bytes of an answer that were not written yet.
#[derive(Debug, Default)]
pub(in crate::serve) struct Unwritten(BytesMut);

impl Unwritten {
    /// Writes an answer. `failed` is asked for the failure of the stream while the body has nothing ready.
    pub(in crate::serve) async fn write<Io, B>(
        &mut self,
        io: &mut Io,
        asked: &Asked<'_>,
        mut response: Response<B>,
        mut failed: impl FnMut(&mut Io, &mut Context<'_>) -> Poll<io::Error>,
    ) -> Result<After, ConnectionError>
    where
        Io: AsyncWrite + Unpin,
        B: Body<Data = Bytes, Error = BoxError> + Unpin,
    {
        let (mut form, after) = put_head(&mut self.0, asked, &mut response);
        let mut body = response.into_body();
        while !form.is_over() && !body.is_end_stream() {
            let frame = match body.frame().now_or_never() {
                Some(frame) => frame,
                // The client gets what there is while it waits for more.
                None => {
                    self.send(io).await?;
                    poll_fn(|context| match Pin::new(&mut body).poll_frame(context) {
                        Poll::Ready(frame) => Poll::Ready(Ok(frame)),
                        Poll::Pending => failed(io, context).map(Err),
                    })
                    .await?
                }
            };
            let Some(frame) = frame else { break };
            let Ok(piece) = frame.map_err(ConnectionError::Body)?.into_data() else { continue };
            let piece = form.begin(&mut self.0, piece);
            if piece.len() < LONG_BYTES {
                self.0.extend_from_slice(&piece);
            } else {
                self.flow(io, &piece).await?;
            }
            form.finish(&mut self.0, piece.len());
            if self.0.len() >= WRITE_BYTES {
                self.flow(io, &[]).await?;
            }
        }
        form.end(&mut self.0)?;
        drop(body);
        self.send(io).await?;
        Ok(after)
    }

    /// Gathers bytes that are no answer.
    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Writes what was gathered, and flushes it.
    pub(super) async fn send<Io: AsyncWrite + Unpin>(&mut self, io: &mut Io) -> io::Result<()> {
        self.flow(io, &[]).await?;
        poll_fn(|context| Pin::new(&mut *io).poll_flush(context)).await
    }

    /// Writes what was gathered, and then `piece`.
    async fn flow<Io: AsyncWrite + Unpin>(&mut self, io: &mut Io, piece: &[u8]) -> io::Result<()> {
        let mut parts = self.0.chunk().chain(piece);
        poll_fn(|context| {
            while parts.has_remaining() {
                let mut io = Pin::new(&mut *io);
                let written = if piece.is_empty() {
                    ready!(io.poll_write(context, parts.chunk()))?
                } else {
                    let mut slices = [IoSlice::new(&[]); 2];
                    let count = parts.chunks_vectored(&mut slices);
                    let slices = slices.get(..count).unwrap_or_default();
                    ready!(io.as_mut().poll_write_vectored(context, slices))?
                };
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                parts.advance(written);
            }
            Poll::Ready(Ok::<_, io::Error>(()))
        })
        .await?;
        self.0.clear();
        if self.0.capacity() > KEPT_BYTES {
            self.0 = BytesMut::new();
        }
        Ok(())
    }
}
