//! A stream with an application's own protocol.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use gossip::{Direction, Identity};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    address::identity_of,
    streams::{InboundStream, OutboundStream, StreamIo},
};

/// A stream to a connected peer, with an application's own protocol.
///
/// Shutdown closes this end's half; the other half can still be read. Dropping the stream without a shutdown
/// resets it, which the peer reads as an error. A stream that was reset, or lost with its connection, reads as
/// an error too. An end of the bytes thus means that the peer closed its half, with one exception: where this end has
/// closed its own half before, a peer that drops the stream only ends it, since Yamux has no reset then. A protocol
/// that half-closes has to say how much is to come.
#[derive(Debug)]
pub struct PeerStream {
    io: StreamIo,
    identity: Identity,
    protocol: String,
    opener: Direction,
}

impl PeerStream {
    /// Wraps an inbound stream; `None` for a peer ID that is no identity.
    pub(super) fn accepted(inbound: InboundStream) -> Option<Self> {
        let identity = identity_of(&inbound.peer())?;
        let protocol = inbound.protocol.to_string();
        Some(Self { io: inbound.into(), identity, protocol, opener: Direction::Inbound })
    }

    /// Wraps a stream that this node opened to `identity`.
    pub(super) fn opened(identity: Identity, outbound: OutboundStream) -> Self {
        let protocol = outbound.protocol.to_string();
        Self { io: outbound.into(), identity, protocol, opener: Direction::Outbound }
    }

    /// The peer at the other end, as proven by the connection's handshake.
    #[must_use]
    pub const fn identity(&self) -> Identity {
        self.identity
    }

    /// The negotiated protocol.
    #[must_use]
    pub fn protocol(&self) -> &str {
        &self.protocol
    }

    /// The end that opened the stream: [`Direction::Inbound`] if the peer did.
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
