//! The HTTP client, over any byte stream.
//!
//! ```text
//!   HttpClient ─▶ TargetConfig ─▶ [window] ─▶ [slots] ─▶ idle connection, or Connect ─▶ hyper ─▶ bytes
//!                            │           │                                         │
//!                            └── Pool, one per name of a target                    └ Conn: polled by the caller, or its task
//! ```
//!
//! # Invariants
//!
//! * A request that may have reached the peer is sent again only if it is idempotent, has no body, and crossed
//!   the end of a kept connection.
//! * A connection carries one exchange at a time, and returns to its pool only when the request was sent and
//!   the response read to the last byte. An exchange that ends early ends its connection.
//! * The connections of a pool, in use and idle, never outnumber its slots. Callers that wait are counted, are
//!   served in order, and have a deadline.
//! * Every wait for a peer has a deadline. A wait for the caller, to write its request or to read its response,
//!   has none: the caller alone is affected.

mod body;
mod conn;
mod driver;
mod exchange;
mod limits;
mod pool;
mod readiness;
mod replay;
mod request;
mod table;
mod target;
#[cfg(test)]
mod tests;
mod window;
mod wire;

use std::{fmt, sync::Arc, time::Duration};

use gossip::{
    BoxFuture, Durations, LONGEST_LIMIT, StreamUse,
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

use request::RequestDefaults;
use table::Table;
use target::TargetConfig;

/// The byte stream of a connection. Every type with these bounds implements it.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// Opens connections to one peer: TCP sockets, TLS sessions, or libp2p streams.
pub trait Connect: Send + Sync + 'static {
    /// Opens a connection. The client gives up after [`ClientLimits::connect`].
    ///
    /// # Errors
    ///
    /// The error of the transport. No part of the request was sent then.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future leaves nothing open.
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Io>, BoxError>>;
}

/// The peer and the settings of a client.
#[derive(Clone)]
pub struct Target {
    /// The canonical address. Clients with the same name share connections and limits.
    pub name: String,
    /// The `Host` header of requests that have none. May be empty.
    pub host: HeaderValue,
    /// Prefix of every path: empty, or a path that starts with a slash and does not end with one.
    pub prefix: String,
    /// Number of requests per connection: one, or any number.
    pub streams: StreamUse,
    /// Idle time after which a kept connection is closed; a little less than the server keeps it. See
    /// [`TCP_IDLE`] and [`STREAM_IDLE`].
    pub idle: Duration,
    /// Opens a connection when a request finds no idle one.
    pub connect: Arc<dyn Connect>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("name", &self.name).finish_non_exhaustive()
    }
}

/// All HTTP clients of a node, with their connections, limits and tasks: a cheap handle. Every connection ends
/// when the last handle and the last [`HttpClient`] are dropped.
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
    /// One task per connection, and one that closes idle connections when the node stops.
    tasks: TaskSet,
}

impl Clients {
    /// Creates clients with these limits, which stop when `parent` is cancelled. `user_agent` is sent with
    /// every request, unless it is not a valid header value.
    ///
    /// # Panics
    ///
    /// When called outside a tokio runtime.
    #[must_use]
    pub fn new(limits: ClientLimits, user_agent: String, parent: &CancellationToken) -> Self {
        let limits = limits.bounded();
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

    /// Returns a client for a target. It shares connections and limits with every client of the same name.
    #[must_use]
    pub fn client(&self, target: Target) -> HttpClient {
        let defaults = RequestDefaults {
            host: target.host,
            user_agent: self.shared.user_agent.clone(),
            prefix: target.prefix,
        };
        exchange::client(TargetConfig {
            name: target.name.clone(),
            pool: self.shared.table.pool(target.name),
            shared: Arc::clone(&self.shared),
            defaults,
            streams: target.streams,
            idle: target.idle.min(LONGEST_LIMIT),
            connect: target.connect,
        })
    }

    /// Closes idle connections, waits at most `grace` for requests in progress, and aborts the rest. Callers
    /// that wait, and all later calls, get [`HttpError::Stopped`](gossip::http::HttpError::Stopped).
    ///
    /// # Cancel safety
    ///
    /// Not safe: dropping the future aborts the requests in progress.
    pub async fn stop(&self, grace: Duration) -> Shutdown {
        self.shared.tasks.stop(grace).await
    }
}
