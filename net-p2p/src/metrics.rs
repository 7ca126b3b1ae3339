//! Counters of the libp2p network, beside those of the broadcaster. Every drop has exactly one counter.

use std::sync::Arc;

use prometheus_client::{metrics::counter::Counter, registry::Registry};

use crate::{
    levels::{Levels, P2pLevel},
    library_metrics::LibraryMetrics,
};

/// A counted event. A closed set, so that it can be the label of a metric.
#[repr(usize)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum P2pEvent {
    /// An inbound stream was reset: too many streams of its connection wait to be accepted.
    AcceptQueueFullForConnection,
    /// An inbound stream was reset: too many streams of all connections together wait to be accepted.
    AcceptQueueFull,
    /// An inbound stream was reset: too many streams of its connection wait for protocol negotiation, or it waited 5 s for a
    /// place there.
    MuxerFull,
    /// A stream was reset: the backlog of all connections was above its bound, and the stream held most of the
    /// largest connection's.
    BacklogStream,
    /// A connection was closed: the backlog of all connections was above its bound, and this one was the largest.
    BacklogConnection,
    /// An inbound stream was reset: the acceptor of its protocol has ended.
    AcceptorGone,
    /// An inbound gossip stream was reset: too many handshakes are in progress.
    TooManyHandshakes,
    /// An inbound HTTP stream was reset: too many HTTP streams have a task.
    TooManyHttpStreams,
    /// A stream of an application's protocol was reset: all places of the protocol were taken.
    AcceptorFull,
    /// A stream of an application's protocol was reset: all places of its peer were taken.
    AcceptorFullForPeer,
    /// A stream of an application's protocol was reset: it reached its deadline.
    AcceptorTimedOut,
    /// A stream of an application's protocol was reset: its acceptor panicked.
    AcceptorPanicked,
    /// A gossip handshake failed.
    HandshakeFailed,
    /// A gossip handshake was refused: the peer belongs to another network.
    OtherNetwork,
    /// A gossip link was refused: another link to the same peer is kept.
    DuplicateLink,
    /// A gossip stream was refused: this network gossips only with peers that have an Ed25519 key.
    ForeignKey,
    /// A message for a topic was dropped: the queue to the swarm was full.
    PublishQueueFull,
    /// A message for a topic was not sent: no peer is subscribed to it.
    PublishWithoutPeers,
    /// A message for a topic was dropped by the library.
    PublishFailed,
    /// A verdict on a message from a topic was lost: the queue to the swarm was full.
    VerdictLost,
    /// A message for a topic was not sent to one peer: the peer's queue was full, the message waited too long, or its
    /// copies for all peers would have taken too much memory.
    TopicPeerFull,
    /// A message from a topic was dropped, or a subscription to an unknown topic: its peer exceeded its rate.
    TopicExcess,
    /// A message from a topic was dropped: the node's byte budget was used up.
    TopicBudgetFull,
    /// A message from a topic was handled, but not passed on: too many of its peer wait for that already.
    TopicPassOnFull,
    /// A message from or for a topic was dropped: the IDs of messages in the library use too much memory.
    TopicNamesFull,
    /// A peer was disconnected: it flooded a topic.
    TopicFlood,
    /// A peer was disconnected: it did not accept what was published to it, and publishing would have had to wait.
    TopicPeerStalled,
    /// A peer is no longer served on topics: its GossipSub score is too low.
    TopicPeerMuted,
    /// A message on an application's topic was ignored: too many of its peer wait to be judged.
    TopicPoolFull,
    /// A message on an application's topic was not accepted by its validator.
    TopicRefused,
    /// The handler of an application's topic panicked, took too long, or wanted to answer a message.
    TopicHandlerFailed,
    /// An address was not dialled: its name could not be resolved.
    Unresolved,
    /// A peer was disconnected: it did not answer pings.
    PingTimeout,
    /// The swarm panicked and was restarted.
    SwarmRestarted,
    /// A provider record, or a value, of another node was not stored in this node's part of the DHT: it is not one that
    /// is stored here, or its peer, its subnet or its key has as many as allowed.
    DhtRecordRefused,
    /// An inbound gossip stream was reset: its connection was made for the DHT, and the mesh loop has not chosen the peer.
    GossipNotWanted,
    /// A search in the DHT was refused: too many were under way.
    DhtSearchRefused,
    /// A peer was disconnected: it flooded this node's part of the DHT.
    DhtFlood,
    /// A node was not taken into the routing table of the DHT: its subnet has as many places there as allowed.
    DhtRouteRefused,
    /// A node answered this one's search in the DHT with a value that is none of the key.
    DhtValueForged,
    /// A connection to a WebSocket address was closed: its TLS handshake failed, or it asked for no WebSocket at `/`.
    WebSocketRefused,
    /// A WebSocket was closed: its peer broke the rules of WebSocket, or sent text.
    WebSocketFault,
    /// A connection was closed: its peer did not know the key of the private network.
    NotOfPrivateNetwork,
    /// A connection was closed: its security handshake failed.
    SecurityFailed,
    /// A connection was closed: the certificate of the peer has expired, is forged, or cannot be used.
    CertificateRefused,
    /// A peer got or renewed a place at this node as a relay.
    RelayReservation,
    /// This node as a relay connected two peers by a circuit.
    RelayCircuit,
    /// A request to this node as a relay was refused or not answered in time.
    RelayRefused,
    /// A circuit of this node as a relay was cut: it carried all bytes, or lasted for all the time, that it may.
    RelayLimit,
    /// A circuit to this node was refused: its relay gave no place to this node, or too many circuits wait.
    CircuitRefused,
    /// Two ends of a circuit met: there is a direct connection.
    Met,
    /// An attempt to meet a peer was refused: it came over no circuit, once too often, or too many are in progress.
    MeetingRefused,
    /// An attempt to meet a peer over WebRTC failed: what the peer said of its end was malformed, too much, or out of order.
    SignalFault,
    /// This node tried an address of a peer, which had asked for it.
    DialledBack,
    /// A question whether an address can be dialled was refused, or a nonce came that nobody awaited.
    DialBackRefused,
    /// A router mapped a port to this node, or mapped it elsewhere.
    PortMapped,
    /// A router mapped no port: none was found, or it refused, or gave no answer that can be used.
    PortNotMapped,
    /// A datagram at a port for WebRTC was dropped: it belongs to no connection, and begins none.
    WebRtcStray,
    /// A datagram or a new connection at a port for WebRTC was dropped: too many wait for their task.
    WebRtcDropped,
    /// A connection over WebRTC was closed: a library panicked.
    WebRtcPanicked,
    /// A stream over WebRTC was reset: nobody read it while it held up its connection.
    WebRtcUnread,
    /// A datagram for QUIC, at a port that WebRTC has too, was dropped: too many wait.
    QuicDropped,
}

