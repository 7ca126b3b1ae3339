//! The task that brings queued spans to the collector, in batches.
//!
//! # Invariants
//!
//! * A batch that the collector does not take is sent again after a while, [`PAUSES`] times, and is then dropped and counted;
//!   meanwhile others wait in the queue, which is bounded.
//! * That the collector takes nothing is told once, and so is that it takes spans again.

use std::{error::Error, time::Duration};

use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{SpanData, SpanExporter},
};
use tokio::{
    sync::mpsc,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;
use tracing::{instrument::WithSubscriber, subscriber::NoSubscriber};

use super::counts::{SpanCounts, SpanDrop};

/// Spans of a batch. Source: the default of the batch processor's specification.
const BATCH: usize = 512;

/// Time for which a batch is filled. Chosen: whoever looks for what just happened finds it.
const FILL: Duration = Duration::from_secs(1);

/// Pauses before a batch is sent again. Chosen: a collector that is restarted is back within them.
const PAUSES: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// Longest time for the last spans. Chosen: well within the time of a stop.
const FLUSH_TIME: Duration = Duration::from_millis(500);

/// Brings spans to a collector.
pub(super) struct Export<E> {
    spans: mpsc::Receiver<SpanData>,
    exporter: E,
    counts: SpanCounts,
    /// Those that left the queue and were neither taken nor dropped.
    batch: Vec<SpanData>,
}

impl<E: SpanExporter> Export<E> {
    pub(super) fn new(spans: mpsc::Receiver<SpanData>, exporter: E, counts: SpanCounts) -> Self {
        Self { spans, exporter, counts, batch: Vec::new() }
    }

    /// Exports until `cancel`, and then what there still is, as far as it can be done within half a second. A batch that is being
    /// sent then is sent once more, since nobody knows whether it was taken.
    pub(super) async fn run(mut self, cancel: CancellationToken) {
        while cancel.run_until_cancelled(self.fill()).await.is_some() {
            if cancel.run_until_cancelled(self.deliver()).await.is_none() {
                break;
            }
        }
        self.flush().await;
    }

    /// Waits for a span, and then a while for more.
    async fn fill(&mut self) {
        if self.spans.recv_many(&mut self.batch, BATCH).await == 0 {
            // The layer keeps the queue open for as long as the process lives.
            std::future::pending::<()>().await;
        }
        let until = Instant::now() + FILL;
        while self.batch.len() < BATCH {
            let room = BATCH - self.batch.len();
            let more = self.spans.recv_many(&mut self.batch, room);
            match time::timeout_at(until, more).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
    }

    async fn deliver(&mut self) {
        let mut pauses = PAUSES.into_iter();
        let error = loop {
            let sent = self.send(self.batch.clone()).await;
            let Err(error) = sent else { return self.batch.clear() };
            let Some(pause) = pauses.next() else { break error };
            time::sleep(pause).await;
        };
        self.counts.dropped(SpanDrop::Collector, self.batch.len());
        self.batch.clear();
        if self.counts.set_failing(true) {
            let error: &dyn Error = &error;
            tracing::warn!(error, "the collector takes no spans; they are dropped until it does");
        }
    }

    /// Sends a batch. Nothing of that is itself told in spans.
    async fn send(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.exporter.export(batch).with_subscriber(NoSubscriber::new()).await?;
        self.counts.exported(spans);
        if self.counts.set_failing(false) {
            tracing::warn!("the collector takes spans again");
        }
        Ok(())
    }

    async fn flush(&mut self) {
        let until = Instant::now() + FLUSH_TIME;
        let mut batch = std::mem::take(&mut self.batch);
        while let Ok(span) = self.spans.try_recv() {
            batch.push(span);
        }
        while !batch.is_empty() {
            let rest = batch.split_off(batch.len().min(BATCH));
            let spans = batch.len();
            let sent = time::timeout_at(until, self.send(std::mem::replace(&mut batch, rest)));
            if !matches!(sent.await, Ok(Ok(()))) {
                self.counts.dropped(SpanDrop::Collector, spans);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    };

    use opentelemetry::trace::{Span, Tracer, TracerProvider};
    use opentelemetry_sdk::{error::OTelSdkError, trace::SdkTracerProvider};
    use runtime::TaskSet;

    use super::*;
    use crate::spans::queue::Queue;

    /// A collector that takes spans while it is up.
    #[derive(Clone, Debug, Default)]
    struct Sink {
        is_down: Arc<AtomicBool>,
        taken: Arc<Mutex<Vec<usize>>>,
    }

    impl SpanExporter for Sink {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            if self.is_down.load(Ordering::Relaxed) {
                return Err(OTelSdkError::InternalFailure("down".to_owned()));
            }
            self.taken.lock().unwrap().push(batch.len());
            Ok(())
        }
    }

    fn started() -> (Queue, Sink, SpanCounts, TaskSet) {
        let (counts, sink) = (SpanCounts::default(), Sink::default());
        let (queue, spans) = Queue::new(&counts);
        let export = Export::new(spans, sink.clone(), counts.clone());
        let tasks = TaskSet::new(&CancellationToken::new());
        tasks.spawn("spans", |cancel| export.run(cancel));
        (queue, sink, counts, tasks)
    }

    fn offer(queue: &Queue, spans: usize) {
        let provider = SdkTracerProvider::builder().with_span_processor(queue.clone()).build();
        let tracer = provider.tracer("test");
        (0..spans).for_each(|_| tracer.start("span").end());
    }

    #[tokio::test(start_paused = true)]
    async fn spans_go_in_batches_and_those_that_find_no_room_are_counted() {
        let (queue, sink, counts, _tasks) = started();
        offer(&queue, 5_000);
        time::sleep(FILL * 2).await;
        assert_eq!(sink.taken.lock().unwrap().iter().sum::<usize>(), 4_096);
        assert!(sink.taken.lock().unwrap().iter().all(|batch| *batch <= BATCH));
        let said = counts.text();
        assert!(said.contains("otlp_spans_exported_total 4096"), "{said}");
        assert!(said.contains(r#"otlp_spans_dropped_total{reason="queue_full"} 904"#), "{said}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_outlives_a_restart_of_the_collector_and_not_its_end() {
        let (queue, sink, counts, tasks) = started();
        sink.is_down.store(true, Ordering::Relaxed);
        offer(&queue, 3);
        time::sleep(Duration::from_secs(3)).await;
        assert!(!counts.is_failing());
        sink.is_down.store(false, Ordering::Relaxed);
        time::sleep(Duration::from_secs(3)).await;
        assert_eq!(*sink.taken.lock().unwrap(), [3]);
        sink.is_down.store(true, Ordering::Relaxed);
        offer(&queue, 7);
        time::sleep(Duration::from_secs(10)).await;
        assert!(counts.is_failing());
        let said = counts.text();
        assert!(said.contains(r#"otlp_spans_dropped_total{reason="collector"} 7"#), "{said}");
        sink.is_down.store(false, Ordering::Relaxed);
        offer(&queue, 1);
        assert_eq!(tasks.stop(Duration::from_secs(2)).await, runtime::Shutdown::Clean);
        assert!(!counts.is_failing());
        assert_eq!(*sink.taken.lock().unwrap(), [3, 1]);
    }
}
