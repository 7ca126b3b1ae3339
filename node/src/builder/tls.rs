//! The certificates of a node, for both of its sides.
//!
//! # Invariants
//!
//! * A certificate is loaded once, and both sides share it: they use the same one at any time.

use std::path::PathBuf;

use net_tcp::{
    CertificateDer,
    tls::{TlsIdentity, read_certificates},
};

use super::NodeBuilder;
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

/// The files of all certificates.
#[derive(Debug, Default)]
pub(super) struct TlsSide {
    /// Those for clients of this node.
    own: Option<TlsFiles>,
    /// The authorities whose signature clients need.
    client_roots: Option<PathBuf>,
    /// The authorities of servers.
    roots: Option<PathBuf>,
    /// Those for servers that ask for one.
    client: Option<TlsFiles>,
}

/// The certificates of a node that starts.
#[derive(Clone, Debug)]
pub(super) struct Certificates {
    pub(super) own: Option<TlsIdentity>,
    pub(super) client: Option<TlsIdentity>,
    pub(super) roots: Vec<CertificateDer<'static>>,
}

impl TlsSide {
    /// Returns `true` if the node has a certificate for those who dial it.
    #[cfg(feature = "websocket")]
    pub(super) const fn has_own(&self) -> bool {
        self.own.is_some()
    }

    /// Reads all files.
    pub(super) fn load(&self) -> Result<Certificates, StartError> {
        let own = match (&self.own, &self.client_roots) {
            (Some(TlsFiles { cert, key }), Some(authorities)) => {
                Some(TlsIdentity::load_demanding(cert, key, authorities)?)
            }
            (files, _) => identity(files.as_ref())?,
        };
        let client = identity(self.client.as_ref())?;
        let roots = self.roots.as_ref().map(|path| read_certificates(path)).transpose()?;
        Ok(Certificates { own, client, roots: roots.unwrap_or_default() })
    }
}

/// The certificate in these files, if there are any.
fn identity(files: Option<&TlsFiles>) -> Result<Option<TlsIdentity>, StartError> {
    files.map(|files| Ok(TlsIdentity::load(&files.cert, &files.key)?)).transpose()
}

impl NodeBuilder {
    /// Sets the files for HTTPS on the WebSocket port, which goes on to speak plain HTTP too, and for secure WebSockets of
    /// the libp2p side. Default: none, no TLS with those who dial this node.
    pub fn tls(mut self, files: TlsFiles) -> Self {
        (self.tls.own, self.tls.client_roots) = (Some(files), None);
        self
    }

    /// Sets the files for TLS on the WebSocket port, and a PEM file of the certificate authorities of which every peer and
    /// caller needs a certificate. Connections without TLS are refused then, except those of trusted proxies that name
    /// their clients in a header. Default: none, clients need no certificate.
    pub fn tls_demanding(mut self, files: TlsFiles, authorities: impl Into<PathBuf>) -> Self {
        (self.tls.own, self.tls.client_roots) = (Some(files), Some(authorities.into()));
        self
    }

    /// Sets a PEM file of certificates to trust, besides those of the system, when dialling peers and calling others over
    /// TLS. Default: none.
    pub fn tls_roots(mut self, path: impl Into<PathBuf>) -> Self {
        self.tls.roots = Some(path.into());
        self
    }

    /// Sets the certificate and key to present to peers that ask for a client certificate. Default: none.
    pub fn tls_client(mut self, files: TlsFiles) -> Self {
        self.tls.client = Some(files);
        self
    }
}
