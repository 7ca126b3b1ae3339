//! Composes the transports of a node: each makes authenticated, multiplexed connections, and one door admits them all.
//!
//! ```text
//!   Given: transports of the embedder ──────────┐
//!   Sockets: TCP, WebSocket, private networks ──┴▶ lingering ─▶ Upgrades: security, Yamux ──▶ deadline ─┐
//!   further transports of byte streams                       ──▶ Upgrades                 ──▶ deadline ─┼──▶ Guarded ──▶ swarm
//!   transports with a muxer of their own                                                  ──▶ deadline ─┘
//! ```
//!
//! A transport refuses an address that is not its own with `MultiaddrNotSupported`, and the next one is asked.
//!
//! # Invariants
//!
//! * A connection that is not authenticated and multiplexed within [`HANDSHAKE_TIMEOUT`] is dropped, whichever
//!   end dialled. libp2p adds no such deadline to a transport that is composed by hand.

use std::{error::Error, time::Duration};

use libp2p::{
    PeerId, Transport,
    core::{
        muxing::StreamMuxerBox,
        transport::{Boxed, timeout::TransportTimeout},
    },
    identity::Keypair,
};

#[cfg(any(feature = "quic", feature = "data-channels"))]
use crate::dial_hosts::DialHosts;
#[cfg(feature = "data-channels")]
use crate::given::{GivenChannels, GivenChannelsParts, SharedChannelTransport};
#[cfg(all(feature = "circuits", feature = "data-channels"))]
use crate::given::{MeetingParts, Meetings};
#[cfg(feature = "quic")]
use crate::quic::{Quic, QuicParts, QuicSetupError};
#[cfg(feature = "circuits")]
use crate::reach::Circuits;
#[cfg(feature = "webrtc")]
use crate::webrtc::{Handshakes, WebRtc, WebRtcCertificate, WebRtcSetupError, WebRtcVersion};
use crate::{
    admission::{Connects, Guarded},
    backlog::Backlog,
    connections::ConnectionTasks,
    given::Given,
    linger::Lingering,
    muxer::{Upgrade, Wire},
    own_topics::Stamp,
    rounds::Rounds,
    security::{Secure, Security, SecuritySetupError},
    sockets::Sockets,
    upgrade::Upgrades,
};
#[cfg(any(feature = "quic", feature = "webrtc"))]
use libp2p::core::transport::OptionalTransport;
use mesh::Door;
#[cfg(any(feature = "quic", feature = "webrtc"))]
use runtime::Environment;

/// Longest time from the start of a dial, or from the accepted socket, to a multiplexed connection. Source:
/// threats and goals, row 1.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The parts from which the transports of a node are built.
pub(crate) struct TransportParts<'a> {
    /// The sources of byte streams that the embedder brought along, which are asked first.
    pub(crate) given: Given,
    /// The source of byte streams: TCP, pipes in memory, and WebSockets over them.
    pub(crate) sockets: Sockets,
    pub(crate) key: &'a Keypair,
    /// The security protocols of byte streams, in the order of preference.
    pub(crate) security: &'a [Security],
    /// Admits the connections.
    pub(crate) door: Door,
    /// The tasks that drive the connections.
    pub(crate) tasks: ConnectionTasks,
    /// Counts the bytes of the connections.
    pub(crate) backlog: Backlog,
    /// The ways through relays.
    #[cfg(feature = "circuits")]
    pub(crate) relayed: ThroughRelays,
    /// Changes this node's own messages on topics.
    pub(crate) stamp: Stamp,
    /// The rounds of the swarm task, in which topic streams are read.
    pub(crate) rounds: Rounds,
    /// The transports with data channels that the embedder brought along, and the hosts that they may dial.
    #[cfg(feature = "data-channels")]
    pub(crate) channels: (Vec<SharedChannelTransport>, DialHosts),
    /// `None` leaves QUIC out.
    #[cfg(feature = "quic")]
    pub(crate) quic: Option<QuicUse>,
    /// `None` leaves WebRTC out.
    #[cfg(feature = "webrtc")]
    pub(crate) webrtc: Option<WebRtcUse>,
    /// The addresses whose port QUIC and WebRTC share.
    #[cfg(all(feature = "quic", feature = "webrtc"))]
    pub(crate) shared: std::collections::BTreeSet<std::net::SocketAddr>,
}

/// The ways to peers that begin at a relay.
#[cfg(feature = "circuits")]
pub(crate) struct ThroughRelays {
    pub(crate) circuits: Circuits,
    /// The host that meets others which nobody can dial.
    #[cfg(feature = "data-channels")]
    pub(crate) meetings: MeetingParts,
}

#[cfg(any(all(test, feature = "circuits"), feature = "reachability"))]
impl ThroughRelays {
    /// No ways.
    pub(crate) fn none() -> Self {
        Self {
            circuits: Circuits::none(),
            #[cfg(feature = "data-channels")]
            meetings: MeetingParts::default(),
        }
    }
}

/// The parts that WebRTC needs in addition.
#[cfg(feature = "webrtc")]
pub(crate) struct WebRtcUse {
    /// The source of sockets and names.
    pub(crate) environment: Environment,
    /// The hosts that dials may lead to.
    pub(crate) hosts: DialHosts,
    pub(crate) certificate: WebRtcCertificate,
    /// The version of the handshake to dial with.
    pub(crate) version: WebRtcVersion,
}

