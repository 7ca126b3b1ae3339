//! A stream of an application's own protocol.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use gossip::{Direction, Identity};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    config::identity_of,
    streams::{InboundStream, OutboundStream, StreamIo},
};

/// A stream to a connected peer, in a protocol of the application's own.
///
/// Shutting it down closes this end's half; the other half can be read on. Dropping it before resets it, which
/// the peer sees as an error. A stream that was reset, or lost with its connection, is read as an error too, so
/// an end of the bytes is the peer's.
#[derive(Debug)]
pub struct PeerStream {
    io: StreamIo,
    identity: Identity,
    protocol: String,
    opener: Direction,
}

impl PeerStream {
    /// A stream that the peer opened; `None` for a peer ID that is no identity.
    pub(super) fn accepted(inbound: InboundStream) -> Option<Self> {
        let identity = identity_of(&inbound.peer())?;
        let protocol = inbound.protocol.to_string();
        Some(Self { io: inbound.into(), identity, protocol, opener: Direction::Inbound })
    }

    /// A stream that this node opened to `identity`.
    pub(super) fn opened(identity: Identity, outbound: OutboundStream) -> Self {
        let protocol = outbound.protocol.to_string();
        Self { io: outbound.into(), identity, protocol, opener: Direction::Outbound }
    }

    /// The peer at the other end, as the handshake of the connection has proved it.
    #[must_use]
    pub const fn identity(&self) -> Identity {
        self.identity
    }

    /// The protocol that was agreed on.
    #[must_use]
    pub fn protocol(&self) -> &str {
        &self.protocol
    }

    /// Who opened the stream: [`Direction::Inbound`] if the peer did.
    #[must_use]
    pub const fn direction(&self) -> Direction {
        self.opener
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, into)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
