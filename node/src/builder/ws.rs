//! The WebSocket side of a node: its settings in the builder, and the network that is made from them.

use std::sync::Arc;

use gossip::{NodeAddress, PriorityScheme};
use net_ws::{ProxyRules, WsConfig};

use super::{NodeBuilder, networks::Lent};
use crate::error::StartError;

/// The settings of the WebSocket side.
#[derive(Debug)]
pub(super) struct WsSide {
    /// Where to listen; `None` for nowhere.
    pub(super) listen: Option<String>,
    public_address: Option<NodeAddress>,
    priority: Option<Arc<dyn PriorityScheme>>,
    proxies: ProxyRules,
}

impl Default for WsSide {
    fn default() -> Self {
        let listen = Some("127.0.0.1:0".to_owned());
        Self { listen, public_address: None, priority: None, proxies: ProxyRules::default() }
    }
}

impl NodeBuilder {
    /// Sets the `host:port` on which WebSocket peers and callers over HTTP connect: all addresses of the name are bound,
    /// or the start fails. Port 0 picks a free one. Default: `127.0.0.1:0`.
    pub fn listen_ws(mut self, address: impl Into<String>) -> Self {
        self.ws.listen = Some(address.into());
        self
    }

    /// Sets the address that other nodes are told to reach this node's WebSocket side at. Default: none.
    pub fn public_address(mut self, address: NodeAddress) -> Self {
        self.ws.public_address = Some(address);
        self
    }

    /// Sets the scheme by which WebSocket peers prove what they weigh, and this node to them: the heavier is written to
    /// first, and is the last to give up its place. Default: none; no proof is asked for, and none is given.
    pub fn priority(mut self, scheme: impl PriorityScheme) -> Self {
        self.ws.priority = Some(Arc::new(scheme));
        self
    }

    /// Sets the proxies in front of the WebSocket port that are believed about their clients, so that limits on one host
    /// apply to the clients and not to the proxies. Default: none.
    pub fn proxies(mut self, proxies: ProxyRules) -> Self {
        self.ws.proxies = proxies;
        self
    }

    /// The configuration of the WebSocket network.
    pub(super) fn ws_config(&self, lent: &Lent) -> Result<WsConfig, StartError> {
        let web_socket = |address: &&NodeAddress| matches!(address, NodeAddress::WebSocket(_));
        let mut config = WsConfig::new(self.network.clone());
        config.listen = self.ws.listen.clone();
        config.public_address = self.ws.public_address.as_ref().map(NodeAddress::phonebook_entry);
        config.peers = self.peers.iter().filter(web_socket).cloned().collect();
        config.identity = Some(Arc::new(lent.key.clone()));
        config.door = lent.door.clone();
        config.proxies = self.ws.proxies.clone();
        config.page_origins = self.page_origins.clone();
        config.http_server = lent.http_server.clone();
        config.clients = Some(lent.clients.clone());
        config.tls = lent.certificates.own.clone();
        config.tls_client = lent.certificates.client.clone();
        config.tls_roots = lent.certificates.roots.clone();
        config.priority = self.ws.priority.clone();
        Ok(config)
    }
}
