//! Certificate and key of this node for TLS connections.
//!
//! # Invariants
//!
//! * An unusable file is an error when it is loaded, before anything listens.

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

/// The only protocol offered by ALPN: HTTP/1.1.
const HTTP: &[u8] = b"http/1.1";

/// The reason why certificate and key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The certificates could not be read.
    #[error(transparent)]
    Certificates(#[from] CertificateError),
    /// The file of the key could not be read.
    #[error("cannot read the private key in {}", path.display())]
    UnreadableKey {
        /// Path of the file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The file of the key contains no private key.
    #[error("{} holds no private key in PEM", path.display())]
    NoKey {
        /// Path of the file.
        path: PathBuf,
    },
    /// Certificate and key do not match, or their kind is not supported.
    #[error("{} and {} cannot be used together", cert.display(), key.display())]
    Unusable {
        /// Path of the file with the certificates.
        cert: PathBuf,
        /// Path of the file with the key.
        key: PathBuf,
        /// The error of the TLS library.
        source: rustls::Error,
    },
}

/// Certificate chain and private key that this node presents to TLS clients.
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
    /// Loads a certificate chain, the node's own certificate first, and its private key, both in PEM form.
    /// Blocks on the file system.
    ///
    /// # Errors
    ///
    /// [`TlsError`]; it names the file.
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

    /// The acceptor for inbound TLS connections.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }
}
