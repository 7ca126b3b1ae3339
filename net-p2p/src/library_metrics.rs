//! The counts that the library keeps itself, as metrics of the node.
//!
//! ```text
//!   swarm task ─event─▶ Recorder ─┐
//!   gossipsub ────────────────────┴─▶ registry of the swarm ─(text)─▶ LibraryMetrics ─▶ registry of the node
//! ```
//!
//! # Invariants
//!
//! * Labels are of closed sets, however peers behave (`recorder.rs`, `pubsub.rs`).
//! * Each swarm has a registry of its own, so counters start at zero when the swarm is restarted.
//! * Names have the unit of their values, which is a base unit.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use libp2p_metrics::Metrics;
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, registry::Registry};

use crate::families::Families;

/// Prefix of all names. The library sets it for its own, except for those of GossipSub.
const PREFIX: &str = "libp2p_";

/// Families that are never shown.
///
/// The first is a histogram with 200 series about a queue that a connection empties in each of its turns. The others
/// are never recorded (`recorder.rs`).
const LEFT_OUT: [&str; 8] = [
    "libp2p_gossipsub_queue_size",
    "libp2p_kad_routing_updated",
    "libp2p_swarm_external_addr_candidates",
    "libp2p_swarm_external_addr_confirmed",
    "libp2p_swarm_external_addr_expired",
    "libp2p_swarm_expired_listen_addr",
    "libp2p_swarm_listener_closed",
    "libp2p_swarm_new_listen_addr",
];

/// Families whose name lacks the unit: the name here, and the factor that makes seconds of the values.
const SECONDS: [(&str, &str, f64); 2] = [
    ("libp2p_gossipsub_heartbeat_duration", "libp2p_gossipsub_heartbeat_duration_seconds", 1e-3),
    (
        "libp2p_swarm_connections_establishment_duration",
        "libp2p_swarm_connections_establishment_duration_seconds",
        1.0,
    ),
];

/// Families of which only every third bucket is shown: they have twenty for each set of labels, closer than anybody needs.
const COARSER: [&str; 2] = ["libp2p_swarm_connections_", "libp2p_kad_query_result_"];

/// The counts of the library. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct LibraryMetrics {
    registry: Arc<Mutex<Registry>>,
}

impl LibraryMetrics {
    /// Begins anew for a swarm that is about to be built. What the one before it counted is gone.
    pub(crate) fn begin(&self) -> Metrics {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        *self.registry.lock().unwrap_or_else(PoisonError::into_inner) = registry;
        metrics
    }

    /// Calls `add` with the part of the registry that is for GossipSub.
    pub(crate) fn for_gossipsub<T>(&self, add: impl FnOnce(&mut Registry) -> T) -> T {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        add(registry.sub_registry_with_prefix(format!("{PREFIX}gossipsub")))
    }

    /// Adds the counts to the registry of a node, also those of swarms that are built later.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(self.clone()));
    }
}

impl Collector for LibraryMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut text = String::new();
        {
            // A registry can be read from outside its crate only as text, and cannot be put into another one.
            let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
            prometheus_client::encoding::text::encode_registry(&mut text, &registry)?;
        }
        for mut family in Families::of(&text) {
            if LEFT_OUT.contains(&family.name.as_str()) {
                continue;
            }
            if COARSER.iter().any(|prefix| family.name.starts_with(prefix)) {
                family.thin();
            }
            if let Some((_, name, factor)) =
                SECONDS.into_iter().find(|(known, ..)| *known == family.name)
            {
                name.clone_into(&mut family.name);
                family.scale(factor);
            }
            family.encode(&mut encoder)?;
        }
        Ok(())
    }
}
