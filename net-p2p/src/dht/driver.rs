//! The part of the swarm task that runs the DHT: it starts queries, and deals with their results.
//!
//! # Invariants
//!
//! * Every search, put and get ends, at the latest with its deadline.
//! * A peer enters the routing table with an address that this node has dialled, or with one that it names itself and
//!   that has the host its connection comes from. So nobody makes this node lead others to a third party.
//! * A subnet of the internet fills neither a bucket nor the table (`routes.rs`).

use std::{collections::HashMap, time::Duration};

use gossip::Host;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, identify,
    kad::{
        self, AddProviderOk, GetProvidersOk, GetRecordOk, InboundRequest, ProviderRecord,
        PutRecordError, QueryId, QueryResult, Quorum, Record, store::RecordStore,
    },
};
use rand::Rng;
use tokio::{sync::oneshot, time::Instant};

use super::{
    Find, Order, Put,
    announcements::Announcements,
    capability::Capability,
    exchanges::Exchanges,
    gate::GatedDht,
    lookups::{Lookups, Search},
    order::{DhtError, DhtPeer},
    refresh, routes,
    scope::AddressScope,
    values::VALIDITY,
};
use crate::{
    address::{PeerAddress, identity_of, ip_of},
    metrics::{P2pEvent, P2pMetrics},
};

/// Time between two looks for records that have expired. Chosen.
const PRUNE: Duration = Duration::from_secs(60);

/// Time from a change of this node's addresses to the next announcement. Chosen: several changes come together.
#[cfg(feature = "circuits")]
const SETTLE: Duration = Duration::from_secs(2);

/// The part of this node in the table.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) local: PeerId,
    pub(super) protocol: StreamProtocol,
    pub(super) scope: AddressScope,
    pub(super) mode: kad::Mode,
}

/// The DHT of one swarm.
#[derive(Debug)]
pub(crate) struct Dht {
    part: Part,
    announcements: Announcements,
    /// Announcements under way, by their query.
    announced: HashMap<QueryId, Capability>,
    lookups: Lookups<QueryId>,
    exchanges: Exchanges<QueryId>,
    pruned: Instant,
    metrics: P2pMetrics,
}

impl Dht {
    /// Announces `offered`.
    pub(super) fn new(part: Part, offered: Vec<Capability>, metrics: P2pMetrics) -> Self {
        let now = Instant::now();
        Self {
            part,
            announcements: Announcements::new(offered, now.into_std()),
            announced: HashMap::new(),
            lookups: Lookups::default(),
            exchanges: Exchanges::default(),
            pruned: now,
            metrics,
        }
    }

    /// Returns `true` if an address that the node listens on is told to others.
    pub(crate) fn tells(&self, listen: &Multiaddr) -> bool {
        self.part.scope.admits(listen)
    }

    /// Does what another task asks for.
    pub(crate) fn on_order(&mut self, gate: &mut GatedDht, order: Order, random: &mut impl Rng) {
        match order {
            Order::Find(find) => self.find(gate, find, random),
            Order::Put(put) => self.put(gate, put),
            Order::Get(get) => {
                if !self.exchanges.may_get() {
                    // The caller gets `Busy`, because its reply is dropped.
                    return self.metrics.note(P2pEvent::DhtSearchRefused);
                }
                let until = Instant::now() + get.limit;
                let id = gate.get_record(get.key.record_key());
                self.exchanges.get(id, get.key, until.into_std(), get.reply);
            }
            Order::Provide { capability, reply } => {
                let announced = match self.part.mode {
                    kad::Mode::Client => Err(DhtError::Client),
                    kad::Mode::Server => {
                        let now = Instant::now().into_std();
                        let has_room = self.announcements.add(capability, now);
                        if has_room { Ok(()) } else { Err(DhtError::Full) }
                    }
                };
                // The send fails only if the caller has stopped waiting.
                let _ = reply.send(announced);
            }
            Order::Peers(reply) => {
                // As above.
                let _ = reply.send(self.peers(gate));
            }
        }
    }

