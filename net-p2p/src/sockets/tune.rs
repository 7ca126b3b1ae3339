//! Options of TCP sockets that carry libp2p.
//!
//! # Invariants
//!
//! * At most [`NOT_SENT_BYTES`] of the written bytes wait unsent in the kernel, so that a priority message
//!   never waits behind megabytes of bulk.

use std::time::Duration;

use runtime::Stream;

/// `TCP_NOTSENT_LOWAT`, in bytes. Source: architecture, "Priority must survive a full pipe".
pub(crate) const NOT_SENT_BYTES: u32 = 16 * 1024;

/// Longest time that sent data may stay unacknowledged. Source: threats and goals, row 4.
pub(crate) const UNACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(30);

/// Sets the low-water mark of unsent bytes and the time-out of unacknowledged ones, where the system has them.
/// The kernel's buffer sizes stay automatic: a fixed size would switch off their growth on long paths.
#[cfg(any(target_os = "android", target_os = "linux"))]
pub(super) fn tune(stream: &Stream) {
    let Some(stream) = stream.tcp() else { return };
    let socket = socket2::SockRef::from(stream);
    let set = socket
        .set_tcp_notsent_lowat(NOT_SENT_BYTES)
        .and_then(|()| socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_TIMEOUT)));
    if let Err(error) = set {
        tracing::debug!(%error, "a socket option is not available");
    }
}

#[cfg(not(any(target_os = "android", target_os = "linux")))]
pub(super) fn tune(_stream: &Stream) {}
