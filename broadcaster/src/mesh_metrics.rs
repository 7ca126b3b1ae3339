//! The counters of the mesh loop.

use gossip::{DisconnectReason, Transport};
use mesh::DialFailure;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// The counters of the mesh loop of a node. A cheap handle; clones count together.
#[derive(Clone, Debug)]
pub struct MeshMetrics {
    dials: Family<DialLabels, Counter>,
    let_go: Family<EndLabels, Counter>,
}

/// The result of a dial. A closed set, so that it can label a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DialResult {
    /// It led to a link.
    Connected,
    /// It came to nothing.
    Failed(DialFailure),
    /// Its transport ended, or was too busy, before there was a result.
    Dropped,
}

impl DialResult {
    /// The `outcome` label in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Failed(DialFailure::Refused) => "refused",
            Self::Failed(DialFailure::RetryAfter(_)) => "retry_after",
            Self::Failed(DialFailure::Ourselves) => "ourselves",
            Self::Failed(DialFailure::Duplicate(_)) => "duplicate",
            Self::Failed(_) => "unreachable",
            Self::Dropped => "dropped",
        }
    }
}

/// The reasons for which the loop lets peers go.
const LET_GO: [DisconnectReason; 3] =
    [DisconnectReason::Surplus, DisconnectReason::LeastPerforming, DisconnectReason::Idle];

/// Every `outcome` of [`DialResult::label`].
const OUTCOMES: [&str; 7] =
    ["connected", "refused", "retry_after", "ourselves", "duplicate", "unreachable", "dropped"];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DialLabels {
    outcome: &'static str,
    transport: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabels {
    reason: &'static str,
    transport: &'static str,
}

impl Default for MeshMetrics {
    /// Counters that are shown from the start, so that a collector sees them before anything is counted.
    fn default() -> Self {
        let metrics = Self { dials: Family::default(), let_go: Family::default() };
        for transport in [Transport::WebSocket, Transport::Libp2p].map(Transport::label) {
            for outcome in OUTCOMES {
                drop(metrics.dials.get_or_create(&DialLabels { outcome, transport }));
            }
            for reason in LET_GO.map(|reason| reason.label()) {
                drop(metrics.let_go.get_or_create(&EndLabels { reason, transport }));
            }
        }
        metrics
    }
}

impl MeshMetrics {
    /// Adds the counters to a registry: `mesh_dials_total{outcome,transport}` and `mesh_let_go_total{reason,transport}`.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("mesh_dials", "Dials of the mesh loop, by result", self.dials.clone());
        let help = "Peers that the mesh loop let go";
        registry.register("mesh_let_go", help, self.let_go.clone());
    }

    /// The number of dials over a transport with this result.
    #[must_use]
    pub fn dials(&self, result: DialResult, transport: Transport) -> u64 {
        let (outcome, transport) = (result.label(), transport.label());
        self.dials.get_or_create(&DialLabels { outcome, transport }).get()
    }

    pub(crate) fn dialled(&self, result: DialResult, transport: Transport) {
        let (outcome, transport) = (result.label(), transport.label());
        self.dials.get_or_create(&DialLabels { outcome, transport }).inc();
    }

    pub(crate) fn let_go(&self, reason: DisconnectReason, transport: Transport) {
        let (reason, transport) = (reason.label(), transport.label());
        self.let_go.get_or_create(&EndLabels { reason, transport }).inc();
    }
}
