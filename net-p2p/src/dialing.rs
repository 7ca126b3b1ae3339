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

use gossip::{ConnectPolicy, Direction, DisconnectReason, Identity};
use libp2p::{
    PeerId, TransportError, mdns,
    swarm::{
        ConnectionId, DialError,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use mesh::{AddressKind, DialFailure, DialLimits, DialSchedule, Dials, Tell};
use runtime::Random;
use tokio::time::Instant;

use crate::{
    config::{GossipStreams, PeerAddress},
    metrics::P2pEvent,
    peers::{Dialled, Purpose},
    sockets::is_unresolved,
    streams::OpenError,
    swarm::Core,
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
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

impl Dialing {
    pub(crate) fn new(limits: DialLimits, dials: Dials, random: Random) -> Self {
        Self {
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

    fn failed(&mut self, address: &PeerAddress, why: DialFailure, error: String) {
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
    fn dial_failed(&mut self, address: &PeerAddress, error: &DialError) {
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
}

impl Core {
    /// Dials every address that is due.
    pub(crate) fn dial_due(&mut self) {
        if self.gossip == GossipStreams::Off {
            return;
        }
        let Dialing { schedule, random, .. } = &mut self.dialing;
        for address in schedule.due(now(), random) {
            self.dial(address);
        }
    }

    fn dial(&mut self, address: PeerAddress) {
        if address.identity == self.around.local {
            return self.dialing.failed(&address, DialFailure::Ourselves, OURSELVES.to_owned());
        }
        if let Some(peer) = self.peers.get_mut(&address.peer)
            && let Some(known) = peer.connections.first_mut()
        {
            let connection = known.id;
            let linked = peer.attempts.iter().any(|attempt| attempt.up);
            if linked || known.dialled.is_some() {
                return self.dialing.duplicate(&address);
            }
            // The peer is already connected, so a stream is opened on that connection instead.
            let id = address.peer;
            known.dialled = Some(Dialled { address, settled: false });
            known.purpose = Purpose::Gossip;
            if !peer.gossips {
                self.settle(&id, |known| known == connection);
            } else if peer.attempts.is_empty() {
                self.open_link(id, connection);
            }
            return;
        }
        self.reach(Dial { address, purpose: Purpose::Gossip });
    }

    /// Dials an address for a stream request.
    pub(crate) fn dial_for_streams(&mut self, address: PeerAddress) {
        if address.identity == self.around.local {
            let streams = &mut self.swarm.behaviour_mut().streams;
            return streams.not_reached(&address, || OpenError::Ourselves);
        }
        self.reach(Dial { address, purpose: Purpose::Streams });
    }

    fn reach(&mut self, dial: Dial) {
        let options = DialOpts::peer_id(dial.address.peer)
            .condition(PeerCondition::Always)
            .addresses(vec![dial.address.address.clone()])
            // A new port, as for every dial: the port that a peer sees of this node is none that it listens on.
            .allocate_new_port()
            .build();
        let connection = options.connection_id();
        self.dialing.pending.insert(connection, dial);
        if let Err(error) = self.swarm.dial(options) {
            self.dial_failed(connection, error);
        }
    }

    /// Records that a dial failed, and reports it to the schedule or to the waiting callers.
    pub(crate) fn dial_failed(&mut self, connection: ConnectionId, error: DialError) {
        let Some(Dial { address, purpose }) = self.dialing.pending.remove(&connection) else {
            return;
        };
        let is_unresolved = is_unresolved(&error);
        if is_unresolved {
            self.around.metrics.note(P2pEvent::Unresolved);
        }
        if purpose == Purpose::Gossip {
            return self.dialing.dial_failed(&address, &error);
        }
        tracing::debug!(address = %address.address, %error, "dial for a stream came to nothing");
        let error = Arc::new(error);
        self.swarm.behaviour_mut().streams.not_reached(&address, || match &*error {
            DialError::WrongPeerId { obtained, .. } => OpenError::WrongPeer { obtained: *obtained },
            _ if is_unresolved => OpenError::Unresolved,
            _ => OpenError::Dial(Arc::clone(&error)),
        });
    }

    pub(crate) fn connect_outgoing(&mut self, policy: ConnectPolicy) {
        if policy == ConnectPolicy::ReplaceMesh {
            for (_, peer) in self.peers.iter() {
                let ours =
                    peer.connections.iter().filter(|known| known.direction == Direction::Outbound);
                for known in ours {
                    for attempt in
                        peer.attempts.iter().filter(|attempt| attempt.connection == known.id)
                    {
                        self.around
                            .broadcaster
                            .disconnect(attempt.link, DisconnectReason::Requested);
                    }
                }
            }
        }
        self.dial_due();
    }

    /// Records that the peer refused to gossip on a dialled connection.
    pub(crate) fn refused(&mut self, id: &PeerId, on: ConnectionId) {
        self.unsettled(id, on, DialFailure::Refused);
    }

    /// Records that no link could be made on a dialled connection.
    pub(crate) fn unreachable(&mut self, id: &PeerId, on: ConnectionId) {
        self.unsettled(id, on, DialFailure::Unreachable);
    }

    fn unsettled(&mut self, id: &PeerId, on: ConnectionId, why: DialFailure) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let known = peer.connections.iter_mut().find(|known| known.id == on);
        let dialled = known.and_then(|known| known.dialled.take_if(|dialled| !dialled.settled));
        if let Some(dialled) = dialled {
            let error = match why {
                DialFailure::Refused => {
                    "the peer refused gossip: is it of this network, and of this profile?"
                }
                _ => "the gossip handshake failed",
            };
            self.dialing.failed(&dialled.address, why, error.to_owned());
        }
    }

    pub(crate) fn on_mdns(&mut self, event: mdns::Event) {
        match event {
            mdns::Event::Discovered(found) => {
                for (peer, address) in found {
                    let Ok(address) = address.with_p2p(peer) else { continue };
                    let Ok(address) = PeerAddress::new(address) else { continue };
                    let discovered = &mut self.dialing.discovered;
                    if address.identity == self.around.local || discovered.len() >= MAX_DISCOVERED {
                        continue;
                    }
                    discovered.insert(address.clone());
                    // If the schedule is full, it has enough other addresses to dial.
                    let _ = self.dialing.schedule.add(address, AddressKind::Learnt);
                }
            }
            mdns::Event::Expired(gone) => {
                for (peer, address) in gone {
                    let Ok(address) = address.with_p2p(peer) else { continue };
                    let Ok(address) = PeerAddress::new(address) else { continue };
                    if self.dialing.discovered.remove(&address) {
                        self.dialing.schedule.remove(&address);
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