    /// The nodes in the routing table.
    fn peers(&self, gate: &mut GatedDht) -> Vec<DhtPeer> {
        let mut peers = Vec::new();
        for bucket in gate.kbuckets() {
            for entry in bucket.iter() {
                let peer = *entry.node.key.preimage();
                let Some(identity) = identity_of(&peer) else { continue };
                let addresses = entry.node.value.iter().cloned();
                let usable = self.part.scope.usable(peer, addresses);
                let addresses = usable.iter().map(PeerAddress::node_address).collect();
                let connected = entry.status == kad::NodeStatus::Connected;
                peers.push(DhtPeer { identity, addresses, connected });
            }
        }
        peers
    }

    /// Stores a value here, and at the nodes closest to its key.
    fn put(&mut self, gate: &mut GatedDht, put: Put) {
        if !self.exchanges.may_put() {
            return self.metrics.note(P2pEvent::DhtSearchRefused);
        }
        let now = Instant::now();
        let record = Record::new(put.key.record_key(), put.value);
        let record = Record { expires: Some((now + VALIDITY).into()), ..record };
        if gate.store_mut().values.as_ref().is_some_and(|values| values.is_outdated(&record)) {
            // The send fails only if the caller has stopped waiting.
            let _ = put.reply.send(Err(DhtError::Outdated));
            return;
        }
        // No number of nodes is demanded; the caller is told how many took it.
        let begun = match gate.put_record(record, Quorum::All) {
            Ok(id) => {
                let (reply, stored) = oneshot::channel();
                self.exchanges.put(id, (now + put.limit).into_std(), reply);
                Ok(stored)
            }
            Err(_full) => Err(DhtError::Full),
        };
        // As above.
        let _ = put.reply.send(begun);
    }

    /// Announces everything again soon, because the addresses of this node are others now.
    #[cfg(feature = "circuits")]
    pub(crate) fn addresses_changed(&mut self) {
        self.announcements.hurry((Instant::now() + SETTLE).into_std());
    }

    /// Begins a search.
    fn find(&mut self, gate: &mut GatedDht, find: Find, random: &mut impl Rng) {
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
        let found = stored.into_iter().filter(|record| record.provider != self.part.local);
        let found = found.map(|record| {
            let usable = self.part.scope.usable(record.provider, record.addresses);
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
        for id in self.exchanges.overdue_gets(now.into_std()) {
            self.end_get(gate, id);
        }
        for id in self.exchanges.overdue_puts(now.into_std()) {
            // Its result is an event.
            finish(gate, &id);
        }
        if now.duration_since(self.pruned) >= PRUNE {
            self.pruned = now;
            gate.store_mut().prune(now.into_std());
        }
    }

    fn end(&mut self, gate: &mut GatedDht, id: QueryId, random: &mut impl Rng) {
        self.lookups.finished(&id, random);
        finish(gate, &id);
    }

    /// Ends a get. Its result is stored here too, so that nodes that answer with an older value of an owner cannot take
    /// back what this one has found.
    fn got(&mut self, gate: &mut GatedDht, id: &QueryId) {
        let Some((key, value)) = self.exchanges.got(id) else { return };
        let record = Record::new(key.record_key(), value);
        if let Some(values) = gate.store_mut().values.as_mut() {
            // The store is full of values of this machine, or has this one.
            let _ = values.offer(record, None, Instant::now());
        }
    }

    fn end_get(&mut self, gate: &mut GatedDht, id: QueryId) {
        self.got(gate, &id);
        finish(gate, &id);
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
            kad::Event::InboundRequest {
                request: InboundRequest::PutRecord { source, record, .. },
            } => self.on_value(gate, &source, record),
            kad::Event::RoutablePeer { peer, address } => self.route(gate, peer, address),
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
                QueryResult::GetRecord(found) => {
                    if let Ok(GetRecordOk::FoundRecord(found)) = found {
                        self.on_found(gate, id, found.record);
                    }
                    if step.last {
                        self.got(gate, &id);
                    }
                }
                QueryResult::PutRecord(stored) => {
                    let nodes = match stored {
                        Ok(_all) => usize::try_from(stats.num_successes()).unwrap_or(usize::MAX),
                        Err(
                            PutRecordError::QuorumFailed { success, .. }
                            | PutRecordError::Timeout { success, .. },
                        ) => success.len(),
                    };
                    self.exchanges.stored(&id, nodes);
                }
                QueryResult::Bootstrap(_) => refresh::pass_over(gate, &id),
                _ => {}
            },
            _ => {}
        }
    }

