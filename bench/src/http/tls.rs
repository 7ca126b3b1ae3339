//! A self-signed certificate for loopback, generated for each measurement, and TLS settings for both ends.

use std::{fs, sync::Arc};

use net_ws::TlsIdentity;
use rcgen::{CertifiedKey, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::error::Failure;

/// The name in the certificate.
pub(super) const NAME: &str = "127.0.0.1";

/// A self-signed certificate and its key.
pub(super) struct Certificate {
    certificate: CertificateDer<'static>,
    pem: String,
    key: KeyPair,
}

impl Certificate {
    /// Generates a certificate.
    pub(super) fn generate() -> Result<Self, Failure> {
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(vec![NAME.to_owned()])?;
        Ok(Self { certificate: cert.der().clone(), pem: cert.pem(), key: signing_key })
    }

    /// The certificate without its key.
    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The certificate as the identity of a node, which is loaded from files.
    pub(super) fn identity(&self) -> Result<TlsIdentity, Failure> {
        let dir = tempfile::tempdir()?;
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        fs::write(&cert, &self.pem)?;
        fs::write(&key, self.key.serialize_pem())?;
        Ok(TlsIdentity::load(&cert, &key)?)
    }

    /// TLS settings of a server with this certificate.
    pub(super) fn server_config(&self) -> Result<ServerConfig, Failure> {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], key)?;
        Ok(config)
    }

    /// TLS settings of a client that trusts only this certificate.
    pub(super) fn client_config(&self) -> Result<ClientConfig, Failure> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(config)
    }
}
