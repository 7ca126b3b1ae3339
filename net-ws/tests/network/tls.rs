//! HTTPS on the port of gossip.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]
// A test that cannot go on has failed.
#![allow(clippy::unwrap_used)]

use std::{fs, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use crate::common::{
    self, Node, PATIENCE, Recipe,
    raw::{self, End, Raw},
    soon,
};
use gossip::{
    GossipNode, NetworkProfile, NodeAddress,
    http::{Caller, HttpAddressError, HttpError, HttpService, read_all},
};
use net_http::{HttpServer, ServeLimits};
use tandem_net_ws::{CertificateDer, CertificateError, TlsError, TlsIdentity, read_certificates};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName},
};

/// A certificate for `localhost` and its key, in files.
struct Files {
    _dir: TempDir,
    cert: PathBuf,
    key: PathBuf,
}

impl Files {
    fn new() -> Self {
        Self::with(rcgen::IsCa::NoCa)
    }

    fn with(is_ca: rcgen::IsCa) -> Self {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.is_ca = is_ca;
        let signing_key = rcgen::KeyPair::generate().unwrap();
        let cert = params.self_signed(&signing_key).unwrap();
        let made = rcgen::CertifiedKey { cert, signing_key };
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        fs::write(&cert, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        Self { _dir: dir, cert, key }
    }

    fn roots(&self) -> Vec<CertificateDer<'static>> {
        read_certificates(&self.cert).unwrap()
    }
}

async fn node(files: &Files) -> Node {
    let echo = async |caller: Caller, request: axum::extract::Request| {
        let path = request.uri().path().to_owned();
        let body = axum::body::to_bytes(request.into_body(), 10_000_000).await.unwrap();
        format!("{} {path} {}", caller.ip.unwrap(), body.len())
    };
    let service = HttpService::new(axum::Router::new().fallback(echo));
    let http_server = HttpServer::new(service, ServeLimits::default());
    let tls = TlsIdentity::load(&files.cert, &files.key).unwrap();
    let recipe = Recipe::new(&NetworkProfile::ALGORAND).listening().relaying();
    let recipe = recipe.with(|config| {
        config.http_server = Some(http_server);
        config.tls = Some(tls);
        config.tls_roots = files.roots();
    });
    recipe.start().await
}

async fn over_tls(address: SocketAddr, files: &Files) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(files.roots());
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    soon(TlsConnector::from(Arc::new(config)).connect(name, stream)).await.unwrap()
}

