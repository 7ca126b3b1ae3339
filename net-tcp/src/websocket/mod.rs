//! WebSocket connections: the upgrade in both directions, and a stream of bytes over one.
//!
//! # Invariants
//!
//! * A head is at most [`MAX_HEAD_BYTES`](upgrade::MAX_HEAD_BYTES) long.
//! * A stream buffers one frame of its own, and none of its peer's.

pub mod request;
mod stream;
pub mod upgrade;

use tokio::io::{AsyncRead, AsyncWrite};

pub use stream::{StreamFault, WsStream};

/// A connection that can carry a WebSocket: TCP, a pipe in memory, or TLS over one of them.
pub trait Carrier: AsyncRead + AsyncWrite + std::fmt::Debug + Unpin + Send + 'static {}

impl<Io: AsyncRead + AsyncWrite + std::fmt::Debug + Unpin + Send + 'static> Carrier for Io {}
