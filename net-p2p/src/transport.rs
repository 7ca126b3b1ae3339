//! From a socket to an authenticated, multiplexed connection.
//!
//! ```text
//!   Sockets (no delay, low-water mark, lingering) ──▶ Noise ──▶ flush_coalescer ──▶ Yamux        all within one deadline
//! ```
//!
//! # Invariants
//!
//! * A connection that is not authenticated and multiplexed within [`HANDSHAKE_TIMEOUT`] is dropped,
//!   whoever dialled. A transport built by hand has no deadline of its own.
//! * At most [`NOT_SENT_BYTES`] of what was written wait unsent in the kernel, so that a priority
//!   message never waits behind megabytes of bulk.

use std::time::Duration;

use libp2p::{
    PeerId, Transport,
    core::{muxing::StreamMuxerBox, transport::Boxed, upgrade::Version},
    identity::Keypair,
    noise,
};
use runtime::Environment;

use crate::{
    admission::Guarded, connections::ConnectionTasks, linger::Lingering, metrics::P2pMetrics,
    muxer::Upgrade, sockets::Sockets,
};
use mesh::Door;

/// From the look-up of a name, or the first byte of who dials, to a multiplexed connection. Source: threats and goals, row 1.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// From the look-up of a name to a socket. Chosen: it leaves two seconds of the whole for the handshake,
/// without which there is no connection anyway, so that a failure says what was not reached.
const DIAL_TIMEOUT: Duration = Duration::from_secs(8);

/// `TCP_NOTSENT_LOWAT`, in bytes. Source: architecture, "Priority must survive a full pipe".
pub(crate) const NOT_SENT_BYTES: u32 = 16 * 1024;

/// How long sent data may stay unacknowledged. Source: threats and goals, row 4.
pub(crate) const UNACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(30);

/// The transport of a node, over the sockets of `environment`. Its connections are driven in `tasks`,
/// and let in by `door`.
///
/// # Errors
///
/// When the key cannot sign, which an Ed25519 key always can.
pub(crate) fn build(
    environment: Environment,
    key: &Keypair,
    door: Door,
    tasks: ConnectionTasks,
    metrics: P2pMetrics,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
    let transport = Sockets::new(environment, DIAL_TIMEOUT)
        .map(|socket, _| {
            if let Some(stream) = socket.tcp() {
                tune(stream);
            }
            Lingering::new(socket)
        })
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(key)?)
        .multiplex(Upgrade::new(tasks, metrics))
        .timeout(HANDSHAKE_TIMEOUT);
    let guarded = Guarded::new(transport, door);
    Ok(guarded.map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer))).boxed())
}

/// Sets what makes priority survive a full pipe, where the system has it. The sizes of the kernel's
/// buffers stay its own: a fixed one would switch off their growth on long paths.
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
