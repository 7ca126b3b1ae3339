//! Reachability: nodes that others cannot dial find out that it is so, are reached by circuits through relays, and meet
//! directly where that can be.
//!
//! ```text
//!   Asker ─▶ verdict ─▶ AutoRelay ┐
//!   PortMapper ─▶ addresses to ask about
//!   keepers ──────────────────────┴─▶ Client: reserve, hold ─▶ [notices] ─▶ swarm task: addresses told
//!   relays  ─▶ Stops ─▶ [accepted] ─▶ Circuits ─▶ the node's transports, and its door
//!   clients ─▶ Relay: reservations, circuits within their limits
//! ```
//!
//! # Invariants
//!
//! * Nothing is relayed for others, and no relay is asked for a place, unless the configuration says so.
//! * Everything that others ask for is bounded in number, size and time (`places.rs`, `server.rs`, `circuits.rs`).
//! * A circuit passes the door like any other connection, from the address of its relay.

mod autonat;
mod autorelay;
mod circuits;
mod client;
mod config;
mod mapping;
mod notice;
mod observed;
mod places;
mod punch;
mod server;
mod wire;

use std::sync::Arc;

use gossip::LinkPath;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    core::{ConnectedPoint, muxing::StreamMuxerBox, transport::Boxed},
    swarm::ConnectionId,
};
use runtime::TaskSet;
use tokio::sync::watch;

use self::{
    autonat::{Asker, DialBacker, Nonces, Server},
    autorelay::{AutoRelay, Verdict},
    circuits::Stops,
    client::Client,
    mapping::{PortMapper, Teller},
    places::Places,
    punch::Punch,
    server::Relay,
};
pub(crate) use self::{
    circuits::Circuits,
    client::Reservations,
    mapping::MappedPorts,
    notice::{Meet, ReachNotice},
    observed::{From as SeenFrom, Observed},
};
pub use self::{
    config::{ReachConfig, ReachPart},
    mapping::{Carrier, MappedPort, MappingProtocol},
    places::RelayLimits,
};
use crate::{
    address::{PeerAddress, path_of, relay_of},
    command::{Senders, ToSwarm},
    config::P2pConfig,
    dial_hosts::DialHosts,
    link::LinkContext,
    listening::Bound,
    metrics::P2pMetrics,
    streams::{AcceptQueue, Acceptors},
};

/// Between clients and relays. Source: libp2p specifications, `relay/circuit-v2.md`.
pub(crate) const HOP: StreamProtocol = StreamProtocol::new("/libp2p/circuit/relay/0.2.0/hop");

/// Between relays and those whom circuits lead to. Source: there.
const STOP: StreamProtocol = StreamProtocol::new("/libp2p/circuit/relay/0.2.0/stop");

/// Between two ends of a circuit. Source: libp2p specifications, `relay/DCUtR.md`.
const DCUTR: StreamProtocol = StreamProtocol::new("/libp2p/dcutr");

/// Addresses told of one node, at most. Chosen: both address families of four interfaces.
const MAX_TOLD: usize = 8;

/// The part of one swarm, before it runs.
pub(crate) struct ReachParts {
    local: PeerId,
    announced: Vec<Multiaddr>,
    /// The relays that the configuration names.
    relays: Vec<PeerAddress>,
    bound: Bound,
    metrics: P2pMetrics,
    reservations: Reservations,
    stops: Option<(Stops, AcceptQueue)>,
    relay: Option<(Arc<Places>, AcceptQueue)>,
    config: ReachConfig,
    observed: Observed,
    meetings: Option<AcceptQueue>,
    /// Requests to dial back, and nonces.
    autonat: Option<(AcceptQueue, AcceptQueue)>,
}

/// The part of one swarm that the swarm task has.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    places: Option<Arc<Places>>,
    punch: Option<Punch>,
    pub(crate) observed: Option<Observed>,
    /// The addresses that others are told, until there is a verdict and after it; `None` if those of the listeners are.
    told: Option<Vec<Multiaddr>>,
    has_verdict: bool,
}

impl ReachParts {
    /// The part of a node, and the transport of its circuits.
    pub(crate) fn new(
        config: &P2pConfig,
        (local, bound, metrics): (PeerId, Bound, P2pMetrics),
        acceptors: &mut Acceptors,
        (swarm, hosts): (ToSwarm, DialHosts),
    ) -> (Self, Circuits) {
        let relays: Vec<_> = config.listen.iter().filter_map(relay_of).collect();
        let reservations = Reservations::default();
        let (circuits, stops) =
            Circuits::new(swarm, hosts, (reservations.clone(), metrics.clone()));
        let has = |part| config.reach.has(part);
        let stops = (!relays.is_empty() || has(ReachPart::AutoRelay))
            .then(|| (stops, acceptors.accept(&[STOP], circuits::WAITING)));
        let limits = config.reach.limits;
        let relay = has(ReachPart::Relay).then(|| {
            (
                Arc::new(Places::new(limits, metrics.levels().clone())),
                acceptors.accept(&[HOP], server::WAITING),
            )
        });
        let meetings =
            has(ReachPart::HolePunching).then(|| acceptors.accept(&[DCUTR], punch::WAITING));
        let autonat = has(ReachPart::AutoNat).then(|| {
            let requests = acceptors.accept(&[autonat::REQUEST], autonat::WAITING);
            (requests, acceptors.accept(&[autonat::DIAL_BACK], autonat::WAITING))
        });
        let parts = Self {
            local,
            announced: config.announce.clone(),
            relays,
            observed: Observed::new(bound.clone()),
            bound,
            metrics,
            reservations,
            stops,
            relay,
            config: config.reach.clone(),
            meetings,
            autonat,
        };
        (parts, circuits)
    }

