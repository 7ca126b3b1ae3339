//! The flow of messages in a node, whatever carries them.
//!
//! ```text
//!  broadcast/relay ─try─▶ [intake.priority]─┐                 ┌─▶ peer A [priority|bulk] ─▶ write loop ─▶ WebSocket
//!                  ─try─▶ [intake.bulk]   ──┴▶ router ─once──▶├─▶ peer B [priority|bulk] ─▶ write loop ─▶ libp2p stream
//!                                                             └─▶ topic sink              ─▶ GossipSub
//!  WebSocket, libp2p ─▶ read loop ─▶ duplicate filter ─▶ [worker queue] ─▶ validator, handler ─▶ verdict
//! ```
//!
//! One [`Broadcaster`] serves all networks of a node: it is made first and lent to each of them, and
//! they attach their connections to it. So a message is encoded, compressed and hashed once, and
//! offered once to every peer.
//!
//! # Invariants
//!
//! * Every queue is bounded in number and in bytes, and one [`ByteBudget`] bounds them all together.
//! * Every task belongs to a [`TaskSet`](runtime::TaskSet), and ends with it.
//! * Every message that goes no further is counted once, with a [`DropReason`].

mod application;
mod assembler;
mod broadcaster;
mod budget;
mod claims;
mod codec;
mod contests;
mod context;
mod doubt;
mod duplicates;
mod encode;
mod events;
mod fair;
mod frame;
mod inbound;
mod intake;
mod interest;
mod lanes;
mod limits;
mod link;
mod link_guard;
mod link_tasks;
mod links;
mod mesh_access;
mod mesh_gauges;
mod mesh_handle;
mod mesh_loop;
mod mesh_metrics;
mod mesh_sources;
mod mesh_upkeep;
mod metrics;
mod observers;
mod passing;
mod peer;
mod performance;
mod plain_codec;
mod pulse;
mod reader;
mod receipts;
mod registry;
mod relay;
mod requests;
mod router;
mod runs;
mod setup;
mod stamp;
mod submit;
mod tally;
mod topic;
mod topic_sinks;
mod trace;
mod vitals;
mod vote_codec;
mod workers;
mod writer;

pub use application::HandleError;
pub use assembler::{
    AssembledSource, Assembler, AssemblyRules, Charge, Follows, Framing, Head, LengthPrefix,
    MessageMemory, PartHead, Piece, Space, Step,
};
pub use broadcaster::Broadcaster;
pub use budget::{ByteBudget, Reservation, Stage};
pub use claims::Claim;
pub use codec::{Decoded, Decoder, Encoder, LinkCodec, PipeGauge, PipeSample};
pub use events::PeerEvent;
pub use frame::{Frame, FrameMark, Origin};
pub use inbound::rate::Bucket;
pub use interest::{Asked, WantError, WantedTags};
pub use limits::{LaneLimits, LaneRates, Limits, Rate, Rates};
pub use link::{
    Attached, EndedFor, FrameSink, FrameSource, LaneSinks, Link, LinkHooks, LinkInfo, Received,
    SourceEnd, Stopping,
};
pub use link_guard::LinkGuard;
pub use mesh_handle::{Dialer, Mesh, Ticket, TooManySources};
pub use mesh_metrics::{DialResult, MeshMetrics};
pub use metrics::{AbortedBy, DropReason, Durations, LatencyStage, Metrics, VoteForm, VoteMetrics};
pub use receipts::TopicReceipt;
pub use relay::Relaying;
pub use setup::Setup;
pub use tally::{Amount, LaneTraffic, LinkTraffic};
pub use topic::{TopicAdmission, TopicMessage, TopicSink};
pub use trace::{TooManyWanted, Trace, TraceEvent, TracePeer, TraceStep, Tracer};
pub use vitals::RoundTrip;
