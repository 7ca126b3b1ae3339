//! Stream protocols of applications.
//!
//! ```text
//!   connections ──try──▶ [accept queue] ──▶ ProtocolServer ──▶ one task per stream: Acceptor
//!   application ──▶ Streams::open ──wait──▶ [requests] ──▶ swarm task ──▶ PeerStream
//! ```
//!
//! # Invariants
//!
//! * An acceptor gets each stream with the identity that the connection's handshake has proven.
//! * Every accepted stream has a task and a deadline, and takes a place of its protocol and of its peer. A
//!   stream without a place is reset and counted.
//! * A panic of an acceptor ends its stream, is counted and logged, and ends nothing else.

mod acceptor;
mod names;
mod open;
mod serve;
mod stream;

pub use acceptor::{AcceptLimits, Acceptor, OwnProtocol};
pub use names::ProtocolError;
pub(crate) use names::check;
pub use open::Streams;
pub(crate) use serve::ProtocolServer;
pub use stream::PeerStream;
