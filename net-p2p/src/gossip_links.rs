//! The gossip links of the swarm task: the connections they are made on, the dials for them, and the effects of
//! their ends.
//!
//! ```text
//!   mesh loop ─▶ dial ─▶ connection ┐
//!   a peer opened a stream ─────────┴─▶ attempt (a task) ─▶ up ─▶ ended ─▶ opened again, or its connection ends
//! ```
//!
//! # Invariants
//!
//! * At most [`MAX_HANDSHAKES`] handshakes on inbound streams are in progress, at most
//!   [`MAX_HANDSHAKES_PER_PEER`] with one peer.
//! * Gossip streams are opened and accepted only with peers whose kind of key the network gossips with. All
//!   other protocols are open to every kind.
//! * A dialled address gets its result when a link on its connection is up, is refused, or has failed.

use std::sync::Arc;

use broadcaster::{RoundTrip, Ticket};
use gossip::{Direction, DisconnectReason, LinkPath};
use libp2p::{
    PeerId,
    core::{ConnectedPoint, Endpoint},
    ping,
    swarm::ConnectionId,
};
use mesh::DialFailure;
use runtime::{TaskSet, time::Instant};
use tokio::sync::oneshot;

use crate::{
    address::{PeerAddress, identity_of, path_of},
    behaviour::NodeSwarm,
    command::{LinkOutcome, Notice, Senders},
    config::GossipStreams,
    conventions::{Conventions, LinkEnd},
    dialing::{Dial, Dialing, OURSELVES},
    link::{Attempt, LinkContext, Start},
    metrics::P2pEvent,
    peers::{Attempted, Connection, Peer, Peers, Purpose, REOPENING},
    pubsub,
    streams::InboundStream,
};

/// Largest number of handshakes in progress on inbound streams. Source: threats and goals, row 1.
const MAX_HANDSHAKES: usize = 128;

/// Largest number of those with one peer. Chosen: one is needed; the rest is a margin for reconnections.
const MAX_HANDSHAKES_PER_PEER: usize = 8;

/// The error shown for an address of a peer that is connected otherwise.
const ANOTHER_STAYS: &str = "another connection to the peer stays";

/// The peers of a swarm, the dials that lead to them and the links with them.
#[derive(Debug)]
pub(crate) struct GossipLinks {
    pub(crate) context: Arc<LinkContext>,
    pub(crate) conventions: Conventions,
    pub(crate) gossip: GossipStreams,
    pub(crate) peers: Peers,
    pub(crate) dialing: Dialing,
    /// Cloned for link tasks.
    pub(crate) senders: Senders,
    /// Link tasks.
    pub(crate) tasks: TaskSet,
}

impl GossipLinks {
    /// Returns `true` if another inbound stream may be accepted.
    pub(crate) fn accepts(&self) -> bool {
        self.peers.handshakes() < MAX_HANDSHAKES
    }

    /// Opens the links that this end has to open.
    pub(crate) fn tend(&mut self, swarm: &mut NodeSwarm) {
        if self.gossip == GossipStreams::Off {
            return;
        }
        close_unused(swarm);
        let now = Instant::now();
        for (peer, connection) in self.peers.due(now) {
            if self.would_lose(&peer) {
                self.peers.postpone(&peer, now + REOPENING);
                self.settle(&peer, |_| true);
            } else {
                self.open_link(peer, connection);
            }
        }
    }

    /// Carries out an order of the mesh loop.
    pub(crate) fn dial(&mut self, swarm: &mut NodeSwarm, ticket: Ticket) {
        let address = match PeerAddress::parse(ticket.address()) {
            Ok(address) => address,
            Err(error) => return ticket.failed(DialFailure::Unreachable, &error.to_string()),
        };
        if address.identity == self.context.local {
            return ticket.failed(DialFailure::Ourselves, OURSELVES);
        }
        if let Some(peer) = self.peers.get_mut(&address.peer)
            && !peer.refuses()
            && let Some(known) = peer.connections.first_mut()
        {
            let connection = known.id;
            let linked = peer.attempts.iter().any(|attempt| attempt.up);
            if linked || known.dialled.is_some() {
                return ticket.failed(DialFailure::Duplicate(address.identity), ANOTHER_STAYS);
            }
            // The peer is already connected, so a stream is opened on that connection instead.
            let id = address.peer;
            known.dialled = Some(ticket);
            known.purpose = Purpose::Gossip;
            if !peer.gossips {
                self.settle(&id, |known| known == connection);
            } else if peer.attempts.is_empty() {
                self.open_link(id, connection);
            }
            return;
        }
        self.dialing.dial_for_gossip(swarm, address, ticket);
    }

