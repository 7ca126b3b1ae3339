//! Reachability: circuits through relays, for nodes that others cannot dial.
//!
//! ```text
//!   keepers ─▶ Client: reserve, hold ─▶ [notices] ─▶ swarm task: addresses told
//!   relays  ─▶ Stops ─▶ [accepted] ─▶ Circuits ─▶ the node's transports, and its door
//!   clients ─▶ Relay: reservations, circuits within their limits
//! ```
//!
//! # Invariants
//!
//! * Nothing is relayed for others, and no relay is asked for a place, unless the configuration says so.
//! * Everything that others ask for is bounded in number, size and time (`places.rs`, `server.rs`, `circuits.rs`).
//! * A circuit passes the door like any other connection, from the address of its relay.

mod circuits;
mod client;
mod places;
mod server;
mod wire;

use std::{collections::BTreeSet, sync::Arc};

use gossip::LinkPath;
use libp2p::{Multiaddr, PeerId, StreamProtocol, swarm::ConnectionId};
use runtime::TaskSet;

pub(crate) use self::circuits::Circuits;
pub use self::places::RelayLimits;
use self::{
    circuits::Stops,
    client::{Client, Reservations},
    places::Places,
    server::Relay,
};
use crate::{
    address::{PeerAddress, path_of, relay_of},
    command::{Senders, ToSwarm},
    config::P2pConfig,
    link::LinkContext,
    listening::Bound,
    metrics::P2pMetrics,
    sockets::DialHosts,
    streams::{AcceptQueue, Acceptors},
};

/// Between clients and relays. Source: libp2p specifications, `relay/circuit-v2.md`.
pub(crate) const HOP: StreamProtocol = StreamProtocol::new("/libp2p/circuit/relay/0.2.0/hop");

/// Between relays and those whom circuits lead to. Source: there.
const STOP: StreamProtocol = StreamProtocol::new("/libp2p/circuit/relay/0.2.0/stop");

/// Addresses told of one node, at most. Chosen: both address families of four interfaces.
const MAX_TOLD: usize = 8;

/// The part that a node takes in making nodes reachable. [`ReachConfig::default`] takes none; circuits to others are
/// dialled all the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReachConfig {
    /// The parts that the node takes. Default: none.
    pub parts: BTreeSet<ReachPart>,
    /// The limits within which a [`ReachPart::Relay`] carries circuits.
    pub limits: RelayLimits,
}

/// One part in making nodes reachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ReachPart {
    /// The node carries circuits for others.
    Relay,
}

impl ReachPart {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::Relay];

    /// The name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
        }
    }

    /// The part with this name in the configuration.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|part| part.name() == name)
    }
}

impl ReachConfig {
    /// Takes this part too.
    #[must_use]
    pub fn with(mut self, part: ReachPart) -> Self {
        self.parts.insert(part);
        self
    }

    /// Relays circuits for others within these limits.
    #[must_use]
    pub fn with_relay(mut self, limits: RelayLimits) -> Self {
        self.limits = limits;
        self.with(ReachPart::Relay)
    }

    fn has(&self, part: ReachPart) -> bool {
        self.parts.contains(&part)
    }
}

/// News for the swarm task.
#[derive(Debug)]
pub(crate) enum ReachNotice {
    /// A relay has given a place, and these addresses lead through it.
    Reserved { relay: PeerId, addresses: Vec<Multiaddr> },
    /// The place at a relay is lost.
    Lost { relay: PeerId },
}

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
}

/// The part of one swarm that the swarm task has.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    places: Option<Arc<Places>>,
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
        let stops =
            (!relays.is_empty()).then(|| (stops, acceptors.accept(&[STOP], circuits::WAITING)));
        let limits = config.reach.limits;
        let relay = config
            .reach
            .has(ReachPart::Relay)
            .then(|| (Arc::new(Places::new(limits)), acceptors.accept(&[HOP], server::WAITING)));
        let announced = config.announce.clone();
        (Self { local, announced, relays, bound, metrics, reservations, stops, relay }, circuits)
    }

    /// Starts the tasks of a swarm that runs, in `tasks`.
    pub(crate) fn start(
        self,
        context: &LinkContext,
        (swarm, senders): (&ToSwarm, &Senders),
        tasks: &TaskSet,
    ) -> Reach {
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
            clock,
        };
        for relay in self.relays {
            let client = client.clone();
            tasks.spawn("relay keeper", |cancel| client.keep(relay, cancel));
        }
        Reach { places }
    }
}

impl Reach {
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
