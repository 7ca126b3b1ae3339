//! The swarm's part of opening streams: it knows the connections, and hands each stream request to one.
//!
//! ```text
//!   handles ──wait─▶ [requests] ──▶ connected? ──yes────────────▶ [waiting] ──▶ connection task
//!                                       └─no─▶ PendingDials ─dial─▶ connected ──┘
//!   link tasks ──▶ open ────────────────────────────────────────────▶ [waiting]
//! ```
//!
//! # Invariants
//!
//! * A stream request is taken from its queue only while no other one waits for a connection's task. Callers
//!   that request streams faster than connections open them therefore wait in their own tasks.
//! * At most [`MAX_WAITING`] requests of link tasks wait; further ones are refused at once.
//! * The requests for a connection that ends are dropped, which the callers see as a closed reply channel.
//! * The peer of a request is dialled once, however many requests wait for it.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use gossip::{Direction, NodeAddress};
use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler,
        THandlerInEvent, ToSwarm,
    },
};

use tokio::sync::mpsc;

use super::{
    accept::{About, Acceptors},
    connections::Connections,
    handler::{Handler, OpenError, OpenRequest},
    pending_dials::PendingDials,
};
use crate::address::{PeerAddress, PeerAddressError, identity_of, path_of, short};

/// Largest number of requests of link tasks that wait for connections' tasks. Chosen: the number of gossip
/// streams that may wait to be accepted.
const MAX_WAITING: usize = 256;

/// The peer that a stream is requested to.
#[derive(Clone, Debug)]
pub(crate) enum StreamTarget {
    /// A peer that is connected.
    Connected(PeerId),
    /// The peer of an address, which is dialled if it is not connected.
    At(PeerAddress),
}

impl StreamTarget {
    /// Parses an address as an application writes it: `/p2p/ID` alone names a connected peer.
    pub(crate) fn parse(address: &NodeAddress) -> Result<Self, PeerAddressError> {
        if let NodeAddress::Multiaddr(text) = address
            && let Some(id) = text.strip_prefix("/p2p/").filter(|id| !id.contains('/'))
        {
            let peer = id.parse().ok().filter(|peer| identity_of(peer).is_some());
            let unusable = || PeerAddressError::BadPeerId { address: short(text) };
            return peer.map(Self::Connected).ok_or_else(unusable);
        }
        PeerAddress::parse(address).map(Self::At)
    }

    /// The ID of the peer.
    pub(crate) const fn peer(&self) -> &PeerId {
        match self {
            Self::Connected(peer) | Self::At(PeerAddress { peer, .. }) => peer,
        }
    }
}

/// A request for a stream on any connection to a peer.
#[derive(Debug)]
pub(crate) struct StreamRequest {
    pub(crate) to: StreamTarget,
    pub(crate) request: OpenRequest,
}

/// Asks the swarm task to dial an address, because a stream was requested to its peer. The result comes as a
/// new connection or through [`Behaviour::not_reached`].
#[derive(Debug)]
pub(crate) struct DialWanted(pub(crate) PeerAddress);

/// Opens and accepts streams of this crate's own protocols.
#[derive(Debug)]
pub(crate) struct Behaviour {
    acceptors: Arc<Acceptors>,
    connections: Connections,
    waiting: VecDeque<(PeerId, ConnectionId, OpenRequest)>,
    /// `None` after the last sender was dropped.
    stream_requests: Option<mpsc::Receiver<StreamRequest>>,
    pending_dials: PendingDials,
    to_dial: VecDeque<PeerAddress>,
}

impl Behaviour {
    pub(crate) fn new(
        acceptors: Acceptors,
        stream_requests: Option<mpsc::Receiver<StreamRequest>>,
    ) -> Self {
        Self {
            acceptors: Arc::new(acceptors),
            connections: Connections::default(),
            waiting: VecDeque::new(),
            stream_requests,
            pending_dials: PendingDials::default(),
            to_dial: VecDeque::new(),
        }
    }

    /// Requests a stream to `peer` on `connection`; if that is gone, on the oldest connection in use.
    pub(crate) fn open(
        &mut self,
        peer: PeerId,
        connection: Option<ConnectionId>,
        request: OpenRequest,
    ) {
        let Some(on) = self.connections.choose(&peer, connection) else {
            return request.fail(OpenError::NotConnected);
        };
        if self.waiting.len() >= MAX_WAITING {
            return request.fail(OpenError::Busy);
        }
        self.waiting.push_back((peer, on, request));
    }

    /// Reports that a dial failed. Requests that named another address of the peer cause a dial to that one.
    pub(crate) fn not_reached(&mut self, address: &PeerAddress, error: impl Fn() -> OpenError) {
        self.to_dial.extend(self.pending_dials.failed(address, error));
    }

    fn take(&mut self, requested: StreamRequest) {
        let StreamRequest { to, request } = requested;
        if request.is_abandoned() {
            return;
        }
        match to {
            StreamTarget::At(to) if !self.connections.has(&to.peer) => {
                self.to_dial.extend(self.pending_dials.keep(to, request));
            }
            StreamTarget::At(PeerAddress { peer, .. }) | StreamTarget::Connected(peer) => {
                self.open(peer, None, request);
            }
        }
    }

    /// Marks a connection as not needed. It ends when no stream but gossip is open on it.
    pub(crate) fn retire(&mut self, peer: &PeerId, connection: ConnectionId) {
        self.connections.retire(peer, connection);
    }

    /// The retired connections that can be closed now.
    pub(crate) fn unused(&self) -> Vec<ConnectionId> {
        self.connections.unused()
    }

    fn handler(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        direction: Direction,
        address: &Multiaddr,
    ) -> Handler {
        let usage = self.connections.announce(connection);
        let about = About { peer, connection, direction, address: address.clone(), usage };
        Handler::new(about, Arc::clone(&self.acceptors))
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = DialWanted;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler(connection, peer, Direction::Inbound, remote))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        _port: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        let direction = match role {
            Endpoint::Dialer => Direction::Outbound,
            // Source: `GossipLinks::on_connected`.
            Endpoint::Listener => Direction::Inbound,
        };
        Ok(self.handler(connection, peer, direction, address))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => {
                let (peer, on) = (established.peer_id, established.connection_id);
                let path = path_of(established.endpoint.get_remote_address());
                self.connections.add(peer, on, path);
                let reached = self.pending_dials.reached(&peer, path);
                self.waiting.extend(reached.into_iter().map(|request| (peer, on, request)));
            }
            FromSwarm::ConnectionClosed(closed) => {
                self.connections.remove(&closed.peer_id, closed.connection_id);
                self.waiting.retain(|(_, connection, _)| *connection != closed.connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _peer: PeerId,
        _connection: ConnectionId,
        event: Infallible,
    ) {
        match event {}
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        // The swarm task polls after each call of `open`, so only the queue has to keep a waker.
        loop {
            if let Some((peer_id, connection, event)) = self.waiting.pop_front() {
                let handler = NotifyHandler::One(connection);
                return Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler, event });
            }
            if let Some(address) = self.to_dial.pop_front() {
                return Poll::Ready(ToSwarm::GenerateEvent(DialWanted(address)));
            }
            let Some(stream_requests) = &mut self.stream_requests else { return Poll::Pending };
            match std::task::ready!(stream_requests.poll_recv(context)) {
                Some(requested) => self.take(requested),
                None => self.stream_requests = None,
            }
        }
    }
}
