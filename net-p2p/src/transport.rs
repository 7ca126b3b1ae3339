//! Composes the transports of a node: each makes authenticated, multiplexed connections, and one door admits them all.
//!
//! ```text
//!   Sockets (no delay, low-water mark, lingering) ──▶ Upgrades: security, Yamux ──▶ deadline ─┐
//!   further transports of byte streams             ──▶ Upgrades                 ──▶ deadline ─┼──▶ Guarded ──▶ swarm
//!   transports with a muxer of their own                                        ──▶ deadline ─┘
//! ```
//!
//! A transport refuses an address that is not its own with `MultiaddrNotSupported`, and the next one is asked.
//!
//! # Invariants
//!
//! * A connection that is not authenticated and multiplexed within [`HANDSHAKE_TIMEOUT`] is dropped, whichever
//!   end dialled. libp2p adds no such deadline to a transport that is composed by hand.
//! * At most [`NOT_SENT_BYTES`] of the written bytes wait unsent in the kernel, so that a priority message
//!   never waits behind megabytes of bulk.

use std::{error::Error, io, time::Duration};

use libp2p::{
    PeerId, Transport,
    core::{
        muxing::StreamMuxerBox,
        transport::{Boxed, timeout::TransportTimeout},
    },
    identity::Keypair,
};
use runtime::Environment;

use crate::{
    admission::{Connects, Guarded},
    backlog::Backlog,
    connections::ConnectionTasks,
    linger::Lingering,
    muxer::{Upgrade, Wire},
    security::{Secure, Security, SecurityError},
    sockets::{Socket, Sockets},
    upgrade::Upgrades,
};
use mesh::Door;

/// Longest time from the start of a dial, or from the accepted socket, to a multiplexed connection. Source:
/// threats and goals, row 1.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time from the name look-up to a connected socket. Chosen: it leaves 2 s for the handshake, so that
/// the error of an unreachable address names that address.
const DIAL_TIMEOUT: Duration = Duration::from_secs(8);

/// `TCP_NOTSENT_LOWAT`, in bytes. Source: architecture, "Priority must survive a full pipe".
pub(crate) const NOT_SENT_BYTES: u32 = 16 * 1024;

/// Longest time that sent data may stay unacknowledged. Source: threats and goals, row 4.
pub(crate) const UNACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(30);

/// What the transports of a node are built from.
pub(crate) struct TransportParts<'a> {
    /// The source of sockets and names.
    pub(crate) environment: Environment,
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
    let transports = upgraded(tcp(parts.environment), upgrades);
    let indebted = transports.map(move |(peer, muxer), _| (peer, muxer.with_debt(&debts, peer)));
    let guarded = Guarded::new(indebted, parts.door);
    Ok(guarded.map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer))).boxed())
}

/// The transport of TCP, and of pipes in memory: byte streams that linger.
fn tcp(
    environment: Environment,
) -> impl Transport<
    Output = Lingering<Socket>,
    Error = io::Error,
    ListenerUpgrade: Send + 'static,
    Dial: Send + 'static,
> + Unpin {
    Sockets::new(environment, DIAL_TIMEOUT).map(|socket, _| {
        if let Some(stream) = socket.tcp() {
            tune(stream);
        }
        Lingering::new(socket)
    })
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

/// Sets the low-water mark of unsent bytes and the time-out of unacknowledged ones, where the system has them.
/// The kernel's buffer sizes stay automatic: a fixed size would switch off their growth on long paths.
#[cfg(any(target_os = "android", target_os = "linux"))]
fn tune(stream: &tokio::net::TcpStream) {
    let socket = socket2::SockRef::from(stream);
    let set = socket
        .set_tcp_notsent_lowat(NOT_SENT_BYTES)
        .and_then(|()| socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_TIMEOUT)));
    if let Err(error) = set {
        tracing::debug!(%error, "a socket option is not available");
    }
}

#[cfg(not(any(target_os = "android", target_os = "linux")))]
fn tune(_stream: &tokio::net::TcpStream) {}
