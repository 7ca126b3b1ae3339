//! The libp2p network: gossip over streams, transactions over topics, and HTTP.
//!
//! ```text
//!   P2pNetwork ──▶ supervisor ──▶ swarm task ──▶ connections (TCP, WebSocket or one brought along, Noise or TLS, Yamux)
//!                                  │    ▲             │ streams
//!                      link tasks ◀┘    └─ topics     ├──▶ StreamAcceptor ──▶ HTTP
//!                          │                          ▼
//!                          └── handshake, claim, attach ──▶ Broadcaster
//! ```
//!
//! # Queues
//!
//! | queue | producers -> consumer | bound | when full | counted as |
//! | --- | --- | --- | --- | --- |
//! | commands | handles -> swarm task | 1,024 | caller gets an error | - |
//! | publications | router -> swarm task | 16 MiB, in turns of their origins; paced | the newest of the origin with most are dropped | `PublishQueueFull` |
//! | bytes of GossipSub that come | sockets -> swarm task | 8 KiB of a connection in one round of the swarm | read no further | - |
//! | received messages to pass on | swarm task -> GossipSub | 16 MiB, in turns of their peers; paced | the newest of the peer with most are not passed on | `TopicPassOnFull` |
//! | messages of own topics | swarm task -> topic workers | 12 MiB, in turns of their peers | the newest of the peer with most are ignored | `TopicPoolFull` |
//! | searches in the DHT | handles, mesh loop -> swarm task | 32, and 32 under way | caller gets `Busy` | `DhtSearchRefused` |
//! | provider records | connections -> swarm task | 12,288, and 256 for each of the network's keys | not stored | `DhtRecordRefused` |
//! | puts and gets of values | handles -> swarm task | 32 of each under way | caller gets `Busy` | `DhtSearchRefused` |
//! | values | connections -> swarm task | 1,024 of 4 KiB, 32 of a peer in 10 s; 128 own | not stored | `DhtRecordRefused` |
//! | names to look up | swarm task -> DNS | 64, 10 s each | the dial fails | `Unresolved` |
//! | verdicts | workers -> swarm task | 4,096 | verdict is lost | `VerdictLost` |
//! | notices | link tasks -> swarm task | 256 | sender waits | - |
//! | stream requests | handles, HTTP clients -> swarm task | 256 | caller waits, under its deadline | - |
//! | pending dials | swarm task, until the dial ends | 1,024 | caller gets `Busy` | - |
//! | opening, gossip | swarm task -> connection | 256; 64 of one connection | caller gets `Busy` | - |
//! | opening, others | swarm task -> connection | 1,024 of one connection, 256 open | caller gets `Busy` | - |
//! | inbound streams | muxer task -> connection | 256 of one connection | stream is reset | `MuxerFull` |
//! | backlog | sockets <-> readers and writers | bytes of all connections, a quarter of the budget | the largest loses a stream or ends | `Backlog…` |
//! | orders | connection -> muxer task | 2: one stream, one end | cannot happen | - |
//! | accept queue, gossip | connections -> swarm task | 256; 64 of one connection | stream is reset | `AcceptQueueFull…` |
//! | accept queue, HTTP | connections -> StreamAcceptor | 1,024; 512 of one connection | stream is reset | `AcceptQueueFull…` |
//! | accept queue, own protocols | connections -> ProtocolServer | 1,024; 512 of one connection; at most the limits of the protocol | stream is reset | `AcceptQueueFull…` |
//! | accept queue, relay | connections -> Relay | 128; 16 of one connection; 64 in progress | stream is reset | `AcceptQueueFull…`, `RelayRefused` |
//! | accept queue, circuits | relays -> Stops | 64; 16 of one connection; 32 in progress | stream is reset | `AcceptQueueFull…`, `CircuitRefused` |
//! | circuits | Stops -> swarm task | 16 | refused | `CircuitRefused` |
//! | accept queue, signals | connections -> swarm task | 16; 2 of one connection; 32 in progress, one of a peer | stream is reset | `AcceptQueueFull…`, `MeetingRefused` |
//! | signals of a meeting | its peer <-> its host | 65: a description of 16 KiB and 64 candidates of 2 KiB, each way | the meeting fails | `SignalFault` |
//! | own protocols | ProtocolServer -> Acceptor | 64 tasks of a protocol, 8 of one peer, 60 s | stream is reset | `AcceptorFull…` |
//! | HTTP streams | StreamAcceptor -> HttpServer | 4,096 tasks | stream is reset | `TooManyHttpStreams` |
//! | message IDs | library, 120 s | five sixths of the budget, in addition to it | not published or passed on, or emptied | `TopicNamesFull` |
//! | GossipSub, per peer | its connection -> its topic stream | 8 MiB, counted in the backlog | message dropped for that peer | `TopicPeerFull` |
//!
//! # Invariants
//!
//! * One task owns the swarm and waits only in its `select!`; it is restarted when it panics.
//! * A peer has at most one gossip link, whichever end dialled and however often.
//! * HTTP cannot starve gossip: it has queues of its own, and in shared ones gossip goes first.
//! * Nothing here knows the other transport; the two share only the broadcaster and the door.

