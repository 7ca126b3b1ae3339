//! The node that is attacked.

use std::{io, net::SocketAddr};

use gossip::{LateNode, LoopbackRule, NetworkId, NetworkProfile, Tag};
use libp2p::Multiaddr;
use tandem::{
    InboundLimits, NodeBuilder, Relaying, Running, StartError,
    services::blocks::{BlockProxy, BlockProxyLimits, Capacity, MAX_BYTES_IN_FLIGHT, Responder},
};
use tokio_util::sync::CancellationToken;

use crate::libp2p::socket_address;

/// The network of the hub and of everybody around it.
const NETWORK: &str = "hostile-v1";

/// Where to attack.
#[derive(Clone, Debug)]
pub struct Target {
    /// The WebSocket port.
    pub ws: SocketAddr,
    /// The libp2p port, with `/p2p/ID`.
    pub p2p: String,
    /// The names and bounds that it uses.
    pub profile: &'static NetworkProfile,
    /// Its network.
    pub network: NetworkId,
}

impl Target {
    /// A node in the `tandem` profile, on the network of [`hub`].
    ///
    /// # Panics
    ///
    /// Never: the network has a good name.
    #[must_use]
    pub fn new(ws: SocketAddr, p2p: String) -> Self {
        let network = NetworkId::new(NETWORK).expect("the name is a short path segment");
        Self::of(ws, p2p, &NetworkProfile::TANDEM, network)
    }

    /// A node of any network.
    #[must_use]
    pub const fn of(
        ws: SocketAddr,
        p2p: String,
        profile: &'static NetworkProfile,
        network: NetworkId,
    ) -> Self {
        Self { ws, p2p, profile, network }
    }

    pub(super) fn p2p_socket(&self) -> io::Result<SocketAddr> {
        let address: Multiaddr = self.p2p.parse().map_err(io::Error::other)?;
        socket_address(&address).ok_or_else(|| io::Error::other("not an address of TCP over IPv4"))
    }
}

/// Starts a hybrid relay as `tandem run` does, with every limit as shipped, but that addresses of this machine
/// count like any others. It judges nothing, and passes block requests on.
///
/// # Errors
///
/// [`StartError`].
///
/// # Panics
///
/// Never: the node listens on both of its sides.
pub async fn hub(parent: &CancellationToken) -> Result<(Running, Target), StartError> {
    hub_with(parent, |builder| builder).await
}

/// [`hub`], as `built` changes it.
///
/// # Errors
///
/// [`StartError`].
///
/// # Panics
///
/// If it is changed so that it does not listen on both of its sides.
pub async fn hub_with(
    parent: &CancellationToken,
    built: impl FnOnce(NodeBuilder) -> NodeBuilder,
) -> Result<(Running, Target), StartError> {
    let inbound = InboundLimits::default().with_loopback(LoopbackRule::Counted);
    let late = LateNode::default();
    let proxy = BlockProxy::new(late.clone(), BlockProxyLimits::default());
    let responder = Responder::new(Capacity::new(MAX_BYTES_IN_FLIGHT)).proxy(proxy);
    let network = NetworkId::new(NETWORK).expect("the name is a short path segment");
    let builder = NodeBuilder::new(network)
        .relaying(Relaying::Accepted)
        .inbound_limits(inbound)
        .handler(Tag::UE, responder)
        .late_node(&late);
    let running = built(builder).start(parent).await?;
    let ws = running.ws_url().and_then(|url| url.strip_prefix("http://")?.parse().ok());
    let p2p = running.p2p_addresses().into_iter().next();
    let target = Target::new(ws.expect("it has a URL"), p2p.expect("it has an address"));
    Ok((running, target))
}
