//! Kademlia behind the gate: the addresses that it dials are filtered, and peers that flood it are disconnected.
//!
//! # Invariants
//!
//! * Of the addresses that other nodes tell of a peer, at most [`MAX_ADDRESSES`](super::scope::MAX_ADDRESSES) of the node's scope are dialled.
//! * A peer causes at most [`MAX_EVENTS`] events in a window. One that causes more is disconnected.
//! * A peer puts at most [`MAX_PUTS`] values in a window.
//! * The record of a peer here ends with its last connection.

use std::{
    collections::{HashMap, VecDeque},
    ops::{Deref, DerefMut},
    task::{Context, Poll},
    time::Duration,
};

use gossip::{Host, Subnet};
use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    kad,
    swarm::{
        CloseConnection, ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm,
        NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        behaviour::ConnectionEstablished,
    },
};
use tokio::time::Instant;

use super::{scope::AddressScope, store::Store};
use crate::{
    address::ip_of,
    metrics::{P2pEvent, P2pMetrics},
};

/// Kademlia with the store of this crate.
pub(crate) type Kademlia = kad::Behaviour<Store>;

/// Events of one peer in a window, at most: requests, answers and records. Chosen: ten times what the busiest honest
/// peer causes, which is a node that asks for the providers of every capability and refreshes its table.
const MAX_EVENTS: u32 = 1_000;

/// Length of a window. Chosen.
const WINDOW: Duration = Duration::from_secs(10);

/// Values of one peer in a window, at most. Chosen: a node puts its own again, and those that it stores for others not at
/// all.
const MAX_PUTS: u32 = 32;

/// A connected peer.
#[derive(Debug)]
struct Known {
    /// The place that it connects from.
    host: Option<Host>,
    began: Instant,
    events: u32,
    puts: u32,
}

/// Kademlia behind the gate.
pub(crate) struct GatedDht {
    inner: Kademlia,
    scope: AddressScope,
    peers: HashMap<PeerId, Known>,
    flooded: VecDeque<PeerId>,
    metrics: P2pMetrics,
}

impl GatedDht {
    pub(super) fn new(inner: Kademlia, scope: AddressScope, metrics: P2pMetrics) -> Self {
        let (peers, flooded) = (HashMap::new(), VecDeque::new());
        Self { inner, scope, peers, flooded, metrics }
    }

    /// The host that a connected peer connects from.
    pub(super) fn host(&self, peer: &PeerId) -> Option<Host> {
        self.peers.get(peer)?.host
    }

    /// The subnet that a connected peer connects from; `None` is this machine.
    pub(super) fn subnet(&self, peer: &PeerId) -> Option<Subnet> {
        self.host(peer).filter(|host| !host.is_loopback()).map(Host::subnet)
    }

    /// The addresses that the routing table has of a peer, which somebody answered at; or else those that searches under
    /// way were told.
    pub(super) fn addresses(&mut self, peer: PeerId) -> Vec<Multiaddr> {
        let routed = self.inner.kbucket(peer).and_then(|bucket| {
            let mut entries = bucket.iter();
            let entry = entries.find(|entry| *entry.node.key.preimage() == peer)?;
            Some(entry.node.value.iter().cloned().collect())
        });
        if let Some(routed) = routed {
            return routed;
        }
        let no_connection = ConnectionId::new_unchecked(0);
        let known = self.inner.handle_pending_outbound_connection(
            no_connection,
            Some(peer),
            &[],
            Endpoint::Dialer,
        );
        // Kademlia denies nobody.
        known.unwrap_or_default()
    }

    /// Counts a value of a peer. Returns `false` if it has put as many as it may.
    pub(super) fn may_put(&mut self, peer: &PeerId) -> bool {
        let Some(known) = self.peers.get_mut(peer) else { return false };
        known.puts += 1;
        known.puts <= MAX_PUTS
    }

    fn count(&mut self, peer: PeerId) -> bool {
        let now = Instant::now();
        let Some(known) = self.peers.get_mut(&peer) else { return true };
        if now.duration_since(known.began) >= WINDOW {
            (known.began, known.events, known.puts) = (now, 0, 0);
        }
        known.events += 1;
        if known.events == MAX_EVENTS + 1 {
            self.metrics.note(P2pEvent::DhtFlood);
            self.flooded.push_back(peer);
        }
        known.events <= MAX_EVENTS
    }
}

impl Deref for GatedDht {
    type Target = Kademlia;

    fn deref(&self) -> &Kademlia {
        &self.inner
    }
}

impl DerefMut for GatedDht {
    fn deref_mut(&mut self) -> &mut Kademlia {
        &mut self.inner
    }
}

impl NetworkBehaviour for GatedDht {
    type ConnectionHandler = <Kademlia as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = kad::Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let known =
            self.inner.handle_pending_outbound_connection(connection, peer, addresses, role)?;
        // A dial to an address brings its own.
        let Some(peer) = peer.filter(|_| addresses.is_empty()) else { return Ok(Vec::new()) };
        let usable = self.scope.usable(peer, known);
        Ok(usable.into_iter().map(|usable| usable.address).collect())
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match &event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id, endpoint, ..
            }) => {
                let host = ip_of(endpoint.get_remote_address());
                let known = || Known {
                    host: Some(Host::of(host)),
                    began: Instant::now(),
                    events: 0,
                    puts: 0,
                };
                self.peers.entry(*peer_id).or_insert_with(known);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id,
                remaining_established: 0,
                ..
            }) => {
                self.peers.remove(peer_id);
            }
            _ => {}
        }
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        if self.count(peer) {
            self.inner.on_connection_handler_event(peer, connection, event);
        }
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ToSwarm<kad::Event, THandlerInEvent<Self>>> {
        if let Some(peer_id) = self.flooded.pop_front() {
            tracing::debug!(peer = %peer_id, "disconnecting a peer that floods the DHT");
            let connection = CloseConnection::All;
            return Poll::Ready(ToSwarm::CloseConnection { peer_id, connection });
        }
        self.inner.poll(context)
    }
}
