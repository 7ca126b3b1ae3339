//! The health of a node as a metric.
//!
//! # Invariants
//!
//! * Every state and every reason that there is has a line, so that an alert finds what it asks for.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
};
use services::status::State;
use tandem::{Mode, Trouble};

use super::{drain::Drain, services::Condition, watch::DiskTrouble};
use crate::spans::SpanCounts;

/// Tells the state of a node and what is wrong with it: `health` and `health_reason`, one for what is so.
#[derive(Debug)]
pub(super) struct HealthGauge {
    pub(super) mode: Mode,
    pub(super) condition: Condition,
}

impl Collector for HealthGauge {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (state, reasons) = self.condition.state(self.mode);
        let states = State::ALL.map(|known| (known.label(), known == state));
        gauges(&mut encoder, "health", "The state of the node", "state", &states)?;
        let known = Trouble::LABELS.into_iter().chain(DiskTrouble::ALL.map(DiskTrouble::label));
        let known = known.chain([SpanCounts::LABEL, Drain::LABEL]);
        let known: Vec<_> =
            known.map(|known| (known, reasons.iter().any(|reason| reason == known))).collect();
        gauges(&mut encoder, "health_reason", "What is wrong with the node", "reason", &known)
    }
}

/// A gauge for each value of a label: one where it is so.
fn gauges(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &str,
    values: &[(&str, bool)],
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for &(value, is_so) in values {
        ConstGauge::new(i64::from(is_so)).encode(family.encode_family(&[(label, value)])?)?;
    }
    Ok(())
}