/// The parts that QUIC needs in addition.
#[cfg(feature = "quic")]
pub(crate) struct QuicUse {
    /// The source of sockets and names.
    pub(crate) environment: Environment,
    /// The hosts that dials may lead to.
    pub(crate) hosts: DialHosts,
    /// The protocols of gossip, whose streams go first.
    pub(crate) first: Vec<String>,
    /// Where connections leave their gauges.
    pub(crate) gauges: crate::gauges::Gauges,
}

/// The reason why the transports cannot be built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransportSetupError {
    #[error(transparent)]
    Security(#[from] SecuritySetupError),
    #[cfg(feature = "quic")]
    #[error(transparent)]
    Quic(#[from] QuicSetupError),
    #[cfg(feature = "data-channels")]
    #[error(transparent)]
    Noise(#[from] libp2p::noise::Error),
    #[cfg(feature = "webrtc")]
    #[error(transparent)]
    WebRtc(#[from] WebRtcSetupError),
}

/// Builds the transport of a node.
///
/// # Errors
///
/// When the key cannot sign, which never happens with an Ed25519 key.
pub(crate) fn build(
    parts: TransportParts<'_>,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, TransportSetupError> {
    let (debts, stamp, rounds) = (parts.backlog.debts().clone(), parts.stamp, parts.rounds);
    #[cfg(all(feature = "quic", feature = "webrtc"))]
    let ports = crate::udp_ports::UdpPorts::new(
        parts.shared,
        parts.sockets.environment().clone(),
        (parts.tasks.clone(), parts.backlog.metrics().clone()),
    );
    #[cfg(feature = "quic")]
    let quic = match parts.quic {
        Some(QuicUse { environment, hosts, first, gauges }) => {
            OptionalTransport::some(Quic::new(QuicParts {
                environment,
                hosts,
                key: parts.key,
                tasks: parts.tasks.clone(),
                backlog: parts.backlog.clone(),
                first,
                gauges,
                #[cfg(feature = "webrtc")]
                ports: ports.clone(),
            })?)
        }
        None => OptionalTransport::none(),
    };
    #[cfg(feature = "webrtc")]
    let webrtc = match parts.webrtc {
        Some(WebRtcUse { environment, hosts, certificate, version }) => {
            let owner = (parts.tasks.clone(), parts.backlog.clone());
            let handshakes = Handshakes::new((parts.key, &certificate), owner, version)?;
            OptionalTransport::some(WebRtc::new(
                (environment, hosts),
                handshakes,
                #[cfg(feature = "quic")]
                ports,
            ))
        }
        None => OptionalTransport::none(),
    };
    #[cfg(feature = "data-channels")]
    let channels = GivenChannels::new(GivenChannelsParts {
        transports: parts.channels.0,
        hosts: parts.channels.1,
        noise: libp2p::noise::Config::new(parts.key)?,
        tasks: parts.tasks.clone(),
        backlog: parts.backlog.clone(),
    });
    #[cfg(all(feature = "circuits", feature = "data-channels"))]
    let meetings =
        Meetings::new(parts.relayed.meetings, parts.tasks.clone(), parts.backlog.clone());
    let upgrades = Upgrades {
        secure: Secure::new(parts.security.to_vec(), parts.key, parts.backlog.metrics())?,
        muxer: Upgrade::new(parts.tasks, parts.backlog),
    };
    let passes = parts.sockets.passes();
    #[cfg(feature = "circuits")]
    let circuits = upgraded(parts.relayed.circuits, upgrades.clone());
    let streams = parts.given.or_transport(parts.sockets);
    let transports = upgraded(streams.map(|stream, _| Lingering::new(stream)), upgrades);
    #[cfg(feature = "circuits")]
    let transports = first(circuits, transports);
    #[cfg(feature = "quic")]
    let transports = first(TransportTimeout::new(quic, HANDSHAKE_TIMEOUT), transports);
    #[cfg(feature = "webrtc")]
    let transports = first(TransportTimeout::new(webrtc, HANDSHAKE_TIMEOUT), transports);
    #[cfg(feature = "data-channels")]
    let transports = first(TransportTimeout::new(channels, HANDSHAKE_TIMEOUT), transports);
    #[cfg(all(feature = "circuits", feature = "data-channels"))]
    let transports = first(TransportTimeout::new(meetings, HANDSHAKE_TIMEOUT), transports);
    let prepared = transports.map(move |(peer, muxer), _| {
        let muxer = muxer.with_debt(&debts, peer).with_stamp(stamp.clone());
        (peer, muxer.with_share(rounds.share()))
    });
    let guarded = Guarded::new(prepared, parts.door, passes);
    Ok(guarded.map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer))).boxed())
}

/// Asks a transport before another one.
#[cfg(any(feature = "circuits", feature = "quic", feature = "data-channels"))]
fn first(transport: impl Connects, other: impl Connects) -> impl Connects {
    transport.or_transport(other).map(|made, _| made.into_inner())
}

/// Upgrades the byte streams of a transport, within the deadline.
fn upgraded<T>(transport: T, upgrades: Upgrades) -> impl Connects
where
    T: Transport<
            Output: Wire,
            Error: Error + Send + Sync + 'static,
            ListenerUpgrade: Send + 'static,
            Dial: Send + 'static,
        > + Unpin,
{
    let upgrade = move |stream, point| Box::pin(upgrades.upgrade(stream, point));
    TransportTimeout::new(transport.and_then(upgrade), HANDSHAKE_TIMEOUT)
}