    /// The reservations, if relays are to see the port that the node listens on.
    pub(crate) fn shows_port(&self) -> Option<Reservations> {
        self.meetings.as_ref().map(|_| self.reservations.clone())
    }

    /// Starts the task that asks the router for ports, if the node is to ask.
    fn map_ports(&self, context: &LinkContext, tasks: &TaskSet) {
        if self.config.has(ReachPart::PortMapping) {
            let mapper = PortMapper {
                by: context.broadcaster.environment().clone(),
                bound: self.bound.clone(),
                observed: self.observed.clone(),
                metrics: self.metrics.clone(),
                teller: Teller::of(context.mapped.clone()),
            };
            tasks.spawn("port mapping", |cancel| mapper.run(cancel));
        }
    }

    /// Starts the tasks of a swarm that runs, in `tasks`. `dial_back` is the transport that tries the addresses of others.
    pub(crate) fn start(
        self,
        context: &Arc<LinkContext>,
        (swarm, senders): (&ToSwarm, &Senders),
        dial_back: Boxed<(PeerId, StreamMuxerBox)>,
        tasks: &TaskSet,
    ) -> Reach {
        self.map_ports(context, tasks);
        let told = self.autonat.is_some().then(|| match self.announced.is_empty() {
            true => own(&self.bound.addresses()),
            false => self.announced.clone(),
        });
        let (observed, metrics) = (self.observed.clone(), self.metrics.clone());
        let punch = self.meetings.map(|accept| {
            let commands = senders.commands.clone();
            let punch = Punch::new((self.local, observed.clone()), commands, metrics.clone());
            let (each, accepts) = (tasks.clone(), punch.clone());
            tasks.spawn("meetings", |cancel| accepts.run(accept, each, cancel));
            punch
        });
        let announced = self.announced.clone();
        let clock = context.broadcaster.environment().clock().clone();
        if let Some((stops, accept)) = self.stops {
            let each = tasks.clone();
            tasks.spawn("circuits", |cancel| stops.run(accept, each, cancel));
        }
        let places = self.relay.map(|(places, accept)| {
            let relay = Relay {
                local: self.local,
                places: Arc::clone(&places),
                commands: senders.commands.clone(),
                announced: self.announced,
                bound: self.bound,
                clock: clock.clone(),
                metrics: self.metrics,
            };
            let each = tasks.clone();
            tasks.spawn("relay requests", |cancel| relay.run(accept, each, cancel));
            places
        });
        let client = Client {
            swarm: swarm.clone(),
            senders: senders.clone(),
            reservations: self.reservations,
            levels: metrics.levels().clone(),
            clock,
        };
        let verdict = self.autonat.map(|(requests, nonces_accept)| {
            let server = Server::new(DialBacker(dial_back.into()), metrics.clone());
            let each = tasks.clone();
            tasks.spawn("dial backs", |cancel| server.run(requests, each, cancel));
            let (nonces, each) = (Nonces::default(), tasks.clone());
            let takes = nonces.clone();
            tasks.spawn("nonces", |cancel| takes.run((nonces_accept, metrics), each, cancel));
            let (verdict, told) = watch::channel(Verdict::default());
            let asker = Asker {
                client: client.clone(),
                context: Arc::clone(context),
                observed: observed.clone(),
                announced,
                nonces,
                verdict,
            };
            tasks.spawn("address questions", |cancel| asker.run(cancel));
            told
        });
        if self.config.has(ReachPart::AutoRelay) {
            let relays = AutoRelay::new(client.clone(), Arc::clone(context), verdict);
            tasks.spawn("auto relay", |cancel| relays.run(cancel));
        }
        for relay in self.relays {
            let client = client.clone();
            tasks.spawn("relay keeper", |cancel| client.keep(relay, cancel));
        }
        Reach { places, punch, observed: Some(observed), told, has_verdict: false }
    }
}

impl Reach {
    /// The addresses of the listeners that others are told at the start, in a node that asks whether they can be dialled.
    pub(crate) fn told(&self) -> &[Multiaddr] {
        self.told.as_deref().unwrap_or_default()
    }

    /// Notes a new address of a listener. Returns `true` if others are told it now.
    pub(crate) fn listens(&mut self, address: &Multiaddr) -> bool {
        let told = self.told.as_mut().filter(|_| !self.has_verdict);
        told.map(|told| told.push(address.clone())).is_some()
    }

    /// Notes the addresses at which others have reached this node. Returns those that they are not told any more.
    pub(crate) fn reached(&mut self, addresses: Vec<Multiaddr>) -> Vec<Multiaddr> {
        self.has_verdict = true;
        let before = self.told.replace(addresses).unwrap_or_default();
        before.into_iter().filter(|known| !self.told().contains(known)).collect()
    }

    /// Tries to meet a peer that has come by a circuit.
    pub(crate) fn connected(
        &self,
        (peer, connection): (PeerId, ConnectionId),
        endpoint: &ConnectedPoint,
        tasks: &TaskSet,
    ) {
        let is_circuit = path_of(endpoint.get_remote_address()) == LinkPath::Relayed;
        if let Some(punch) = self.punch.as_ref().filter(|_| is_circuit && endpoint.is_listener()) {
            punch.begin(tasks, (peer, connection));
        }
    }

    /// Handles the end of a connection.
    pub(crate) fn closed(&self, connection: ConnectionId) {
        if let Some(places) = &self.places {
            places.closed(connection);
        }
    }
}

/// The addresses of a configuration that the node listens on itself.
pub(crate) fn own(listen: &[Multiaddr]) -> Vec<Multiaddr> {
    listen.iter().filter(|address| path_of(address) == LinkPath::Direct).cloned().collect()
}
