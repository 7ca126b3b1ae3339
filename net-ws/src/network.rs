//! The public handle of a WebSocket network.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use broadcaster::Broadcaster;
use gossip::{
    Admission, ApplicationReason, BoxFuture, ConnectPolicy, Delivery, DeliveryError, DialState,
    GossipNode, LinkId, NetworkId, NodeAddress, Outbound, PeerClass, PeerInfo, Request,
    RequestError, Response, Security, SubmitError, Transport, check_durations,
    http::{HttpAddressError, HttpClient},
};
use net_http::client::{ClientLimits, Clients};
use net_tcp::hand_over::Port;
use runtime::{Fault, Listener, Shutdown, TaskSet};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    call,
    config::{AddPeerError, StartError, WsConfig, check_peer},
    context::Context,
    dialler,
    metrics::WsMetrics,
    priority, serve,
    tls::{self, TlsError, TlsIdentity},
};

/// A running WebSocket network: a cheap handle. The network runs until the last handle is dropped, or until
/// [`WsNetwork::stop`].
#[derive(Clone, Debug)]
pub struct WsNetwork {
    context: Arc<Context>,
    tasks: TaskSet,
    local_addresses: Vec<SocketAddr>,
    clients: Clients,
    /// Cancels the tasks when the last handle is dropped. The tasks hold the set themselves to spawn more, so
    /// its own drop would come too late.
    _guard: Arc<DropGuard>,
}

impl WsNetwork {
    /// Binds the listening socket, if one is configured, and starts to dial. Links are attached to
    /// `broadcaster`, which all networks of a node share. The network ends with `parent`.
    ///
    /// # Errors
    ///
    /// [`StartError`]. Nothing keeps running after an error.
    ///
    /// # Cancel safety
    ///
    /// Safe: a dropped future leaves nothing running.
    pub async fn start(
        config: WsConfig,
        broadcaster: Broadcaster,
        parent: &CancellationToken,
    ) -> Result<Self, StartError> {
        check_durations([
            ("WsConfig::dial_timeout", config.dial_timeout),
            ("WsConfig::tls_reread", config.tls_reread),
        ])?;
        let listener = match &config.listen {
            None => None,
            Some(address) => {
                let failed = |source| StartError::listen(address.clone(), source);
                Some(broadcaster.environment().bind(address).await.map_err(failed)?)
            }
        };
        let local_addresses: Vec<_> =
            listener.iter().flat_map(Listener::local_addrs).copied().collect();
        let clients = config.clients.clone().unwrap_or_else(|| {
            Clients::new(ClientLimits::default(), config.user_agent.clone(), parent)
        });
        let peers = config.peers.clone();
        let tls_reread = config.tls_reread;
        let own_url = local_addresses.first().map(|address| format!("http://{address}"));
        let context = Arc::new(Context::new(config, broadcaster, own_url)?);
        for peer in &peers {
            check_peer(peer)?;
        }
        let tasks = TaskSet::new(parent);
        if tasks.token().is_cancelled() {
            return Err(StartError::Stopping);
        }
        if let Some(listener) = listener {
            let (context, spawner) = (Arc::clone(&context), tasks.clone());
            tasks.spawn_lasting("accept", |cancel| {
                serve::accept(listener, context, spawner, cancel)
            });
        }
        for tls in context.certificates().cloned() {
            tasks.spawn_lasting("certificate", |cancel| tls::watch(tls, tls_reread, cancel));
        }
        for peer in &peers {
            match dialler::configure(&context, peer) {
                Ok(()) => {}
                Err(AddPeerError::Address(error)) => return Err(error.into()),
                Err(error) => tracing::warn!(%error, address = %peer, "not added"),
            }
        }
        let dialer = context.broadcaster.mesh().attach(Transport::WebSocket);
        let (dialling, spawner) = (Arc::clone(&context), tasks.clone());
        tasks.spawn_lasting("dialler", |cancel| dialler::run(dialling, dialer, spawner, cancel));
        if let Some(priority) = context.priority.clone() {
            let broadcaster = context.broadcaster.clone();
            tasks.spawn_lasting("priority", |cancel| priority::run(priority, broadcaster, cancel));
        }
        if let Some(hand_over) = &context.hand_over {
            hand_over.listens_on(ports(&local_addresses, context.tls.as_ref()));
        }
        for address in &local_addresses {
            tracing::info!(%address, network = %context.network, "listening");
        }
        let guard = Arc::new(tasks.token().clone().drop_guard());
        Ok(Self { context, tasks, local_addresses, clients, _guard: guard })
    }

    /// Stops listening and dialling, closes every connection in an orderly way, and waits for that. Tasks that
    /// still run after `grace` are aborted.
    ///
    /// # Cancel safety
    ///
    /// Not safe: dropping the future aborts the tasks that still run.
    pub async fn stop(&self, grace: Duration) -> Shutdown {
        self.tasks.stop(grace).await
    }

