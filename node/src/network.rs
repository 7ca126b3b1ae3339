//! The network of a node, whichever transports it has.
//!
//! # Invariants
//!
//! * This is the only place that knows the networks by their types; everything else has a `GossipNode`.

use std::{sync::Arc, time::Duration};

use broadcaster::Broadcaster;
use gossip::{GossipNode, Keypair};
use mesh::{DialState, Door};
use net_http::{HttpServer, client::Clients};
#[cfg(all(feature = "ws", feature = "p2p"))]
use net_hybrid::{HybridConfig, HybridNetwork};
#[cfg(feature = "p2p")]
use net_p2p::P2pNetwork;
#[cfg(feature = "ws")]
use net_ws::WsNetwork;
use runtime::{Fault, Shutdown};
use tokio_util::sync::CancellationToken;

use crate::{
    builder::{Mode, NodeBuilder},
    error::StartError,
};

/// The parts that a node lends to each of its networks.
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
    #[cfg(all(feature = "ws", feature = "p2p"))]
    Hybrid(HybridNetwork),
    #[cfg(feature = "ws")]
    WebSocket(WsNetwork),
    #[cfg(feature = "p2p")]
    Libp2p(P2pNetwork),
}

/// Does the same with a network of any type.
macro_rules! each {
    ($self:expr, $network:ident => $does:expr) => {
        match $self {
            #[cfg(all(feature = "ws", feature = "p2p"))]
            Self::Hybrid($network) => $does,
            #[cfg(feature = "ws")]
            Self::WebSocket($network) => $does,
            #[cfg(feature = "p2p")]
            Self::Libp2p($network) => $does,
        }
    };
}

impl Network {
    /// Starts the network of a node.
    pub(crate) async fn start(
        node: NodeBuilder,
        lent: Lent,
        parent: &CancellationToken,
    ) -> Result<Self, StartError> {
        match node.mode {
            #[cfg(all(feature = "ws", feature = "p2p"))]
            Mode::Hybrid => {
                let config =
                    HybridConfig { ws: node.ws_config(&lent)?, p2p: node.p2p_config(&lent)? };
                let network = HybridNetwork::start(config, lent.broadcaster, parent).await?;
                Ok(Self::Hybrid(network))
            }
            #[cfg(feature = "ws")]
            Mode::WebSocket => {
                let config = node.ws_config(&lent)?;
                Ok(Self::WebSocket(WsNetwork::start(config, lent.broadcaster, parent).await?))
            }
            #[cfg(feature = "p2p")]
            Mode::Libp2p => {
                let config = node.p2p_config(&lent)?;
                Ok(Self::Libp2p(P2pNetwork::start(config, lent.broadcaster, parent).await?))
            }
        }
    }

    /// The WebSocket side.
    #[cfg(feature = "ws")]
    pub(crate) fn ws(&self) -> Option<&WsNetwork> {
        match self {
            #[cfg(feature = "p2p")]
            Self::Hybrid(network) => Some(network.ws()),
            Self::WebSocket(network) => Some(network),
            #[cfg(feature = "p2p")]
            Self::Libp2p(_) => None,
        }
    }

    /// The libp2p side.
    #[cfg(feature = "p2p")]
    pub(crate) fn p2p(&self) -> Option<&P2pNetwork> {
        match self {
            #[cfg(feature = "ws")]
            Self::Hybrid(network) => Some(network.p2p()),
            #[cfg(feature = "ws")]
            Self::WebSocket(_) => None,
            Self::Libp2p(network) => Some(network),
        }
    }

    /// The network as an application uses it.
    pub(crate) fn node(&self) -> Arc<dyn GossipNode> {
        each!(self, network => Arc::new(network.clone()))
    }

    /// The state of the dial of every configured peer.
    pub(crate) fn dials(&self) -> Vec<DialState> {
        let mut dials = Vec::new();
        #[cfg(feature = "ws")]
        dials.extend(self.ws().map(WsNetwork::dials).unwrap_or_default());
        #[cfg(feature = "p2p")]
        dials.extend(self.p2p().map(P2pNetwork::dials).unwrap_or_default());
        dials
    }

    /// The first task of the network that ended unasked.
    pub(crate) fn fault(&self) -> Option<Fault> {
        each!(self, network => network.fault())
    }

    /// Resolves when a task of the network has ended unasked; never otherwise.
    pub(crate) async fn faulted(&self) -> Fault {
        each!(self, network => network.faulted().await)
    }

    /// Ends the network.
    pub(crate) async fn stop(&self, grace: Duration) -> Shutdown {
        each!(self, network => network.stop(grace).await)
    }
}
