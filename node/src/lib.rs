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
//! ```
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

mod builder;
mod check;
mod data_dir;
mod error;
mod forward;
mod network;
mod running;
mod served;
mod view;

pub use broadcaster::{Broadcaster, DropReason, HandleError, Limits, Metrics, PeerEvent, Relaying};
pub use builder::{Mode, NodeBuilder};
pub use check::PeerError;
pub use data_dir::{DataDir, DataDirError};
pub use error::StartError;
pub use forward::{Forward, ForwardError};
pub use gossip;
pub use mesh::{DialLimits, DialOutcome, DialState, InboundLimits, MIN_OPEN_FILES};
pub use net_http::{
    Incident, LoopbackRule, Protection, ServeLimits, ServeMetrics,
    client::{ClientLimits, RequestWindow},
    protect::RequestRate,
};
pub use net_p2p::Mdns;
pub use net_p2p::parse_listen_address;
pub use net_ws::{DialRefusal, UpgradeRefusal, WsMetrics};
pub use running::Running;
pub use runtime::{Environment, Fault, FaultKind, Random, Resolve, Shutdown, WallClock, memory};
pub use served::TlsFiles;
pub use services;
pub use view::{Trouble, View};