impl P2pEvent {
    const ALL: [Self; 62] = [
        Self::AcceptQueueFullForConnection,
        Self::AcceptQueueFull,
        Self::MuxerFull,
        Self::BacklogStream,
        Self::BacklogConnection,
        Self::AcceptorGone,
        Self::TooManyHandshakes,
        Self::TooManyHttpStreams,
        Self::AcceptorFull,
        Self::AcceptorFullForPeer,
        Self::AcceptorTimedOut,
        Self::AcceptorPanicked,
        Self::HandshakeFailed,
        Self::OtherNetwork,
        Self::DuplicateLink,
        Self::ForeignKey,
        Self::PublishQueueFull,
        Self::PublishWithoutPeers,
        Self::PublishFailed,
        Self::VerdictLost,
        Self::TopicPeerFull,
        Self::TopicExcess,
        Self::TopicBudgetFull,
        Self::TopicPassOnFull,
        Self::TopicNamesFull,
        Self::TopicFlood,
        Self::TopicPeerStalled,
        Self::TopicPeerMuted,
        Self::TopicPoolFull,
        Self::TopicRefused,
        Self::TopicHandlerFailed,
        Self::Unresolved,
        Self::PingTimeout,
        Self::SwarmRestarted,
        Self::DhtRecordRefused,
        Self::GossipNotWanted,
        Self::DhtSearchRefused,
        Self::DhtFlood,
        Self::DhtRouteRefused,
        Self::DhtValueForged,
        Self::WebSocketRefused,
        Self::WebSocketFault,
        Self::NotOfPrivateNetwork,
        Self::SecurityFailed,
        Self::CertificateRefused,
        Self::RelayReservation,
        Self::RelayCircuit,
        Self::RelayRefused,
        Self::RelayLimit,
        Self::CircuitRefused,
        Self::Met,
        Self::MeetingRefused,
        Self::SignalFault,
        Self::DialledBack,
        Self::DialBackRefused,
        Self::PortMapped,
        Self::PortNotMapped,
        Self::WebRtcStray,
        Self::WebRtcDropped,
        Self::WebRtcPanicked,
        Self::WebRtcUnread,
        Self::QuicDropped,
    ];

