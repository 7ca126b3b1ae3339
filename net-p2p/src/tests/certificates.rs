//! Peers with certificates that must be refused, and keys of other kinds, over TLS and over QUIC.

use libp2p::{Multiaddr, core::Endpoint, identity::Keypair};
use tokio::{net::TcpStream, time};
use tokio_util::compat::TokioAsyncReadCompatExt;

use super::host::{Host, Node, PATIENCE, new_key, until};
use crate::{
    P2pConfig, P2pEvent,
    config::libp2p_key,
    metrics::P2pMetrics,
    security::{
        Security,
        certificate::tests::{expired, forged},
        tls::{ALPN, Tls},
    },
};
use gossip::NetworkProfile;

async fn tls_node() -> Node {
    Node::start_with(&NetworkProfile::ALGORAND, "net", new_key(), |config| P2pConfig {
        security: vec![Security::Tls],
        #[cfg(feature = "quic")]
        listen: ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"]
            .map(|address| address.parse().unwrap())
            .to_vec(),
        ..config
    })
    .await
}

fn address_over(node: &Node, part: &str) -> Multiaddr {
    let all = node.network.listen_addresses();
    all.iter().find(|address| address.contains(part)).unwrap().parse().unwrap()
}

/// Dials over TLS with the certificate of `tls`, by hand.
async fn dial_tls(node: &Node, tls: Tls) {
    let address = address_over(node, "/tcp/");
    let port = address.iter().find_map(|part| match part {
        libp2p::multiaddr::Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    let socket = TcpStream::connect(("127.0.0.1", port.unwrap())).await.unwrap();
    let name = ["/tls/1.0.0"];
    let version = multistream_select::Version::V1;
    let (_, stream) =
        multistream_select::dialer_select_proto(socket.compat(), name, version).await.unwrap();
    // TLS 1.3 tells the client of the refusal after the client's own handshake.
    let _ = time::timeout(PATIENCE, tls.secure(stream, Endpoint::Dialer)).await.unwrap();
}

// Issue 11, "Bad input".
#[tokio::test]
async fn an_expired_and_a_forged_certificate_are_refused_and_counted_over_tls() {
    let node = tls_node().await;
    let key = Keypair::generate_ed25519();
    let refused = || node.network.metrics().count(P2pEvent::CertificateRefused);
    for (number, own) in [expired(&key), forged(&key.public())].into_iter().enumerate() {
        let tls = Tls::with(own, &[ALPN], &P2pMetrics::default()).unwrap();
        dial_tls(&node, tls).await;
        until("it is counted", || refused() == number as u64 + 1).await;
    }
    assert_eq!(node.network.metrics().count(P2pEvent::SecurityFailed), 0, "one counter each");
    Host::dial_as(&key, &[], address_over(&node, "/tcp/")).await;
}

// Issue 11, 2.
#[tokio::test]
async fn peers_with_keys_of_every_kind_are_connected() {
    let node = tls_node().await;
    let kinds = [Keypair::generate_ecdsa(), Keypair::generate_secp256k1(), libp2p_key(&new_key())];
    for key in &kinds {
        Host::dial_as(key, &[], address_over(&node, "/tcp/")).await;
        #[cfg(feature = "quic")]
        Host::dial_as(key, &[], address_over(&node, "/quic-v1")).await;
    }
}

// Issue 11, "Bad input".
#[cfg(feature = "quic")]
#[tokio::test]
async fn garbage_and_a_stranger_with_a_bad_certificate_do_not_keep_peers_from_a_node_with_quic() {
    use std::sync::Arc;

    let node = tls_node().await;
    let address = address_over(&node, "/quic-v1");
    let port = address.iter().find_map(|part| match part {
        libp2p::multiaddr::Protocol::Udp(port) => Some(port),
        _ => None,
    });
    let at: std::net::SocketAddr = ([127, 0, 0, 1], port.unwrap()).into();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for number in 0..2_000_u32 {
        let length = number as usize % 1_400;
        let mut garbage = vec![(number % 251) as u8; length];
        // Every third looks like the first datagram of a client.
        if number % 3 == 0 && length > 6 {
            garbage[..5].copy_from_slice(&[0xc3, 0, 0, 0, 1]);
        }
        let _ = socket.send_to(&garbage, at);
    }
    let refused = || node.network.metrics().count(P2pEvent::CertificateRefused);
    let key = Keypair::generate_ed25519();
    for (number, own) in [expired(&key), forged(&key.public())].into_iter().enumerate() {
        let tls = Tls::with(own, &[ALPN], &P2pMetrics::default()).unwrap();
        let client = quinn::crypto::rustls::QuicClientConfig::try_from(tls.client()).unwrap();
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let config = quinn::ClientConfig::new(Arc::new(client));
        let made = endpoint.connect_with(config, at, "127.0.0.1").unwrap().await;
        if let Ok(connection) = made {
            time::timeout(PATIENCE, connection.closed()).await.unwrap();
        }
        until("it is counted", || refused() == number as u64 + 1).await;
    }
    // The library answers only peers that offer ping too.
    let host = Host::dial_as(&key, &[libp2p::ping::PROTOCOL_NAME], address).await;
    let mut stream = host.open("/ipfs/ping/1.0.0").await;
    for round in 0..5_u8 {
        use futures::{AsyncReadExt, AsyncWriteExt};
        stream.write_all(&[round; 32]).await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = [0; 32];
        let heard = time::timeout(PATIENCE, stream.read_exact(&mut answer)).await;
        heard.unwrap_or_else(|_| panic!("no answer to ping {round}")).unwrap();
        assert_eq!(answer, [round; 32]);
    }
}
