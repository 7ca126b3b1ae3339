//! The counters of the admin API itself.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter},
};

use super::{accept::Crowded, journal::Journal, token::Refused};

/// Tells collectors of the callers that the admin API did not serve.
#[derive(Debug)]
pub(crate) struct RefusalCounters {
    pub(crate) refused: Arc<Refused>,
    pub(crate) crowded: Crowded,
    pub(crate) journal: Journal,
}

impl RefusalCounters {
    /// Nothing was refused yet.
    pub(crate) fn new(journal: &Journal) -> Self {
        Self { refused: Arc::default(), crowded: Crowded::default(), journal: journal.clone() }
    }
}

impl Collector for RefusalCounters {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Requests to the admin API over TCP that named no right token (token), or came from a host that had named too many wrong ones (rate)";
        let kind = MetricType::Counter;
        let mut family = encoder.encode_descriptor("admin_refused", help, None, kind)?;
        for (reason, count) in [("token", self.refused.token()), ("rate", self.refused.rate())] {
            ConstCounter::new(count).encode(family.encode_family(&[("reason", reason)])?)?;
        }
        let help = "Connections to the admin API and to the port for collectors that made room for others before they named a token or asked for anything (evicted), or found all places taken by those that had (full)";
        let mut family = encoder.encode_descriptor("admin_crowded", help, None, kind)?;
        let crowded = &self.crowded;
        for (reason, count) in [("evicted", crowded.evicted()), ("full", crowded.full())] {
            ConstCounter::new(count).encode(family.encode_family(&[("reason", reason)])?)?;
        }
        let help = "Readers of the stream of events that were dropped because they fell behind";
        let name = "admin_event_readers_dropped";
        let dropped = encoder.encode_descriptor(name, help, None, kind)?;
        ConstCounter::new(self.journal.dropped_readers()).encode(dropped)
    }
}