    /// The value of the metric's label for this event: lower case, words joined by underscores.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::AcceptQueueFullForConnection => "p2p_accept_queue_full_for_connection",
            Self::AcceptQueueFull => "p2p_accept_queue_full",
            Self::MuxerFull => "p2p_muxer_full",
            Self::BacklogStream => "p2p_backlog_stream",
            Self::BacklogConnection => "p2p_backlog_connection",
            Self::AcceptorGone => "p2p_acceptor_gone",
            Self::TooManyHandshakes => "p2p_too_many_handshakes",
            Self::TooManyHttpStreams => "p2p_too_many_http_streams",
            Self::AcceptorFull => "p2p_acceptor_full",
            Self::AcceptorFullForPeer => "p2p_acceptor_full_for_peer",
            Self::AcceptorTimedOut => "p2p_acceptor_timed_out",
            Self::AcceptorPanicked => "p2p_acceptor_panicked",
            Self::HandshakeFailed => "p2p_handshake_failed",
            Self::OtherNetwork => "p2p_other_network",
            Self::DuplicateLink => "p2p_duplicate_link",
            Self::ForeignKey => "p2p_foreign_key",
            Self::PublishQueueFull => "p2p_publish_queue_full",
            Self::PublishWithoutPeers => "p2p_publish_without_peers",
            Self::PublishFailed => "p2p_publish_failed",
            Self::VerdictLost => "p2p_verdict_lost",
            Self::TopicPeerFull => "p2p_topic_peer_full",
            Self::TopicExcess => "p2p_topic_excess",
            Self::TopicBudgetFull => "p2p_topic_budget_full",
            Self::TopicPassOnFull => "p2p_topic_pass_on_full",
            Self::TopicNamesFull => "p2p_topic_names_full",
            Self::TopicFlood => "p2p_topic_flood",
            Self::TopicPeerStalled => "p2p_topic_peer_stalled",
            Self::TopicPeerMuted => "p2p_topic_peer_muted",
            Self::TopicPoolFull => "p2p_topic_pool_full",
            Self::TopicRefused => "p2p_topic_refused",
            Self::TopicHandlerFailed => "p2p_topic_handler_failed",
            Self::Unresolved => "p2p_unresolved",
            Self::PingTimeout => "p2p_ping_timeout",
            Self::SwarmRestarted => "p2p_swarm_restarted",
            Self::DhtRecordRefused => "p2p_dht_record_refused",
            Self::GossipNotWanted => "p2p_gossip_not_wanted",
            Self::DhtSearchRefused => "p2p_dht_search_refused",
            Self::DhtFlood => "p2p_dht_flood",
            Self::DhtRouteRefused => "p2p_dht_route_refused",
            Self::DhtValueForged => "p2p_dht_value_forged",
            Self::WebSocketRefused => "p2p_websocket_refused",
            Self::WebSocketFault => "p2p_websocket_fault",
            Self::NotOfPrivateNetwork => "p2p_not_of_private_network",
            Self::SecurityFailed => "p2p_security_failed",
            Self::CertificateRefused => "p2p_certificate_refused",
            Self::RelayReservation => "p2p_relay_reservation",
            Self::RelayCircuit => "p2p_relay_circuit",
            Self::RelayRefused => "p2p_relay_refused",
            Self::RelayLimit => "p2p_relay_limit",
            Self::CircuitRefused => "p2p_circuit_refused",
            Self::Met => "p2p_met",
            Self::MeetingRefused => "p2p_meeting_refused",
            Self::SignalFault => "p2p_signal_fault",
            Self::DialledBack => "p2p_dialled_back",
            Self::DialBackRefused => "p2p_dial_back_refused",
            Self::PortMapped => "p2p_port_mapped",
            Self::PortNotMapped => "p2p_port_not_mapped",
            Self::WebRtcStray => "p2p_webrtc_stray",
            Self::WebRtcDropped => "p2p_webrtc_dropped",
            Self::WebRtcPanicked => "p2p_webrtc_panicked",
            Self::WebRtcUnread => "p2p_webrtc_unread",
            Self::QuicDropped => "p2p_quic_dropped",
        }
    }
}

