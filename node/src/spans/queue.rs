//! The queue between the node and the exporter.
//!
//! # Invariants
//!
//! * It never blocks, and holds at most [`QUEUED`] spans.

use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{Span, SpanData, SpanProcessor},
};
use tokio::sync::mpsc;

use super::counts::{SpanCounts, SpanDrop};

/// Spans that may wait. Chosen: some seconds of a busy node, in 4 MiB or so.
const QUEUED: usize = 4_096;

/// The end of the queue where spans come in. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    sender: mpsc::Sender<SpanData>,
    counts: SpanCounts,
}

impl Queue {
    /// An empty queue, and its other end.
    pub(super) fn new(counts: &SpanCounts) -> (Self, mpsc::Receiver<SpanData>) {
        let (sender, receiver) = mpsc::channel(QUEUED);
        (Self { sender, counts: counts.clone() }, receiver)
    }

    /// Queues a span, or drops it and counts that.
    pub(super) fn offer(&self, span: SpanData) {
        if self.sender.try_send(span).is_err() {
            self.counts.dropped(SpanDrop::QueueFull, 1);
        }
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        self.offer(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}
