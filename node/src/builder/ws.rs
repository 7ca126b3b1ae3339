//! The WebSocket side of a node: its settings in the builder, and the network that is made from them.

use std::{path::PathBuf, sync::Arc};

use gossip::{NodeAddress, PriorityScheme};
use net_ws::{ProxyRules, TlsIdentity, WsConfig};

use super::{NodeBuilder, networks::Lent};
use crate::error::StartError;

/// The files of a certificate and its key. They are read when the node starts, and again every ten seconds and when
/// [`View::reload_certificates`](crate::View::reload_certificates) asks for it: a renewed certificate is used for new connections, and one that cannot be used is told in the log,
/// the metrics and by [`Trouble::CertificateStale`](crate::Trouble::CertificateStale), while the old one stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// File of the certificates in PEM: the node's own first, which must not be an authority's, then those that lead to
    /// an authority.
    pub cert: PathBuf,
    /// File of the private key to the first certificate, in PEM.
    pub key: PathBuf,
}

/// The settings of the WebSocket side.
#[derive(Debug)]
pub(super) struct WsSide {
    /// Where to listen; `None` for nowhere.
    pub(super) listen: Option<String>,
    public_address: Option<NodeAddress>,
    tls: Option<TlsFiles>,
    /// The authorities whose signature clients need.
    tls_client_roots: Option<PathBuf>,
    tls_roots: Option<PathBuf>,
    tls_client: Option<TlsFiles>,
    priority: Option<Arc<dyn PriorityScheme>>,
    proxies: ProxyRules,
}

impl Default for WsSide {
    fn default() -> Self {
        let listen = Some("127.0.0.1:0".to_owned());
        Self {
            listen,
            public_address: None,
            tls: None,
            tls_client_roots: None,
            tls_roots: None,
            tls_client: None,
            priority: None,
            proxies: ProxyRules::default(),
        }
    }
}

impl WsSide {
    /// Checks the files of keys and certificates.
    pub(super) fn check(&self) -> Result<(), StartError> {
        self.listener_tls()?;
        load(self.tls_client.as_ref())?;
        if let Some(path) = &self.tls_roots {
            net_ws::read_certificates(path)?;
        }
        Ok(())
    }

    /// The certificate of the listener, if it has one.
    fn listener_tls(&self) -> Result<Option<TlsIdentity>, StartError> {
        match (&self.tls, &self.tls_client_roots) {
            (Some(TlsFiles { cert, key }), Some(authorities)) => {
                Ok(Some(TlsIdentity::load_demanding(cert, key, authorities)?))
            }
            (files, _) => load(files.as_ref()),
        }
    }
}

/// The certificate in these files, if there are any.
fn load(files: Option<&TlsFiles>) -> Result<Option<TlsIdentity>, StartError> {
    files.map(|files| Ok(TlsIdentity::load(&files.cert, &files.key)?)).transpose()
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

    /// Sets the files for HTTPS on the WebSocket port, which goes on to speak plain HTTP too. Default: none, no HTTPS.
    pub fn tls(mut self, files: TlsFiles) -> Self {
        (self.ws.tls, self.ws.tls_client_roots) = (Some(files), None);
        self
    }

    /// Sets the files for TLS on the WebSocket port, and a PEM file of the certificate authorities of which every peer and
    /// caller needs a certificate. Connections without TLS are refused then, except those of trusted proxies that name
    /// their clients in a header. Default: none, clients need no certificate.
    pub fn tls_demanding(mut self, files: TlsFiles, authorities: impl Into<PathBuf>) -> Self {
        (self.ws.tls, self.ws.tls_client_roots) = (Some(files), Some(authorities.into()));
        self
    }

    /// Sets a PEM file of certificates to trust, besides those of the system, when dialling peers and calling others over
    /// TLS. Default: none.
    pub fn tls_roots(mut self, path: impl Into<PathBuf>) -> Self {
        self.ws.tls_roots = Some(path.into());
        self
    }

    /// Sets the certificate and key to present to peers that ask for a client certificate. Default: none.
    pub fn tls_client(mut self, files: TlsFiles) -> Self {
        self.ws.tls_client = Some(files);
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
        config.http_server = lent.http_server.clone();
        config.clients = Some(lent.clients.clone());
        (config.tls, config.tls_client) =
            (self.ws.listener_tls()?, load(self.ws.tls_client.as_ref())?);
        config.tls_roots = match &self.ws.tls_roots {
            Some(path) => net_ws::read_certificates(path)?,
            None => Vec::new(),
        };
        config.priority = self.ws.priority.clone();
        Ok(config)
    }
}