    /// Takes note of a value that a node answered with.
    fn on_found(&mut self, gate: &mut GatedDht, id: QueryId, record: Record) {
        let Some(values) = &gate.store_mut().values else { return };
        if let Err(forged) = self.exchanges.heard(&id, record.value, values.namespaces()) {
            self.metrics.note(P2pEvent::DhtValueForged);
            tracing::debug!(%forged, "a node answered with a value that is none of the key");
        }
        if self.exchanges.is_over(&id) {
            self.end_get(gate, id);
        }
    }

    /// Stores the value that a peer has sent, if this node has values. The library has told the peer that it is stored: a
    /// stream that it is told to reset stays open until the peer gives up after ten seconds.
    fn on_value(&self, gate: &mut GatedDht, source: &PeerId, record: Option<Record>) {
        let (may_put, from) = (gate.may_put(source), gate.subnet(source));
        let values = gate.store_mut().values.as_mut().filter(|_| may_put);
        let stored = match (values, record) {
            (Some(values), Some(record)) => {
                values.offer(record, from, Instant::now()).map_err(Some)
            }
            _ => Err(None),
        };
        if let Err(refused) = stored {
            self.metrics.note(P2pEvent::DhtRecordRefused);
            tracing::debug!(?refused, "a value was not stored");
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
        for peer in providers.into_iter().filter(|peer| *peer != self.part.local) {
            let addresses = gate.addresses(peer);
            found.push((peer, self.part.scope.usable(peer, addresses)));
        }
        if self.lookups.answered(&id, found, Instant::now().into_std(), random) {
            self.end(gate, id, random);
        }
    }

    /// Stores the record that a peer has sent of itself.
    fn on_record(&mut self, gate: &mut GatedDht, mut record: ProviderRecord) {
        let scope = self.part.scope;
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
    pub(crate) fn on_identified(
        &mut self,
        gate: &mut GatedDht,
        peer: PeerId,
        about: &identify::Info,
    ) {
        if !about.protocols.contains(&self.part.protocol) {
            return;
        }
        let Some(host) = gate.host(&peer) else { return };
        let usable = self.part.scope.usable(peer, about.listen_addrs.iter().cloned());
        for usable in usable {
            if Host::of(ip_of(&usable.address)) == host {
                self.route(gate, peer, usable.address);
            }
        }
    }

    /// Takes a peer that serves the table into it, or another address of one that is in it.
    fn route(&mut self, gate: &mut GatedDht, peer: PeerId, address: Multiaddr) {
        if routes::have_room(gate, peer, &address) {
            if gate.kbuckets().next().is_none() {
                // Earlier announcements reached nobody, and the next ones would come only after a wait that has grown.
                self.announcements.hurry(Instant::now().into_std());
            }
            gate.add_address(&peer, address);
        } else {
            self.metrics.note(P2pEvent::DhtRouteRefused);
            tracing::debug!(%peer, %address, "its subnet has enough places in the routing table");
        }
    }
}

/// Ends a query, or the first of its two parts.
fn finish(gate: &mut GatedDht, id: &QueryId) {
    if let Some(mut query) = gate.query_mut(id) {
        query.finish();
    }
}
