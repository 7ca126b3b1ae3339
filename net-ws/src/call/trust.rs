//! The certificates that this node believes: those of the system, and those it was given.
//!
//! # Invariants
//!
//! * The certificates of the system are read when the first connection asks for TLS, and once.
//! * Reading them blocks, so it has a thread to itself: a file system that stands still costs this one
//!   thread, and calls over TLS their deadline.

use std::sync::{Arc, OnceLock};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::task;
use tokio_rustls::rustls::{
    self, ClientConfig, RootCertStore, crypto::ring, pki_types::CertificateDer,
};

/// The certificates that are believed.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    more: Vec<CertificateDer<'static>>,
    loading: OnceLock<Loading>,
}

/// Reading of the certificates, which any number of connections wait for.
type Loading = Shared<BoxFuture<'static, Result<Arc<ClientConfig>, TrustError>>>;

/// Why no certificate can be judged.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum TrustError {
    /// A certificate that this node was given cannot be used.
    #[error("a certificate that this node was given to believe cannot be used")]
    Unusable(#[from] rustls::Error),
    /// The runtime ended while they were read.
    #[error("the certificates of the system were not read to the end")]
    Stopped,
}

impl Trust {
    /// Believes `more` besides the system's certificates.
    pub(crate) const fn new(more: Vec<CertificateDer<'static>>) -> Self {
        Self { more, loading: OnceLock::new() }
    }

    /// The settings of TLS connections.
    ///
    /// # Cancel safety
    ///
    /// Safe: the reading goes on, and the next caller gets its outcome.
    pub(crate) async fn config(&self) -> Result<Arc<ClientConfig>, TrustError> {
        self.loading.get_or_init(|| loading(self.more.clone())).clone().await
    }
}

fn loading(more: Vec<CertificateDer<'static>>) -> Loading {
    let reading = task::spawn_blocking(|| load(more));
    async { reading.await.map_err(|_ended| TrustError::Stopped)? }.boxed().shared()
}

fn load(more: Vec<CertificateDer<'static>>) -> Result<Arc<ClientConfig>, TrustError> {
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
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
