//! A write loop of one peer.
//!
//! ```text
//!   Lanes ──fill──▶ Writer::run ──(Encoder)──write_batch──▶ FrameSink ──▶ wire
//! ```
//!
//! # Invariants
//!
//! * One task writes to one sink, so a peer can stall only itself.
//! * The loop waits in two places: for the next message, and for a write that is under a deadline.
//! * Messages that could not be written are kept on the peer, for another link to the same node.
//! * A forwarded message past its age limit is dropped and counted, never written.
//! * A peer is slow by the time in which this node ran, not by that in which it stood still itself.
//! * A peer leaves the registry when its loop ends, not when its sink has been closed.
//! * A panic ends the link, and nothing else.

use std::{io, ops::ControlFlow, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;
use gossip::DisconnectReason;
use runtime::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    codec::Encoder,
    context::Context,
    frame::{Frame, Origin},
    lanes::{Queued, Serves},
    link::{FrameSink, reason_of},
    metrics::{BatchTimes, DropReason, Traffic},
    peer::Peer,
    pulse::{Moment, Pulse},
    receipts::Receipt,
    stamp::Stamp,
    trace::TraceEvent,
};

/// Longest time for which a stopping node drains the queue of one peer. Chosen: a fifth of the five
/// seconds in which a node has to stop.
const STOP_DRAIN: Duration = Duration::from_secs(1);

/// The parts that the write loops of all peers share.
pub(crate) struct Writing {
    pub(crate) context: Arc<Context>,
    pub(crate) pulse: Arc<Pulse>,
    /// Cancelled when the router has ended, after it has routed what was queued.
    pub(crate) routed: CancellationToken,
}

pub(crate) struct Writer<S> {
    pub(crate) peer: Arc<Peer>,
    pub(crate) sink: S,
    pub(crate) serves: Serves,
    pub(crate) writing: Arc<Writing>,
    pub(crate) traffic: Traffic,
    /// Empty between two writes; kept for its memory.
    pub(crate) batch: Vec<Queued>,
    pub(crate) encoder: Option<Box<dyn Encoder>>,
    /// Output of the encoder for the messages being written; empty between two writes.
    pub(crate) encoded: Vec<Frame>,
    /// Cancelled when everything the peer sent has been read.
    pub(crate) read_out: CancellationToken,
}

impl<S: FrameSink> Writer<S> {
    /// Writes until the peer ends, then closes the sink.
    pub(crate) async fn run(&mut self) {
        let (mut frames, mut receipts) = (Vec::new(), Vec::new());
        let serving = AssertUnwindSafe(self.serve(&mut frames, &mut receipts)).catch_unwind();
        if serving.await.is_err() {
            let tag = frames.first().map(|frame: &Frame| tracing::field::display(frame.tag()));
            if let Some(left_out) = self.writing.context.metrics.lines().link_panicked.due() {
                tracing::error!(peer = %self.peer.id, tag, left_out, "a write panicked; its link ends");
            }
            self.writing.context.registry.end(&self.peer, DisconnectReason::Internal);
            // Not for another link of the same node: it would meet the same bug.
            for frame in frames.drain(..) {
                self.writing.context.metrics.dropped(DropReason::LinkPanicked, frame.lane());
                self.peer.trace(&frame, TraceEvent::Dropped(DropReason::LinkPanicked));
            }
            receipts.clear();
        }
        let (peer, metrics) = (self.peer.id, self.writing.context.metrics.clone());
        // Boxed, so that a link has no memory for its end while it lives.
        let finish = Box::pin(self.finish(frames, receipts));
        if AssertUnwindSafe(finish).catch_unwind().await.is_err()
            && let Some(left_out) = metrics.lines().link_panicked.due()
        {
            tracing::error!(%peer, left_out, "the closing of a link panicked");
        }
    }

    async fn serve(&mut self, frames: &mut Vec<Frame>, receipts: &mut Vec<Option<Receipt>>) {
        loop {
            tokio::select! {
                biased;
                () = self.peer.cancel.cancelled() => return,
                () = self.sink.urgent() => {}
                () = self.peer.lanes.ready(self.serves) => {}
            }
            if self.take_batch(frames, receipts).is_break() {
                return;
            }
            if self.write(frames, receipts).await.is_break() {
                return;
            }
        }
    }

    /// Takes what one write may hold, leaving out what the peer does not want.
    fn take_batch(
        &mut self,
        frames: &mut Vec<Frame>,
        receipts: &mut Vec<Option<Receipt>>,
    ) -> ControlFlow<()> {
        let batch = &mut self.batch;
        self.peer.lanes.fill(self.serves, batch);
        let Context { limits, tags, .. } = &*self.writing.context;
        let (now, interest) = (Instant::now(), self.peer.interest());
        let stamp = Stamp::of(now);
        let age = |frame: &Frame| stamp.since(frame.submitted());
        // The earliest time is sought, and one age computed: this is for every message to every peer.
        let earliest = batch.iter().map(|queued| queued.frame.submitted()).min();
        let oldest = earliest.map_or(Duration::ZERO, |at| stamp.since(at));
        let is_old = oldest > limits.slow_age
            && oldest.saturating_sub(stalled(&self.writing, oldest)) > limits.slow_age;
        // Inherited messages grew old on another link, which says nothing about this one.
        let fresh = |at: Instant| now.duration_since(at) <= limits.slow_age;
        if is_old && !self.peer.lanes.inherited_at().is_some_and(fresh) {
            self.writing.context.registry.end(&self.peer, DisconnectReason::Slow);
            // The batch is left with the rest of the queue.
            self.peer.keep_unsent(std::mem::take(batch));
            return ControlFlow::Break(());
        }
        if !batch.is_empty() {
            self.peer.last_message.note(now);
        }
        for Queued { frame, receipt } in batch.drain(..) {
            let forwarded = frame.origin() == Origin::Forwarded;
            let reason = if forwarded && age(&frame) > limits.age(frame.lane()) {
                Some(DropReason::Aged)
            } else if !interest.contains(tags, frame.tag()) {
                Some(DropReason::NotInterested)
            } else if self.peer.knows(&frame) {
                Some(DropReason::PeerHasIt)
            } else {
                None
            };
            if let Some(reason) = reason {
                self.writing.context.withheld_from(&self.peer, reason, &frame);
            } else {
                frames.push(frame);
                receipts.push(receipt);
            }
        }
        ControlFlow::Continue(())
    }

