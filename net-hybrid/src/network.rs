//! The public handle of a hybrid network.

use std::{sync::Arc, time::Duration};

use broadcaster::Broadcaster;
use bytes::Bytes;
use gossip::{
    Admission, ApplicationReason, BoxFuture, ConnectPolicy, Delivery, DeliveryError, DialState,
    GossipNode, LinkId, NetworkId, NodeAddress, Outbound, PeerClass, PeerInfo, PublishError,
    Request, RequestError, Response, SubmitError,
    http::{HttpAddressError, HttpClient},
};
use net_p2p::{P2pConfig, P2pNetwork};
use net_ws::{Libp2pIdentity, WsConfig, WsNetwork};
use runtime::{Fault, Shutdown};
use tokio_util::sync::CancellationToken;

/// Configuration of a hybrid network. The WebSocket half uses the key and the door of the libp2p half, whatever
/// its own configuration says. If both have the same queue, `WsConfig::hand_over` and `WebConfig::port`, the port of the
/// WebSocket half serves libp2p too.
#[derive(Clone, Debug)]
pub struct HybridConfig {
    /// Configuration of the WebSocket half.
    pub ws: WsConfig,
    /// Configuration of the libp2p half.
    pub p2p: P2pConfig,
}

/// The reason why a hybrid network did not start. Nothing keeps running after any of these errors.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The halves belong to different networks.
    #[error(
        "the WebSocket half is of network {ws} and the libp2p half of {p2p}; they must be the same"
    )]
    TwoNetworks {
        /// The network of the WebSocket half.
        ws: NetworkId,
        /// The network of the libp2p half.
        p2p: NetworkId,
    },
    /// The WebSocket half did not start.
    #[error(transparent)]
    WebSocket(#[from] net_ws::StartError),
    /// The libp2p half did not start.
    #[error(transparent)]
    Libp2p(#[from] net_p2p::StartError),
}

/// A running hybrid network: a cheap handle. It runs until the last handle is dropped, or until
/// [`HybridNetwork::stop`].
#[derive(Clone, Debug)]
pub struct HybridNetwork {
    ws: WsNetwork,
    p2p: P2pNetwork,
    broadcaster: Broadcaster,
}

impl HybridNetwork {
    /// Starts both halves, attached to `broadcaster`. They end with `parent`.
    ///
    /// # Errors
    ///
    /// [`StartError`]. A half that had started is stopped.
    ///
    /// # Cancel safety
    ///
    /// Safe: a dropped future stops the half that has started.
    pub async fn start(
        config: HybridConfig,
        broadcaster: Broadcaster,
        parent: &CancellationToken,
    ) -> Result<Self, StartError> {
        let HybridConfig { mut ws, p2p } = config;
        if ws.network != p2p.network {
            return Err(StartError::TwoNetworks { ws: ws.network, p2p: p2p.network });
        }
        ws.identity = Some(Arc::new(p2p.key.clone()));
        ws.libp2p_identity = Libp2pIdentity::Shared;
        ws.door = p2p.door.clone();
        let p2p = P2pNetwork::start(p2p, broadcaster.clone(), parent).await?;
        match WsNetwork::start(ws, broadcaster.clone(), parent).await {
            Ok(ws) => Ok(Self { ws, p2p, broadcaster }),
            Err(error) => {
                // The half has just started and has no peers yet, so no message can be lost.
                let _ = p2p.stop(Duration::from_secs(1)).await;
                Err(error.into())
            }
        }
    }

    /// Stops both halves concurrently. Tasks that still run after `grace` are aborted.
    ///
    /// # Cancel safety
    ///
    /// Not safe: dropping the future aborts the tasks that still run.
    pub async fn stop(&self, grace: Duration) -> Shutdown {
        let (ws, p2p) = tokio::join!(self.ws.stop(grace), self.p2p.stop(grace));
        ws.and(p2p)
    }

    /// The first task of either half that ended without being asked to, if one did.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.ws.fault().or_else(|| self.p2p.fault())
    }

    /// Waits until a task of either half ends without being asked to, which only a bug causes. Otherwise it
    /// never returns.
    ///
    /// # Cancel safety
    ///
    /// Safe: the fault is kept and returned by the next call.
    pub async fn faulted(&self) -> Fault {
        tokio::select! {
            fault = self.ws.faulted() => fault,
            fault = self.p2p.faulted() => fault,
        }
    }

    /// The WebSocket half: its addresses, counters and dials.
    #[must_use]
    pub fn ws(&self) -> &WsNetwork {
        &self.ws
    }

    /// The libp2p half: its addresses, streams and counters.
    #[must_use]
    pub fn p2p(&self) -> &P2pNetwork {
        &self.p2p
    }
}

impl GossipNode for HybridNetwork {
    fn network_id(&self) -> &NetworkId {
        self.ws.network_id()
    }

    fn addresses(&self) -> Vec<NodeAddress> {
        let mut addresses = self.ws.addresses();
        addresses.extend(self.p2p.addresses());
        addresses
    }

    fn broadcast(&self, message: Outbound) -> Result<Admission, SubmitError> {
        self.broadcaster.broadcast(&message)
    }

    fn broadcast_and_wait(
        &self,
        message: Outbound,
    ) -> BoxFuture<'_, Result<Delivery, DeliveryError>> {
        Box::pin(self.broadcaster.broadcast_and_wait(&message))
    }

    fn relay(&self, message: Outbound) -> Result<Admission, SubmitError> {
        self.broadcaster.relay(&message)
    }

    fn publish(&self, topic: &str, body: Bytes) -> BoxFuture<'_, Result<usize, PublishError>> {
        self.p2p.publish(topic, body)
    }

    fn peers(&self, class: PeerClass) -> Vec<PeerInfo> {
        self.broadcaster.peers(class)
    }

    fn dials(&self) -> Vec<DialState> {
        let mut dials = self.ws.dials();
        dials.extend(self.p2p.dials());
        dials
    }

    fn request(
        &self,
        peer: LinkId,
        request: Request,
    ) -> BoxFuture<'_, Result<Response, RequestError>> {
        Box::pin(self.broadcaster.request(peer, request))
    }

    fn http_client(&self, peer: &NodeAddress) -> Result<HttpClient, HttpAddressError> {
        match peer {
            NodeAddress::WebSocket(_) => GossipNode::http_client(&self.ws, peer),
            NodeAddress::Multiaddr(_) => GossipNode::http_client(&self.p2p, peer),
        }
    }

    fn connect_outgoing(&self, policy: ConnectPolicy) {
        self.ws.connect_outgoing(policy);
        self.p2p.connect_outgoing(policy);
    }

    fn disconnect(&self, peer: LinkId, reason: ApplicationReason) {
        self.broadcaster.disconnect(peer, reason.into());
    }

    fn network_advanced(&self) {
        self.ws.network_advanced();
        self.p2p.network_advanced();
    }
}
