//! Whom to dial, and what became of it.
//!
//! # Invariants
//!
//! * Every address the schedule hands out is answered: connected, or failed for a reason.
//! * What is dialled for a stream is no business of the schedule's: it neither counts nor is counted, and
//!   its end is told to who waits for the stream.
//! * A connection counts as connected once its gossip link is up, or refused in favour of a link by
//!   another transport; until then its address counts as being dialled.
//! * At most [`MAX_DISCOVERED`] addresses come from the local network.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use gossip::{ConnectPolicy, Direction, DisconnectReason, Identity};
use libp2p::{
    Multiaddr, PeerId, mdns,
    multiaddr::Protocol,
    swarm::{
        ConnectionId, DialError,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use mesh::{AddressKind, DialFailure, DialLimits, DialSchedule};
use tokio::time::{self, Instant};

use crate::{
    command::Notice,
    config::{GossipStreams, PeerAddress},
    metrics::P2pEvent,
    peers::{Dialled, Purpose},
    streams::OpenError,
    swarm::Core,
};

/// Addresses of the local network that are dialled. Chosen: twice the default fan-out.
const MAX_DISCOVERED: usize = 8;

/// How long looking up a name may take. Chosen: as long as the handshake that follows.
const LOOK_UP_LIMIT: Duration = Duration::from_secs(10);

/// Addresses of one name that are dialled. Chosen.
const MAX_RESOLVED: usize = 8;

/// A dial on its way.
#[derive(Clone, Debug)]
pub(crate) struct Dial {
    pub(crate) address: PeerAddress,
    pub(crate) purpose: Purpose,
}

/// The schedule, and the dials it is waiting for.
#[derive(Debug)]
pub(crate) struct Dialing {
    schedule: DialSchedule<PeerAddress>,
    /// Dials on their way, by the connection they will lead to.
    pending: HashMap<ConnectionId, Dial>,
    /// Found on the local network.
    discovered: BTreeSet<PeerAddress>,
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

impl Dialing {
    pub(crate) fn new(limits: DialLimits) -> Self {
        Self {
            schedule: DialSchedule::new(limits),
            pending: HashMap::new(),
            discovered: BTreeSet::new(),
        }
    }

    pub(crate) fn add_configured(&mut self, address: PeerAddress) {
        // A schedule full of configured addresses is a mistake that its own bound makes visible.
        if self.schedule.add(address, AddressKind::Configured) == mesh::Added::Full {
            tracing::warn!("too many addresses to dial");
        }
    }

    fn failed(&mut self, address: &PeerAddress, why: DialFailure) {
        tracing::debug!(address = %address.address, ?why, "dial came to nothing");
        self.schedule.failed(address, why, now(), &mut rand::rng());
    }

    /// A dial led to a connection.
    pub(crate) fn arrived(&mut self, connection: ConnectionId) -> Option<Dial> {
        self.pending.remove(&connection)
    }

    /// A dial of the schedule led to nothing.
    fn dial_failed(&mut self, address: &PeerAddress, error: &DialError) {
        let why = match error {
            DialError::LocalPeerId { .. } => DialFailure::Ourselves,
            DialError::Denied { .. } => DialFailure::Refused,
            DialError::WrongPeerId { obtained, .. } => {
                tracing::warn!(address = %address.address, %obtained, "somebody else answered");
                DialFailure::Unreachable
            }
            _ => DialFailure::Unreachable,
        };
        self.failed(address, why);
    }

    /// A connection that was dialled ended.
    pub(crate) fn lost(&mut self, dialled: &Dialled) {
        if dialled.settled {
            self.schedule.ended(&dialled.address, now(), &mut rand::rng());
        } else {
            self.failed(&dialled.address, DialFailure::Unreachable);
        }
    }

    /// A dialled connection is in use.
    pub(crate) fn connected(&mut self, address: &PeerAddress) {
        self.schedule.connected(address, Some(address.identity), now());
    }

    /// A dialled connection is not needed: another one to the same peer is.
    pub(crate) fn duplicate(&mut self, address: &PeerAddress) {
        self.failed(address, DialFailure::Duplicate(address.identity));
    }

    /// A gossip link to a peer is up.
    pub(crate) fn linked(&mut self, identity: Identity) {
        self.schedule.identity_connected(identity);
    }

    /// The last gossip link to a peer is gone.
    pub(crate) fn unlinked(&mut self, identity: &Identity) {
        self.schedule.identity_gone(identity, now(), &mut rand::rng());
    }
}

impl Core {
    /// Dials what is due.
    pub(crate) fn dial_due(&mut self) {
        if self.gossip == GossipStreams::Off {
            return;
        }
        for address in self.dialing.schedule.due(now(), &mut rand::rng()) {
            self.dial(address);
        }
    }

    fn dial(&mut self, address: PeerAddress) {
        if address.identity == self.around.local {
            return self.dialing.failed(&address, DialFailure::Ourselves);
        }
        if let Some(peer) = self.peers.get_mut(&address.peer)
            && let Some(known) = peer.connections.first_mut()
        {
            let connection = known.id;
            let linked = peer.attempts.iter().any(|attempt| attempt.up);
            if linked || known.dialled.is_some() {
                return self.dialing.duplicate(&address);
            }
            // The late path: a peer that is connected already is asked for a stream.
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

    /// Dials an address because somebody wants a stream to its peer.
    pub(crate) fn dial_for_streams(&mut self, address: PeerAddress) {
        if address.identity == self.around.local {
            let streams = &mut self.swarm.behaviour_mut().streams;
            return streams.not_reached(&address, || OpenError::Ourselves);
        }
        self.reach(Dial { address, purpose: Purpose::Streams });
    }

    fn reach(&mut self, dial: Dial) {
        if let Some(host) = host_name(&dial.address.address) {
            self.resolve(dial, host);
        } else {
            let to = dial.address.address.clone();
            self.dial_to(dial, vec![to]);
        }
    }

    /// Looks a name up, in a task of its own.
    fn resolve(&mut self, dial: Dial, host: HostName) {
        let notices = self.senders.notices.clone();
        self.tasks.spawn("look-up", |cancel| async move {
            let found =
                time::timeout(LOOK_UP_LIMIT, tokio::net::lookup_host((host.name, host.port)));
            let found = tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                found = found => found,
            };
            let found = found.ok().and_then(Result::ok).into_iter().flatten();
            let wanted = found.filter(|socket| host.family.includes(socket.ip()));
            let multiaddr = |socket: std::net::SocketAddr| {
                Multiaddr::from(socket.ip())
                    .with(Protocol::Tcp(socket.port()))
                    .with(Protocol::P2p(dial.address.peer))
            };
            let resolved = wanted.take(MAX_RESOLVED).map(multiaddr).collect();
            // A swarm that is gone dials nobody.
            let _ = notices.send(Notice::Resolved { dial, resolved }).await;
        });
    }

    pub(crate) fn dial_resolved(&mut self, dial: Dial, resolved: Vec<Multiaddr>) {
        let Dial { address, purpose } = &dial;
        let streams = &mut self.swarm.behaviour_mut().streams;
        match (purpose, resolved.is_empty()) {
            // The peer connected meanwhile, and who waited has a stream.
            (Purpose::Streams, _) if !streams.waits_for(&address.peer) => {}
            (_, false) => self.dial_to(dial, resolved),
            (Purpose::Streams, true) => {
                self.around.metrics.note(P2pEvent::Unresolved);
                streams.not_reached(address, || OpenError::Unresolved);
            }
            (Purpose::Gossip, true) => {
                self.around.metrics.note(P2pEvent::Unresolved);
                self.dialing.failed(address, DialFailure::Unreachable);
            }
        }
    }

    fn dial_to(&mut self, dial: Dial, to: Vec<Multiaddr>) {
        // A new port each time: with the listening port, two nodes that dial each other at the same
        // moment would get one TCP connection of which both believe that they dialled it.
        let options = DialOpts::peer_id(dial.address.peer)
            .condition(PeerCondition::Always)
            .addresses(to)
            .allocate_new_port()
            .build();
        let connection = options.connection_id();
        self.dialing.pending.insert(connection, dial);
        if let Err(error) = self.swarm.dial(options) {
            self.dial_failed(connection, error);
        }
    }

    /// A dial led to nothing.
    pub(crate) fn dial_failed(&mut self, connection: ConnectionId, error: DialError) {
        let Some(Dial { address, purpose }) = self.dialing.pending.remove(&connection) else {
            return;
        };
        if purpose == Purpose::Gossip {
            return self.dialing.dial_failed(&address, &error);
        }
        tracing::debug!(address = %address.address, %error, "dial for a stream came to nothing");
        let error = Arc::new(error);
        self.swarm.behaviour_mut().streams.not_reached(&address, || match &*error {
            DialError::WrongPeerId { obtained, .. } => OpenError::WrongPeer { obtained: *obtained },
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

    /// The peer answered on a connection that was dialled, and there will be no link.
    pub(crate) fn refused(&mut self, id: &PeerId, on: ConnectionId) {
        self.unsettled(id, on, DialFailure::Refused);
    }

    /// No link came about on a connection that was dialled.
    pub(crate) fn unreachable(&mut self, id: &PeerId, on: ConnectionId) {
        self.unsettled(id, on, DialFailure::Unreachable);
    }

    fn unsettled(&mut self, id: &PeerId, on: ConnectionId, why: DialFailure) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let known = peer.connections.iter_mut().find(|known| known.id == on);
        let dialled = known.and_then(|known| known.dialled.take_if(|dialled| !dialled.settled));
        if let Some(dialled) = dialled {
            self.dialing.failed(&dialled.address, why);
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
                    // A full schedule has enough to dial without it.
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

/// Which kinds of address a name may stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
    Any,
}

impl Family {
    fn includes(self, ip: std::net::IpAddr) -> bool {
        match self {
            Self::V4 => ip.is_ipv4(),
            Self::V6 => ip.is_ipv6(),
            Self::Any => true,
        }
    }
}

/// A name to look up, with the port behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct HostName {
    name: String,
    port: u16,
    family: Family,
}

/// The name at the start of an address, if there is one.
fn host_name(address: &Multiaddr) -> Option<HostName> {
    let mut parts = address.iter();
    let (name, family) = match parts.next()? {
        Protocol::Dns4(name) => (name, Family::V4),
        Protocol::Dns6(name) => (name, Family::V6),
        Protocol::Dns(name) => (name, Family::Any),
        _ => return None,
    };
    let Protocol::Tcp(port) = parts.next()? else { return None };
    Some(HostName { name: name.into_owned(), port, family })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_up_and_an_address_is_not() {
        let host = |text: &str| host_name(&text.parse().unwrap());
        let localhost = |family| HostName { name: "localhost".to_owned(), port: 80, family };
        assert_eq!(host("/dns4/localhost/tcp/80"), Some(localhost(Family::V4)));
        assert_eq!(host("/dns6/localhost/tcp/80"), Some(localhost(Family::V6)));
        assert_eq!(host("/dns/localhost/tcp/80"), Some(localhost(Family::Any)));
        assert_eq!(host("/ip4/127.0.0.1/tcp/80"), None);
        assert_eq!(host("/dns4/localhost/udp/80"), None);
    }
}
