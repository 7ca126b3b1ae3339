//! Options of TCP sockets, for both directions.

use std::time::Duration;

use runtime::Stream;
use socket2::{SockRef, TcpKeepalive};

/// Number of unsent bytes at which a socket stops being writable, so that a priority message does not wait
/// behind megabytes in the kernel. Source: architecture, "One broadcaster", measured.
#[cfg(any(target_os = "linux", target_os = "android"))]
const NOT_SENT_LOW_WATER: u32 = 16 * 1024;

/// Time without an answer after which TCP sends a keep-alive probe. Source: threats and goals, row 4.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Sets the options of a new connection. Options that the system lacks are skipped.
pub(crate) fn tune(stream: &Stream) {
    let Some(stream) = stream.tcp() else { return };
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let keepalive = keepalive.with_interval(Duration::from_secs(10)).with_retries(3);
    note([stream.set_nodelay(true), socket.set_tcp_keepalive(&keepalive)]);
}

/// Sets the options of a connection that carries gossip from now on.
pub(crate) fn tune_for_gossip(stream: &Stream) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Some(stream) = stream.tcp() {
        note([SockRef::from(stream).set_tcp_notsent_lowat(NOT_SENT_LOW_WATER)]);
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = stream;
}

fn note<const N: usize>(outcomes: [std::io::Result<()>; N]) {
    for error in outcomes.into_iter().filter_map(Result::err) {
        tracing::debug!(%error, "a socket option could not be set");
    }
}
