//! Counters of looks into DNS.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// The counters of looks into DNS, over all bootstraps of a node. A cheap handle; clones count together.
#[derive(Clone, Debug)]
pub struct DnsMetrics {
    looks: Family<Outcome, Counter>,
    left_out: Family<Reason, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

impl Default for DnsMetrics {
    /// Counters that are shown from the start, so that a collector sees them before anything is counted.
    fn default() -> Self {
        let metrics = Self { looks: Family::default(), left_out: Family::default() };
        for outcome in ["whole", "part", "nothing"] {
            drop(metrics.looks.get_or_create(&Outcome { outcome }));
        }
        for reason in ["unusable", "bound"] {
            drop(metrics.left_out.get_or_create(&Reason { reason }));
        }
        metrics
    }
}

impl DnsMetrics {
    /// Adds the counters to a registry: `dns_looks_total{outcome}` with `whole`, `part` and `nothing`, and
    /// `dns_left_out_total{reason}` with `unusable` for records that hold no address and `bound` for what is beyond a
    /// bound.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("dns_looks", "Looks for nodes in DNS", self.looks.clone());
        registry.register(
            "dns_left_out",
            "Records, names and addresses left out",
            self.left_out.clone(),
        );
    }

    /// Counts a look: the addresses that it found, the lists that it missed, and what it left out.
    pub(crate) fn looked(&self, found: usize, missing: usize, unusable: usize, cut: usize) {
        let outcome = match (found, missing) {
            (0, _) => "nothing",
            (_, 0) => "whole",
            _ => "part",
        };
        self.looks.get_or_create(&Outcome { outcome }).inc();
        for (reason, count) in [("unusable", unusable), ("bound", cut)] {
            self.left_out.get_or_create(&Reason { reason }).inc_by(count as u64);
        }
    }
}
