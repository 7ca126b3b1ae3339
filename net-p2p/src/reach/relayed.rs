//! The circuits of one swarm: those that it dials, and those that lead to it through relays.

use libp2p::Multiaddr;
use runtime::TaskSet;

use super::{
    STOP,
    circuits::{self, Circuits, Stops},
    client::{Client, Reservations},
};
use crate::{
    address::{PeerAddress, relay_of},
    command::{Senders, ToSwarm},
    dial_hosts::DialHosts,
    link::LinkContext,
    metrics::P2pMetrics,
    streams::{AcceptQueue, Acceptors},
};

/// The part of one swarm, before it runs.
pub(crate) struct Relayed {
    /// The relays that the configuration names.
    relays: Vec<PeerAddress>,
    reservations: Reservations,
    stops: Stops,
    /// `None` in a node that has no place at a relay, and asks for none.
    accept: Option<AcceptQueue>,
}

impl Relayed {
    /// The part of a node that listens on these addresses, and the transport of its circuits.
    pub(crate) fn new(
        listen: &[Multiaddr],
        metrics: &P2pMetrics,
        acceptors: &mut Acceptors,
        (swarm, hosts): (ToSwarm, DialHosts),
    ) -> (Self, Circuits) {
        let relays: Vec<_> = listen.iter().filter_map(relay_of).collect();
        let reservations = Reservations::default();
        let (circuits, stops) =
            Circuits::new(swarm, hosts, (reservations.clone(), metrics.clone()));
        let names_relays = !relays.is_empty();
        let mut relayed = Self { relays, reservations, stops, accept: None };
        if names_relays {
            relayed.take_circuits(acceptors);
        }
        (relayed, circuits)
    }

    /// Takes circuits of the relays at which the node gets a place.
    pub(super) fn take_circuits(&mut self, acceptors: &mut Acceptors) {
        self.accept.get_or_insert_with(|| acceptors.accept(&[STOP], circuits::WAITING));
    }

    /// The reservations of the node.
    #[cfg(feature = "reachability")]
    pub(super) fn reservations(&self) -> Reservations {
        self.reservations.clone()
    }

    /// Starts the tasks of a swarm that runs, in `tasks`. Returns the client of relays that they share.
    pub(crate) fn start(
        self,
        context: &LinkContext,
        (swarm, senders): (&ToSwarm, &Senders),
        tasks: &TaskSet,
    ) -> Client {
        let Self { relays, reservations, stops, accept } = self;
        if let Some(accept) = accept {
            let each = tasks.clone();
            tasks.spawn("circuits", |cancel| stops.run(accept, each, cancel));
        }
        let client = Client {
            swarm: swarm.clone(),
            senders: senders.clone(),
            reservations,
            levels: context.metrics.levels().clone(),
            clock: context.broadcaster.environment().clock().clone(),
        };
        for relay in relays {
            let client = client.clone();
            tasks.spawn("relay keeper", |cancel| client.keep(relay, cancel));
        }
        client
    }
}
