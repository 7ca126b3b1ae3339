//! What an application brings to have streams of a protocol of its own accepted.

use std::{fmt, num::NonZeroUsize, sync::Arc, time::Duration};

use gossip::{BoxFuture, LimitError, check_durations};

use super::stream::PeerStream;
use crate::streams::{self, Bounds};

/// Serves the streams of one protocol, each in a task of its own.
///
/// ```
/// use tokio::io::AsyncWriteExt;
///
/// # fn takes(_: impl tandem_net_p2p::Acceptor) {}
/// let greeter = |mut stream: tandem_net_p2p::PeerStream| async move {
///     let greeting = format!("hello {}", stream.identity());
///     // A peer that has gone is not greeted.
///     if stream.write_all(greeting.as_bytes()).await.is_ok() {
///         let _ = stream.shutdown().await;
///     }
/// };
/// takes(greeter);
/// ```
pub trait Acceptor: Send + Sync + 'static {
    /// Serves one stream, to its end. A panic resets the stream, is counted and logged, and ends nothing else.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped at its deadline, [`AcceptLimits::time`], and when the node stops; the stream is
    /// reset then, unless it was shut down.
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

/// How many streams of a protocol are accepted, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AcceptLimits {
    /// Streams that are served at one time; one more is reset and counted. Default: 64. Chosen: a few of each
    /// of the validators of a network.
    pub at_once: NonZeroUsize,
    /// The same, of one peer. Default: 8. Chosen: an eighth of all, so that no peer takes every place.
    pub per_peer: NonZeroUsize,
    /// How long one stream may be served. Default: 60 s. Chosen: an exchange, however slow, and no session;
    /// a protocol whose streams live longer says so.
    pub time: Duration,
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
    /// Serves so many streams at one time.
    #[must_use]
    pub const fn with_at_once(mut self, at_once: NonZeroUsize) -> Self {
        self.at_once = at_once;
        self
    }

    /// Serves so many streams of one peer at one time.
    #[must_use]
    pub const fn with_per_peer(mut self, per_peer: NonZeroUsize) -> Self {
        self.per_peer = per_peer;
        self
    }

    /// Serves each stream for so long, between a millisecond and a year.
    #[must_use]
    pub const fn with_time(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }

    /// Checks the duration.
    ///
    /// # Errors
    ///
    /// [`LimitError`] when it is under a millisecond or over a year.
    pub fn check(&self) -> Result<(), LimitError> {
        check_durations([("AcceptLimits::time", self.time)])
    }

    /// How many streams may wait to be taken, which takes no longer than a turn of a task.
    pub(crate) fn queue(&self) -> Bounds {
        let Bounds { per_connection, in_all } = streams::HTTP;
        Bounds {
            per_connection: self.per_peer.get().min(per_connection),
            in_all: self.at_once.get().min(in_all),
        }
    }
}

/// A protocol of an application's own, and who accepts its streams.
#[derive(Clone)]
pub struct OwnProtocol {
    pub(crate) name: String,
    pub(crate) acceptor: Arc<dyn Acceptor>,
    pub(crate) limits: AcceptLimits,
}

impl OwnProtocol {
    /// Has the streams of a protocol accepted. Its name begins with a slash and usually ends with a version:
    /// `/my-chain/sync/1`.
    pub fn new(name: impl Into<String>, limits: AcceptLimits, acceptor: impl Acceptor) -> Self {
        Self { name: name.into(), acceptor: Arc::new(acceptor), limits }
    }

    /// Its name.
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