impl P2pEvent {
    /// The text that explains the metric of this event.
    #[must_use]
    // One line for each event.
    #[allow(clippy::too_many_lines)]
    pub const fn help(self) -> &'static str {
        match self {
            Self::AcceptQueueFullForConnection => {
                "An inbound stream was reset: too many streams of its connection wait to be accepted"
            }
            Self::AcceptQueueFull => {
                "An inbound stream was reset: too many streams of all connections together wait to be accepted"
            }
            Self::MuxerFull => {
                "An inbound stream was reset: too many streams of its connection wait for protocol negotiation, or it waited 5 s for a place there"
            }
            Self::BacklogStream => {
                "A stream was reset: the backlog of all connections was above its bound, and the stream held most of the largest connection's"
            }
            Self::BacklogConnection => {
                "A connection was closed: the backlog of all connections was above its bound, and this one was the largest"
            }
            Self::AcceptorGone => {
                "An inbound stream was reset: the acceptor of its protocol has ended"
            }
            Self::TooManyHandshakes => {
                "An inbound gossip stream was reset: too many handshakes are in progress"
            }
            Self::TooManyHttpStreams => {
                "An inbound HTTP stream was reset: too many HTTP streams have a task"
            }
            Self::AcceptorFull => {
                "A stream of an application's protocol was reset: all places of the protocol were taken"
            }
            Self::AcceptorFullForPeer => {
                "A stream of an application's protocol was reset: all places of its peer were taken"
            }
            Self::AcceptorTimedOut => {
                "A stream of an application's protocol was reset: it reached its deadline"
            }
            Self::AcceptorPanicked => {
                "A stream of an application's protocol was reset: its acceptor panicked"
            }
            Self::HandshakeFailed => "A gossip handshake failed",
            Self::OtherNetwork => {
                "A gossip handshake was refused: the peer belongs to another network"
            }
            Self::DuplicateLink => {
                "A gossip link was refused: another link to the same peer is kept"
            }
            Self::ForeignKey => {
                "A gossip stream was refused: this network gossips only with peers that have an Ed25519 key"
            }
            Self::PublishQueueFull => {
                "A message for a topic was dropped: the queue to the swarm was full"
            }
            Self::PublishWithoutPeers => {
                "A message for a topic was not sent: no peer is subscribed to it"
            }
            Self::PublishFailed => "A message for a topic was dropped by the library",
            Self::VerdictLost => {
                "A verdict on a message from a topic was lost: the queue to the swarm was full"
            }
            Self::TopicPeerFull => {
                "A message for a topic was not sent to one peer: the peer's queue was full, the message waited too long, or its copies for all peers would have taken too much memory"
            }
            Self::TopicExcess => {
                "A message from a topic was dropped, or a subscription to an unknown topic: its peer exceeded its rate"
            }
            Self::TopicBudgetFull => {
                "A message from a topic was dropped: the node's byte budget was used up"
            }
            Self::TopicPassOnFull => {
                "A message from a topic was handled, but not passed on: too many of its peer wait for that already"
            }
            Self::TopicNamesFull => {
                "A message from or for a topic was dropped: the IDs of messages in the library use too much memory"
            }
            Self::TopicFlood => "A peer was disconnected: it flooded a topic",
            Self::TopicPeerStalled => {
                "A peer was disconnected: it did not accept what was published to it, and publishing would have had to wait"
            }
            Self::TopicPeerMuted => {
                "A peer is no longer served on topics: its GossipSub score is too low"
            }
            Self::TopicPoolFull => {
                "A message on an application's topic was ignored: too many of its peer wait to be judged"
            }
            Self::TopicRefused => {
                "A message on an application's topic was not accepted by its validator"
            }
            Self::TopicHandlerFailed => {
                "The handler of an application's topic panicked, took too long, or wanted to answer a message"
            }
            Self::Unresolved => "An address was not dialled: its name could not be resolved",
            Self::PingTimeout => "A peer was disconnected: it did not answer pings",
            Self::SwarmRestarted => "The swarm panicked and was restarted",
            Self::DhtRecordRefused => {
                "A provider record, or a value, of another node was not stored in this node's part of the DHT: it is not one that is stored here, or its peer, its subnet or its key has as many as allowed"
            }
            Self::GossipNotWanted => {
                "An inbound gossip stream was reset: its connection was made for the DHT, and the mesh loop has not chosen the peer"
            }
            Self::DhtSearchRefused => "A search in the DHT was refused: too many were under way",
            Self::DhtFlood => "A peer was disconnected: it flooded this node's part of the DHT",
            Self::DhtRouteRefused => {
                "A node was not taken into the routing table of the DHT: its subnet has as many places there as allowed"
            }
            Self::DhtValueForged => {
                "A node answered this one's search in the DHT with a value that is none of the key"
            }
            Self::WebSocketRefused => {
                "A connection to a WebSocket address was closed: its TLS handshake failed, it asked for no WebSocket at `/`, or it was a page of an origin that is not let in"
            }
            Self::WebSocketFault => {
                "A WebSocket was closed: its peer broke the rules of WebSocket, or sent text"
            }
            Self::NotOfPrivateNetwork => {
                "A connection was closed: its peer did not know the key of the private network"
            }
            Self::SecurityFailed => "A connection was closed: its security handshake failed",
            Self::CertificateRefused => {
                "A connection was closed: the certificate of the peer has expired, is forged, or cannot be used"
            }
            Self::RelayReservation => "A peer got or renewed a place at this node as a relay",
            Self::RelayCircuit => "This node as a relay connected two peers by a circuit",
            Self::RelayRefused => {
                "A request to this node as a relay was refused or not answered in time"
            }
            Self::RelayLimit => {
                "A circuit of this node as a relay was cut: it carried all bytes, or lasted for all the time, that it may"
            }
            Self::CircuitRefused => {
                "A circuit to this node was refused: its relay gave no place to this node, or too many circuits wait"
            }
            Self::Met => "Two ends of a circuit met: there is a direct connection",
            Self::SignalFault => {
                "An attempt to meet a peer over WebRTC failed: what the peer said of its end was malformed, too much, or out of order"
            }
            Self::MeetingRefused => {
                "An attempt to meet a peer was refused: it came over no circuit, once too often, or too many are in progress"
            }
            Self::DialledBack => "This node tried an address of a peer, which had asked for it",
            Self::DialBackRefused => {
                "A question whether an address can be dialled was refused, or a nonce came that nobody awaited"
            }
            Self::PortMapped => "A router mapped a port to this node, or mapped it elsewhere",
            Self::PortNotMapped => {
                "A router mapped no port: none was found, or it refused, or gave no answer that can be used"
            }
            Self::WebRtcStray => {
                "A datagram at a port for WebRTC was dropped: it belongs to no connection, and begins none"
            }
            Self::WebRtcDropped => {
                "A datagram or a new connection at a port for WebRTC was dropped: too many wait for their task"
            }
            Self::WebRtcPanicked => "A connection over WebRTC was closed: a library panicked",
            Self::WebRtcUnread => {
                "A stream over WebRTC was reset: nobody read it while it held up its connection"
            }
            Self::QuicDropped => {
                "A datagram for QUIC, at a port that WebRTC has too, was dropped: too many wait"
            }
        }
    }
}

