//! Certificates that clients of the listener need: the authorities that have to have signed them.
//!
//! # Invariants
//!
//! * A client without a certificate of these authorities, or with one that has expired, gets no session.
//! * The authorities are replaced while the node listens; a session is verified with those of its beginning.

use std::sync::{Arc, Mutex, PoisonError};

use tokio_rustls::rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::ring,
    pki_types::{CertificateDer, UnixTime},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

/// Authorities that can verify client certificates.
#[derive(Debug)]
pub(super) struct Authorities(Arc<dyn ClientCertVerifier>);

impl Authorities {
    /// Verifies with these certificates.
    pub(super) fn of(
        certificates: Vec<CertificateDer<'static>>,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            roots.add(certificate)?;
        }
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        Ok(Self(verifier.build()?))
    }
}

/// The authorities in use.
#[derive(Debug)]
pub(super) struct CurrentAuthorities(Mutex<Authorities>);

impl CurrentAuthorities {
    pub(super) const fn new(first: Authorities) -> Self {
        Self(Mutex::new(first))
    }

    /// Verifies sessions that begin from now on with others.
    pub(super) fn replace(&self, others: Authorities) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = others;
    }

    fn current(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner).0)
    }
}

impl ClientCertVerifier for CurrentAuthorities {
    /// None: the names would outlive the authorities, and a client has one certificate for this node anyway.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.current().verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current().verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current().verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.current().supported_verify_schemes()
    }
}
