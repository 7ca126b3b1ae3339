//! Hands the events of a swarm to the counts of the library.
//!
//! # Invariants
//!
//! * Labels are of closed sets, however peers behave: addresses are recorded by their shape, and events whose labels
//!   consist of the words of peers are not recorded.

use std::convert::Infallible;

use libp2p::{
    Multiaddr, TransportError,
    core::ConnectedPoint,
    multiaddr::Protocol,
    swarm::{ConnectionDenied, ConnectionError, ListenError, SwarmEvent},
};
use libp2p_metrics::{Metrics, Recorder as _};

use crate::behaviour::Event;

/// Records the events of one swarm.
pub(crate) struct Recorder(Metrics);

impl Recorder {
    /// Records in `metrics`.
    pub(crate) const fn new(metrics: Metrics) -> Self {
        Self(metrics)
    }

    /// Records an event if its labels are of closed sets.
    ///
    /// The library takes the protocols of addresses as labels. Those of connections are recorded by their [`shape`],
    /// because a peer can have this node dial whatever address it likes. Events about external addresses, which peers
    /// tell, and about listening ones, which the log has, are left out; and so are the events of identify, whose labels
    /// are the protocols and the agent of the peer, and changes of the routing table, whose labels follow from the
    /// identities that peers choose. Circuits are carried by this crate's own code, which counts them itself.
    pub(crate) fn note(&self, event: &SwarmEvent<Event>) {
        let Self(metrics) = self;
        match event {
            SwarmEvent::Behaviour(Event::Ping(event)) => metrics.record(event),
            #[cfg(feature = "dht")]
            SwarmEvent::Behaviour(Event::Dht(event)) => match &**event {
                libp2p::kad::Event::RoutingUpdated { .. } => {}
                event => metrics.record(event),
            },
            SwarmEvent::Dialing { .. }
            | SwarmEvent::ListenerError { .. }
            | SwarmEvent::OutgoingConnectionError { .. } => metrics.record(event),
            event => {
                if let Some(event) = plain(event) {
                    metrics.record(&event);
                }
            }
        }
    }
}

/// The same event about a connection, with the shapes of its addresses. `None` for other events.
fn plain(event: &SwarmEvent<Event>) -> Option<SwarmEvent<Infallible>> {
    Some(match event {
        SwarmEvent::IncomingConnection { connection_id, send_back_addr, .. } => {
            SwarmEvent::IncomingConnection {
                connection_id: *connection_id,
                local_addr: Multiaddr::empty(),
                send_back_addr: shape(send_back_addr),
            }
        }
        SwarmEvent::IncomingConnectionError { connection_id, send_back_addr, error, .. } => {
            SwarmEvent::IncomingConnectionError {
                connection_id: *connection_id,
                local_addr: Multiaddr::empty(),
                send_back_addr: shape(send_back_addr),
                error: plain_error(error),
                peer_id: None,
            }
        }
        SwarmEvent::ConnectionEstablished {
            peer_id,
            connection_id,
            endpoint,
            num_established,
            established_in,
            ..
        } => SwarmEvent::ConnectionEstablished {
            peer_id: *peer_id,
            connection_id: *connection_id,
            endpoint: plain_endpoint(endpoint),
            num_established: *num_established,
            concurrent_dial_errors: None,
            established_in: *established_in,
        },
        SwarmEvent::ConnectionClosed {
            peer_id,
            connection_id,
            endpoint,
            num_established,
            cause,
        } => SwarmEvent::ConnectionClosed {
            peer_id: *peer_id,
            connection_id: *connection_id,
            endpoint: plain_endpoint(endpoint),
            num_established: *num_established,
            cause: cause.as_ref().map(|cause| match cause {
                ConnectionError::IO(error) => ConnectionError::IO(error.kind().into()),
                ConnectionError::KeepAliveTimeout => ConnectionError::KeepAliveTimeout,
            }),
        },
        _ => return None,
    })
}

