//! Stream protocols of an application's own.
//!
//! ```text
//!   connections ──try──▶ [accept queue] ──▶ ProtocolServer ──▶ one task per stream: Acceptor
//!   application ──▶ Streams::open ──wait──▶ [wishes] ──▶ swarm task ──▶ PeerStream
//! ```
//!
//! # Invariants
//!
//! * A stream is handed to its acceptor with the identity that the handshake of its connection has proved.
//! * Every accepted stream has a task of its own, a place among those of its protocol and among those of its
//!   peer, and a deadline. A stream that finds no place is reset and counted.
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
