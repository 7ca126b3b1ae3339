//! Whose certificates are believed.
//!
//! # Invariants
//!
//! * The certificates of the system are read when the first address asks for TLS, and once.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem, pem::PemObject},
};

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The file cannot be read.
    #[error("cannot read the certificates in {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It holds no certificates.
    #[error("{} holds no certificates in PEM", path.display())]
    NoCertificates {
        /// The file.
        path: PathBuf,
    },
}

/// Reads the certificates of a PEM file, in their order.
///
/// # Errors
///
/// [`CertificateError`] when the file cannot be read or holds none.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let none = || CertificateError::NoCertificates { path: path.to_owned() };
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let certificates: Vec<_> = read.map_err(|error| match error {
        pem::Error::Io(source) => CertificateError::Read { path: path.to_owned(), source },
        _ => none(),
    })?;
    if certificates.is_empty() { Err(none()) } else { Ok(certificates) }
}

/// Whose certificates are believed: those that the system believes, and some more.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    more: Vec<CertificateDer<'static>>,
    config: OnceLock<Arc<ClientConfig>>,
}

impl Trust {
    /// Believes these too.
    pub(crate) const fn new(more: Vec<CertificateDer<'static>>) -> Self {
        Self { more, config: OnceLock::new() }
    }

    /// What a TLS connection is made with.
    pub(crate) fn config(&self) -> Result<Arc<ClientConfig>, tokio_rustls::rustls::Error> {
        if let Some(config) = self.config.get() {
            return Ok(Arc::clone(config));
        }
        let mut roots = RootCertStore::empty();
        let system = rustls_native_certs::load_native_certs();
        for error in &system.errors {
            tracing::debug!(%error, "a certificate of the system cannot be read");
        }
        roots.add_parsable_certificates(system.certs);
        for certificate in &self.more {
            roots.add(certificate.clone())?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::clone(self.config.get_or_init(|| Arc::new(config))))
    }
}
