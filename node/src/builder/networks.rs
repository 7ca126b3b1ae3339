//! The start of the networks of a node.

use broadcaster::Broadcaster;
use gossip::Keypair;
use mesh::Door;
use net_http::{HttpServer, client::Clients};
#[cfg(all(feature = "ws", feature = "p2p"))]
use net_hybrid::{HybridConfig, HybridNetwork};
#[cfg(feature = "p2p")]
use net_p2p::P2pNetwork;
#[cfg(feature = "ws")]
use net_ws::WsNetwork;
use tokio_util::sync::CancellationToken;

use super::NodeBuilder;
use crate::{error::StartError, mode::Mode, network::Network};

/// The parts that a node lends to each of its networks.
#[derive(Debug)]
pub(super) struct Lent {
    pub(super) key: Keypair,
    #[cfg(any(feature = "ws", feature = "websocket"))]
    pub(super) certificates: super::tls::Certificates,
    #[cfg(feature = "webrtc")]
    pub(super) webrtc_certificate: Option<net_p2p::WebRtcCertificate>,
    pub(super) broadcaster: Broadcaster,
    pub(super) door: Door,
    /// Serves HTTP, if there is anything to serve.
    pub(super) http_server: Option<HttpServer>,
    /// Call others over HTTP.
    pub(super) clients: Clients,
}

impl NodeBuilder {
    /// Starts the network of the node, with the parts that the node lends to it.
    pub(super) async fn start_network(
        self,
        lent: Lent,
        parent: &CancellationToken,
    ) -> Result<Network, StartError> {
        match self.mode {
            #[cfg(all(feature = "ws", feature = "p2p"))]
            Mode::Hybrid => {
                let (ws, p2p) = (self.ws_config(&lent)?, self.p2p_config(&lent)?);
                #[cfg(feature = "websocket")]
                let (ws, p2p) = self.p2p.share_port(ws, p2p);
                let config = HybridConfig { ws, p2p };
                let network = HybridNetwork::start(config, lent.broadcaster, parent).await?;
                Ok(Network::Hybrid(network))
            }
            #[cfg(feature = "ws")]
            Mode::WebSocket => {
                let config = self.ws_config(&lent)?;
                Ok(Network::WebSocket(WsNetwork::start(config, lent.broadcaster, parent).await?))
            }
            #[cfg(feature = "p2p")]
            Mode::Libp2p => {
                let config = self.p2p_config(&lent)?;
                Ok(Network::Libp2p(P2pNetwork::start(config, lent.broadcaster, parent).await?))
            }
        }
    }
}
