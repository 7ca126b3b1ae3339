//! The providers of a capability as a source of addresses.
//!
//! # Invariants
//!
//! * A search that found nobody is followed by another one soon, and less soon each time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use broadcaster::Mesh;
use gossip::BoxFuture;
use mesh::{AddressSource, Listed, SourceError, SourceId, SourceKind, phonebook::REFRESH};

use crate::{
    command::ToSwarm,
    config::{GossipStreams, P2pConfig},
    dht::{Capability, DhtError, DhtMode, Find, Order},
};

/// Archives that are searched for. Source: wire facts 8.7, four and this node.
const ARCHIVES: usize = 5;

/// Longest time of a search. Source: wire facts 8.7.
const LIMIT: Duration = Duration::from_secs(5);

/// Shortest wait after a search that found nobody. Source: wire facts 8.7.
const MIN_WAIT: Duration = Duration::from_secs(5);

/// Longest wait after a search that found nobody. Source: wire facts 8.7.
const MAX_WAIT: Duration = Duration::from_secs(20);

/// Factor by which that wait grows. Source: wire facts 8.7.
const GROWTH: f64 = 1.1;

/// Searches for providers of one capability.
#[derive(Debug)]
pub(crate) struct DhtSource {
    capability: Capability,
    wanted: usize,
    swarm: ToSwarm,
    /// Searches that found nobody, in a row.
    failures: AtomicU32,
}

impl DhtSource {
    /// Gives `mesh` the DHT as a source of addresses, if the node takes part in it and gossips: of relays, and of archives.
    pub(crate) fn attach(config: &P2pConfig, mesh: &Mesh, swarm: &ToSwarm) {
        if config.dht.mode == DhtMode::Off || config.gossip == GossipStreams::Off {
            return;
        }
        // One more than the mesh wants, because this node may be among them. Source: wire facts 8.7.
        let wanted =
            [(Capability::gossip(), config.fanout + 1), (Capability::archival(), ARCHIVES)];
        for (capability, wanted) in wanted {
            let source = Self::new(capability, wanted, swarm.clone());
            if let Err(error) = mesh.add_source(Arc::new(source)) {
                tracing::warn!(%error, "the DHT is not asked for nodes");
            }
        }
    }

    /// Searches for `wanted` providers.
    const fn new(capability: Capability, wanted: usize, swarm: ToSwarm) -> Self {
        Self { capability, wanted, swarm, failures: AtomicU32::new(0) }
    }

    fn failed(&self, cause: DhtError) -> SourceError {
        SourceError { source_id: self.id(), cause: Box::new(cause) }
    }
}

impl AddressSource for DhtSource {
    fn id(&self) -> SourceId {
        SourceId::named(SourceKind::Directory, self.capability.as_str())
    }

    fn fetch(&self) -> BoxFuture<'_, Result<Vec<Listed>, SourceError>> {
        Box::pin(async move {
            let (capability, wanted) = (self.capability.clone(), self.wanted);
            let order = |reply| Order::Find(Find { capability, wanted, limit: LIMIT, reply });
            let found = self.swarm.ask_dht(order).await;
            let found = found.map_err(|error| self.failed(error))?;
            let role = self.capability.role();
            let addresses = found.into_iter().flat_map(|provider| provider.addresses);
            let listed: Vec<_> =
                addresses.map(|address| Listed::new(address, role.clone())).collect();
            if listed.is_empty() {
                self.failures.fetch_add(1, Ordering::Relaxed);
            } else {
                self.failures.store(0, Ordering::Relaxed);
            }
            Ok(listed)
        })
    }

    fn refresh(&self) -> Duration {
        match self.failures.load(Ordering::Relaxed) {
            0 => REFRESH,
            failures => {
                let growth = GROWTH.powi(i32::try_from(failures).unwrap_or(i32::MAX) - 1);
                MIN_WAIT.mul_f64(growth.min(MAX_WAIT.div_duration_f64(MIN_WAIT)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn searches_in_vain_are_repeated_after_growing_waits() {
        let source = DhtSource::new(Capability::gossip(), 4, ToSwarm::default());
        assert_eq!(source.refresh(), REFRESH);
        for (failures, wait) in [(1, MIN_WAIT), (15, MAX_WAIT * 9 / 10), (u32::MAX, MAX_WAIT)] {
            source.failures.store(failures, Ordering::Relaxed);
            let refresh = source.refresh();
            assert!(refresh >= wait && refresh <= MAX_WAIT, "{failures}: {refresh:?}");
        }
    }
}
