//! A gossip node over two transports, put together.
//!
//! ```text
//!   NodeBuilder ──start──▶ Running ──stop──▶ Shutdown
//!                            └─ node(): Arc<dyn GossipNode>
//! ```
//!
//! Required things are arguments of [`NodeBuilder::new`], optional ones its methods, and a started
//! node is another type that owns the tasks.
//!
#![cfg_attr(feature = "ws", doc = "```")]
#![cfg_attr(not(feature = "ws"), doc = "```ignore")]
//! use std::time::Duration;
//!
//! use tandem::{
//!     NodeBuilder,
//!     gossip::{Inbound, NetworkId, NodeAddress, Outbound, Tag, Verdict},
//! };
//! use tokio_util::sync::CancellationToken;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let root = CancellationToken::new();
//! let network = NetworkId::new("example")?;
//! let (heard, mut bodies) = tokio::sync::mpsc::channel(8);
//! let listener = NodeBuilder::new(network.clone())
//!     .handler(Tag::AV, move |message: Inbound| {
//!         let heard = heard.clone();
//!         async move {
//!             // Nobody reads them any more once the example is over.
//!             let _ = heard.send(message.body).await;
//!             Verdict::Ignore
//!         }
//!     })
//!     .start(&root)
//!     .await?;
//!
//! let address: NodeAddress = listener.ws_url().ok_or("it listens")?.parse()?;
//! let mut speaker = NodeBuilder::new(network).peer(address).start(&root).await?;
//! let _connected = speaker.events().recv().await?;
//! let _queued = speaker.node().broadcast(Outbound::new(Tag::AV, "hello"));
//! assert_eq!(bodies.recv().await.ok_or("it was heard")?, "hello");
//!
//! let _ = speaker.stop(Duration::from_secs(5)).await;
//! let _ = listener.stop(Duration::from_secs(5)).await;
//! # Ok(())
//! # }
//! ```
//!
//! # Invariants
//!
//! * A node that did not start has left nothing behind: no task, no socket, no lock.
//! * After [`Running::stop`] no task of the node runs.
//! * A data directory belongs to one node at a time.
//!
//! # Features
//!
//! All of them are on by default.
//!
//! * `ws`, `p2p`: the networks, of which a node needs one. Without `p2p` no libp2p is compiled.
//! * `http`: serving over HTTP. Calling others needs no feature.
//! * `services`: the services in the box.
//! * `discovery`: sources of addresses that do I/O: DNS, and the peer store in the data directory.
//! * `websocket`: libp2p over WebSocket, on the WebSocket port too.
//! * `private-network`: libp2p networks whose nodes share a key.
//! * `cli`: the program `tandem`. A library user leaves it out.

#[cfg(not(any(feature = "ws", feature = "p2p")))]
compile_error!(
    "a node needs a network: enable the feature `ws` or `p2p` of the package `tandem`, or both"
);

mod builder;
mod data_dir;
mod error;
#[cfg(feature = "http")]
mod forward;
#[cfg(feature = "discovery")]
mod keeper;
mod keys;
mod metrics;
mod mode;
mod network;
mod peer_control;
mod running;
#[cfg(feature = "services")]
mod service_metrics;
mod view;

#[cfg(feature = "discovery")]
pub use ::discovery::{
    Bootstrap, BootstrapError, DnsLimits, DnsSettings, Dnssec, PeerFileError, Server as DnsServer,
    ServerError as DnsServerError, Wanted,
};
pub use broadcaster::{
    AbortedBy, Amount, Asked, Broadcaster, DropReason, Durations, HandleError, LaneLimits,
    LaneTraffic, LatencyStage, Limits, LinkTraffic, Metrics, PeerEvent, Relaying, TooManyWanted,
    Trace, TraceEvent, TracePeer, TraceStep, Tracer, VoteForm, VoteMetrics, WantError, WantedTags,
};
pub use builder::NodeBuilder;
#[cfg(any(feature = "ws", feature = "websocket"))]
pub use builder::TlsFiles;
pub use data_dir::{DataDir, DataDirError};
pub use error::StartError;
#[cfg(feature = "http")]
pub use forward::{Forward, ForwardError};
pub use gossip;
pub use keys::KeyError;
pub use mesh::{
    Admit, Ban, BanCause, BanSubject, BanSubjectError, InboundLimits, LearntHosts, MIN_OPEN_FILES,
    Member, MembersError, MeshLimits, RateWindow, TooManyBans, Turnover,
};
pub use mode::{Mode, PeerError};
#[cfg(feature = "http")]
pub use net_http::{Incident, Protection, ServeLimits, ServeMetrics, protect::RequestRate};
pub use net_http::{
    LoopbackRule,
    client::{ClientLimits, RequestWindow},
};
#[cfg(feature = "webrtc")]
pub use net_p2p::WebRtcVersion;
#[cfg(feature = "p2p")]
pub use net_p2p::{
    AcceptLimits, Acceptor, IdFunction, IdParts, ListenAddressError, Mdns, MessageIds, OpenError,
    OwnTopic, P2pEvent, P2pMetrics, PeerAbout, PeerStream, ProtocolError, Security, Signing,
    Streams, TopicError, TopicMesh, TopicScore, check_topics, parse_announced_address,
    parse_listen_address,
};
#[cfg(feature = "dht")]
pub use net_p2p::{
    AddressScope, Capability, CapabilityError, DhtConfig, DhtError, DhtMode, DhtPeer, DhtValues,
    FoundValue, InvalidValue, MAX_VALUE_BYTES, Preference, Provider, ValueKey, ValueKeyError,
    ValueValidator,
};
#[cfg(feature = "reachability")]
pub use net_p2p::{MappedPort, MappingProtocol, PortCarrier, ReachConfig, ReachPart, RelayLimits};
#[cfg(any(feature = "ws", feature = "websocket"))]
pub use net_tcp::origins::{PageOrigin, PageOriginError, PageOrigins};
#[cfg(feature = "ws")]
pub use net_ws::{
    DialRefusal, ProxyFault, ProxyProtocol, ProxyRules, RealIpHeader, TlsError, TlsRefusal,
    UpgradeRefusal, WsMetrics,
};
pub use peer_control::{AddPeerError, BanError, PeerControl, SetMembersError};
#[cfg(feature = "http")]
pub use running::HttpPermits;
pub use running::Running;
pub use runtime::{Environment, Fault, FaultKind, Random, Resolve, Shutdown, WallClock, memory};
#[cfg(feature = "services")]
pub use service_metrics::register_service_metrics;
#[cfg(feature = "services")]
pub use services;
pub use view::{DoorState, Trouble, View};
