//! Plain heads, for a reader that needs no HTTP library for them.

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::AsyncRead;

use super::{HeadGuard, Readable, Reader};

/// The item that was found.
#[derive(Debug)]
pub(in crate::serve) enum Found {
    /// A head in its plainest form, which was taken. No body follows it.
    Plain(Bytes),
    /// A head of another form, which was not taken.
    Other,
    /// The end: no more requests come, or one was refused.
    End,
}

impl<Io: AsyncRead + Unpin> HeadGuard<Io> {
    /// Waits for the next head. To be called between two requests.
    ///
    /// # Errors
    ///
    /// The error of the stream.
    pub(in crate::serve) fn poll_found(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Found>> {
        self.reader = Reader::Loop;
        let readable = match self.incoming.has_head() {
            true => Readable::Head,
            false => ready!(self.poll_next(context))?,
        };
        Poll::Ready(Ok(match readable {
            Readable::Head => self.incoming.take_plain().map_or(Found::Other, Found::Plain),
            Readable::Body | Readable::Nothing => Found::End,
        }))
    }

    /// Waits for the failure of the stream while a request without a body is in progress.
    pub(in crate::serve) fn poll_failure(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        match self.poll_next(context) {
            Poll::Ready(Err(error)) => Poll::Ready(error),
            // The next item is read after the answer.
            Poll::Ready(Ok(_)) | Poll::Pending => Poll::Pending,
        }
    }
}
