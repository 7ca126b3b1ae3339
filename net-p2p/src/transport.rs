//! Builds the transport: from a socket to an authenticated, multiplexed connection.
//!
//! ```text
//!   Sockets (no delay, low-water mark, lingering) ──▶ Noise ──▶ flush_coalescer ──▶ Yamux        all within one deadline
//! ```
//!
//! # Invariants
//!
//! * A connection that is not authenticated and multiplexed within [`HANDSHAKE_TIMEOUT`] is dropped, whichever
//!   end dialled. libp2p adds no such deadline to a transport that is composed by hand.
//! * At most [`NOT_SENT_BYTES`] of the written bytes wait unsent in the kernel, so that a priority message
//!   never waits behind megabytes of bulk.

use std::time::Duration;

use libp2p::{
    PeerId, Transport,
    core::{muxing::StreamMuxerBox, transport::Boxed, upgrade::Version},
    identity::Keypair,
    noise,
};
use runtime::Environment;

use crate::{
    admission::Guarded, backlog::Backlog, connections::ConnectionTasks, linger::Lingering,
    muxer::Upgrade, sockets::Sockets,
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

/// Builds the transport of a node over the sockets of `environment`. Connections are driven in `tasks`,
/// admitted by `door`, and counted in `backlog`.
///
/// # Errors
///
/// When the key cannot sign, which never happens with an Ed25519 key.
pub(crate) fn build(
    environment: Environment,
    key: &Keypair,
    door: Door,
    tasks: ConnectionTasks,
    backlog: Backlog,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
    let debts = backlog.debts().clone();
    let transport = Sockets::new(environment, DIAL_TIMEOUT)
        .map(|socket, _| {
            if let Some(stream) = socket.tcp() {
                tune(stream);
            }
            Lingering::new(socket)
        })
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(key)?)
        .multiplex(Upgrade::new(tasks, backlog))
        .timeout(HANDSHAKE_TIMEOUT)
        .map(move |(peer, muxer), _| (peer, muxer.with_debt(&debts, peer)));
    let guarded = Guarded::new(transport, door);
    Ok(guarded.map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer))).boxed())
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