mod abouts;
mod address;
mod admission;
mod backlog;
mod behaviour;
mod boxed;
mod carrier;
#[cfg(feature = "data-channels")]
mod channels;
mod command;
mod config;
mod connections;
mod conventions;
#[cfg(feature = "dht")]
mod dht;
#[cfg(feature = "dht")]
mod dht_calls;
#[cfg(feature = "dht")]
mod dht_handle;
#[cfg(feature = "dht")]
mod dht_source;
mod dial_hosts;
mod dialing;
mod families;
mod flush_coalescer;
mod gated_pubsub;
mod gathering;
#[cfg(feature = "quic")]
mod gauges;
mod given;
mod gossip_links;
mod handshake;
mod http;
mod ledger;
#[cfg(feature = "quic")]
mod lent;
mod levels;
mod library_metrics;
mod linger;
mod link;
mod listening;
#[cfg(not(target_family = "wasm"))]
mod local_network;
#[cfg(target_family = "wasm")]
#[path = "no_local_network.rs"]
mod local_network;
mod memory;
mod metrics;
mod muxer;
mod network;
#[cfg(feature = "private-network")]
mod network_key;
mod origin;
mod outbox;
mod own_topics;
mod peers;
#[cfg(feature = "quic")]
mod pieces;
mod protocols;
mod publications;
mod pubsub;
#[cfg(feature = "quic")]
mod quic;
#[cfg(feature = "circuits")]
mod reach;
mod recorder;
mod rounds;
#[cfg(not(target_family = "wasm"))]
mod route;
#[cfg(target_family = "wasm")]
#[path = "any_route.rs"]
mod route;
mod security;
mod sink;
#[cfg(not(target_family = "wasm"))]
mod sockets;
#[cfg(target_family = "wasm")]
#[path = "no_sockets.rs"]
mod sockets;
mod source;
mod streams;
mod supervisor;
mod swarm;
mod topic;
mod topic_debts;
mod topic_filter;
mod topic_gate;
mod topic_rates;
mod topic_scores;
mod topic_standings;
mod topic_traffic;
mod transport;
mod trees;
mod turns;
#[cfg(any(feature = "quic", feature = "webrtc"))]
mod udp;
#[cfg(all(feature = "quic", feature = "webrtc"))]
mod udp_ports;
mod upgrade;
mod waiting;
#[cfg(feature = "websocket")]
mod web;
#[cfg(feature = "webrtc")]
mod webrtc;

pub use abouts::PeerAbout;
pub use address::{
    ListenAddressError, PeerAddressError, TreeNames, check_peer, parse_announced_address,
    parse_listen_address,
};
pub use config::{GossipStreams, Mdns, P2pConfig, Subscription};
#[cfg(feature = "dht")]
pub use dht::{
    AddressScope, Capability, CapabilityError, DhtConfig, DhtError, DhtMode, DhtPeer, DhtValues,
    FoundValue, InvalidValue, MAX_VALUE_BYTES, Preference, Provider, ValueKey, ValueKeyError,
    ValueValidator,
};
pub use given::{Accepted, ByteIo, ByteListener, ByteStream, ByteTransport, SharedTransport};
#[cfg(feature = "data-channels")]
pub use given::{
    ChannelEvents, ChannelTransport, DialledChannels, PeerChannels, SharedChannelTransport,
};
#[cfg(all(feature = "circuits", feature = "data-channels"))]
pub use given::{MeetingRole, Signal, SignalReceiver, SignalSender, Signals};
pub use levels::P2pLevel;
pub use libp2p::{Multiaddr, StreamProtocol};
pub use memory::MemoryBounds;
pub use metrics::{P2pEvent, P2pMetrics};
pub use network::{AddPeerError, P2pNetwork, StartError, check_protocols, check_topics};
#[cfg(feature = "private-network")]
pub use network_key::{NetworkKey, NetworkKeyError, is_private};
pub use own_topics::{IdFunction, IdParts, MessageIds, OwnTopic, Signing, TopicError};
pub use protocols::{AcceptLimits, Acceptor, OwnProtocol, PeerStream, ProtocolError, Streams};
#[cfg(feature = "reachability")]
pub use reach::{
    Carrier as PortCarrier, MappedPort, MappingProtocol, ReachConfig, ReachPart, RelayLimits,
};
pub use security::Security;
pub use streams::{InboundStream, OpenError, OutboundStream};
pub use topic_scores::{TopicMesh, TopicScore};
pub use trees::{ResolveTree, TreeError};
#[cfg(feature = "websocket")]
pub use web::{WebConfig, needs_certificate};
#[cfg(feature = "webrtc")]
pub use webrtc::{WebRtcCertificate, WebRtcCertificateError, WebRtcVersion};

#[cfg(test)]
mod tests;
