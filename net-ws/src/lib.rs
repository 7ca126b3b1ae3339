//! The WebSocket network: listener, dialler, HTTP services, and one WebSocket per peer.
//!
//! ```text
//!   accept ─▶ HTTP ─┬─ HttpServer                     ┌─ WsSource ─▶ read loop  ┐
//!                   └─ gossip ─▶ upgrade ─┐          │                         │
//!                                         ├─▶ link ─▶┤ Port                    ├ Broadcaster
//!   mesh loop ─▶ dialler ─▶ handshake ────┘          │                         │
//!                                                    └─ WsSink   ◀─ write loop ┘
//! ```
//!
//! # Invariants
//!
//! * Everything an unknown peer sends is bounded before memory is taken for it: heads, frames, messages,
//!   control frames, connections, requests.
//! * On the wire this node looks like existing nodes, in bytes and in order: headers, refusals, frame sizes,
//!   close codes.
//! * Every task belongs to the network's task set, and every connection to one task.

mod bucket;
mod call;
mod config;
mod context;
mod dial;
mod dialler;
mod framing;
#[cfg(fuzzing)]
pub mod fuzzing;
mod link;
mod metrics;
mod network;
mod port;
mod priority;
mod proxy;
mod serve;
mod sink;
mod socket;
mod source;

use net_tcp::{frame, tls};

pub use call::client as http_client;
pub use config::{
    AddPeerError, GossipService, Libp2pIdentity, StartError, TargetError, WsConfig, check_peer,
};
pub use metrics::{DialRefusal, ProxyFault, TlsRefusal, UpgradeRefusal, WsMetrics};
pub use net_tcp::origins::{PageOrigin, PageOriginError, PageOrigins};
pub use net_tcp::{
    CertificateDer,
    tls::{CertificateError, TlsError, TlsIdentity, read_certificates},
};
pub use network::WsNetwork;
pub use proxy::{ProxyProtocol, ProxyRules, RealIpHeader};
