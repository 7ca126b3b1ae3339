//! The network of a node, whichever transports it has.
//!
//! # Invariants
//!
//! * This is the only place that knows the networks by their types; everything else has a `GossipNode`.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use broadcaster::Broadcaster;
use gossip::{GossipNode, Keypair, NodeAddress};
use mesh::{DialState, Door};
use net_http::{HttpServer, client::Clients};
use net_hybrid::{HybridConfig, HybridNetwork};
use net_p2p::{P2pConfig, P2pNetwork};
use net_ws::{Libp2pIdentity, TlsIdentity, WsConfig, WsMetrics, WsNetwork};
use runtime::{Fault, Shutdown};
use tokio_util::sync::CancellationToken;

use crate::{
    builder::{Mode, NodeBuilder},
    error::StartError,
};

/// What a node lends to each of its networks.
#[derive(Debug)]
pub(crate) struct Lent {
    pub(crate) key: Keypair,
    pub(crate) broadcaster: Broadcaster,
    pub(crate) door: Door,
    /// Serves HTTP, if there is anything to serve.
    pub(crate) http_server: Option<HttpServer>,
    /// Call others over HTTP.
    pub(crate) clients: Clients,
}

/// A network that runs.
#[derive(Debug)]
pub(crate) enum Network {
    Hybrid(HybridNetwork),
    WebSocket(WsNetwork),
    Libp2p(P2pNetwork),
}

impl Network {
    /// Starts the network of a node.
    pub(crate) async fn start(
        node: NodeBuilder,
        lent: Lent,
        parent: &CancellationToken,
    ) -> Result<Self, StartError> {
        let (ws, p2p) = (ws(&node, &lent)?, p2p(&node, &lent)?);
        let Lent { broadcaster, .. } = lent;
        match node.mode {
            Mode::Hybrid => {
                let config = HybridConfig { ws, p2p };
                let network = HybridNetwork::start(config, broadcaster, parent).await?;
                Ok(Self::Hybrid(network))
            }
            Mode::WebSocket => {
                let network = WsNetwork::start(ws, broadcaster, parent).await?;
                Ok(Self::WebSocket(network))
            }
            Mode::Libp2p => {
                let network = P2pNetwork::start(p2p, broadcaster, parent).await?;
                Ok(Self::Libp2p(network))
            }
        }
    }

    /// Host and port of the WebSocket side.
    pub(crate) fn ws_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Hybrid(network) => network.ws().local_address(),
            Self::WebSocket(network) => network.local_address(),
            Self::Libp2p(_) => None,
        }
    }

    /// Counters of the WebSocket side.
    pub(crate) fn ws_metrics(&self) -> Option<&WsMetrics> {
        match self {
            Self::Hybrid(network) => Some(network.ws().metrics()),
            Self::WebSocket(network) => Some(network.metrics()),
            Self::Libp2p(_) => None,
        }
    }

    /// Multiaddrs of the libp2p side, each with `/p2p/ID`.
    pub(crate) fn p2p_addresses(&self) -> Vec<String> {
        match self {
            Self::Hybrid(network) => network.p2p().listen_addresses(),
            Self::WebSocket(_) => Vec::new(),
            Self::Libp2p(network) => network.listen_addresses(),
        }
    }

    /// The network as an application uses it.
    pub(crate) fn node(&self) -> Arc<dyn GossipNode> {
        match self {
            Self::Hybrid(network) => Arc::new(network.clone()),
            Self::WebSocket(network) => Arc::new(network.clone()),
            Self::Libp2p(network) => Arc::new(network.clone()),
        }
    }

    /// How it stands with every peer that was configured.
    pub(crate) fn dials(&self) -> Vec<DialState> {
        match self {
            Self::Hybrid(network) => [network.ws().dials(), network.p2p().dials()].concat(),
            Self::WebSocket(network) => network.dials(),
            Self::Libp2p(network) => network.dials(),
        }
    }

    /// Whether the libp2p side lives, where there is one.
    pub(crate) fn is_p2p_up(&self) -> bool {
        match self {
            Self::Hybrid(network) => network.p2p().is_up(),
            Self::WebSocket(_) => true,
            Self::Libp2p(network) => network.is_up(),
        }
    }

    /// The first task of the network that ended unasked.
    pub(crate) fn fault(&self) -> Option<Fault> {
        match self {
            Self::Hybrid(network) => network.fault(),
            Self::WebSocket(network) => network.fault(),
            Self::Libp2p(network) => network.fault(),
        }
    }

    /// Waits until a task of the network has ended unasked; for ever if none does.
    pub(crate) async fn faulted(&self) -> Fault {
        match self {
            Self::Hybrid(network) => network.faulted().await,
            Self::WebSocket(network) => network.faulted().await,
            Self::Libp2p(network) => network.faulted().await,
        }
    }

    /// Ends the network.
    pub(crate) async fn stop(&self, grace: Duration) -> Shutdown {
        match self {
            Self::Hybrid(network) => network.stop(grace).await,
            Self::WebSocket(network) => network.stop(grace).await,
            Self::Libp2p(network) => network.stop(grace).await,
        }
    }
}

/// What the WebSocket side of a node is made of.
fn ws(node: &NodeBuilder, lent: &Lent) -> Result<WsConfig, StartError> {
    let web_socket = |address: &&NodeAddress| matches!(address, NodeAddress::WebSocket(_));
    Ok(WsConfig {
        listen: node.listen_ws.clone(),
        public_address: node.public_address.as_ref().map(NodeAddress::phonebook_entry),
        peers: node.peers.iter().filter(web_socket).cloned().collect(),
        identity: Some(Arc::new(lent.key.clone())),
        libp2p_identity: match node.mode {
            Mode::Hybrid => Libp2pIdentity::Shared,
            Mode::WebSocket | Mode::Libp2p => Libp2pIdentity::Separate,
        },
        door: lent.door.clone(),
        dial: node.dial,
        http_server: lent.http_server.clone(),
        clients: Some(lent.clients.clone()),
        tls: match &node.tls {
            Some(files) => Some(TlsIdentity::load(&files.cert, &files.key)?),
            None => None,
        },
        tls_roots: match &node.tls_roots {
            Some(path) => net_ws::read_certificates(path)?,
            None => Vec::new(),
        },
        ..WsConfig::new(node.network.clone())
    })
}

/// A multiaddr to listen on.
pub(crate) fn listen_address(text: &str) -> Result<net_p2p::Multiaddr, StartError> {
    net_p2p::parse_listen_address(text)
        .ok_or_else(|| StartError::ListenAddress { address: text.to_owned() })
}

/// What the libp2p side of a node is made of.
fn p2p(node: &NodeBuilder, lent: &Lent) -> Result<P2pConfig, StartError> {
    let listen = node.listen_p2p.iter().map(|text| listen_address(text));
    let multiaddr = |address: &&NodeAddress| matches!(address, NodeAddress::Multiaddr(_));
    Ok(P2pConfig {
        listen: listen.collect::<Result<_, _>>()?,
        peers: node.peers.iter().filter(multiaddr).cloned().collect(),
        mdns: node.mdns,
        door: lent.door.clone(),
        dial: node.dial,
        gossip: node.gossip,
        http_server: lent.http_server.clone(),
        clients: Some(lent.clients.clone()),
        ..P2pConfig::new(node.network.clone(), lent.key.clone())
    })
}
