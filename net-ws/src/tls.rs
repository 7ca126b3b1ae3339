//! The identity of this node towards clients that come over TLS.
//!
//! # Invariants
//!
//! * What is wrong with a file is said when it is loaded, before anything listens.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::ring,
        pki_types::{
            PrivateKeyDer,
            pem::{self, PemObject},
        },
    },
};

use crate::certificates::{CertificateError, read_certificates};

/// The only protocol that is spoken inside of TLS.
const HTTP: &[u8] = b"http/1.1";

/// Why TLS cannot be used as configured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// There are no certificates to be read.
    #[error(transparent)]
    Certificates(#[from] CertificateError),
    /// The file of the key cannot be read.
    #[error("cannot read the private key in {}", path.display())]
    UnreadableKey {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A file has no private key in it.
    #[error("{} holds no private key in PEM", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key do not belong together, or cannot be used.
    #[error("{} and {} cannot be used together", cert.display(), key.display())]
    Unusable {
        /// The file of the certificates.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// The fault.
        source: rustls::Error,
    },
}

/// Certificates and key of a node, for clients that come over TLS.
#[derive(Clone)]
pub struct TlsIdentity {
    config: Arc<ServerConfig>,
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity").finish_non_exhaustive()
    }
}

impl TlsIdentity {
    /// Loads a chain of certificates, the node's own first, and the key of it, both in PEM form.
    ///
    /// # Errors
    ///
    /// [`TlsError`], which names the file.
    pub fn load(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let chain = read_certificates(cert)?;
        let private = PrivateKeyDer::from_pem_file(key).map_err(|error| match error {
            pem::Error::Io(source) => TlsError::UnreadableKey { path: key.to_owned(), source },
            _ => TlsError::NoKey { path: key.to_owned() },
        })?;
        let unusable =
            |source| TlsError::Unusable { cert: cert.to_owned(), key: key.to_owned(), source };
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .map_err(unusable)?;
        config.alpn_protocols = vec![HTTP.to_vec()];
        Ok(Self { config: Arc::new(config) })
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }
}
