//! Whose certificates are believed.
//!
//! # Invariants
//!
//! * The certificates of the system are read when the first address asks for TLS, and once.

use std::sync::{Arc, OnceLock};

use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::CertificateDer};

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