    /// Returns `true` if a new link to this peer would be refused in favour of a link over another transport.
    fn would_lose(&self, peer: &libp2p::PeerId) -> bool {
        let Some(peer) = self.peers.get(peer) else { return true };
        let holder = self.context.broadcaster.holder(&peer.identity);
        self.conventions.link_end == LinkEnd::Connection
            && holder.is_some_and(|link| !peer.is_relayed(link))
    }

    /// Handles a new connection.
    pub(crate) fn on_connected(
        &mut self,
        swarm: &mut NodeSwarm,
        peer: libp2p::PeerId,
        connection: ConnectionId,
        endpoint: &ConnectedPoint,
    ) {
        let direction = match endpoint {
            // Two ends of a circuit that meet dial each other. The one to which the circuit came has let itself be dialled,
            // and its fan-out has no place for the connection.
            ConnectedPoint::Dialer { role_override: Endpoint::Listener, .. }
            | ConnectedPoint::Listener { .. } => Direction::Inbound,
            ConnectedPoint::Dialer { .. } => Direction::Outbound,
        };
        let dialled = self.dialing.arrived(connection);
        let Some(identity) = identity_of(&peer) else {
            self.context.metrics.note(P2pEvent::ForeignKey);
            swarm.close_connection(connection);
            return;
        };
        tracing::debug!(%peer, direction = direction.label(), "connected");
        if let Some(gossipsub) = swarm.behaviour_mut().gossipsub.as_mut() {
            pubsub::welcome(gossipsub, &peer);
        }
        let (purpose, dialled) = match dialled {
            Some(Dial::Streams(_)) => (Purpose::Streams, None),
            Some(Dial::Gossip(ticket)) => (Purpose::Gossip, Some(ticket)),
            #[cfg(feature = "reachability")]
            Some(Dial::Direct(reply)) => {
                // The send fails only if nobody waits any more.
                let _ = reply.send(true);
                // The link may move to it, if there is one.
                let known = self.peers.get(&peer).into_iter().flat_map(|peer| &peer.connections);
                let gossips = known.clone().any(|known| known.purpose == Purpose::Gossip);
                (if gossips { Purpose::Gossip } else { Purpose::Streams }, None)
            }
            None if direction == Direction::Outbound => (Purpose::Dht, None),
            None => (Purpose::Gossip, None),
        };
        let now = Instant::now();
        let (path, round_trip) = (path_of(endpoint.get_remote_address()), RoundTrip::default());
        let known = Connection { id: connection, direction, path, purpose, round_trip, dialled };
        self.peers.connected(peer, identity, known, now);
        if !self.peers.entry(peer, identity).gossips {
            // This peer gets no gossip link, and topics use the connection as it is.
            self.settle(&peer, |known| known == connection);
        }
        if direction == Direction::Inbound {
            // The peer may have lost its link to this node: a restarted one dials before anything else tells.
            self.context.broadcaster.probe(&identity);
        }
        self.tend(swarm);
    }

    /// Handles the end of a connection, which may have been told before.
    pub(crate) fn on_disconnected(
        &mut self,
        swarm: &mut NodeSwarm,
        peer: PeerId,
        on: ConnectionId,
    ) {
        if let Some(ticket) = self.peers.closed(peer, on, Instant::now()) {
            if ticket.is_linked() {
                // Misbehaviour on the link was told to the mesh loop by the broadcaster.
                ticket.ended(DisconnectReason::RemoteClosed);
            } else {
                let error = "the connection ended before there was a gossip link";
                ticket.failed(DialFailure::Unreachable, error);
            }
        }
        self.tend(swarm);
    }

    /// Handles the result of a ping.
    pub(crate) fn on_ping(&mut self, swarm: &mut NodeSwarm, event: &ping::Event) {
        match &event.result {
            // The library does not report the first failure in a row, so this is the second.
            Err(ping::Failure::Timeout | ping::Failure::Other { .. }) => {
                self.context.metrics.note(P2pEvent::PingTimeout);
                if let Some(left_out) = self.context.lines.silent.due() {
                    tracing::info!(peer = %event.peer, left_out, "no answer to pings, disconnecting");
                }
                let attempts =
                    self.peers.get(&event.peer).into_iter().flat_map(|peer| &peer.attempts);
                for attempt in attempts.filter(|attempt| attempt.connection == event.connection) {
                    // Without this, the connection's orderly end would run first, and the peer could delay it.
                    self.context.broadcaster.disconnect(attempt.link, DisconnectReason::Silent);
                }
                swarm.close_connection(event.connection);
            }
            Ok(time) => {
                let peer = self.peers.get(&event.peer);
                if let Some(cell) = peer.and_then(|peer| peer.round_trip(event.connection)) {
                    cell.set(*time);
                }
            }
            Err(ping::Failure::Unsupported) => {}
        }
    }

