//! TLS 1.3 as libp2p has it: both ends show a certificate, and no name is asked for.
//!
//! # Invariants
//!
//! * Every configuration names ring as its source of cryptography. The process has no default that could be another.
//! * Only TLS 1.3 is spoken. No session is resumed, so that every connection proves the peer's key.
//! * A refused certificate is counted here, for every transport that uses TLS.

use std::sync::Arc;

use libp2p::{PeerId, core::Endpoint, identity::Keypair};
use tokio_rustls::{
    TlsAcceptor, TlsConnector, TlsStream,
    rustls::{
        self, CertificateError as Refused, ClientConfig, DigitallySignedStruct, DistinguishedName,
        OtherError, ServerConfig, SignatureScheme,
        client::{
            Resumption,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        },
        crypto::{CryptoProvider, ring, verify_tls13_signature_with_raw_key},
        pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
        server::danger::{ClientCertVerified, ClientCertVerifier},
        version::TLS13,
    },
};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};

use super::certificate::{self, CertificateError, MakeError, Own};
use crate::{
    metrics::{P2pEvent, P2pMetrics},
    muxer::Wire,
};

/// The protocol of libp2p in ALPN. Source: libp2p specifications, `tls/tls.md`.
pub(crate) const ALPN: &[u8] = b"libp2p";

/// A secured byte stream.
pub(crate) type Stream<C> = Compat<TlsStream<Compat<C>>>;

/// The reason why there is no configuration of TLS.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    #[error(transparent)]
    Certificate(#[from] MakeError),
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
}

/// The reason why a stream was not secured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("the TLS handshake failed")]
    Handshake(#[source] std::io::Error),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

impl TlsError {
    /// Returns `true` if the peer's certificate was refused, which the verifier has counted.
    pub(crate) fn is_certificate(&self) -> bool {
        let Self::Handshake(error) = self else { return true };
        let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        matches!(error, Some(rustls::Error::InvalidCertificate(_)))
    }
}

/// The two configurations of a node's TLS.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Tls {
    /// TLS with a certificate for `key`, offering `protocols` by ALPN in the order of preference.
    ///
    /// # Errors
    ///
    /// [`SetupError`]; never with an Ed25519 key.
    pub(crate) fn new(
        key: &Keypair,
        protocols: &[&[u8]],
        metrics: &P2pMetrics,
    ) -> Result<Self, SetupError> {
        Self::with(certificate::make(key)?, protocols, metrics)
    }

    /// The same with a given certificate.
    pub(crate) fn with(
        own: Own,
        protocols: &[&[u8]],
        metrics: &P2pMetrics,
    ) -> Result<Self, SetupError> {
        let provider = Arc::new(ring::default_provider());
        let verifier =
            Arc::new(Verifier { provider: Arc::clone(&provider), metrics: metrics.clone() });
        let protocols: Vec<_> = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let chain = vec![own.certificate];
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as _)
            .with_client_auth_cert(chain.clone(), own.key.clone_key())?;
        client.alpn_protocols.clone_from(&protocols);
        client.resumption = Resumption::disabled();
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, own.key)?;
        server.alpn_protocols = protocols;
        server.send_tls13_tickets = 0;
        Ok(Self { client: Arc::new(client), server: Arc::new(server) })
    }

    /// The configuration of the end that dials.
    #[cfg(feature = "quic")]
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.client)
    }

    /// The configuration of the end that listens.
    #[cfg(feature = "quic")]
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// Secures `stream`. Returns the peer, the stream, and the protocol that was agreed on by ALPN.
    ///
    /// # Cancel safety
    ///
    /// Not safe: a dropped future drops the stream.
    pub(crate) async fn secure<C: Wire>(
        self,
        stream: C,
        end: Endpoint,
    ) -> Result<(PeerId, Stream<C>, Option<Vec<u8>>), TlsError> {
        let stream = stream.compat();
        let stream = match end {
            Endpoint::Dialer => {
                // An address as the name keeps the client from sending one. Source: `tls/tls.md`.
                let name = ServerName::from(std::net::IpAddr::from([0, 0, 0, 0]));
                let connected = TlsConnector::from(self.client).connect(name, stream).await;
                TlsStream::Client(connected.map_err(TlsError::Handshake)?)
            }
            Endpoint::Listener => {
                let accepted = TlsAcceptor::from(self.server).accept(stream).await;
                TlsStream::Server(accepted.map_err(TlsError::Handshake)?)
            }
        };
        let (_, session) = stream.get_ref();
        let peer = peer_of(session.peer_certificates().unwrap_or_default())?;
        let agreed = session.alpn_protocol().map(<[u8]>::to_vec);
        Ok((peer, stream.compat(), agreed))
    }
}

/// The peer that a session's certificates name. The verifier has checked them.
pub(crate) fn peer_of(certificates: &[CertificateDer<'_>]) -> Result<PeerId, CertificateError> {
    let proven = certificate::check(certificates, UnixTime::now())?;
    Ok(proven.key.to_peer_id())
}

/// Checks the certificates of peers, at both ends of a connection.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    metrics: P2pMetrics,
}

impl Verifier {
    fn check(
        &self,
        first: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let chain: Vec<_> = std::iter::once(first).chain(rest).cloned().collect();
        certificate::check(&chain, now).map(drop).map_err(|error| {
            self.metrics.note(P2pEvent::CertificateRefused);
            tracing::debug!(%error, "refusing a peer");
            rustls::Error::InvalidCertificate(Refused::Other(OtherError(Arc::new(error))))
        })
    }

    fn check_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let proven = certificate::check(std::slice::from_ref(certificate), UnixTime::now());
        let proven = proven.map_err(|error| {
            rustls::Error::InvalidCertificate(Refused::Other(OtherError(Arc::new(error))))
        })?;
        let key = SubjectPublicKeyInfoDer::from(proven.certified);
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key, signature, algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The error for TLS 1.2, which is not spoken.
fn too_old<T>() -> Result<T, rustls::Error> {
    Err(rustls::PeerIncompatible::Tls13RequiredForQuic.into())
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        first: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(first, rest, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        too_old()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        first: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(first, rest, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        too_old()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}