fn plain_endpoint(endpoint: &ConnectedPoint) -> ConnectedPoint {
    match endpoint {
        ConnectedPoint::Dialer { address, role_override, port_use } => ConnectedPoint::Dialer {
            address: shape(address),
            role_override: *role_override,
            port_use: *port_use,
        },
        ConnectedPoint::Listener { send_back_addr, .. } => ConnectedPoint::Listener {
            local_addr: Multiaddr::empty(),
            send_back_addr: shape(send_back_addr),
        },
    }
}

/// An error of the same kind: errors cannot be cloned, and their kind is all that is recorded.
fn plain_error(error: &ListenError) -> ListenError {
    match error {
        ListenError::Aborted => ListenError::Aborted,
        ListenError::WrongPeerId { obtained, endpoint } => {
            ListenError::WrongPeerId { obtained: *obtained, endpoint: endpoint.clone() }
        }
        ListenError::LocalPeerId { .. } => ListenError::LocalPeerId { address: Multiaddr::empty() },
        ListenError::Denied { .. } => {
            ListenError::Denied { cause: ConnectionDenied::new("a behaviour denied it") }
        }
        ListenError::Transport(TransportError::MultiaddrNotSupported(_)) => {
            ListenError::Transport(TransportError::MultiaddrNotSupported(Multiaddr::empty()))
        }
        ListenError::Transport(TransportError::Other(error)) => {
            ListenError::Transport(TransportError::Other(error.kind().into()))
        }
    }
}

/// The protocols that carry a connection to an address: one of seven.
fn shape(address: &Multiaddr) -> Multiaddr {
    let has = |wanted: fn(&Protocol<'_>) -> bool| address.iter().any(|part| wanted(&part));
    if has(|part| matches!(part, Protocol::WebRTC)) {
        return Protocol::WebRTC.into();
    }
    if has(|part| matches!(part, Protocol::P2pCircuit)) {
        return Protocol::P2pCircuit.into();
    }
    if has(|part| matches!(part, Protocol::QuicV1)) {
        return Multiaddr::from(Protocol::Udp(0)).with(Protocol::QuicV1);
    }
    if has(|part| matches!(part, Protocol::WebRTCDirect)) {
        return Multiaddr::from(Protocol::Udp(0)).with(Protocol::WebRTCDirect);
    }
    let mut shape = Multiaddr::from(Protocol::Tcp(0));
    if has(|part| matches!(part, Protocol::Wss(_) | Protocol::Tls)) {
        shape.push(Protocol::Tls);
    }
    if has(|part| matches!(part, Protocol::Wss(_) | Protocol::Tls | Protocol::Ws(_))) {
        shape.push(Protocol::Ws("/".into()));
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn has_shape(address: &str, expected: &str) {
        let stack = |address: &Multiaddr| {
            address.protocol_stack().map(|part| format!("/{part}")).collect::<String>()
        };
        assert_eq!(stack(&shape(&address.parse().unwrap())), expected, "{address}");
    }

    // Issue 12, 1: nothing that a peer says is a label.
    #[test]
    fn an_address_is_recorded_by_its_shape() {
        has_shape("/ip4/10.1.2.3/tcp/4190", "/tcp");
        has_shape("/ip6/::1/udp/4190/quic-v1", "/udp/quic-v1");
        has_shape("/ip4/10.1.2.3/udp/4190/webrtc-direct", "/udp/webrtc-direct");
        has_shape("/dns4/example.com/tcp/443/wss", "/tcp/tls/ws");
        has_shape("/dns/example.com/tcp/443/tls/ws", "/tcp/tls/ws");
        has_shape("/ip4/10.1.2.3/tcp/1/ws/http/http/ws", "/tcp/ws");
        has_shape("/ip4/10.1.2.3/tcp/1/p2p-circuit/p2p-circuit", "/p2p-circuit");
        has_shape("/ip4/10.1.2.3/tcp/1/p2p-circuit/webrtc", "/webrtc");
    }
}
