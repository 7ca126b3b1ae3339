//! The swarm's part: knows the connections, and passes wishes for streams on to them.
//!
//! # Invariants
//!
//! * At most [`MAX_WAITING`] wishes wait for a connection task to take them; one more is refused at once.
//! * A wish for a connection that ends is answered: it is dropped, which its reply channel shows.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use gossip::Direction;
use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler,
        THandlerInEvent, ToSwarm,
    },
};

use super::{
    accept::{About, Acceptors},
    handler::{Handler, OpenError, OpenRequest},
};

/// Wishes that wait for connection tasks. Chosen: as many as streams may wait to be accepted.
const MAX_WAITING: usize = 256;

/// Streams of our own protocols.
#[derive(Debug)]
pub(crate) struct Behaviour {
    acceptors: Arc<Acceptors>,
    /// The oldest first.
    connections: HashMap<PeerId, Vec<ConnectionId>>,
    waiting: VecDeque<(PeerId, ConnectionId, OpenRequest)>,
}

impl Behaviour {
    pub(crate) fn new(acceptors: Acceptors) -> Self {
        Self {
            acceptors: Arc::new(acceptors),
            connections: HashMap::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Asks for a stream to `peer`, on `connection` or else on the oldest one.
    pub(crate) fn open(
        &mut self,
        peer: PeerId,
        connection: Option<ConnectionId>,
        request: OpenRequest,
    ) {
        let known = self.connections.get(&peer).map_or(&[][..], Vec::as_slice);
        let on = match connection {
            Some(connection) => known.iter().find(|known| **known == connection),
            None => known.first(),
        };
        let Some(&on) = on else { return request.fail(OpenError::NotConnected) };
        if self.waiting.len() >= MAX_WAITING {
            return request.fail(OpenError::Busy);
        }
        self.waiting.push_back((peer, on, request));
    }

    fn handler(
        &self,
        connection: ConnectionId,
        peer: PeerId,
        direction: Direction,
        address: &Multiaddr,
    ) -> Handler {
        let about = About { peer, connection, direction, address: address.clone() };
        Handler::new(about, Arc::clone(&self.acceptors))
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

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
        _role: Endpoint,
        _port: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler(connection, peer, Direction::Outbound, address))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => {
                self.connections
                    .entry(established.peer_id)
                    .or_default()
                    .push(established.connection_id);
            }
            FromSwarm::ConnectionClosed(closed) => {
                if let Some(connections) = self.connections.get_mut(&closed.peer_id) {
                    connections.retain(|known| *known != closed.connection_id);
                    if connections.is_empty() {
                        self.connections.remove(&closed.peer_id);
                    }
                }
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
        _cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        // The swarm task calls `open` and polls afterwards, so no waker is kept.
        let Some((peer_id, connection, event)) = self.waiting.pop_front() else {
            return Poll::Pending;
        };
        let handler = NotifyHandler::One(connection);
        Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler, event })
    }
}
