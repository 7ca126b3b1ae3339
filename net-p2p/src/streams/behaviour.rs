//! The swarm's part: knows the connections, and passes wishes for streams on to them.
//!
//! ```text
//!   handles ──wait─▶ [wishes] ──▶ connected? ──yes──────────────▶ [waiting] ──▶ connection task
//!                                     └─no─▶ PendingDials ──dial──▶ connected ──┘
//!   link tasks ──▶ open ────────────────────────────────────────────▶ [waiting]
//! ```
//!
//! # Invariants
//!
//! * A wish is taken from its queue only when no other one waits for a connection task, so that who
//!   wishes faster than connections open waits in its own task.
//! * At most [`MAX_WAITING`] wishes of link tasks wait; one more is refused at once.
//! * A wish for a connection that ends is answered: it is dropped, which its reply channel shows.
//! * The peer of a wish is dialled once, however many wishes wait for it.

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
use crate::config::{PeerAddress, PeerAddressError, identity_of, short};

/// Wishes of link tasks that wait for connection tasks. Chosen: as many as streams may wait to be
/// accepted.
const MAX_WAITING: usize = 256;

/// Whom a stream shall lead to.
#[derive(Clone, Debug)]
pub(crate) enum StreamTarget {
    /// A peer that is connected.
    Connected(PeerId),
    /// The peer of an address, which is dialled if the peer is not connected.
    At(PeerAddress),
}

impl StreamTarget {
    /// Reads an address as an application writes it: `/p2p/ID` alone names a peer that is connected.
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

    /// The peer to be found there.
    pub(crate) const fn peer(&self) -> &PeerId {
        match self {
            Self::Connected(peer) | Self::At(PeerAddress { peer, .. }) => peer,
        }
    }
}

/// A wish for a stream, on whichever connection there is.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) to: StreamTarget,
    pub(crate) request: OpenRequest,
}

/// Somebody wants a stream to a peer that is not connected: this address is to be dialled. What
/// becomes of it is heard as a connection, or by [`Behaviour::not_reached`].
#[derive(Debug)]
pub(crate) struct DialWanted(pub(crate) PeerAddress);

/// Streams of our own protocols.
#[derive(Debug)]
pub(crate) struct Behaviour {
    acceptors: Arc<Acceptors>,
    connections: Connections,
    waiting: VecDeque<(PeerId, ConnectionId, OpenRequest)>,
    /// `None` once nobody can wish any more.
    wishes: Option<mpsc::Receiver<Wish>>,
    pending_dials: PendingDials,
    to_dial: VecDeque<PeerAddress>,
}

impl Behaviour {
    pub(crate) fn new(acceptors: Acceptors, wishes: Option<mpsc::Receiver<Wish>>) -> Self {
        Self {
            acceptors: Arc::new(acceptors),
            connections: Connections::default(),
            waiting: VecDeque::new(),
            wishes,
            pending_dials: PendingDials::default(),
            to_dial: VecDeque::new(),
        }
    }

    /// Asks for a stream to `peer`, on `connection` or else on the oldest one that is to stay.
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

    /// An address that was wanted led to nobody. Who named another address of the peer gets that one
    /// tried.
    pub(crate) fn not_reached(&mut self, address: &PeerAddress, error: impl Fn() -> OpenError) {
        self.to_dial.extend(self.pending_dials.failed(address, error));
    }

    fn take(&mut self, wish: Wish) {
        let Wish { to, request } = wish;
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

    /// A connection is not needed any more. It ends when no stream is open on it, gossip aside.
    pub(crate) fn retire(&mut self, peer: &PeerId, connection: ConnectionId) {
        self.connections.retire(peer, connection);
    }

    /// The connections that are to end now.
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
        _role: Endpoint,
        _port: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler(connection, peer, Direction::Outbound, address))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => {
                let (peer, on) = (established.peer_id, established.connection_id);
                self.connections.add(peer, on);
                let reached = self.pending_dials.reached(&peer);
                self.waiting.extend(reached.map(|request| (peer, on, request)));
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
        // The swarm task calls `open` and polls afterwards, so only the queue keeps a waker.
        loop {
            if let Some((peer_id, connection, event)) = self.waiting.pop_front() {
                let handler = NotifyHandler::One(connection);
                return Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler, event });
            }
            if let Some(address) = self.to_dial.pop_front() {
                return Poll::Ready(ToSwarm::GenerateEvent(DialWanted(address)));
            }
            let Some(wishes) = &mut self.wishes else { return Poll::Pending };
            match std::task::ready!(wishes.poll_recv(context)) {
                Some(wish) => self.take(wish),
                None => self.wishes = None,
            }
        }
    }
}
