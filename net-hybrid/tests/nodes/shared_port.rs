//! One port for gossip over WebSocket, HTTP, and libp2p over WebSocket. Issue 11, 1.

#![cfg(feature = "websocket")]
#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]

use std::time::Duration;

use broadcaster::{Broadcaster, Setup};
use gossip::{GossipNode, Keypair, NetworkId, NetworkProfile, PeerClass, Transport};
use mesh::{Door, InboundLimits, Refusal};
use net_p2p::{P2pConfig, P2pNetwork};
use net_tcp::hand_over::HandOver;
use net_ws::{WsConfig, WsNetwork};
use rand::Rng;
use runtime::Random;
use tandem_net_hybrid::{HybridConfig, HybridNetwork};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

fn name() -> NetworkId {
    NetworkId::new("one-port").expect("the name is a short path segment")
}

fn key() -> Keypair {
    Keypair::from_seed(Random::system().random())
}

fn broadcaster(root: &CancellationToken) -> Broadcaster {
    Broadcaster::start(Setup::new(&NetworkProfile::TANDEM), root)
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_port_serves_gossip_and_http_and_libp2p() {
    let root = CancellationToken::new();
    let door = Door::new(InboundLimits::default().with_per_origin(2));
    let mut ws = WsConfig::new(name());
    ws.listen = Some("127.0.0.1:0".to_owned());
    let mut p2p = P2pConfig::new(name(), key());
    // It listens nowhere else.
    p2p.door = door.clone();
    let port = HandOver::default();
    (ws.hand_over, p2p.web.port) = (Some(port.clone()), Some(port));
    let config = HybridConfig { ws, p2p };
    let hub = HybridNetwork::start(config, broadcaster(&root), &root).await.expect("it starts");
    let port = hub.ws().local_address().expect("it listens");
    let ends = format!("/ip4/127.0.0.1/tcp/{}/ws/p2p/{}", port.port(), hub.p2p().identity());
    until("the port is told as libp2p's", || hub.p2p().listen_addresses() == [ends.clone()]).await;

    let mut config = P2pConfig::new(name(), key());
    config.peers = vec![ends.parse().expect("it is an address")];
    let over_libp2p =
        P2pNetwork::start(config, broadcaster(&root), &root).await.expect("it starts");
    let mut config = WsConfig::new(name());
    config.peers = vec![format!("http://{port}").parse().expect("it is an address")];
    let over_gossip = WsNetwork::start(config, broadcaster(&root), &root).await.expect("it starts");
    let carried = |transport| hub.peers(PeerClass::Carried(transport)).len();
    until("both are linked", || {
        carried(Transport::Libp2p) == 1 && carried(Transport::WebSocket) == 1
    })
    .await;
    let told = hub.peers(PeerClass::Carried(Transport::Libp2p)).remove(0).address;
    assert!(told.ends_with("/ws") || told.contains("/ws/"), "{told}");
    // The socket kept its one place at the door.
    assert_eq!((door.peers(), door.sockets()), (2, 2));

    // Without the headers of an upgrade, and under another path, all is as on a port without libp2p.
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 404 "),
        (
            "GET /other HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
            "HTTP/1.1 404 ",
        ),
        // Issue 13, 8: a page of another site. Before, it was answered 101.
        (
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Origin: https://evil.example\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
            "HTTP/1.1 403 ",
        ),
    ] {
        let mut stream = TcpStream::connect(port).await.expect("it listens");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut said = [0; 13];
        stream.read_exact(&mut said).await.expect("it answers");
        assert_eq!(&said, status.as_bytes(), "{request}");
    }
    // Pages that speak libp2p count among those of their origin: the third one of this host finds both places taken.
    let page = format!(
        "GET / HTTP/1.1\r\nHost: {port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Origin: http://{port}\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    );
    let mut pages = Vec::new();
    for status in ["HTTP/1.1 101 ", "HTTP/1.1 101 ", "HTTP/1.1 503 "] {
        let mut stream = TcpStream::connect(port).await.expect("it listens");
        stream.write_all(page.as_bytes()).await.expect("it reads");
        let mut said = [0; 13];
        stream.read_exact(&mut said).await.expect("it answers");
        assert_eq!(&said, status.as_bytes());
        pages.push(stream);
    }
    assert_eq!(door.refused(Refusal::PerOrigin), 1);
    drop((over_libp2p, over_gossip, pages));
    until("the places are given back", || door.sockets() == 0).await;
}
