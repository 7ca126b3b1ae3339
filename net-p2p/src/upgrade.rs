//! The way from a byte stream to an authenticated, multiplexed connection, for every transport that has byte streams.
//!
//! ```text
//!   byte stream ──▶ which security? ──▶ Noise ──▶ which muxer? ──▶ flush_coalescer ──▶ Yamux
//! ```
//!
//! # Invariants
//!
//! * Both choices are made by multistream-select. With one protocol to offer, the dialer does not wait for the answer.

use libp2p::{
    PeerId,
    core::{ConnectedPoint, Endpoint},
};
use multistream_select::{NegotiationError, Version, dialer_select_proto, listener_select_proto};
use yamux::Mode;

use crate::{
    muxer::{Muxer, Upgrade, Wire},
    security::{Secure, SecurityError},
};

/// The name of Yamux in the negotiation. Source: libp2p specifications, `yamux/README.md`.
const YAMUX: &str = "/yamux/1.0.0";

/// The upgrades of every byte stream of a node.
#[derive(Clone)]
pub(crate) struct Upgrades {
    pub(crate) secure: Secure,
    pub(crate) muxer: Upgrade,
}

/// The reason why a byte stream did not become a connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpgradeError {
    #[error("no protocol in common")]
    Negotiation(#[from] NegotiationError),
    #[error(transparent)]
    Security(#[from] SecurityError),
}

/// The end of the connection that this node plays.
const fn end_of(point: &ConnectedPoint) -> Endpoint {
    match point {
        ConnectedPoint::Dialer { role_override, .. } => *role_override,
        ConnectedPoint::Listener { .. } => Endpoint::Listener,
    }
}

impl Upgrades {
    /// Upgrades `stream`.
    ///
    /// # Cancel safety
    ///
    /// Not safe: a dropped future drops the stream.
    pub(crate) async fn upgrade<C: Wire>(
        self,
        stream: C,
        point: ConnectedPoint,
    ) -> Result<(PeerId, Muxer), UpgradeError> {
        let (end, protocols) = (end_of(&point), self.secure.protocols());
        match end {
            Endpoint::Dialer => {
                let chosen = dialer_select_proto(stream, protocols, Version::V1Lazy).await;
                let (protocol, stream) = chosen?;
                let (peer, stream) = self.secure.secure(stream, protocol, end).await?;
                let chosen = dialer_select_proto(stream, [YAMUX], Version::V1Lazy).await;
                let (_, stream) = chosen?;
                Ok((peer, self.muxer.muxer(stream, Mode::Client)))
            }
            Endpoint::Listener => {
                let (protocol, stream) = listener_select_proto(stream, protocols).await?;
                let (peer, stream) = self.secure.secure(stream, protocol, end).await?;
                let (_, stream) = listener_select_proto(stream, [YAMUX]).await?;
                Ok((peer, self.muxer.muxer(stream, Mode::Server)))
            }
        }
    }
}
