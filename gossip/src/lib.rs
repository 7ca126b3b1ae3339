//! The contract of a gossip node, and the bytes it speaks.
//!
//! ```text
//!   application ──▶ GossipNode ──▶ (broadcaster, transports) ──▶ wire ──▶ peers
//!               ◀── Handler    ◀──                           ◀──
//! ```
//!
//! # Invariants
//!
//! * Nothing here opens a socket, reads a clock, spawns a task or logs: functions on bytes and plain data.
//! * A [`NetworkProfile`] is data. No code asks which profile it is; it asks the profile's fields.
//! * Every decoder checks a length before it takes memory for it, and never panics on any input.

mod address;
mod dial_state;
mod handler;
mod host;
pub mod http;
mod identity;
mod ip_range;
mod keypair;
mod late_node;
mod limits;
mod message;
mod network_id;
mod node;
mod peer;
mod priority;
mod profile;
mod reason;
mod tag;
mod time;
mod topic;
pub mod wire;

pub use address::{AddressError, GossipUrl, NodeAddress, Security, WebSocketAddress};
pub use dial_state::{DialOutcome, DialState};
pub use handler::{BoxFuture, Handler, Validation, Validator, Verdict};
pub use host::{Host, LoopbackRule, Subnet};
pub use identity::{Identity, IdentityParseError, KeyKind, VerifyError};
pub use ip_range::{IpRange, IpRangeError};
pub use keypair::{KeyError, Keypair};
pub use late_node::LateNode;
pub use limits::{Durations, LONGEST_LIMIT, LimitError, SHORTEST_LIMIT, check_durations};
pub use message::{
    Delivery, DeliveryError, Inbound, Outbound, Recipients, Request, RequestError, Response,
    SubmitError,
};
pub use network_id::{NetworkId, NetworkIdError};
pub use node::{Admission, ConnectPolicy, GossipNode};
pub use peer::{Direction, LinkId, LinkPath, PeerClass, PeerInfo, Roles, Transport};
pub use priority::PriorityScheme;
pub use profile::{
    ClaimRule, DnsService, HeaderCase, HelloPlace, IdentityRule, MAX_MESSAGE_BYTES,
    MAX_REQUEST_BYTES, MAX_TOPIC_BYTES, NetworkProfile, ProfileBuilder, ProfileError, ProposalRule,
    ReplyRule, StreamUse, TagTopicError, TopicChoice, TopicScoring,
};
pub use reason::{ApplicationReason, DisconnectReason};
pub use tag::{Compression, Forwarding, Interest, Lane, MAX_TAGS, Route, Tag, TagRule, TagTable};
pub use time::Instant;
pub use topic::{PublishError, TopicInbound};
