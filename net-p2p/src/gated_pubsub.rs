//! GossipSub behind the gate: the gate learns which peer an RPC is from before the library handles it.
//!
//! # Invariants
//!
//! * The gate knows the peer of every message and of every subscription that the library looks at.
//! * A peer that floods is disconnected with all its connections.

use std::{
    ops::{Deref, DerefMut},
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    gossipsub::{self, MaxCountSubscriptionFilter},
    swarm::{
        CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm,
    },
};
use runtime::Rarely;

use crate::{
    topic_filter::KnownTopics,
    topic_gate::{TopicGate, TopicTransform},
};

/// GossipSub with the types of this crate.
pub(crate) type Behaviour =
    gossipsub::Behaviour<TopicTransform, MaxCountSubscriptionFilter<KnownTopics>>;

/// The words of the library's handler to its behaviour.
type FromHandler = THandlerOutEvent<Behaviour>;

/// GossipSub behind the gate.
pub(crate) struct GatedPubsub {
    inner: Behaviour,
    gate: TopicGate,
    /// Limits the line about peers that flood: identities cost nothing.
    flood_lines: Rarely,
}

impl GatedPubsub {
    /// Wraps `inner`, whose transform must be a [`TopicTransform`] of the same gate.
    pub(crate) const fn new(inner: Behaviour, gate: TopicGate) -> Self {
        Self { inner, gate, flood_lines: Rarely::new() }
    }

    /// The gate in front of the library.
    pub(crate) const fn gate(&self) -> &TopicGate {
        &self.gate
    }
}

impl Deref for GatedPubsub {
    type Target = Behaviour;

    fn deref(&self) -> &Behaviour {
        &self.inner
    }
}

impl DerefMut for GatedPubsub {
    fn deref_mut(&mut self) -> &mut Behaviour {
        &mut self.inner
    }
}

impl NetworkBehaviour for GatedPubsub {
    type ConnectionHandler = <Behaviour as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = gossipsub::Event;

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

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        if let FromHandler::Message { rpc, .. } = &event {
            self.gate.controls(peer, rpc.control_msgs.len());
        }
        // The library transforms all messages of an RPC before it returns.
        self.gate.handles(Some(peer));
        self.inner.on_connection_handler_event(peer, connection, event);
        self.gate.handles(None);
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ToSwarm<gossipsub::Event, THandlerInEvent<Self>>> {
        if let Some(peer_id) = self.gate.next_flooded() {
            if let Some(left_out) = self.flood_lines.due() {
                tracing::info!(peer = %peer_id, left_out, "disconnecting a peer that floods a topic");
            }
            return Poll::Ready(ToSwarm::CloseConnection {
                peer_id,
                connection: CloseConnection::All,
            });
        }
        self.inner.poll(context)
    }
}
