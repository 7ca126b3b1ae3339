//! A node that runs, and the ownership of its tasks.
//!
//! # Invariants
//!
//! * A [`Running`] owns the node: dropping it ends the node, [`Running::stop`] ends it and waits until it is
//!   gone.
//! * [`Running::stop`] gives the data directory free after the last task has ended.

use std::{sync::Arc, time::Duration};

#[cfg(feature = "discovery")]
use ::discovery::DnsMetrics;
use broadcaster::{Asked, Broadcaster, HandleError, Metrics, PeerEvent, WantError, WantedTags};
#[cfg(feature = "p2p")]
use bytes::Bytes;
use gossip::{BoxFuture, GossipNode, Handler, Identity, Inbound, Tag, Validator};
#[cfg(feature = "p2p")]
use gossip::{PublishError, TopicInbound};
use net_http::client::Clients;
#[cfg(feature = "http")]
use net_http::{HttpServer, ServeMetrics};
#[cfg(feature = "p2p")]
use net_p2p::{P2pMetrics, P2pNetwork, Streams};
#[cfg(feature = "ws")]
use net_ws::{WsMetrics, WsNetwork};
use runtime::{Fault, Shutdown};
use tokio::{sync::broadcast, time::Instant};
use tokio_util::sync::CancellationToken;

#[cfg(feature = "discovery")]
use crate::keeper::Keeping;
use crate::{
    data_dir::DataDir,
    peer_control::PeerControl,
    view::{Seen, View},
};

/// A running node, and the ownership of its tasks.
///
/// Dropping it ends the node without waiting; [`Running::stop`] ends it in order.
#[must_use = "dropping a node ends it"]
pub struct Running {
    parts: Parts,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("identity", &self.parts.identity).finish_non_exhaustive()
    }
}

/// The parts of a running node.
pub(crate) struct Parts {
    /// Network and broadcaster.
    pub(crate) seen: Arc<Seen>,
    /// The node as an application uses it.
    pub(crate) node: Arc<dyn GossipNode>,
    pub(crate) http: Http,
    /// A receiver that was subscribed before the first connection.
    pub(crate) events: broadcast::Receiver<PeerEvent>,
    pub(crate) identity: Identity,
    pub(crate) metrics: Metrics,
    pub(crate) data_dir: Option<DataDir>,
    #[cfg(feature = "discovery")]
    pub(crate) dns: DnsMetrics,
    #[cfg(feature = "discovery")]
    pub(crate) keeping: Option<Keeping>,
    /// The root of every task of the node.
    pub(crate) cancel: CancellationToken,
}

/// The permits of a node's HTTP server. Clones are cheap.
#[cfg(feature = "http")]
#[derive(Clone, Debug)]
pub struct HttpPermits(HttpServer);

