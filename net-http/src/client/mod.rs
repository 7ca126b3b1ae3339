//! Sends requests over any stream of bytes.
//!
//! ```text
//!   HttpClient ─▶ TargetConfig ─▶ [window] ─▶ [slots] ─▶ idle connection, or Connect ─▶ hyper ─▶ bytes
//!                            │           │                                         │
//!                            └── Pool, one per name of a target                    └ one driver task
//! ```
//!
//! # Invariants
//!
//! * A request is written at most once. Only one that hyper hands back, because not a byte of it was
//!   written, is sent again.
//! * A connection carries one exchange at a time, and goes back to its pool only when the request was
//!   sent and the response read to the last byte. Whatever ends an exchange early ends its connection.
//! * Connections of a pool, in use and idle, are never more than its slots; whoever waits is counted,
//!   waits in order, and not for ever.
//! * Every wait for a peer has a deadline. Waiting for the caller, to go on with its request or to read on
//!   in its response, has none: that is its own affair.

mod body;
mod driver;
mod exchange;
mod limits;
mod pool;
mod replay;
mod request;
mod table;
#[cfg(test)]
mod tests;
mod window;
mod wire;

use std::{fmt, sync::Arc, time::Duration};

use gossip::{
    BoxFuture, StreamUse,
    http::{BoxError, HttpClient},
};
use http::HeaderValue;
use runtime::{Shutdown, TaskSet};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

pub use body::ResponseBodyError;
pub use exchange::AnswerError;
pub use limits::{ClientLimits, RequestWindow, STREAM_IDLE, TCP_IDLE};
pub use request::RequestError;

use exchange::TargetConfig;
use limits::LONGEST;
use request::RequestDefaults;
use table::Table;

/// A connection's bytes.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// Opens connections to one peer: a TCP socket, TLS, a libp2p stream.
pub trait Connect: Send + Sync + 'static {
    /// Opens one. Called under [`ClientLimits::connect`].
    ///
    /// # Errors
    ///
    /// The error of the transport. The request was not sent then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up, and leaves nothing open.
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Io>, BoxError>>;
}

/// The target of a client.
#[derive(Clone)]
pub struct Target {
    /// The canonical address. Clients of the same name share connections and limits.
    pub name: String,
    /// The `Host` header of requests that have none; may be empty.
    pub host: HeaderValue,
    /// Put in front of every path: empty, or starting with a slash and not ending with one.
    pub prefix: String,
    /// Number of requests that a connection carries: one, or any.
    pub streams: StreamUse,
    /// Longest time that a kept-alive connection lies idle: a little less than the server keeps it. See
    /// [`TCP_IDLE`] and [`STREAM_IDLE`].
    pub idle: Duration,
    /// Opens the connections.
    pub connect: Arc<dyn Connect>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("name", &self.name).finish_non_exhaustive()
    }
}

/// All clients of a node: their connections, limits and tasks. A cheap handle; when the last one and the
/// last [`HttpClient`] are dropped, every connection ends.
#[derive(Clone, Debug)]
pub struct Clients {
    shared: Arc<Shared>,
}

/// State shared by all clients of a node.
#[derive(Debug)]
struct Shared {
    limits: ClientLimits,
    user_agent: Option<HeaderValue>,
    table: Arc<Table>,
    /// One task per connection, and one that closes idle connections when the node ends.
    tasks: TaskSet,
}

impl Clients {
    /// Clients under `limits` that end with `parent`. They call themselves `user_agent`, or nothing if
    /// that cannot stand in a header.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn new(limits: ClientLimits, user_agent: String, parent: &CancellationToken) -> Self {
        let limits = limits.within_reason();
        let user_agent = HeaderValue::try_from(user_agent).ok().filter(|name| !name.is_empty());
        let table = Arc::new(Table::new(limits));
        let tasks = TaskSet::new(parent);
        let closing = Arc::clone(&table);
        tasks.spawn("http clients", |cancel| async move {
            cancel.cancelled().await;
            closing.close();
        });
        Self { shared: Arc::new(Shared { limits, user_agent, table, tasks }) }
    }

    /// A client for a target. It shares connections and limits with every other one of that name.
    #[must_use]
    pub fn client(&self, target: Target) -> HttpClient {
        let defaults = RequestDefaults {
            host: target.host,
            user_agent: self.shared.user_agent.clone(),
            prefix: target.prefix,
        };
        exchange::client(TargetConfig {
            pool: self.shared.table.pool(target.name),
            shared: Arc::clone(&self.shared),
            defaults,
            streams: target.streams,
            idle: target.idle.min(LONGEST),
            connect: target.connect,
        })
    }

    /// Closes idle connections, gives requests in flight `grace` to end, then cuts the rest. Whoever
    /// waits for a turn or for a connection, and whoever asks from now on, gets
    /// [`HttpError::Stopped`](gossip::http::HttpError::Stopped).
    ///
    /// # Cancel safety
    ///
    /// A dropped `stop` cuts what is in flight.
    pub async fn stop(&self, grace: Duration) -> Shutdown {
        self.shared.tasks.stop(grace).await
    }
}
