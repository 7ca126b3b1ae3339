//! The WebSocket side of a node: what the builder is told of it, and the network that comes of it.

use std::{path::PathBuf, sync::Arc};

use gossip::NodeAddress;
use net_ws::{TlsIdentity, WsConfig};

use crate::{builder::NodeBuilder, error::StartError, network::Lent};

/// Certificates and the key to them, for HTTPS on the WebSocket port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificates, the node's own first, in PEM.
    pub cert: PathBuf,
    /// The key to the first one, in PEM.
    pub key: PathBuf,
}

/// What the builder was told of the WebSocket side.
#[derive(Debug)]
pub(crate) struct WsSide {
    /// Where to listen; `None` for nowhere.
    pub(crate) listen: Option<String>,
    public_address: Option<NodeAddress>,
    tls: Option<TlsFiles>,
    tls_roots: Option<PathBuf>,
}

impl Default for WsSide {
    fn default() -> Self {
        let listen = Some("127.0.0.1:0".to_owned());
        Self { listen, public_address: None, tls: None, tls_roots: None }
    }
}

impl WsSide {
    /// Checks the files of keys and certificates.
    pub(crate) fn check(&self) -> Result<(), StartError> {
        if let Some(files) = &self.tls {
            TlsIdentity::load(&files.cert, &files.key)?;
        }
        if let Some(path) = &self.tls_roots {
            net_ws::read_certificates(path)?;
        }
        Ok(())
    }
}

impl NodeBuilder {
    /// Listens for WebSocket peers on `host:port`; port 0 picks a free one.
    pub fn listen_ws(mut self, address: impl Into<String>) -> Self {
        self.ws.listen = Some(address.into());
        self
    }

    /// Tells others that they reach the WebSocket side of this node at an address.
    pub fn public_address(mut self, address: NodeAddress) -> Self {
        self.ws.public_address = Some(address);
        self
    }

    /// Serves HTTPS too, on the WebSocket port.
    pub fn tls(mut self, files: TlsFiles) -> Self {
        self.ws.tls = Some(files);
        self
    }

    /// Trusts the certificates of a PEM file too, besides those of the system, when calling others.
    pub fn tls_roots(mut self, path: impl Into<PathBuf>) -> Self {
        self.ws.tls_roots = Some(path.into());
        self
    }

    /// What the WebSocket network of the node is made of.
    pub(crate) fn ws_config(&self, lent: &Lent) -> Result<WsConfig, StartError> {
        let web_socket = |address: &&NodeAddress| matches!(address, NodeAddress::WebSocket(_));
        Ok(WsConfig {
            listen: self.ws.listen.clone(),
            public_address: self.ws.public_address.as_ref().map(NodeAddress::phonebook_entry),
            peers: self.peers.iter().filter(web_socket).cloned().collect(),
            identity: Some(Arc::new(lent.key.clone())),
            door: lent.door.clone(),
            dial: self.dial,
            http_server: lent.http_server.clone(),
            clients: Some(lent.clients.clone()),
            tls: match &self.ws.tls {
                Some(files) => Some(TlsIdentity::load(&files.cert, &files.key)?),
                None => None,
            },
            tls_roots: match &self.ws.tls_roots {
                Some(path) => net_ws::read_certificates(path)?,
                None => Vec::new(),
            },
            ..WsConfig::new(self.network.clone())
        })
    }
}
