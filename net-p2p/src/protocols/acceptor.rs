//! An application's handler for the inbound streams of its own protocol, and the limits on them.

use std::{fmt, num::NonZeroUsize, sync::Arc, time::Duration};

use gossip::{BoxFuture, Durations};

use super::stream::PeerStream;
use crate::streams::{self, Bounds};

/// Handles the inbound streams of one protocol, each in a task of its own.
///
/// ```
/// use tokio::io::AsyncWriteExt;
///
/// # fn takes(_: impl tandem_net_p2p::Acceptor) {}
/// let greeter = |mut stream: tandem_net_p2p::PeerStream| async move {
///     let greeting = format!("hello {}", stream.identity());
///     // A failed write means that the peer has disconnected.
///     if stream.write_all(greeting.as_bytes()).await.is_ok() {
///         let _ = stream.shutdown().await;
///     }
/// };
/// takes(greeter);
/// ```
pub trait Acceptor: Send + Sync + 'static {
    /// Handles one stream. A panic resets the stream, is counted and logged, and ends nothing else.
    ///
    /// # Cancel safety
    ///
    /// Must be safe: the future is dropped at its deadline, [`AcceptLimits::time`], and when the node stops.
    /// The stream is reset then, unless it was shut down.
    fn accept(&self, stream: PeerStream) -> BoxFuture<'_, ()>;
}

impl<F, Fut> Acceptor for F
where
    F: Fn(PeerStream) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    fn accept(&self, stream: PeerStream) -> BoxFuture<'_, ()> {
        Box::pin(self(stream))
    }
}

/// Limits on the inbound streams of one protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AcceptLimits {
    /// Streams handled at a time; further ones are reset and counted. Default: 64. Chosen: a few for each
    /// validator of a network.
    pub at_once: NonZeroUsize,
    /// Streams of one peer handled at a time. Default: 8. Chosen: an eighth of all, so that no peer takes every
    /// place.
    pub per_peer: NonZeroUsize,
    /// Longest time to handle one stream. Default: 60 s. Chosen: enough for a slow exchange, but not for a
    /// session; a protocol with longer streams must raise it.
    pub time: Duration,
}

gossip::setters!(AcceptLimits {
    with_at_once => at_once: NonZeroUsize,
    with_per_peer => per_peer: NonZeroUsize,
    with_time => time: Duration,
});

impl Durations for AcceptLimits {
    fn each_duration(&mut self, visit: &mut dyn FnMut(&'static str, &mut Duration)) {
        visit("AcceptLimits::time", &mut self.time);
    }
}

impl Default for AcceptLimits {
    fn default() -> Self {
        const ONE: NonZeroUsize = NonZeroUsize::MIN;
        Self {
            at_once: ONE.saturating_add(63),
            per_peer: ONE.saturating_add(7),
            time: Duration::from_secs(60),
        }
    }
}

impl AcceptLimits {
    /// Bounds on the streams that wait for their task, which takes no longer than one turn of the runtime.
    pub(crate) fn queue(&self) -> Bounds {
        let Bounds { per_connection, in_all } = streams::HTTP;
        Bounds {
            per_connection: self.per_peer.get().min(per_connection),
            in_all: self.at_once.get().min(in_all),
        }
    }
}

/// An application's own protocol, and the acceptor of its streams.
#[derive(Clone)]
pub struct OwnProtocol {
    pub(crate) name: String,
    pub(crate) acceptor: Arc<dyn Acceptor>,
    pub(crate) limits: AcceptLimits,
}

impl OwnProtocol {
    /// Accepts the streams of the protocol `name`, which starts with a slash and usually ends with a version:
    /// `/my-chain/sync/1`.
    pub fn new(name: impl Into<String>, limits: AcceptLimits, acceptor: impl Acceptor) -> Self {
        Self { name: name.into(), acceptor: Arc::new(acceptor), limits }
    }

    /// The name of the protocol.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for OwnProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, limits, .. } = self;
        f.debug_struct("OwnProtocol")
            .field("name", name)
            .field("limits", limits)
            .finish_non_exhaustive()
    }
}
