//! The counters of spans.
//!
//! # Invariants
//!
//! * Every span that was queued or dropped is in one counter in the end.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter},
};

/// Why spans were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "otlp"),
    allow(dead_code, reason = "nothing is dropped where nothing is exported")
)]
pub(crate) enum SpanDrop {
    /// The queue was full.
    QueueFull,
    /// The collector did not take them, although they were sent several times.
    Collector,
}

impl SpanDrop {
    const ALL: [Self; 2] = [Self::QueueFull, Self::Collector];

    const fn label(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Collector => "collector",
        }
    }
}

/// The counters of exported and dropped spans. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct SpanCounts {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    exported: AtomicU64,
    queue_full: AtomicU64,
    collector: AtomicU64,
    is_failing: AtomicBool,
}

#[cfg_attr(
    not(feature = "otlp"),
    allow(dead_code, reason = "nothing is counted where nothing is exported")
)]
impl SpanCounts {
    /// The reason in `/health` while the collector takes no spans.
    pub(crate) const LABEL: &'static str = "spans_not_exported";

    /// Returns `true` while the collector takes no spans.
    pub(crate) fn is_failing(&self) -> bool {
        self.shared.is_failing.load(Ordering::Relaxed)
    }

    /// Notes that the collector takes spans or does not, and returns `true` if that is new.
    pub(super) fn set_failing(&self, is_failing: bool) -> bool {
        self.shared.is_failing.swap(is_failing, Ordering::Relaxed) != is_failing
    }

    pub(super) fn exported(&self, spans: usize) {
        self.shared.exported.fetch_add(spans as u64, Ordering::Relaxed);
    }

    pub(super) fn dropped(&self, why: SpanDrop, spans: usize) {
        self.counter(why).fetch_add(spans as u64, Ordering::Relaxed);
    }

    fn counter(&self, why: SpanDrop) -> &AtomicU64 {
        match why {
            SpanDrop::QueueFull => &self.shared.queue_full,
            SpanDrop::Collector => &self.shared.collector,
        }
    }
}

impl Collector for SpanCounts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Spans that the collector of the setting `otlp` took";
        let exported =
            encoder.encode_descriptor("otlp_spans_exported", help, None, MetricType::Counter)?;
        ConstCounter::new(self.shared.exported.load(Ordering::Relaxed)).encode(exported)?;
        let help = "Spans that did not reach the collector of the setting `otlp`";
        let mut family =
            encoder.encode_descriptor("otlp_spans_dropped", help, None, MetricType::Counter)?;
        for why in SpanDrop::ALL {
            let labels = [("reason", why.label())];
            let count = ConstCounter::new(self.counter(why).load(Ordering::Relaxed));
            count.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(all(test, feature = "otlp"))]
impl SpanCounts {
    /// The counters as a collector of metrics reads them.
    pub(super) fn text(&self) -> String {
        let mut registry = prometheus_client::registry::Registry::default();
        registry.register_collector(Box::new(self.clone()));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("it is text");
        text
    }
}
