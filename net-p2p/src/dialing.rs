//! Dials for the schedule and for stream requests, and their results.
//!
//! # Invariants
//!
//! * Every address that the schedule hands out gets a result: connected, or failed for a reason.
//! * Dials for stream requests bypass the schedule: they do not count against its bounds, and their failure
//!   goes to the callers that wait for the stream.
//! * A dial counts as connected once its gossip link is up, or once the link was refused in favour of one
//!   over another transport. Until then its address counts as being dialled.
//! * At most [`MAX_DISCOVERED`] addresses come from the local network.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use gossip::Identity;
use libp2p::{
    TransportError, mdns,
    swarm::{
        ConnectionId, DialError,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use mesh::{AddressKind, DialFailure, DialLimits, DialSchedule, Dials, Tell};
use runtime::Random;
use tokio::time::Instant;

use crate::{
    address::PeerAddress,
    behaviour::NodeSwarm,
    metrics::{P2pEvent, P2pMetrics},
    peers::{Dialled, Purpose},
    sockets::is_unresolved,
    streams::OpenError,
};

/// Largest number of addresses of the local network to dial. Chosen: twice the default fan-out.
const MAX_DISCOVERED: usize = 8;

/// The error shown for a configured address that is this node's own.
const OURSELVES: &str = "it is this node";

/// A dial in progress.
#[derive(Clone, Debug)]
pub(crate) struct Dial {
    pub(crate) address: PeerAddress,
    pub(crate) purpose: Purpose,
}

/// The dial schedule, and the dials in progress.
#[derive(Debug)]
pub(crate) struct Dialing {
    schedule: DialSchedule<PeerAddress>,
    /// Dials in progress, by the ID of the connection they will make.
    pending: HashMap<ConnectionId, Dial>,
    /// Addresses that mDNS has found on the local network.
    discovered: BTreeSet<PeerAddress>,
    /// The states of the configured addresses, as shown to the operator.
    dials: Dials,
    random: Random,
    local: Identity,
    metrics: P2pMetrics,
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

impl Dialing {
    /// Creates the state without addresses, in a node with the identity `local`.
    pub(crate) fn new(
        limits: DialLimits,
        dials: Dials,
        random: Random,
        local: Identity,
        metrics: P2pMetrics,
    ) -> Self {
        Self {
            local,
            metrics,
            schedule: DialSchedule::new(limits),
            pending: HashMap::new(),
            discovered: BTreeSet::new(),
            dials,
            random,
        }
    }

    pub(crate) fn add_configured(&mut self, address: PeerAddress) {
        self.dials.add(&address.address.to_string());
        // The schedule is full of configured addresses. Its own bound makes this mistake visible.
        if self.schedule.add(address, AddressKind::Configured) == mesh::Added::Full {
            tracing::warn!("too many addresses to dial");
        }
    }

    /// Records that an address led to no link, and why.
    pub(crate) fn failed(&mut self, address: &PeerAddress, why: DialFailure, error: String) {
        let now = now();
        self.schedule.failed(address, why, now, &mut self.random);
        let peer = address.address.to_string();
        tracing::debug!(peer, ?why, error, "dial came to nothing");
        if matches!(why, DialFailure::Duplicate(_)) {
            return self.dials.connected_otherwise(&peer);
        }
        let next_try = self.schedule.next_try(address, now);
        match self.dials.failed(&peer, error.clone(), next_try, now) {
            Tell::Now(failures) => {
                tracing::warn!(peer, error, failures, "a configured peer cannot be reached");
            }
            Tell::NotYet => {}
        }
    }

    /// Records that a dial has led to a connection, and returns the dial.
    pub(crate) fn arrived(&mut self, connection: ConnectionId) -> Option<Dial> {
        self.pending.remove(&connection)
    }

    /// Records that a dial of the schedule failed.
    fn came_to_nothing(&mut self, address: &PeerAddress, error: &DialError) {
        let why = match error {
            DialError::LocalPeerId { .. } => DialFailure::Ourselves,
            DialError::Denied { .. } => DialFailure::Refused,
            _ => DialFailure::Unreachable,
        };
        self.failed(address, why, cause_of(error));
    }

    /// Records that a dialled connection ended.
    pub(crate) fn lost(&mut self, dialled: &Dialled) {
        if dialled.settled {
            self.schedule.ended(&dialled.address, now(), &mut self.random);
            self.dials.ended(&dialled.address.address.to_string());
        } else {
            let error = "the connection ended before there was a gossip link".to_owned();
            self.failed(&dialled.address, DialFailure::Unreachable, error);
        }
    }

    /// Records that a dialled connection is in use.
    pub(crate) fn connected(&mut self, address: &PeerAddress) {
        self.schedule.connected(address, Some(address.identity), now());
        self.dials.connected(&address.address.to_string());
    }

    /// Records that a dialled connection is not needed because another one to the same peer is in use.
    pub(crate) fn duplicate(&mut self, address: &PeerAddress) {
        let error = "another connection to the peer stays".to_owned();
        self.failed(address, DialFailure::Duplicate(address.identity), error);
    }

    /// Records that the first gossip link to a peer is up.
    pub(crate) fn linked(&mut self, identity: Identity) {
        self.schedule.identity_connected(identity);
    }

    /// Records that the last gossip link to a peer has ended.
    pub(crate) fn unlinked(&mut self, identity: &Identity) {
        self.schedule.identity_gone(identity, now(), &mut self.random);
    }

    /// Returns the addresses that are due. Each needs a result: dialled, connected or failed.
    pub(crate) fn due(&mut self) -> Vec<PeerAddress> {
        self.schedule.due(now(), &mut self.random)
    }

    /// Records that an address of the schedule is this node's own.
    pub(crate) fn is_ourselves(&mut self, address: &PeerAddress) {
        self.failed(address, DialFailure::Ourselves, OURSELVES.to_owned());
    }

    /// Dials an address for a stream request.
    pub(crate) fn dial_for_streams(&mut self, swarm: &mut NodeSwarm, address: PeerAddress) {
        if address.identity == self.local {
            let streams = &mut swarm.behaviour_mut().streams;
            return streams.not_reached(&address, || OpenError::Ourselves);
        }
        self.reach(swarm, Dial { address, purpose: Purpose::Streams });
    }

    /// Dials an address of the schedule.
    pub(crate) fn dial_for_gossip(&mut self, swarm: &mut NodeSwarm, address: PeerAddress) {
        self.reach(swarm, Dial { address, purpose: Purpose::Gossip });
    }

    fn reach(&mut self, swarm: &mut NodeSwarm, dial: Dial) {
        let options = DialOpts::peer_id(dial.address.peer)
            .condition(PeerCondition::Always)
            .addresses(vec![dial.address.address.clone()])
            // A new port, as for every dial: the port that a peer sees of this node is none that it listens on.
            .allocate_new_port()
            .build();
        let connection = options.connection_id();
        self.pending.insert(connection, dial);
        if let Err(error) = swarm.dial(options) {
            self.dial_failed(swarm, connection, error);
        }
    }

    /// Records that a dial failed, and reports it to the schedule or to the waiting callers.
    pub(crate) fn dial_failed(
        &mut self,
        swarm: &mut NodeSwarm,
        connection: ConnectionId,
        error: DialError,
    ) {
        let Some(Dial { address, purpose }) = self.pending.remove(&connection) else {
            return;
        };
        let is_unresolved = is_unresolved(&error);
        if is_unresolved {
            self.metrics.note(P2pEvent::Unresolved);
        }
        if purpose == Purpose::Gossip {
            return self.came_to_nothing(&address, &error);
        }
        tracing::debug!(address = %address.address, %error, "dial for a stream came to nothing");
        let error = Arc::new(error);
        swarm.behaviour_mut().streams.not_reached(&address, || match &*error {
            DialError::WrongPeerId { obtained, .. } => OpenError::WrongPeer { obtained: *obtained },
            _ if is_unresolved => OpenError::Unresolved,
            _ => OpenError::Dial(Arc::clone(&error)),
        });
    }

    /// Adds the addresses that mDNS has found on the local network, and removes those that have expired.
    pub(crate) fn on_mdns(&mut self, event: mdns::Event) {
        match event {
            mdns::Event::Discovered(found) => {
                for (peer, address) in found {
                    let Ok(address) = address.with_p2p(peer) else { continue };
                    let Ok(address) = PeerAddress::new(address) else { continue };
                    let is_full = self.discovered.len() >= MAX_DISCOVERED;
                    if address.identity == self.local || is_full {
                        continue;
                    }
                    self.discovered.insert(address.clone());
                    // If the schedule is full, it has enough other addresses to dial.
                    let _ = self.schedule.add(address, AddressKind::Learnt);
                }
            }
            mdns::Event::Expired(gone) => {
                for (peer, address) in gone {
                    let Ok(address) = address.with_p2p(peer) else { continue };
                    let Ok(address) = PeerAddress::new(address) else { continue };
                    if self.discovered.remove(&address) {
                        self.schedule.remove(&address);
                    }
                }
            }
        }
    }
}

/// The cause of a failed dial in one line; the library's text has one line per address tried.
fn cause_of(error: &DialError) -> String {
    let DialError::Transport(tried) = error else {
        return match error {
            DialError::WrongPeerId { obtained, .. } => format!("{obtained} answers there instead"),
            DialError::LocalPeerId { .. } => OURSELVES.to_owned(),
            other => other.to_string(),
        };
    };
    let innermost = |error: &TransportError<std::io::Error>| {
        let mut innermost: &dyn std::error::Error = error;
        while let Some(source) = innermost.source() {
            innermost = source;
        }
        innermost.to_string()
    };
    let mut causes: Vec<String> = tried.iter().map(|(_, error)| innermost(error)).collect();
    causes.dedup();
    causes.join("; ")
}
