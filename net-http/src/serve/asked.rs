//! The body of a request, which lets its connection know while it can still be read.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::conn_state::ConnState;

/// The body of a request.
#[derive(Debug)]
pub(crate) struct Asked<B> {
    body: B,
    _reader: Reader,
}

/// Marks the body as having a reader while this exists.
#[derive(Debug)]
struct Reader(Arc<ConnState>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.body_dropped();
    }
}

impl<B> Asked<B> {
    pub(crate) fn new(body: B, conn: &Arc<ConnState>) -> Self {
        conn.body_taken();
        Self { body, _reader: Reader(Arc::clone(conn)) }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Asked<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