    /// Handles an inbound gossip stream.
    pub(crate) fn on_stream(&mut self, stream: InboundStream) {
        let (peer, connection) = (stream.about.peer, stream.about.connection);
        let Some(identity) = identity_of(&peer) else {
            return self.context.metrics.note(P2pEvent::ForeignKey);
        };
        let profile = self.context.broadcaster.profile();
        if profile.bulk_stream_protocol.is_some_and(|bulk| stream.protocol == bulk) {
            return self.hand_second(&peer, connection, stream);
        }
        let known = self.peers.entry(peer, identity);
        if !known.gossips {
            return self.context.metrics.note(P2pEvent::ForeignKey);
        }
        if known.purpose(connection) == Some(Purpose::Dht) {
            return self.context.metrics.note(P2pEvent::GossipNotWanted);
        }
        if known.handshakes() >= MAX_HANDSHAKES_PER_PEER {
            return self.context.metrics.note(P2pEvent::TooManyHandshakes);
        }
        self.begin(peer, connection, Start::Accepted(Box::new(stream)));
    }

    /// Hands a second stream to the attempt on its connection that waits for one.
    fn hand_second(&mut self, peer: &libp2p::PeerId, on: ConnectionId, stream: InboundStream) {
        let attempts = self.peers.get_mut(peer).map(|peer| &mut peer.attempts);
        let waiting = attempts.into_iter().flatten().find_map(|attempt| {
            if attempt.connection == on { attempt.second.take() } else { None }
        });
        if waiting.is_none_or(|waiting| waiting.send(stream).is_err()) {
            self.context.metrics.note(P2pEvent::AcceptorGone);
        }
    }

    fn open_link(&mut self, peer: libp2p::PeerId, connection: ConnectionId) {
        self.begin(peer, connection, Start::Open(connection));
    }

    fn begin(&mut self, id: libp2p::PeerId, connection: ConnectionId, start: Start) {
        let Some(peer) = identity_of(&id).map(|identity| self.peers.entry(id, identity)) else {
            return;
        };
        let opener = match start {
            Start::Accepted(_) => Direction::Inbound,
            Start::Open(_) => Direction::Outbound,
        };
        let link = self.context.broadcaster.next_link_id();
        let (identity, lanes) = (peer.identity, peer.lanes);
        let round_trip = peer.round_trip(connection).cloned().unwrap_or_default();
        let (second, awaited) = oneshot::channel();
        let second = Some(second);
        peer.attempts.push(Attempted { link, connection, opener, up: false, second });
        let attempt =
            Attempt { peer: id, identity, link, start, lanes, second: awaited, round_trip };
        let (context, senders) = (Arc::clone(&self.context), self.senders.clone());
        self.tasks.spawn("gossip link", |cancel| attempt.run(context, senders, cancel));
    }

    /// Handles a notice of a link task.
    pub(crate) fn on_notice(&mut self, swarm: &mut NodeSwarm, notice: Notice) {
        match notice {
            Notice::LinkUp { peer, link } => self.on_link_up(swarm, &peer, link),
            Notice::LinkEnded { peer, link, outcome } => {
                self.on_link_ended(swarm, peer, link, outcome)
            }
            // The swarm task keeps these for itself.
            #[cfg(feature = "circuits")]
            Notice::Reach(_) => {}
        }
    }

    fn on_link_up(&mut self, swarm: &mut NodeSwarm, id: &libp2p::PeerId, link: gossip::LinkId) {
        let Some(peer) = self.peers.up(id, link) else { return };
        let on = peer.attempts.iter().find(|attempt| attempt.link == link);
        let on = on.map(|attempt| attempt.connection);
        let identity = peer.identity;
        // A link over a circuit moves to a direct connection, so it makes none needless.
        let path = on.and_then(|on| peer.path(on)).unwrap_or_default();
        let mut needless = Vec::new();
        for known in peer.connections.iter_mut().filter(|known| known.path >= path) {
            let open = known.dialled.take_if(|ticket| !ticket.is_linked());
            let Some(mut ticket) = open else { continue };
            if Some(known.id) == on {
                ticket.connected(Some(identity));
                known.dialled = Some(ticket);
            } else {
                ticket.failed(DialFailure::Duplicate(identity), ANOTHER_STAYS);
                known.purpose = Purpose::Streams;
                needless.push(known.id);
            }
        }
        peer.follow(on);
        for connection in needless {
            swarm.behaviour_mut().streams.retire(id, connection);
        }
        close_unused(swarm);
    }

