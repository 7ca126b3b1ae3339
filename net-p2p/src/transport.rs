//! From a TCP socket to an authenticated, multiplexed connection.
//!
//! ```text
//!   TCP (no delay, low-water mark, lingering) ──▶ Noise ──▶ flush_coalescer ──▶ Yamux        all within one deadline
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
    noise, tcp,
};

use crate::{connections::ConnectionTasks, linger::Lingering, metrics::P2pMetrics, muxer::Upgrade};

/// From the first byte to a multiplexed connection. Source: threats and goals, row 1.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// `TCP_NOTSENT_LOWAT`, in bytes. Source: architecture, "Priority must survive a full pipe".
pub(crate) const NOT_SENT_BYTES: u32 = 16 * 1024;

/// How long sent data may stay unacknowledged. Source: threats and goals, row 4.
pub(crate) const UNACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(30);

/// The transport of a node. Its connections are driven in `tasks`.
///
/// # Errors
///
/// When the key cannot sign, which an Ed25519 key always can.
pub(crate) fn build(
    key: &Keypair,
    tasks: ConnectionTasks,
    metrics: P2pMetrics,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
    let transport = tcp
        .map(|stream, _| {
            tune(&stream.0);
            Lingering::new(stream)
        })
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(key)?)
        .multiplex(Upgrade::new(tasks, metrics))
        .timeout(HANDSHAKE_TIMEOUT);
    Ok(transport.boxed())
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
