//! The security protocols of a byte stream, and the choice between them.
//!
//! # Invariants
//!
//! * The protocols are offered in the order of preference of the configuration; the end that dials chooses the first
//!   one that both speak.
//! * A stream that was not secured carries nothing but the negotiation.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use futures::{AsyncRead, AsyncWrite};
use libp2p::{
    PeerId,
    core::{
        Endpoint,
        upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade},
    },
    identity::Keypair,
    noise,
};

use crate::muxer::Wire;

/// A security protocol for byte streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Security {
    /// Noise, `/noise`.
    Noise,
}

impl Security {
    /// Every security protocol of this build, in the default order of preference.
    pub const ALL: &'static [Self] = &[Self::Noise];

    /// The name of the protocol in its negotiation. Source: libp2p specifications, `noise/README.md`.
    pub(crate) const fn protocol(self) -> &'static str {
        match self {
            Self::Noise => "/noise",
        }
    }
}

/// The security protocols of a node, each with the node's key.
#[derive(Clone)]
pub(crate) struct Secure {
    order: Vec<Security>,
    noise: noise::Config,
}

/// A secured byte stream.
pub(crate) enum Secured<C> {
    Noise(Box<noise::Output<C>>),
}

/// The reason why a stream was not secured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecurityError {
    #[error(transparent)]
    Noise(#[from] noise::Error),
}

impl Secure {
    /// Speaks the protocols of `order` with `key`.
    ///
    /// # Errors
    ///
    /// When the key cannot sign, which never happens with an Ed25519 key.
    pub(crate) fn new(order: Vec<Security>, key: &Keypair) -> Result<Self, SecurityError> {
        Ok(Self { order, noise: noise::Config::new(key)? })
    }

    /// The names of the protocols, in the order of preference.
    pub(crate) fn protocols(&self) -> Vec<&'static str> {
        self.order.iter().map(|security| security.protocol()).collect()
    }

    /// Secures `stream` with the protocol that was agreed on.
    ///
    /// # Cancel safety
    ///
    /// Not safe: a dropped future drops the stream.
    pub(crate) async fn secure<C: Wire>(
        self,
        stream: C,
        protocol: &'static str,
        end: Endpoint,
    ) -> Result<(PeerId, Secured<C>), SecurityError> {
        let (peer, stream) = match end {
            Endpoint::Dialer => self.noise.upgrade_outbound(stream, protocol).await?,
            Endpoint::Listener => self.noise.upgrade_inbound(stream, protocol).await?,
        };
        Ok((peer, Secured::Noise(Box::new(stream))))
    }
}

impl<C: Wire> AsyncRead for Secured<C> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Noise(stream) => Pin::new(stream).poll_read(context, into),
        }
    }
}

impl<C: Wire> AsyncWrite for Secured<C> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Noise(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Noise(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Noise(stream) => Pin::new(stream).poll_close(context),
        }
    }
}