#[cfg(feature = "http")]
impl HttpPermits {
    /// Connections that have a permit.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.served()
    }

    /// Connections that wait for one.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.waiting()
    }

    /// Requests that are being answered.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.0.requests_in_flight()
    }

    /// The counters of the server.
    #[must_use]
    pub fn metrics(&self) -> &ServeMetrics {
        self.0.metrics()
    }
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

    /// The node as an application uses it: a cheap handle, which does not keep the node running. After the end its
    /// methods say [`Admission::Closed`](gossip::Admission::Closed).
    #[must_use]
    pub fn node(&self) -> Arc<dyn GossipNode> {
        Arc::clone(&self.parts.node)
    }

    /// A handle that says whom the node talks to, and does not keep it running.
    #[must_use]
    pub fn peer_control(&self) -> PeerControl {
        PeerControl::of(&self.parts.seen)
    }

    /// A handle that shows how the node is doing, and does not keep it running.
    #[must_use]
    pub fn view(&self) -> View {
        View::of(&self.parts.seen)
    }

    /// URL of the WebSocket side, `http://IP:PORT` with the port that was bound; `None` where the node has no such side
    /// or does not listen.
    #[cfg(feature = "ws")]
    #[must_use]
    pub fn ws_url(&self) -> Option<String> {
        self.parts.seen.network.ws()?.local_address().map(|address| format!("http://{address}"))
    }

    /// Multiaddrs on which the libp2p side listens now, each with `/p2p/ID`; none where the node has no such side.
    #[cfg(feature = "p2p")]
    #[must_use]
    pub fn p2p_addresses(&self) -> Vec<String> {
        self.parts.seen.network.p2p().map(P2pNetwork::listen_addresses).unwrap_or_default()
    }

    /// Opens streams to connected peers, with the application's own protocols; `None` without a libp2p network.
    /// The handle does not keep the node running.
    #[cfg(feature = "p2p")]
    #[must_use]
    pub fn streams(&self) -> Option<Streams> {
        self.parts.seen.network.p2p().map(P2pNetwork::streams)
    }

    /// The node's identity, which is the same on both transports.
    #[must_use]
    pub const fn identity(&self) -> Identity {
        self.parts.identity
    }

    /// The broadcaster of the node, which every network of it shares: for programs that attach links of their own.
    #[must_use]
    pub fn broadcaster(&self) -> &Broadcaster {
        &self.parts.seen.broadcaster
    }

    /// Network, broadcaster and door.
    pub(crate) const fn seen(&self) -> &Arc<Seen> {
        &self.parts.seen
    }

    /// The HTTP server, if there is one.
    #[cfg(feature = "http")]
    pub(crate) const fn http_server(&self) -> Option<&HttpServer> {
        self.parts.http.http_server.as_ref()
    }

    /// The counters of the message flow. A cheap handle inside, kept up to date.
    #[must_use]
    pub const fn metrics(&self) -> &Metrics {
        &self.parts.metrics
    }

    /// The counters of the HTTP that the node serves; `None` if it serves none.
    #[cfg(feature = "http")]
    #[must_use]
    pub fn http_metrics(&self) -> Option<&ServeMetrics> {
        self.parts.http.http_server.as_ref().map(HttpServer::metrics)
    }

    /// The permits of the HTTP server; `None` if the node serves no HTTP. A cheap handle, kept up to date.
    #[cfg(feature = "http")]
    #[must_use]
    pub fn http_permits(&self) -> Option<HttpPermits> {
        self.parts.http.http_server.clone().map(HttpPermits)
    }

    /// The counters of handshakes over WebSocket that were refused, by this node and by those it dialled;
    /// `None` without a WebSocket side.
    #[cfg(feature = "ws")]
    #[must_use]
    pub fn ws_metrics(&self) -> Option<&WsMetrics> {
        self.parts.seen.network.ws().map(WsNetwork::metrics)
    }

    /// The counters of looks into DNS.
    #[cfg(feature = "discovery")]
    pub(crate) const fn dns_metrics(&self) -> &DnsMetrics {
        &self.parts.dns
    }

    /// The counters of the libp2p side; `None` without one.
    #[cfg(feature = "p2p")]
    #[must_use]
    pub fn p2p_metrics(&self) -> Option<&P2pMetrics> {
        self.parts.seen.network.p2p().map(P2pNetwork::metrics)
    }

    /// The data directory; `None` for a node without one.
    #[must_use]
    pub const fn data_dir(&self) -> Option<&DataDir> {
        self.parts.data_dir.as_ref()
    }

    /// The events of peers: connected, identified, disconnected. The first call returns the receiver that has been
    /// subscribed since the start of the node, so that nothing is missed; later calls subscribe anew. A receiver that
    /// falls more than 2,048 events behind loses the oldest, and is told so by `RecvError::Lagged`.
    #[must_use]
    pub fn events(&mut self) -> broadcast::Receiver<PeerEvent> {
        std::mem::replace(&mut self.parts.events, self.parts.seen.broadcaster.events())
    }

    /// Adds a handler for a tag, which gets the messages from now on, as [`NodeBuilder::handler`](crate::NodeBuilder::handler)
    /// does from the start. Earlier messages are not handled late.
    ///
    /// # Errors
    ///
    /// [`HandleError`] when the tag is unknown, or has a handler already, which stays.
    pub fn handle(&self, tag: Tag, handler: impl Handler) -> Result<(), HandleError> {
        self.parts.seen.broadcaster.handle(tag, Arc::new(handler))
    }

    /// Adds a validator for a tag, which judges the messages from now on, as [`NodeBuilder::validator`](crate::NodeBuilder::validator)
    /// does from the start. Messages that wait to be handled are judged too; those that were passed on before were
    /// not.
    ///
    /// # Errors
    ///
    /// [`HandleError`] when the tag is unknown, or has a validator already, which stays.
    pub fn validate(&self, tag: Tag, validator: impl Validator) -> Result<(), HandleError> {
        self.parts.seen.broadcaster.validate(tag, Arc::new(validator))
    }

    /// Asks the peers for other messages of others from now on, as [`NodeBuilder::want`](crate::NodeBuilder::want) does from
    /// the start: all of them are told, even if it is [`WantedTags::Usual`]. Messages on their way may still come, and are
    /// handled.
    ///
    /// # Errors
    ///
    /// [`WantError`] for a tag that cannot be asked for, and in a node that relays; nothing has changed then.
    pub fn want(&self, wanted: WantedTags) -> Result<(), WantError> {
        self.parts.seen.broadcaster.want(wanted)
    }

    /// Asks the peers for the messages of these tags as well, until the result is dropped: for those who
    /// [observe](Running::observe) them. Without tags, for every tag of the network.
    ///
    /// # Errors
    ///
    /// [`WantError::UnknownTag`] for a tag that the network does not have.
    pub fn ask_for(&self, tags: &[Tag]) -> Result<Asked, WantError> {
        self.parts.seen.broadcaster.ask_for(tags)
    }

    /// A receiver of every message that is accepted from now on, whatever its tag. One that falls more than 4,096
    /// messages behind loses the oldest.
    #[must_use]
    pub fn observe(&self) -> broadcast::Receiver<Inbound> {
        self.parts.seen.broadcaster.observe()
    }

    /// Publishes a message on one of the node's [topics](crate::NodeBuilder::topic), and returns the number of peers it was sent
    /// to: those that are subscribed. This node does not hear it.
    ///
    /// # Errors
    ///
    /// [`PublishError`] when the message was not published.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the waiting, not the publication.
    #[cfg(feature = "p2p")]
    pub async fn publish(
        &self,
        topic: &str,
        body: impl Into<Bytes>,
    ) -> Result<usize, PublishError> {
        self.parts.node.publish(topic, body.into()).await
    }

    /// A receiver of every message that is accepted from now on, on any of the node's own topics; `None` without libp2p. One
    /// that falls more than 64 messages behind loses the oldest.
    #[cfg(feature = "p2p")]
    #[must_use]
    pub fn observe_topics(&self) -> Option<broadcast::Receiver<TopicInbound>> {
        self.parts.seen.network.p2p().map(P2pNetwork::observe_topics)
    }

    /// The token that every task of the node watches. Cancelling it starts the end, for which [`Running::stop`] waits.
    #[must_use]
    pub const fn token(&self) -> &CancellationToken {
        &self.parts.cancel
    }

    /// Resolves when a part of the node has ended by itself, which only a bug causes; never otherwise. The rest of the
    /// node is of little use then: stop it.
    ///
    /// # Cancel safety
    ///
    /// Safe: a fault stays.
    pub async fn faulted(&self) -> Fault {
        #[cfg(feature = "discovery")]
        let keeping = self.parts.keeping.as_ref();
        #[cfg(feature = "discovery")]
        let keeping = async {
            match keeping {
                Some(keeping) => keeping.faulted().await,
                None => std::future::pending().await,
            }
        };
        #[cfg(not(feature = "discovery"))]
        let keeping = std::future::pending();
        tokio::select! {
            fault = self.parts.seen.network.faulted() => fault,
            fault = self.parts.seen.broadcaster.faulted() => fault,
            fault = keeping => fault,
        }
    }

    /// Ends the node: asks every task to end, waits for at most `grace`, then aborts those that are left, and says
    /// whether there were any. Messages that are queued are still written within the grace. Afterwards no task of the
    /// node runs, its ports are free, and so is its data directory.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the node as dropping the [`Running`] does, without waiting.
    ///
    /// # Panics
    ///
    /// Resumes the panic of a task that panicked.
    pub async fn stop(self, grace: Duration) -> Shutdown {
        self.stopping(grace).await
    }

    /// The stop in a box, which is compiled here and not once more in every program that stops a node.
    fn stopping(self, grace: Duration) -> BoxFuture<'static, Shutdown> {
        Box::pin(self.stop_parts(grace))
    }

    async fn stop_parts(self, grace: Duration) -> Shutdown {
        let Parts { seen, http, cancel, data_dir, .. } = &self.parts;
        let Seen { network, broadcaster, .. } = &**seen;
        let deadline = Instant::now() + grace;
        #[cfg(feature = "discovery")]
        let kept = self.parts.keeping.as_ref();
        #[cfg(feature = "discovery")]
        if let Some(keeping) = kept {
            keeping.last().await;
        }
        cancel.cancel();
        let (network, clients) = tokio::join!(network.stop(grace), http.clients.stop(grace));
        let network = network.and(clients);
        let left = deadline.saturating_duration_since(Instant::now());
        let shutdown = network.and(broadcaster.stop(left).await);
        #[cfg(feature = "discovery")]
        let shutdown = match kept {
            Some(keeping) => shutdown.and(keeping.stop(left).await),
            None => shutdown,
        };
        tracing::debug!(?shutdown, dir = ?data_dir.as_ref().map(DataDir::path), "the node stopped");
        shutdown
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.parts.cancel.cancel();
    }
}
