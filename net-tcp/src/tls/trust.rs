//! The settings of TLS connections that this node opens: the certificate authorities it trusts, those of the system and
//! those of its configuration, and the certificate it presents where a server wants one.
//!
//! # Invariants
//!
//! * The certificates of the system are read when the first connection asks for TLS, and once.
//! * Reading them blocks, so it has a thread to itself. If the file system hangs, that thread hangs, and calls
//!   over TLS end at their deadline; nothing else is held up.

use std::sync::{Arc, OnceLock};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::task;
use tokio_rustls::rustls::{
    self, ClientConfig, RootCertStore, crypto::ring, pki_types::CertificateDer,
};

use super::{HTTP, identity::TlsIdentity};

/// The trusted certificate authorities, read on first use.
#[derive(Debug, Default)]
pub struct Trust {
    more: Vec<CertificateDer<'static>>,
    /// The certificate that this node presents to servers that ask for one.
    client: Option<TlsIdentity>,
    loading: OnceLock<Loading>,
}

/// The one read of the system's certificates, shared by every connection that waits for it.
type Loading = Shared<BoxFuture<'static, Result<Arc<ClientConfig>, TrustError>>>;

/// The reason why no certificate can be verified.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TrustError {
    /// A configured root certificate cannot be used.
    #[error("a configured root certificate cannot be used")]
    Unusable(#[from] rustls::Error),
    /// The runtime ended before the certificates were read.
    #[error("the runtime ended before the certificates of the system were read")]
    Stopped,
}

impl Trust {
    /// Trusts the certificates in `more` as well as the system's, and presents `client` to servers that ask.
    #[must_use]
    pub const fn new(more: Vec<CertificateDer<'static>>, client: Option<TlsIdentity>) -> Self {
        Self { more, client, loading: OnceLock::new() }
    }

    /// The certificate that this node presents to servers; `None` if it has none.
    pub const fn client(&self) -> Option<&TlsIdentity> {
        self.client.as_ref()
    }

    /// Returns the settings of TLS connections, after the first call has read the system's certificates.
    ///
    /// # Errors
    ///
    /// [`TrustError`] when no certificate can be verified.
    ///
    /// # Cancel safety
    ///
    /// Safe: the read continues without the caller, and the next caller gets its result.
    pub async fn config(&self) -> Result<Arc<ClientConfig>, TrustError> {
        let loading = || loading(self.more.clone(), self.client.clone());
        self.loading.get_or_init(loading).clone().await
    }
}

fn loading(more: Vec<CertificateDer<'static>>, client: Option<TlsIdentity>) -> Loading {
    let reading = task::spawn_blocking(|| load(more, client));
    async { reading.await.map_err(|_ended| TrustError::Stopped)? }.boxed().shared()
}

fn load(
    more: Vec<CertificateDer<'static>>,
    client: Option<TlsIdentity>,
) -> Result<Arc<ClientConfig>, TrustError> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::debug!(%error, "a certificate of the system cannot be read");
    }
    roots.add_parsable_certificates(system.certs);
    for certificate in more {
        roots.add(certificate)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut config = match client {
        Some(client) => config.with_client_cert_resolver(client.resolver()),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![HTTP.to_vec()];
    Ok(Arc::new(config))
}