    async fn write(
        &mut self,
        frames: &mut Vec<Frame>,
        receipts: &mut Vec<Option<Receipt>>,
    ) -> ControlFlow<()> {
        let hurry = async {
            self.peer.cancel.cancelled().await;
            let patience = match self.peer.end_reason() {
                DisconnectReason::Duplicate => self.writing.context.limits.close_timeout,
                DisconnectReason::LocalShutdown => STOP_DRAIN,
                _ => Duration::ZERO,
            };
            time::sleep(patience).await;
        };
        let coded = encode(&mut self.encoder, &mut self.encoded, frames);
        let overdue = self.writing.pulse.passes(self.writing.context.limits.write_timeout);
        let written = tokio::select! {
            biased;
            written = self.sink.write_batch(coded) => Some(written),
            () = overdue => None,
            () = hurry => return ControlFlow::Break(()),
        };
        match written {
            Some(Ok(())) => {
                self.written(frames, receipts);
                ControlFlow::Continue(())
            }
            Some(Err(error)) => {
                tracing::debug!(peer = %self.peer.id, %error, "write failed");
                self.writing.context.registry.end(&self.peer, reason_of(&error));
                ControlFlow::Break(())
            }
            None => {
                self.writing.context.registry.end(&self.peer, DisconnectReason::Slow);
                ControlFlow::Break(())
            }
        }
    }

    fn written(&mut self, frames: &mut Vec<Frame>, receipts: &mut Vec<Option<Receipt>>) {
        let coded = if self.encoder.is_some() { &self.encoded } else { &*frames };
        let lens = coded.iter().map(|frame| (frame.lane(), frame.wire().len()));
        self.peer.tally.sent(self.traffic.count_all(lens));
        if let Some(encoder) = &mut self.encoder {
            encoder.take_back(&mut self.encoded);
        }
        let (now, mut times) = (Stamp::of(Instant::now()), BatchTimes::default());
        for frame in frames.drain(..) {
            times.note(frame.lane(), now.micros_since(frame.submitted()));
            self.peer.trace(&frame, TraceEvent::Written);
        }
        self.writing.context.metrics.latency().written(&mut times);
        receipts.drain(..).flatten().for_each(Receipt::sign);
    }

    async fn write_last(&mut self, frames: &[Frame]) -> io::Result<()> {
        let coded = encode(&mut self.encoder, &mut self.encoded, frames);
        self.sink.write_batch(coded).await
    }

    /// Lets a stopping node's last messages out, keeps what was not written, and closes the sink.
    async fn finish(&mut self, mut frames: Vec<Frame>, mut receipts: Vec<Option<Receipt>>) {
        let reason = self.peer.end_reason();
        let stopping = reason == DisconnectReason::LocalShutdown;
        if stopping && frames.is_empty() {
            let drain = async {
                // The router's last messages are in the queue once it has ended. Where only the network
                // stops, it goes on, and nothing is to be waited for.
                let routed = self.writing.routed.cancelled();
                let _ = time::timeout(STOP_DRAIN / 4, routed).await;
                self.writing.context.registry.remove(self.peer.id);
                while self.take_batch(&mut frames, &mut receipts).is_continue()
                    && !frames.is_empty()
                    && self.write_last(&frames).await.is_ok()
                {
                    self.written(&mut frames, &mut receipts);
                }
            };
            // Messages that do not fit into the time are lost with the node.
            let _ = time::timeout(STOP_DRAIN, drain).await;
        }
        self.writing.context.registry.remove(self.peer.id);
        let unsent = frames.into_iter().zip(receipts);
        self.peer.keep_unsent(unsent.map(|(frame, receipt)| Queued { frame, receipt }).collect());
        let patience =
            if stopping { STOP_DRAIN } else { self.writing.context.limits.close_timeout };
        if reason == DisconnectReason::RemoteClosed {
            // A peer that has left resets what is written to it, and with it what it sent last.
            let _ = time::timeout(patience, self.read_out.cancelled()).await;
        }
        if time::timeout(patience, self.sink.close(reason)).await.is_err() {
            tracing::debug!(peer = %self.peer.id, %reason, "the peer did not let itself be closed");
        }
    }
}

/// Returns the frames to write for `frames`: themselves, or the output of the encoder. They stay what they are,
/// for another link of the same node if this one breaks.
fn encode<'a>(
    encoder: &mut Option<Box<dyn Encoder>>,
    encoded: &'a mut Vec<Frame>,
    frames: &'a [Frame],
) -> &'a [Frame] {
    let Some(encoder) = encoder else { return frames };
    encoded.clear();
    encoder.encode(frames, encoded);
    encoded
}

/// The part of the last `time` in which this node stood still, which is not the peer's doing.
fn stalled(writing: &Writing, time: Duration) -> Duration {
    writing.pulse.stalled(time, Moment::now())
}
