//! The body of a response, and the connection it is read from.
//!
//! # Invariants
//!
//! * The connection goes back to its pool with the last byte, before the caller sees the end.
//! * A body that is dropped before its end takes its connection with it.
//! * A body that does not arrive whole ends in an error, whatever the cause.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use runtime::time::Sleep;

use super::{conn::Rest, pool::Lease, target::TargetConfig, wire::Cut};

/// The reason why the body of a response ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResponseBodyError {
    /// The deadline of the exchange passed.
    #[error("the deadline passed before the response ended")]
    Deadline,
    /// The peer sent nothing for [`ClientLimits::still`](super::ClientLimits::still).
    #[error("the peer stalled in the middle of its response")]
    StoodStill,
    /// The connection broke, or the bytes were no valid body.
    #[error("the connection broke before the response ended")]
    Broken {
        /// The error of the HTTP library.
        source: hyper::Error,
    },
}

/// Longest body that is taken together with the head, in bytes, if it has come by then. Chosen: what a peer sends in one
/// piece with the head.
const SHORT_BYTES: u64 = 8 * 1024;

pub(super) struct ResponseBody {
    /// `None` after the end. Dropped before `incoming`: when the HTTP library notices the drop, the
    /// connection is already abandoned.
    lease: Option<Lease>,
    incoming: Incoming,
    /// The first part of a short body, which had come with the head.
    early: Option<Result<Frame<Bytes>, hyper::Error>>,
    /// Fires at the deadline of the exchange.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Keeps the client's tasks alive, including that of this connection, after every client was dropped.
    config: Arc<TargetConfig>,
}

impl ResponseBody {
    pub(super) const fn new(
        incoming: Incoming,
        lease: Lease,
        deadline: Option<Pin<Box<Sleep>>>,
        config: Arc<TargetConfig>,
    ) -> Self {
        Self { lease: Some(lease), incoming, early: None, deadline, config }
    }

    /// Takes a short body that has come whole already, and gives the connection back.
    pub(super) fn take_whole(&mut self) -> Option<Bytes> {
        self.incoming.size_hint().exact().filter(|bytes| *bytes <= SHORT_BYTES)?;
        // A wait is begun anew by the caller's own poll.
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(&mut context) else {
            return None;
        };
        match frame?.map(Frame::into_data) {
            Ok(Ok(bytes)) if self.incoming.is_end_stream() => {
                self.finish();
                return Some(bytes);
            }
            Ok(Ok(bytes)) => self.early = Some(Ok(Frame::data(bytes))),
            Ok(Err(other)) => self.early = Some(Ok(other)),
            Err(error) => self.early = Some(Err(error)),
        }
        None
    }

    /// Has the connection's task read the rest.
    pub(super) fn streamed(mut self) -> Self {
        if let Some(lease) = &mut self.lease {
            lease.live().conn.give_back(Rest::Something);
        }
        self
    }

    fn poll_incoming(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.early.take() {
            Some(early) => Poll::Ready(Some(early)),
            None => Pin::new(&mut self.incoming).poll_frame(context),
        }
    }

    fn finish(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.finish(self.config.keeps());
        }
    }

    fn fail(&mut self, source: hyper::Error) -> ResponseBodyError {
        let lease = self.lease.take();
        match lease.as_ref().and_then(|lease| lease.wire().cut()) {
            Some(Cut::Deadline) => ResponseBodyError::Deadline,
            Some(Cut::StoodStill) => ResponseBodyError::StoodStill,
            None => ResponseBodyError::Broken { source },
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = ResponseBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
        let this = &mut *self;
        if this.lease.is_none() {
            return Poll::Ready(None);
        }
        // The deadline comes first, so that a peer that always has a byte ready cannot outrun it.
        if let Some(deadline) = &mut this.deadline
            && deadline.as_mut().poll(context).is_ready()
        {
            this.lease = None;
            return Poll::Ready(Some(Err(ResponseBodyError::Deadline)));
        }
        match this.poll_incoming(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                this.finish();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Ok(frame))) => {
                if this.incoming.is_end_stream() {
                    this.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(this.fail(error)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.lease.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.lease.is_none() {
            return SizeHint::with_exact(0);
        }
        let (early, left) = (self.early.as_ref(), self.incoming.size_hint());
        let early = early.and_then(|early| early.as_ref().ok()?.data_ref());
        match (early, left.exact()) {
            (Some(early), Some(left)) => SizeHint::with_exact(left + early.len() as u64),
            _ => left,
        }
    }
}
