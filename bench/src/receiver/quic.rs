//! The QUIC side of the receivers: a client of bare quinn with a certificate of libp2p, and one stream.

use std::{net::SocketAddr, sync::Arc};

use libp2p::{Multiaddr, PeerId, identity::Keypair, multiaddr::Protocol};
use quinn::{
    ClientConfig, Connection, Endpoint, RecvStream, SendStream, ServerConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, PublicKeyData as _};
use runtime::TaskSet;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Join, join};
use tokio_rustls::rustls::{
    self, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring},
    version::TLS13,
};
use tokio_util::compat::TokioAsyncReadCompatExt;

use super::p2p::{Opening, PROTOCOL, exchange};
use crate::error::Failure;

/// Both directions of a stream.
pub(crate) type Duplex = Join<RecvStream, SendStream>;

/// The name of libp2p in the handshake of TLS. Source: libp2p specifications, `quic/README.md`.
const ALPN: &[u8] = b"libp2p";

/// The extension with the key of the node. Source: libp2p specifications, `tls/tls.md`.
const EXTENSION: &[u64] = &[1, 3, 6, 1, 4, 1, 53_594, 1, 1];

/// The text in front of the key that is signed. Source: the same.
const SIGNED_PREFIX: &[u8] = b"libp2p-tls-handshake:";

/// The first line of every stream of libp2p, and of the answer. Source: multistream-select 1.0.
const MULTISTREAM: &str = "/multistream/1.0.0\n";

/// The identity of a node, and the socket that it has for QUIC.
pub(crate) fn place(address: &str) -> Result<(PeerId, SocketAddr), Failure> {
    let address: Multiaddr = address.parse()?;
    let parts: Vec<_> = address.iter().collect();
    let [Protocol::Ip4(ip), Protocol::Udp(port), .., Protocol::P2p(id)] = parts[..] else {
        return Err("the node's address is none of QUIC".into());
    };
    Ok((id, (ip, port).into()))
}

/// Connects a receiver with this key, and opens its gossip stream.
pub(crate) async fn connect(
    key: &Keypair,
    address: SocketAddr,
    opening: Opening<'_>,
    tasks: &TaskSet,
) -> Result<Duplex, Failure> {
    let connection = dial(key, address).await?;
    let (send, receive) = connection.open_bi().await?;
    let mut io = join(receive, send);
    if let Opening::Headers { genesis } = opening {
        select(&mut io, PROTOCOL.as_ref()).await?;
        let mut compat = io.compat();
        exchange(&mut compat, genesis).await?;
        io = compat.into_inner();
    }
    tasks.spawn("refusals", |cancel| refuse(connection, cancel));
    Ok(io)
}

/// Takes every stream that the other end opens, and drops it.
async fn refuse(connection: Connection, cancel: tokio_util::sync::CancellationToken) {
    while let Some(Ok(stream)) = cancel.run_until_cancelled(connection.accept_bi()).await {
        drop(stream);
    }
}

async fn dial(key: &Keypair, address: SocketAddr) -> Result<Connection, Failure> {
    let endpoint = Endpoint::client("127.0.0.1:0".parse()?)?;
    Ok(endpoint.connect_with(client(key)?, address, "127.0.0.1")?.await?)
}

/// Has the other end agree on a protocol.
async fn select(io: &mut Duplex, protocol: &str) -> Result<(), Failure> {
    let mut lines = Vec::new();
    for line in [MULTISTREAM, &format!("{protocol}\n")] {
        lines.push(u8::try_from(line.len())?);
        lines.extend_from_slice(line.as_bytes());
    }
    io.write_all(&lines).await?;
    let mut answer = vec![0; lines.len()];
    io.read_exact(&mut answer).await?;
    if answer == lines { Ok(()) } else { Err("the node does not gossip on the stream".into()) }
}

/// The settings of an end that takes every client, with any certificate.
pub(crate) fn server() -> Result<ServerConfig, Failure> {
    let (certificate, key) = certificate(&Keypair::generate_ed25519())?;
    let mut config =
        rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(config)?)))
}

fn client(key: &Keypair) -> Result<ClientConfig, Failure> {
    let (certificate, key) = certificate(key)?;
    let provider = Arc::new(ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_client_auth_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(ClientConfig::new(Arc::new(QuicClientConfig::try_from(config)?)))
}

/// A certificate of libp2p.
fn certificate(
    key: &Keypair,
) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), Failure> {
    let certified = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let signed = [SIGNED_PREFIX, &certified.subject_public_key_info()].concat();
    let content = [octets(&key.public().encode_protobuf())?, octets(&key.sign(&signed)?)?].concat();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let extension = [&[0x30, u8::try_from(content.len())?], &content[..]].concat();
    params.custom_extensions.push(CustomExtension::from_oid_content(EXTENSION, extension));
    let certificate = params.self_signed(&certified)?.der().clone();
    Ok((certificate, PrivatePkcs8KeyDer::from(certified.serialize_der()).into()))
}

/// A string of bytes in DER; the key and the signature of Ed25519 have fewer than 128.
fn octets(bytes: &[u8]) -> Result<Vec<u8>, Failure> {
    Ok([&[0x04, u8::try_from(bytes.len())?], bytes].concat())
}

/// Takes every server: both ends are in this process.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 is spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