    /// The first task of this network that ended without being asked to, if one did.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.tasks.fault()
    }

    /// Waits until a task of this network ends without being asked to, which only a bug causes. Otherwise it
    /// never returns.
    ///
    /// # Cancel safety
    ///
    /// Safe: the fault is kept and returned by the next call.
    pub async fn faulted(&self) -> Fault {
        self.tasks.faulted().await
    }

    /// The first address that this network listens on; `None` if it does not listen.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.local_addresses.first().copied()
    }

    /// Every address that this network listens on: a host name may resolve to several.
    #[must_use]
    pub fn local_addresses(&self) -> &[SocketAddr] {
        &self.local_addresses
    }

    /// Adds a configured address. It is dialled now, and whenever there is no link to its peer.
    ///
    /// # Errors
    ///
    /// [`AddPeerError`] when the address cannot be dialled or the phonebook is full.
    pub fn add_peer(&self, address: &NodeAddress) -> Result<(), AddPeerError> {
        dialler::configure(&self.context, address)
    }

    /// Forgets an address, whoever named it, and ends the links that were dialled to it. Returns `false` if it was not
    /// known.
    #[must_use = "the address may not have been known"]
    pub fn remove_peer(&self, address: &NodeAddress) -> bool {
        dialler::remove(&self.context, address)
    }

    /// Counters of refused handshakes.
    #[must_use]
    pub fn metrics(&self) -> &WsMetrics {
        &self.context.metrics
    }

    /// The certificate for TLS connections to this network; `None` if it has none.
    #[must_use]
    pub fn tls(&self) -> Option<&TlsIdentity> {
        self.context.tls.as_ref()
    }

    /// Returns `true` if this node has a certificate, for its listener or for servers.
    #[must_use]
    pub fn has_certificates(&self) -> bool {
        self.context.certificates().next().is_some()
    }

    /// Reads the files of the certificates again, for connections in either direction, because somebody says that they
    /// have changed. Returns `true` if connections that begin from now on use something else than before; those that are
    /// open go on. Blocks on the file system.
    ///
    /// # Errors
    ///
    /// [`TlsError`] when some of the files cannot be used; what they held before stays in use.
    pub fn reload_certificates(&self) -> Result<bool, TlsError> {
        let outcomes: Vec<_> = self.context.certificates().map(TlsIdentity::reload).collect();
        let outcomes: Vec<bool> = outcomes.into_iter().collect::<Result<_, _>>()?;
        Ok(outcomes.contains(&true))
    }

    /// Number of running tasks: accept loop, the look after the certificate, dialler, dials, and one per connection.
    #[must_use]
    pub fn task_count(&self) -> usize {
        self.tasks.len()
    }

    fn broadcaster(&self) -> &Broadcaster {
        &self.context.broadcaster
    }
}

/// The addresses at which the clients of a listener connect, with what is spoken there.
fn ports(addresses: &[SocketAddr], tls: Option<&TlsIdentity>) -> Vec<Port> {
    let spoken: &[Security] = match tls {
        None => &[Security::Plain],
        Some(tls) if tls.demands_certificates() => &[Security::Tls],
        Some(_) => &[Security::Tls, Security::Plain],
    };
    let each = |address: &SocketAddr| {
        let address = *address;
        spoken.iter().map(move |&security| Port { address, security })
    };
    addresses.iter().flat_map(each).collect()
}

impl GossipNode for WsNetwork {
    fn network_id(&self) -> &NetworkId {
        &self.context.network
    }

    fn addresses(&self) -> Vec<NodeAddress> {
        let urls = self.local_addresses.iter().map(|address| format!("http://{address}"));
        urls.filter_map(|url| url.parse().ok()).collect()
    }

    fn broadcast(&self, message: Outbound) -> Result<Admission, SubmitError> {
        self.broadcaster().broadcast(&message)
    }

    fn broadcast_and_wait(
        &self,
        message: Outbound,
    ) -> BoxFuture<'_, Result<Delivery, DeliveryError>> {
        Box::pin(self.broadcaster().broadcast_and_wait(&message))
    }

    fn relay(&self, message: Outbound) -> Result<Admission, SubmitError> {
        self.broadcaster().relay(&message)
    }

    fn peers(&self, class: PeerClass) -> Vec<PeerInfo> {
        let mut peers = self.broadcaster().peers(class);
        peers.retain(|peer| peer.transport == Transport::WebSocket);
        peers
    }

    fn dials(&self) -> Vec<DialState> {
        self.broadcaster().mesh().dials().states(Transport::WebSocket)
    }

    fn request(
        &self,
        peer: LinkId,
        request: Request,
    ) -> BoxFuture<'_, Result<Response, RequestError>> {
        Box::pin(self.broadcaster().request(peer, request))
    }

    /// Uses TLS if the URL asks for it. The path of the URL is prefixed to the path of every request.
    fn http_client(&self, peer: &NodeAddress) -> Result<HttpClient, HttpAddressError> {
        let environment = self.context.environment();
        call::client(peer, &self.clients, &self.context.trust, environment)
    }

    fn connect_outgoing(&self, policy: ConnectPolicy) {
        self.broadcaster().connect_outgoing(policy, Transport::WebSocket);
    }

    fn disconnect(&self, peer: LinkId, reason: ApplicationReason) {
        self.broadcaster().disconnect(peer, reason.into());
    }

    fn network_advanced(&self) {
        self.broadcaster().mesh().network_advanced();
    }
}
