//! The way from a byte stream to an authenticated, multiplexed connection, for every transport that has byte streams.
//!
//! ```text
//!   byte stream ──▶ which security? ─┬▶ Noise ──▶ which muxer? ─┬▶ flush_coalescer ──▶ Yamux
//!                                    └▶ TLS ─────── settled ─────┘
//! ```
//!
//! # Invariants
//!
//! * The choices are made by multistream-select. With one protocol to offer, the dialer does not wait for the answer.
//! * If the security protocol has settled the muxer, that choice is left out.
//! * A stream that was not secured is counted.

use libp2p::{
    PeerId,
    core::{ConnectedPoint, Endpoint},
};
use multistream_select::{NegotiationError, Version, dialer_select_proto, listener_select_proto};
use tracing::{Instrument, Span, field::Empty};
use yamux::Mode;

use crate::{
    metrics::P2pEvent,
    muxer::{Muxer, Upgrade, Wire, YAMUX},
    security::{EarlyMuxer, Secure, SecurityError},
};

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

/// The span of a handshake. A dialer's is no child of its dial, because the library polls it.
fn span(point: &ConnectedPoint) -> Span {
    let (role, kind) = match end_of(point) {
        Endpoint::Dialer => ("dialer", "client"),
        Endpoint::Listener => ("listener", "server"),
    };
    tracing::debug_span!(
        "libp2p_handshake",
        otel.kind = kind,
        role,
        address = %point.get_remote_address(),
        peer_id = Empty,
        error = Empty,
        otel.status_code = Empty,
    )
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
        let span = span(&point);
        let upgraded = self.negotiate(stream, point).instrument(span.clone()).await;
        match &upgraded {
            Ok((peer, _)) => span.record("peer_id", tracing::field::display(peer)),
            Err(error) => span
                .record("error", tracing::field::display(error))
                .record("otel.status_code", "ERROR"),
        };
        upgraded
    }

    async fn negotiate<C: Wire>(
        self,
        stream: C,
        point: ConnectedPoint,
    ) -> Result<(PeerId, Muxer), UpgradeError> {
        let (end, protocols) = (end_of(&point), self.secure.protocols());
        let (metrics, muxer) = (self.muxer.metrics().clone(), self.muxer);
        let count = |error: &SecurityError| {
            if !error.is_counted() {
                metrics.note(P2pEvent::SecurityFailed);
            }
        };
        match end {
            Endpoint::Dialer => {
                let chosen = dialer_select_proto(stream, protocols, Version::V1Lazy).await;
                let (protocol, stream) = chosen?;
                let secured = self.secure.secure(stream, protocol, end).await;
                let (peer, stream, early) = secured.inspect_err(count)?;
                if early == EarlyMuxer::Yamux {
                    return Ok((peer, muxer.muxer(stream, Mode::Client)));
                }
                let chosen = dialer_select_proto(stream, [YAMUX], Version::V1Lazy).await;
                let (_, stream) = chosen?;
                Ok((peer, muxer.muxer(stream, Mode::Client)))
            }
            Endpoint::Listener => {
                let (protocol, stream) = listener_select_proto(stream, protocols).await?;
                let secured = self.secure.secure(stream, protocol, end).await;
                let (peer, stream, early) = secured.inspect_err(count)?;
                if early == EarlyMuxer::Yamux {
                    return Ok((peer, muxer.muxer(stream, Mode::Server)));
                }
                let (_, stream) = listener_select_proto(stream, [YAMUX]).await?;
                Ok((peer, muxer.muxer(stream, Mode::Server)))
            }
        }
    }
}
