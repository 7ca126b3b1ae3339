//! Tandem nodes for the measurements: one transport each, on loopback, with default limits.

use std::{sync::Arc, time::Duration};

use broadcaster::{Broadcaster, Setup};
use gossip::{GossipNode, Keypair, NetworkId, NodeAddress, PeerClass};
use mesh::{Door, InboundLimits};
use net_http::{HttpServer, client::ClientLimits, client::Clients};
use net_p2p::{P2pConfig, P2pNetwork};
use net_ws::{TlsIdentity, WsConfig, WsNetwork};
use rustls_pki_types::CertificateDer;
use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::{error::Failure, transport::Transport};

/// The network of every node in the bench.
pub(crate) const NETWORK: &str = "bench-v1";

/// Largest number of receivers in any bench.
const RECEIVERS: usize = 256;

/// Interval at which the number of peers is checked.
const LOOK: Duration = Duration::from_millis(10);

/// Longest time for peers to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// The HTTP settings of a node.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    /// The HTTP server. Default: none.
    pub(crate) http_server: Option<HttpServer>,
    /// Limits of the HTTP client. Default: [`ClientLimits::default`].
    pub(crate) clients: ClientLimits,
    /// Limits on inbound connections. Default: [`InboundLimits::default`], with room for all receivers on this
    /// host.
    pub(crate) inbound: InboundLimits,
    /// Certificate and key for TLS on the WebSocket port. Default: none.
    pub(crate) tls: Option<TlsIdentity>,
    /// Root certificates that the client trusts in addition to the system's. Default: none.
    pub(crate) tls_roots: Vec<CertificateDer<'static>>,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            http_server: None,
            clients: ClientLimits::default(),
            inbound: InboundLimits::default().with_per_ip(RECEIVERS),
            tls: None,
            tls_roots: Vec::new(),
        }
    }
}

/// The address that a libp2p node listens on.
const fn listen(transport: Transport) -> &'static str {
    match transport {
        Transport::Quic => "/ip4/127.0.0.1/udp/0/quic-v1",
        Transport::Ws | Transport::P2p => "/ip4/127.0.0.1/tcp/0",
    }
}

/// A running node. Dropping it ends its tasks.
pub(crate) struct Node {
    /// The engine, which takes messages.
    pub(crate) broadcaster: Broadcaster,
    /// The network behind the interface for applications.
    pub(crate) network: Arc<dyn GossipNode>,
}

impl Node {
    /// Starts a node that listens, or one that dials `peer`.
    pub(crate) async fn start(
        transport: Transport,
        setup: Setup,
        peer: Option<NodeAddress>,
        http: Http,
        parent: &CancellationToken,
    ) -> Result<Self, Failure> {
        let clients = Clients::new(http.clients, String::new(), parent);
        let broadcaster = Broadcaster::start(setup, parent);
        let door = Door::new(http.inbound);
        let id = NetworkId::new(NETWORK)?;
        let network: Arc<dyn GossipNode> = match transport {
            Transport::Ws => {
                let mut config = WsConfig::new(id);
                (config.http_server, config.door) = (http.http_server, door);
                (config.tls, config.tls_roots) = (http.tls, http.tls_roots);
                config.clients = Some(clients);
                match peer {
                    Some(peer) => config.peers.push(peer),
                    None => config.listen = Some("127.0.0.1:0".to_owned()),
                }
                Arc::new(WsNetwork::start(config, broadcaster.clone(), parent).await?)
            }
            Transport::P2p | Transport::Quic => {
                let mut config = P2pConfig::new(id, Keypair::from_seed(rand::random()));
                (config.http_server, config.door) = (http.http_server, door);
                config.clients = Some(clients);
                match peer {
                    Some(peer) => config.peers.push(peer),
                    None => config.listen.push(listen(transport).parse()?),
                }
                let start = P2pNetwork::start(config, broadcaster.clone(), parent);
                Arc::new(start.await?)
            }
        };
        Ok(Self { broadcaster, network })
    }

    /// The address the node listens on.
    pub(crate) fn address(&self) -> Result<NodeAddress, Failure> {
        Ok(self.network.addresses().into_iter().next().ok_or("the node does not listen")?)
    }

    /// Waits until `peers` peers are connected.
    pub(crate) async fn connected(&self, peers: usize) -> Result<(), Failure> {
        let wait = async {
            while self.network.peers(PeerClass::Connected).len() < peers {
                time::sleep(LOOK).await;
            }
        };
        let late = |_| {
            let found = self.network.peers(PeerClass::Connected).len();
            format!("{found} of {peers} peers have connected")
        };
        Ok(time::timeout(CONNECT_TIMEOUT, wait).await.map_err(late)?)
    }
}
