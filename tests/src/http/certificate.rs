//! The certificate of a test's servers, and the settings of clients that trust it.

use std::{fs, path::PathBuf, sync::Arc};

use tandem::TlsFiles;
use tempfile::TempDir;
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::CertificateDer},
};

/// A self-signed certificate for this machine, and its key, in a folder of their own.
#[derive(Debug)]
pub struct Certificate {
    folder: TempDir,
    der: CertificateDer<'static>,
}

impl Certificate {
    /// Generates a certificate.
    ///
    /// # Panics
    ///
    /// If it cannot be generated or written.
    #[must_use]
    pub fn generate() -> Self {
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate is made");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write = |name, text: String| {
            fs::write(folder.path().join(name), text).expect("a file can be written");
        };
        write("cert.pem", made.cert.pem());
        write("key.pem", made.signing_key.serialize_pem());
        Self { der: made.cert.der().clone(), folder }
    }

    /// The files for a server. Clients use the certificate as a root.
    #[must_use]
    pub fn files(&self) -> TlsFiles {
        TlsFiles { cert: self.root(), key: self.folder.path().join("key.pem") }
    }

    /// The certificate as a root for clients.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    /// Makes TLS connections to servers with this certificate.
    ///
    /// # Panics
    ///
    /// Never: the certificate is valid.
    #[must_use]
    pub fn connector(&self) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("it is a certificate");
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider knows the protocol")
            .with_root_certificates(roots)
            .with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    }
}