/// Counters of one libp2p network, which only grow, and gauges. Clones share them.
#[derive(Clone, Debug)]
pub struct P2pMetrics {
    counters: Arc<[Counter; P2pEvent::ALL.len()]>,
    levels: Levels,
    library: LibraryMetrics,
}

impl Default for P2pMetrics {
    fn default() -> Self {
        let counters = Arc::new(std::array::from_fn(|_| Counter::default()));
        Self { counters, levels: Levels::default(), library: LibraryMetrics::default() }
    }
}

impl P2pMetrics {
    /// Adds the counters and gauges to a Prometheus registry, and what the library counts itself: connections, pings,
    /// GossipSub and the DHT, with names that begin with `libp2p_`. The library's start at zero when the swarm is restarted.
    pub fn register(&self, registry: &mut Registry) {
        self.levels.register(registry);
        self.library.register(registry);
        for event in P2pEvent::ALL {
            registry.register(event.label(), event.help(), self.counters[event as usize].clone());
        }
    }

    /// Returns the number of times that `event` has happened.
    #[must_use]
    pub fn count(&self, event: P2pEvent) -> u64 {
        self.counters[event as usize].get()
    }

    /// Returns the number of things of a kind that are there now.
    #[must_use]
    pub fn level(&self, level: P2pLevel) -> usize {
        self.levels.of(level)
    }

    #[cfg(feature = "circuits")]
    pub(crate) const fn levels(&self) -> &Levels {
        &self.levels
    }

    pub(crate) const fn library(&self) -> &LibraryMetrics {
        &self.library
    }

    pub(crate) fn note(&self, event: P2pEvent) {
        self.note_many(event, 1);
    }

    /// Counts an event that happened `times` times.
    pub(crate) fn note_many(&self, event: P2pEvent, times: u64) {
        self.counters[event as usize].inc_by(times);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_has_its_own_counter() {
        let metrics = P2pMetrics::default();
        for (index, event) in P2pEvent::ALL.into_iter().enumerate() {
            assert_eq!(event as usize, index);
            metrics.note(event);
            assert_eq!(metrics.count(event), 1, "{}", event.label());
        }
    }
}