    fn on_link_ended(
        &mut self,
        swarm: &mut NodeSwarm,
        id: libp2p::PeerId,
        link: gossip::LinkId,
        outcome: LinkOutcome,
    ) {
        let Some(attempted) = self.peers.ended(id, link, outcome, Instant::now()) else { return };
        let peer = self.peers.get(&id);
        let on = attempted.connection;
        // Until now the circuit carried what was under way when the link moved.
        let moved = peer.is_some_and(|peer| {
            let is_direct =
                |attempt: &Attempted| peer.path(attempt.connection) == Some(LinkPath::Direct);
            peer.path(on) == Some(LinkPath::Relayed) && peer.attempts.iter().any(is_direct)
        });
        match outcome {
            LinkOutcome::Ended(DisconnectReason::Duplicate) if moved => {
                swarm.behaviour_mut().streams.retire(&id, on);
                close_unused(swarm);
            }
            LinkOutcome::Ended(DisconnectReason::Duplicate) | LinkOutcome::Stopping => {}
            LinkOutcome::Ended(DisconnectReason::Silent) => {
                // The orderly end of a dead connection may take long. Nothing waits for it.
                swarm.close_connection(on);
                self.on_disconnected(swarm, id, on);
            }
            // The peer would open the next link on the same connection, past the door.
            LinkOutcome::Ended(reason) if reason.is_misbehaviour() => {
                swarm.close_connection(on);
            }
            LinkOutcome::Ended(reason) => {
                let ours = peer.is_some_and(|peer| peer.has_dialled(on) && !peer.uses(on));
                let purpose = peer.and_then(|peer| peer.purpose(on));
                let shared = matches!(purpose, Some(Purpose::Streams | Purpose::Dht));
                if ours || (self.conventions.link_end == LinkEnd::Connection && !shared) {
                    tracing::debug!(peer = %id, %reason, "closing the connection of a link that ended");
                    swarm.close_connection(on);
                }
            }
            LinkOutcome::Duplicate { winner } => self.on_duplicate(&id, on, winner),
            // A link with one stream is tried at once.
            LinkOutcome::NoSecondLane => self.tend(swarm),
            LinkOutcome::Unsupported | LinkOutcome::Foreign => self.refused(&id, on),
            LinkOutcome::Failed => self.unreachable(&id, on),
        }
    }

    fn on_duplicate(&mut self, id: &libp2p::PeerId, on: ConnectionId, winner: gossip::LinkId) {
        let here = |peer: &Peer| peer.attempts.iter().any(|attempt| attempt.link == winner);
        // If the winning link is on this transport, it settles its connection itself.
        if !self.peers.get(id).is_some_and(here) {
            self.settle(id, |connection| connection == on);
        }
    }

    /// Keeps dialled connections although their links were refused, because topics use them.
    fn settle(&mut self, id: &libp2p::PeerId, which: impl Fn(ConnectionId) -> bool) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        for known in peer.connections.iter_mut().filter(|known| which(known.id)) {
            if let Some(ticket) = known.dialled.as_mut().filter(|ticket| !ticket.is_linked()) {
                ticket.connected(Some(peer.identity));
            }
        }
    }

    /// Records that the peer refused to gossip on a dialled connection.
    fn refused(&mut self, id: &PeerId, on: ConnectionId) {
        self.unsettled(id, on, DialFailure::Refused);
    }

    /// Records that no link could be made on a dialled connection.
    fn unreachable(&mut self, id: &PeerId, on: ConnectionId) {
        self.unsettled(id, on, DialFailure::Unreachable);
    }

    fn unsettled(&mut self, id: &PeerId, on: ConnectionId, why: DialFailure) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let known = peer.connections.iter_mut().find(|known| known.id == on);
        let open = known.and_then(|known| known.dialled.take_if(|ticket| !ticket.is_linked()));
        if let Some(ticket) = open {
            let error = match why {
                DialFailure::Refused => {
                    "the peer refused gossip: is it of this network, and of this profile?"
                }
                _ => "the gossip handshake failed",
            };
            ticket.failed(why, error);
        }
    }
}

/// Closes the retired connections without a stream in use.
fn close_unused(swarm: &mut NodeSwarm) {
    for connection in swarm.behaviour().streams.unused() {
        swarm.close_connection(connection);
    }
}
