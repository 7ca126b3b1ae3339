//! Tandem nodes as they are measured: one transport each, on loopback, every limit as shipped.

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

use crate::{error::Failure, fanout::Transport};

/// The network that every node of the bench belongs to.
pub(crate) const NETWORK: &str = "bench-v1";

/// Most receivers of any bench.
const RECEIVERS: usize = 256;

/// Between two looks at the number of peers.
const LOOK: Duration = Duration::from_millis(10);

/// How long peers may take to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// What a node serves and asks over HTTP.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    /// What serves requests. Default: nothing.
    pub(crate) http_server: Option<HttpServer>,
    /// Bounds of its own requests. Default: as shipped.
    pub(crate) clients: ClientLimits,
    /// Bounds on inbound connections. Default: as shipped, but for the number of one host, since all receivers
    /// are on this one.
    pub(crate) inbound: InboundLimits,
    /// Who the node is over TLS on that port. Default: nobody.
    pub(crate) tls: Option<TlsIdentity>,
    /// Whose certificates it believes when it asks over TLS. Default: those of the system.
    pub(crate) tls_roots: Vec<CertificateDer<'static>>,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            http_server: None,
            clients: ClientLimits::default(),
            inbound: InboundLimits { per_ip: RECEIVERS, ..InboundLimits::default() },
            tls: None,
            tls_roots: Vec::new(),
        }
    }
}

/// A running node. Dropping it ends its tasks.
pub(crate) struct Node {
    /// What messages go through.
    pub(crate) broadcaster: Broadcaster,
    /// The network, as an application has it.
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
            Transport::P2p => {
                let mut config = P2pConfig::new(id, Keypair::from_seed(rand::random()));
                (config.http_server, config.door) = (http.http_server, door);
                config.clients = Some(clients);
                match peer {
                    Some(peer) => config.peers.push(peer),
                    None => config.listen.push("/ip4/127.0.0.1/tcp/0".parse()?),
                }
                let start = P2pNetwork::start(config, broadcaster.clone(), parent);
                Arc::new(start.await?)
            }
        };
        Ok(Self { broadcaster, network })
    }

    /// Where the node listens.
    pub(crate) fn address(&self) -> Result<NodeAddress, Failure> {
        Ok(self.network.addresses().into_iter().next().ok_or("the node does not listen")?)
    }

    /// Waits until so many peers are connected.
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
