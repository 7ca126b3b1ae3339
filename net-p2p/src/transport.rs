//! Composes the transports of a node: each makes authenticated, multiplexed connections, and one door admits them all.
//!
//! ```text
//!   Sockets: TCP, WebSocket, private networks ──▶ lingering ──▶ Upgrades: security, Yamux ──▶ deadline ─┐
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

use crate::{
    admission::{Connects, Guarded},
    backlog::Backlog,
    connections::ConnectionTasks,
    linger::Lingering,
    muxer::{Upgrade, Wire},
    security::{Secure, Security, SecurityError},
    sockets::Sockets,
    upgrade::Upgrades,
};
use mesh::Door;

/// Longest time from the start of a dial, or from the accepted socket, to a multiplexed connection. Source:
/// threats and goals, row 1.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The parts from which the transports of a node are built.
pub(crate) struct TransportParts<'a> {
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
}

/// Builds the transport of a node.
///
/// # Errors
///
/// When the key cannot sign, which never happens with an Ed25519 key.
pub(crate) fn build(
    parts: TransportParts<'_>,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, SecurityError> {
    let debts = parts.backlog.debts().clone();
    let upgrades = Upgrades {
        secure: Secure::new(parts.security.to_vec(), parts.key)?,
        muxer: Upgrade::new(parts.tasks, parts.backlog),
    };
    let passes = parts.sockets.passes();
    let transports = upgraded(parts.sockets.map(|socket, _| Lingering::new(socket)), upgrades);
    let indebted = transports.map(move |(peer, muxer), _| (peer, muxer.with_debt(&debts, peer)));
    let guarded = Guarded::new(indebted, parts.door, passes);
    Ok(guarded.map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer))).boxed())
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