#[tokio::test]
async fn one_port_serves_http_and_https() {
    let files = Files::new();
    let node = node(&files).await;
    let port = node.address().port();
    for (scheme, host) in [("http", "127.0.0.1"), ("https", "localhost")] {
        let address: NodeAddress = format!("{scheme}://{host}:{port}/under").parse().unwrap();
        let client = node.network.http_client(&address).unwrap();
        for len in [0, 3, 3_000_000] {
            let request =
                http::Request::post("/this").body(http_body_util::Full::from(vec![7; len]));
            let answer = soon(client.send(request.unwrap())).await.unwrap();
            let body = soon(read_all(answer.into_body(), 1000)).await.unwrap();
            assert_eq!(body, format!("127.0.0.1 /under/this {len}"));
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn the_certificate_has_to_be_for_the_host() {
    let files = Files::new();
    let node = node(&files).await;
    let address: NodeAddress =
        format!("https://127.0.0.1:{}", node.address().port()).parse().unwrap();
    let client = node.network.http_client(&address).unwrap();
    let error = soon(client.get("/")).await.unwrap_err();
    assert_eq!(reason(error), "the certificate of 127.0.0.1 is for another name: localhost");
    let multiaddr: NodeAddress = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
    let error = node.network.http_client(&multiaddr).unwrap_err();
    assert!(matches!(error, HttpAddressError::OtherTransport { .. }), "{error:?}");
    node.stop().await;
}

// Issue 8, 21: the reason was `Other(OtherError(CaUsedAsEndEntity))`.
#[tokio::test]
async fn a_certificate_of_an_authority_is_refused_in_words() {
    let files = Files::with(rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained));
    let node = node(&files).await;
    let address: NodeAddress =
        format!("https://localhost:{}", node.address().port()).parse().unwrap();
    let error = soon(node.network.http_client(&address).unwrap().get("/")).await.unwrap_err();
    assert_eq!(
        reason(error),
        "the certificate of localhost is that of an authority (CaUsedAsEndEntity), as a plain openssl req -x509 makes it: \
         make one with -addext basicConstraints=critical,CA:FALSE"
    );
    node.stop().await;
}

/// The text of the error for a peer that could not be reached.
fn reason(error: HttpError) -> String {
    match error {
        HttpError::Unreachable { source } => source.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_certificate_has_to_be_signed_by_a_trusted_authority() {
    let node = node(&Files::new()).await;
    let other = Recipe::new(&NetworkProfile::ALGORAND).listening().start().await;
    let address: NodeAddress =
        format!("https://localhost:{}", node.address().port()).parse().unwrap();
    let error = soon(other.network.http_client(&address).unwrap().get("/")).await.unwrap_err();
    let reason = reason(error);
    assert!(reason.starts_with("the certificate of localhost is signed by nobody"), "{reason}");
    // The listener speaks no TLS, so there is no certificate to reject.
    let address: NodeAddress =
        format!("https://localhost:{}", other.address().port()).parse().unwrap();
    let error = soon(other.network.http_client(&address).unwrap().get("/")).await.unwrap_err();
    assert!(matches!(error, HttpError::Unreachable { .. }), "{error:?}");
    node.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn gossip_is_served_over_tls_too() {
    let files = Files::new();
    let node = node(&files).await;
    let mut stream = over_tls(node.address(), &files).await;
    stream.write_all(raw::gossip_request("X-Algorand-", "").as_bytes()).await.unwrap();
    node.until_peers(1).await;
    let mut got = Vec::new();
    while !got.windows(4).any(|window| window == b"\r\n\r\n") {
        assert_ne!(soon(stream.read_buf(&mut got)).await.unwrap(), 0, "{got:?}");
    }
    assert!(got.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&got));
    // A message, and then the peer's close frame.
    stream.write_all(&raw::masked(0x82, b"AVvote")).await.unwrap();
    common::until("the message", || {
        node.heard.all().iter().any(|message| &message.body[..] == b"vote")
    })
    .await;
    stream.write_all(&raw::masked(0x88, &1000_u16.to_be_bytes())).await.unwrap();
    node.until_peers(0).await;
    let ended = timeout(PATIENCE, stream.read_to_end(&mut got)).await;
    assert!(ended.is_ok());
    node.stop().await;
}

#[tokio::test]
async fn a_handshake_that_is_never_finished_ends_with_the_time_for_a_head() {
    let files = Files::new();
    let node = node(&files).await;
    let mut half = Raw::connect(node.address()).await;
    half.send(&[0x16, 3, 1]).await;
    let began = Instant::now();
    assert_eq!(half.read(Duration::from_secs(20)).await, End::Over);
    let took = began.elapsed().as_secs_f32();
    assert!((9.5..12.0).contains(&took), "{took}");
    node.stop().await;
}

#[tokio::test]
async fn without_a_certificate_tls_is_refused_as_no_http() {
    let node = Recipe::new(&NetworkProfile::ALGORAND).listening().start().await;
    let mut client = Raw::connect(node.address()).await;
    client.send(&[0x16, 3, 1, 0, 5, 1]).await;
    assert_eq!(soon(client.answer()).await.unwrap().status, "HTTP/1.1 400 Bad Request");
    node.stop().await;
}

#[test]
fn unusable_files_are_named_in_the_error() {
    let (files, other) = (Files::new(), Files::new());
    let load = |cert, key| TlsIdentity::load(cert, key).unwrap_err();
    let nowhere = files.cert.with_file_name("nowhere.pem");
    assert!(
        matches!(load(&nowhere, &files.key), TlsError::Certificates(CertificateError::Read { path, .. }) if path == nowhere)
    );
    assert!(
        matches!(load(&files.key, &files.key), TlsError::Certificates(CertificateError::NoCertificates { path }) if path == files.key)
    );
    assert!(
        matches!(load(&files.cert, &nowhere), TlsError::UnreadableKey { path, .. } if path == nowhere)
    );
    assert!(
        matches!(load(&files.cert, &files.cert), TlsError::NoKey { path } if path == files.cert)
    );
    assert!(matches!(load(&files.cert, &other.key), TlsError::Unusable { .. }));
    for error in [load(&files.cert, &other.key), load(&nowhere, &files.key)] {
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}
