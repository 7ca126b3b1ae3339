//! A node that runs, and the ownership of its tasks.
//!
//! # Invariants
//!
//! * Whoever has a [`Running`] owns the node: dropping it ends the node, [`Running::stop`] ends it and
//!   waits until it is gone.
//! * [`Running::stop`] gives the data directory free after the last task has ended.

use std::{sync::Arc, time::Duration};

use broadcaster::{Broadcaster, HandleError, Metrics, PeerEvent};
use gossip::{GossipNode, Handler, Identity, Inbound, Tag, Validator};
use net_http::client::Clients;
#[cfg(feature = "http")]
use net_http::{HttpServer, ServeMetrics};
#[cfg(feature = "p2p")]
use net_p2p::P2pNetwork;
#[cfg(feature = "ws")]
use net_ws::{WsMetrics, WsNetwork};
use runtime::{Fault, Shutdown};
use tokio::{sync::broadcast, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    data_dir::DataDir,
    view::{Seen, View},
};

/// A running node.
#[must_use = "dropping a node ends it"]
pub struct Running {
    parts: Parts,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("identity", &self.parts.identity).finish_non_exhaustive()
    }
}

/// What a running node is made of.
pub(crate) struct Parts {
    /// Network and broadcaster.
    pub(crate) seen: Arc<Seen>,
    /// The node as an application uses it.
    pub(crate) node: Arc<dyn GossipNode>,
    pub(crate) http: Http,
    /// Has been listening since before the first connection.
    pub(crate) events: broadcast::Receiver<PeerEvent>,
    pub(crate) identity: Identity,
    pub(crate) metrics: Metrics,
    pub(crate) data_dir: Option<DataDir>,
    /// The root of every task of the node.
    pub(crate) cancel: CancellationToken,
}

/// The HTTP side of a running node.
#[derive(Debug)]
pub(crate) struct Http {
    #[cfg(feature = "http")]
    pub(crate) http_server: Option<HttpServer>,
    pub(crate) clients: Clients,
}

impl Running {
    pub(crate) const fn new(parts: Parts) -> Self {
        Self { parts }
    }

    /// The node as an application uses it. A cheap handle that does not keep the node running.
    #[must_use]
    pub fn node(&self) -> Arc<dyn GossipNode> {
        Arc::clone(&self.parts.node)
    }

    /// A look at how the node is doing, which does not keep it running.
    #[must_use]
    pub fn view(&self) -> View {
        View::of(&self.parts.seen)
    }

    /// URL of the WebSocket side, once it listens.
    #[cfg(feature = "ws")]
    #[must_use]
    pub fn ws_url(&self) -> Option<String> {
        self.parts.seen.network.ws()?.local_address().map(|address| format!("http://{address}"))
    }

    /// Multiaddrs of the libp2p side, each with `/p2p/ID`.
    #[cfg(feature = "p2p")]
    #[must_use]
    pub fn p2p_addresses(&self) -> Vec<String> {
        self.parts.seen.network.p2p().map(P2pNetwork::listen_addresses).unwrap_or_default()
    }

    /// Who the node is, on either transport.
    #[must_use]
    pub const fn identity(&self) -> Identity {
        self.parts.identity
    }

    /// The broadcaster of the node.
    #[must_use]
    pub fn broadcaster(&self) -> &Broadcaster {
        &self.parts.seen.broadcaster
    }

    /// What the node counts.
    #[must_use]
    pub const fn metrics(&self) -> &Metrics {
        &self.parts.metrics
    }

    /// What is counted of the HTTP that the node serves; `None` if it serves none.
    #[cfg(feature = "http")]
    #[must_use]
    pub fn http_metrics(&self) -> Option<&ServeMetrics> {
        self.parts.http.http_server.as_ref().map(HttpServer::metrics)
    }

    /// The counters of handshakes over WebSocket that were refused, by this node and by those it dialled;
    /// `None` without a WebSocket side.
    #[cfg(feature = "ws")]
    #[must_use]
    pub fn ws_metrics(&self) -> Option<&WsMetrics> {
        self.parts.seen.network.ws().map(WsNetwork::metrics)
    }

    /// The data directory, where the node has one.
    #[must_use]
    pub const fn data_dir(&self) -> Option<&DataDir> {
        self.parts.data_dir.as_ref()
    }

    /// What happens to peers: the first call tells it from the start of the node on, up to 2,048
    /// events back, a later one from then on.
    #[must_use]
    pub fn events(&mut self) -> broadcast::Receiver<PeerEvent> {
        std::mem::replace(&mut self.parts.events, self.parts.seen.broadcaster.events())
    }

    /// Handles the messages of a tag from now on, as [`NodeBuilder::handler`](crate::NodeBuilder::handler)
    /// does from the start. Messages that came before are not handled late.
    ///
    /// # Errors
    ///
    /// [`HandleError`] when the tag is unknown, or has a handler: that one stays.
    pub fn handle(&self, tag: Tag, handler: impl Handler) -> Result<(), HandleError> {
        self.parts.seen.broadcaster.handle(tag, Arc::new(handler))
    }

    /// Judges the messages of a tag from now on, as [`NodeBuilder::validator`](crate::NodeBuilder::validator)
    /// does from the start. Messages that wait to be handled by now are judged too; what was passed on before
    /// was not.
    ///
    /// # Errors
    ///
    /// [`HandleError`] when the tag is unknown, or has a validator: that one stays.
    pub fn validate(&self, tag: Tag, validator: impl Validator) -> Result<(), HandleError> {
        self.parts.seen.broadcaster.validate(tag, Arc::new(validator))
    }

    /// Every message that is accepted from now on.
    #[must_use]
    pub fn observe(&self) -> broadcast::Receiver<Inbound> {
        self.parts.seen.broadcaster.observe()
    }

    /// The token that every task of the node watches; cancelling it starts the end.
    #[must_use]
    pub const fn token(&self) -> &CancellationToken {
        &self.parts.cancel
    }

    /// Waits until a part of the node has ended by itself, which only a bug in it makes it do; for ever if
    /// none does. What is left of the node is of little use then: stop it.
    ///
    /// # Cancel safety
    ///
    /// Safe: a fault stays.
    pub async fn faulted(&self) -> Fault {
        tokio::select! {
            fault = self.parts.seen.network.faulted() => fault,
            fault = self.parts.seen.broadcaster.faulted() => fault,
        }
    }

    /// Ends the node: asks every task, waits for at most `grace`, then aborts the rest.
    ///
    /// # Panics
    ///
    /// Resumes the panic of a task that panicked.
    pub async fn stop(self, grace: Duration) -> Shutdown {
        let Parts { seen, http, cancel, data_dir, .. } = &self.parts;
        let Seen { network, broadcaster } = &**seen;
        let deadline = Instant::now() + grace;
        cancel.cancel();
        let (network, clients) = tokio::join!(network.stop(grace), http.clients.stop(grace));
        let network = network.and(clients);
        let left = deadline.saturating_duration_since(Instant::now());
        let shutdown = network.and(broadcaster.stop(left).await);
        tracing::debug!(?shutdown, dir = ?data_dir.as_ref().map(DataDir::path), "the node stopped");
        shutdown
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.parts.cancel.cancel();
    }
}
