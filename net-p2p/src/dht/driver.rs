//! The part of the swarm task that runs the DHT: it starts queries, and deals with their results.
//!
//! # Invariants
//!
//! * Every search gets a result, at the latest with its deadline.
//! * A peer enters the routing table with an address that this node has dialled, or with one that it names itself and
//!   that has the host its connection comes from. So nobody makes this node lead others to a third party.
//! * A subnet of the internet fills neither a bucket nor the table (`routes.rs`).

use std::{collections::HashMap, time::Duration};

use gossip::Host;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, identify,
    kad::{
        self, AddProviderOk, GetProvidersOk, InboundRequest, ProviderRecord, QueryId, QueryResult,
        store::RecordStore,
    },
};
use rand::Rng;
use tokio::time::Instant;

use super::{
    Find,
    announcements::Announcements,
    capability::Capability,
    gate::GatedDht,
    lookups::{Lookups, Search},
    routes,
    scope::AddressScope,
};
use crate::{
    address::ip_of,
    metrics::{P2pEvent, P2pMetrics},
};

/// Time between two looks for records that have expired. Chosen.
const PRUNE: Duration = Duration::from_secs(60);

/// Time from a change of this node's addresses to the next announcement. Chosen: several changes come together.
#[cfg(feature = "reachability")]
const SETTLE: Duration = Duration::from_secs(2);

/// The DHT of one swarm.
#[derive(Debug)]
pub(crate) struct Dht {
    local: PeerId,
    protocol: StreamProtocol,
    scope: AddressScope,
    announcements: Announcements,
    /// Announcements under way, by their query.
    announced: HashMap<QueryId, Capability>,
    lookups: Lookups<QueryId>,
    pruned: Instant,
    metrics: P2pMetrics,
}

impl Dht {
    /// Announces `offered`.
    pub(super) fn new(
        local: PeerId,
        protocol: StreamProtocol,
        scope: AddressScope,
        offered: Vec<Capability>,
        metrics: P2pMetrics,
    ) -> Self {
        let now = Instant::now();
        Self {
            local,
            protocol,
            scope,
            announcements: Announcements::new(offered, now.into_std()),
            announced: HashMap::new(),
            lookups: Lookups::default(),
            pruned: now,
            metrics,
        }
    }

    /// Returns `true` if an address that the node listens on is told to others.
    pub(crate) fn tells(&self, listen: &Multiaddr) -> bool {
        self.scope.admits(listen)
    }

    /// Announces everything again soon, because the addresses of this node are others now.
    #[cfg(feature = "reachability")]
    pub(crate) fn addresses_changed(&mut self) {
        self.announcements.hurry((Instant::now() + SETTLE).into_std());
    }

    /// Begins a search.
    pub(crate) fn find(&mut self, gate: &mut GatedDht, find: Find, random: &mut impl Rng) {
        let Find { capability, wanted, limit, reply } = find;
        if !self.lookups.has_room() {
            // The caller gets `Busy`, because its reply is dropped.
            return self.metrics.note(P2pEvent::DhtSearchRefused);
        }
        let until = Instant::now() + limit;
        let id = gate.get_providers(capability.key());
        self.lookups.begin(id, Search::new(wanted, until.into_std(), reply));
        // The library tells who is stored here, and not where.
        let stored = gate.store_mut().providers(&capability.key());
        let found = stored.into_iter().filter(|record| record.provider != self.local);
        let found = found.map(|record| {
            let usable = self.scope.usable(record.provider, record.addresses);
            (record.provider, usable)
        });
        if self.lookups.answered(&id, found, Instant::now().into_std(), random) {
            self.end(gate, id, random);
        }
    }

    /// Starts announcements that are due, and ends searches that have taken too long.
    pub(crate) fn tend(&mut self, gate: &mut GatedDht, random: &mut impl Rng) {
        let now = Instant::now();
        while let Some(capability) = self.announcements.take_due(now.into_std()) {
            match gate.start_providing(capability.key()) {
                Ok(id) => drop(self.announced.insert(id, capability)),
                Err(_full) => self.announcements.done(&capability, 0, now.into_std(), random),
            }
        }
        for id in self.lookups.overdue(now.into_std()) {
            self.end(gate, id, random);
        }
        if now.duration_since(self.pruned) >= PRUNE {
            self.pruned = now;
            gate.store_mut().prune(now.into_std());
        }
    }

