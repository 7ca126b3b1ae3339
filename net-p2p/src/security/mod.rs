//! The security protocols of a byte stream, and the choice between them.
//!
//! # Invariants
//!
//! * The protocols are offered in the order of preference of the configuration; the end that dials chooses the first
//!   one that both speak.
//! * A stream that was not secured carries nothing but the negotiation.

#[cfg(feature = "tls")]
pub(crate) mod certificate;
#[cfg(feature = "tls")]
pub(crate) mod tls;

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

#[cfg(feature = "tls")]
use self::tls::{ALPN, SetupError, Tls, TlsError};
#[cfg(feature = "tls")]
use crate::muxer::YAMUX;
use crate::{metrics::P2pMetrics, muxer::Wire};

/// A security protocol for byte streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Security {
    /// Noise, `/noise`.
    Noise,
    /// TLS 1.3, `/tls/1.0.0`.
    #[cfg(feature = "tls")]
    Tls,
}

impl Security {
    /// Every security protocol of this build, in the default order of preference.
    pub const ALL: &'static [Self] = &[
        Self::Noise,
        #[cfg(feature = "tls")]
        Self::Tls,
    ];

    /// The name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Noise => "noise",
            #[cfg(feature = "tls")]
            Self::Tls => "tls",
        }
    }

    /// The protocol with this name in the configuration; `None` if this build has none.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|security| security.name() == name)
    }

    /// The name of the protocol in its negotiation. Source: libp2p specifications, `noise/README.md`, `tls/tls.md`.
    const fn protocol(self) -> &'static str {
        match self {
            Self::Noise => "/noise",
            #[cfg(feature = "tls")]
            Self::Tls => "/tls/1.0.0",
        }
    }
}

/// The security protocols of a node, each with the node's key.
#[derive(Clone)]
pub(crate) struct Secure {
    order: Vec<Security>,
    noise: noise::Config,
    #[cfg(feature = "tls")]
    tls: Tls,
}

/// A secured byte stream.
pub(crate) enum Secured<C> {
    Noise(Box<noise::Output<C>>),
    #[cfg(feature = "tls")]
    Tls(Box<tls::Stream<C>>),
}

/// The muxer of a connection, as far as the security protocol has settled it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EarlyMuxer {
    /// Both ends agreed on Yamux.
    Yamux,
    /// The muxer is to be negotiated.
    Open,
}

/// The reason why nothing can be secured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecuritySetupError {
    #[error(transparent)]
    Noise(#[from] noise::Error),
    #[cfg(feature = "tls")]
    #[error(transparent)]
    Tls(#[from] SetupError),
}

/// The reason why a stream was not secured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecurityError {
    #[error(transparent)]
    Noise(#[from] noise::Error),
    #[cfg(feature = "tls")]
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl SecurityError {
    /// Returns `true` if the failure was counted where it happened.
    pub(crate) fn is_counted(&self) -> bool {
        match self {
            Self::Noise(_) => false,
            #[cfg(feature = "tls")]
            Self::Tls(error) => error.is_certificate(),
        }
    }
}

impl Secure {
    /// Speaks the protocols of `order` with `key`, and counts refusals in `metrics`.
    ///
    /// # Errors
    ///
    /// When the key cannot sign, which never happens with an Ed25519 key.
    pub(crate) fn new(
        order: Vec<Security>,
        key: &Keypair,
        metrics: &P2pMetrics,
    ) -> Result<Self, SecuritySetupError> {
        #[cfg(not(feature = "tls"))]
        let _ = metrics;
        Ok(Self {
            order,
            noise: noise::Config::new(key)?,
            #[cfg(feature = "tls")]
            tls: Tls::new(key, &[YAMUX.as_bytes(), ALPN], metrics)?,
        })
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
    ) -> Result<(PeerId, Secured<C>, EarlyMuxer), SecurityError> {
        #[cfg(feature = "tls")]
        if protocol == Security::Tls.protocol() {
            let (peer, stream, agreed) = self.tls.secure(stream, end).await?;
            let early = match agreed {
                Some(name) if name == YAMUX.as_bytes() => EarlyMuxer::Yamux,
                _ => EarlyMuxer::Open,
            };
            return Ok((peer, Secured::Tls(Box::new(stream)), early));
        }
        let (peer, stream) = match end {
            Endpoint::Dialer => self.noise.upgrade_outbound(stream, protocol).await?,
            Endpoint::Listener => self.noise.upgrade_inbound(stream, protocol).await?,
        };
        // The library keeps the extension `stream_muxers` of Noise to itself.
        Ok((peer, Secured::Noise(Box::new(stream)), EarlyMuxer::Open))
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
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream).poll_read(context, into),
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
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Noise(stream) => Pin::new(stream).poll_flush(context),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Noise(stream) => Pin::new(stream).poll_close(context),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream).poll_close(context),
        }
    }
}
