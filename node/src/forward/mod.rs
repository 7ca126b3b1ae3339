//! A local port for the HTTP services of a peer, so that any HTTP tool works against a node that is
//! reached over libp2p alone.
//!
//! ```text
//!   tool ─▶ socket ─▶ HttpServer ─▶ pass on ─▶ HttpClient ─▶ peer
//! ```
//!
//! # Invariants
//!
//! * A request is passed on at most once, its body streamed; so is the answer.
//! * An answer that breaks off breaks the tool's connection: it is never taken for a whole one.

mod bridge;
mod pass;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use gossip::{
    HeaderCase, LateNode, Transport,
    http::{Caller, HttpClient, HttpService},
};
use net_http::{
    HttpServer, ServeLimits,
    serve::{Connection, NoHook, PermitRule, Terms},
};
use prometheus_client::registry::Registry;
use runtime::{AcceptPause, Environment, Listener, Shutdown, Stream, TaskSet};
use tokio_util::sync::CancellationToken;

use crate::metrics::HttpCounters;

/// Connections of local tools at one time. Chosen: a load generator's; they wait for the peer's places.
const MAX_CONNECTIONS: usize = 1_024;

/// The reason for which a local port cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: is it a free host:port of this machine?")]
pub struct ForwardError {
    /// The address as given.
    address: String,
    /// The error of the operating system.
    source: io::Error,
}

/// A local port whose HTTP requests are passed on to a peer, until it is stopped or dropped.
///
/// Connections at one time: 1,024.
#[derive(Debug)]
pub struct Forward {
    tasks: TaskSet,
    local: SocketAddr,
    http_server: HttpServer,
}

impl Forward {
    /// Listens on every address of `listen`, a `host:port`, and passes requests on to the peer of `client`. Port 0 picks a
    /// free one. Ends with `parent`.
    ///
    /// # Errors
    ///
    /// [`ForwardError`] when the address cannot be listened on.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future listens nowhere.
    pub async fn start(
        listen: &str,
        client: HttpClient,
        environment: &Environment,
        parent: &CancellationToken,
    ) -> Result<Self, ForwardError> {
        let failed = |source| ForwardError { address: listen.to_owned(), source };
        let listener = environment.bind(listen).await.map_err(failed)?;
        let local = listener.local_addr();
        let limits =
            ServeLimits::default().with_connections(MAX_CONNECTIONS).with_requests(MAX_CONNECTIONS);
        let http_server = HttpServer::new(Self::service(client), limits);
        let tasks = TaskSet::new(parent);
        let (spawner, server) = (tasks.clone(), http_server.clone());
        tasks.spawn_lasting("forward", |cancel| accept(listener, server, spawner, cancel));
        Ok(Self { tasks, local, http_server })
    }

    /// A service that passes every request on to `client` and its answer back, without the headers that are about one
    /// connection: for a node that offers a server of somebody else ([`NodeBuilder::http_service`](crate::NodeBuilder::http_service)).
    /// Without an answer it says 502, 503 or 504.
    #[must_use]
    pub fn service(client: HttpClient) -> HttpService {
        HttpService::new(pass::Pass::new(client))
    }

    /// A router that passes `GET` and `HEAD` requests for `/p2p/ID/PATH` on to the peer of that ID, as long as it is connected
    /// over libp2p: for clients that speak HTTP over TCP alone, such as pages. Add it with
    /// [`NodeBuilder::http`](crate::NodeBuilder::http), and the place with [`NodeBuilder::late_node`](crate::NodeBuilder::late_node).
    /// A peer that is not connected is answered 404, and one without an answer 502, 503 or 504.
    pub fn bridge(node: LateNode) -> Router {
        bridge::router(node)
    }

    /// The address that was bound; with several addresses of a name, the first.
    #[must_use]
    pub const fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// Adds the counters of the port to a registry, as those of a node's HTTP server, with `forward` before their names.
    pub fn register_metrics(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("forward");
        registry.register_collector(Box::new(HttpCounters(self.http_server.clone())));
    }

    /// Stops accepting, lets requests under way end within `grace`, then aborts the rest.
    ///
    /// # Cancel safety
    ///
    /// Safe: the tasks stay asked to end, and another call waits for them.
    pub async fn stop(&self, grace: Duration) -> Shutdown {
        self.tasks.stop(grace).await
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.tasks.token().cancel();
    }
}

async fn accept(
    listener: Listener,
    http_server: HttpServer,
    tasks: TaskSet,
    cancel: CancellationToken,
) {
    let mut pause = AcceptPause::new("a connection to forward");
    loop {
        let accepted = tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                pause.accepted();
                let http_server = http_server.clone();
                tasks.spawn("forwarded connection", move |cancel| {
                    serve(stream, from, http_server, cancel)
                });
            }
            Err(error) => {
                if cancel.run_until_cancelled(pause.refused(&error)).await.is_none() {
                    return;
                }
            }
        }
    }
}

async fn serve(
    stream: Stream,
    from: SocketAddr,
    http_server: HttpServer,
    cancel: CancellationToken,
) {
    if let Some(Err(error)) = stream.tcp().map(|stream| stream.set_nodelay(true)) {
        tracing::debug!(%error, "a socket option could not be set");
    }
    let caller = Caller {
        identity: None,
        transport: Transport::WebSocket,
        address: Arc::from(from.to_string()),
        ip: Some(from.ip()),
    };
    // Nothing else bounds the sockets of tools.
    let terms = Terms {
        permit: PermitRule::BeforeReading,
        ..http_server.limits().for_socket(HeaderCase::Canonical)
    };
    let connection = Connection { io: stream, caller, terms };
    match http_server.serve(connection, &NoHook, &cancel).await {
        None => {}
        // Without a hook nothing is upgraded.
        Some(upgraded) => match upgraded.upgrade {},
    }
}