    fn end(&mut self, gate: &mut GatedDht, id: QueryId, random: &mut impl Rng) {
        self.lookups.finished(&id, random);
        if let Some(mut query) = gate.query_mut(&id) {
            query.finish();
        }
    }

    /// Deals with an event of the library.
    pub(crate) fn on_event(
        &mut self,
        gate: &mut GatedDht,
        event: kad::Event,
        random: &mut impl Rng,
    ) {
        match event {
            kad::Event::InboundRequest {
                request: InboundRequest::AddProvider { record: Some(record) },
            } => {
                self.on_record(gate, record);
            }
            kad::Event::RoutablePeer { peer, address } => self.route(gate, peer, address),
            kad::Event::InboundRequest { request: InboundRequest::PutRecord { .. } } => {
                self.metrics.note(P2pEvent::DhtRecordRefused);
            }
            kad::Event::OutboundQueryProgressed { id, result, stats, step } => match result {
                QueryResult::GetProviders(found) => {
                    if let Ok(GetProvidersOk::FoundProviders { providers, .. }) = found {
                        self.on_providers(gate, id, providers, random);
                    }
                    if step.last {
                        self.lookups.finished(&id, random);
                    }
                }
                QueryResult::StartProviding(announced) => {
                    if let Some(capability) = self.announced.remove(&id) {
                        let nodes = match announced {
                            Ok(AddProviderOk { .. }) => stats.num_successes(),
                            Err(_timeout) => 0,
                        };
                        let nodes = usize::try_from(nodes).unwrap_or(usize::MAX);
                        tracing::debug!(%capability, nodes, "announced in the DHT");
                        let now = Instant::now().into_std();
                        self.announcements.done(&capability, nodes, now, random);
                    }
                }
                _ => {}
            },
            _ => {}
        }
    }

    fn on_providers(
        &mut self,
        gate: &mut GatedDht,
        id: QueryId,
        providers: impl IntoIterator<Item = PeerId>,
        random: &mut impl Rng,
    ) {
        let mut found = Vec::new();
        for peer in providers.into_iter().filter(|peer| *peer != self.local) {
            let addresses = gate.addresses(peer);
            found.push((peer, self.scope.usable(peer, addresses)));
        }
        if self.lookups.answered(&id, found, Instant::now().into_std(), random) {
            self.end(gate, id, random);
        }
    }

    /// Stores the record that a peer has sent of itself.
    fn on_record(&mut self, gate: &mut GatedDht, mut record: ProviderRecord) {
        let scope = self.scope;
        let usable = scope.usable(record.provider, std::mem::take(&mut record.addresses));
        record.addresses = usable.into_iter().map(|usable| usable.address).collect();
        let from = gate.subnet(&record.provider);
        let stored = gate.store_mut().offer(record, from, Instant::now().into_std());
        if let Err(refused) = stored {
            self.metrics.note(P2pEvent::DhtRecordRefused);
            tracing::debug!(?refused, "a provider record was not stored");
        }
    }

    /// Learns from identify that a peer takes part in the table, and where it listens.
    pub(crate) fn on_identified(&self, gate: &mut GatedDht, peer: PeerId, about: &identify::Info) {
        if !about.protocols.contains(&self.protocol) {
            return;
        }
        let Some(host) = gate.host(&peer) else { return };
        let usable = self.scope.usable(peer, about.listen_addrs.iter().cloned());
        for usable in usable {
            if Host::of(ip_of(&usable.address)) == host {
                self.route(gate, peer, usable.address);
            }
        }
    }

    /// Takes a peer that serves the table into it, or another address of one that is in it.
    fn route(&self, gate: &mut GatedDht, peer: PeerId, address: Multiaddr) {
        if routes::have_room(gate, peer, &address) {
            gate.add_address(&peer, address);
        } else {
            self.metrics.note(P2pEvent::DhtRouteRefused);
            tracing::debug!(%peer, %address, "its subnet has enough places in the routing table");
        }
    }
}
