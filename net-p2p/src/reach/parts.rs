//! The part of one swarm in making nodes reachable, this one and others.

use std::sync::Arc;

use gossip::LinkPath;
use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, muxing::StreamMuxerBox, transport::Boxed},
    swarm::ConnectionId,
};
use runtime::TaskSet;
use tokio::sync::watch;

use super::{
    DCUTR, HOP,
    autonat::{self, Asker, DialBacker, Nonces, Server},
    autorelay::{AutoRelay, Verdict},
    circuits::Circuits,
    client::Reservations,
    config::{ReachConfig, ReachPart},
    mapping::{PortMapper, Teller},
    observed::Observed,
    own,
    places::Places,
    punch::{self, Punch},
    relayed::Relayed,
    server::{self, Relay},
};
use crate::{
    address::path_of,
    command::{Senders, ToSwarm},
    config::P2pConfig,
    dial_hosts::DialHosts,
    link::LinkContext,
    listening::Bound,
    metrics::P2pMetrics,
    streams::{AcceptQueue, Acceptors},
};

/// The part of one swarm, before it runs.
pub(crate) struct ReachParts {
    local: PeerId,
    announced: Vec<Multiaddr>,
    bound: Bound,
    metrics: P2pMetrics,
    relayed: Relayed,
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
        let (mut relayed, circuits) =
            Relayed::new(&config.listen, &metrics, acceptors, (swarm, hosts));
        let has = |part| config.reach.has(part);
        if has(ReachPart::AutoRelay) {
            relayed.take_circuits(acceptors);
        }
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
            observed: Observed::new(bound.clone()),
            bound,
            metrics,
            relayed,
            relay,
            config: config.reach.clone(),
            meetings,
            autonat,
        };
        (parts, circuits)
    }

    /// The reservations, if relays are to see the port that the node listens on.
    pub(crate) fn shows_port(&self) -> Option<Reservations> {
        self.meetings.as_ref().map(|_| self.relayed.reservations())
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
        let places = self.relay.map(|(places, accept)| {
            let relay = Relay {
                local: self.local,
                places: Arc::clone(&places),
                commands: senders.commands.clone(),
                announced: self.announced,
                bound: self.bound,
                clock,
                metrics: self.metrics,
            };
            let each = tasks.clone();
            tasks.spawn("relay requests", |cancel| relay.run(accept, each, cancel));
            places
        });
        let client = self.relayed.start(context, (swarm, senders), tasks);
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
