//! libp2p over WebSocket and secure WebSocket: what an honest peer gets, and what others can do. Issue 11, 1.

use std::{io, path::PathBuf, time::Duration};

use bytes::BytesMut;
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use gossip::{GossipNode, NetworkProfile, NodeAddress, PeerClass};
use libp2p::{Multiaddr, StreamProtocol, multiaddr::Protocol};
use mesh::{Door, InboundLimits, Refusal};
use net_tcp::{
    frame::{Control, Data, OpCode, Part, write_frame},
    origins::PageOrigins,
    tls::{TlsIdentity, read_certificates},
};
use rcgen::generate_simple_self_signed;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{self, Instant},
};

use super::host::{Host, Node, PATIENCE, new_key, until};
use crate::{P2pConfig, P2pEvent};

const ECHO: StreamProtocol = StreamProtocol::new("/test/echo");

const PING: &str = "/ipfs/ping/1.0.0";

const HEAD: &str = "GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";

/// A certificate for this machine, in files.
pub(super) struct Files(TempDir);

impl Files {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = generate_simple_self_signed(["localhost".into(), "127.0.0.1".into()]).unwrap();
        std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A node that has the certificate and trusts it.
    pub(super) fn known_to(&self, mut config: P2pConfig) -> P2pConfig {
        let roots = read_certificates(&self.path("cert.pem")).unwrap();
        config.web = config.web.with_roots(roots, None);
        let identity = TlsIdentity::load(&self.path("cert.pem"), &self.path("key.pem"));
        config.web.identity = Some(identity.unwrap());
        config
    }
}

async fn listening(address: &str, change: impl FnOnce(P2pConfig) -> P2pConfig) -> Node {
    let address = address.parse().unwrap();
    Node::start_with(&NetworkProfile::TANDEM, "net", new_key(), |mut config| {
        config.listen = vec![address];
        change(config)
    })
    .await
}

const WEB_SOCKET: &str = "/ip4/127.0.0.1/tcp/0/ws";

async fn over_web_socket() -> Node {
    listening(WEB_SOCKET, |config| config).await
}

fn is_linked(node: &Node) -> bool {
    !node.network.peers(PeerClass::Connected).is_empty()
}

async fn connect(node: &Node) -> TcpStream {
    let port = node.address().iter().find_map(|part| match part {
        Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    TcpStream::connect(("127.0.0.1", port.unwrap())).await.unwrap()
}

/// A connection whose upgrade the node has accepted.
async fn upgraded(node: &Node) -> TcpStream {
    let mut stream = connect(node).await;
    stream.write_all(HEAD.as_bytes()).await.unwrap();
    let mut answer = BytesMut::new();
    while !answer.ends_with(b"\r\n\r\n") {
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "{answer:?}");
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{answer:?}");
    stream
}

fn frame(kind: OpCode, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_frame(&mut out, Some([1, 2, 3, 4]), (Part::Last, kind), payload);
    out
}

/// The rest of what the node sends, until it has closed.
async fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let read = time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    match read.expect("the node closes the connection") {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
    rest
}

// Issue 13, 8: "a page of a foreign origin is refused by default". Before, pages of every site were answered 101.
/// A page asks for a WebSocket: the head of the answer, and the connection.
async fn as_page_of(node: &Node, origin: &str) -> (BytesMut, TcpStream) {
    let mut stream = connect(node).await;
    let head = HEAD.replacen("\r\n", &format!("\r\nOrigin: {origin}\r\n"), 1);
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = BytesMut::new();
    while !answer.ends_with(b"\r\n\r\n") {
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "{answer:?}");
    }
    (answer, stream)
}

#[tokio::test]
async fn pages_of_one_origin_take_no_more_than_their_places() {
    let door = Door::new(InboundLimits::default().with_per_origin(2));
    let with = |mut config: P2pConfig| {
        config.door = door.clone();
        config.web.page_origins = PageOrigins::any();
        config
    };
    let node = listening(WEB_SOCKET, with).await;
    let is = |answer: &[u8], status| answer.starts_with(format!("HTTP/1.1 {status} ").as_bytes());
    let (answer, first) = as_page_of(&node, "https://a.example").await;
    assert!(is(&answer, 101), "{answer:?}");
    let (answer, _second) = as_page_of(&node, "https://a.example").await;
    assert!(is(&answer, 101), "{answer:?}");
    let (answer, stream) = as_page_of(&node, "https://a.example").await;
    assert!(is(&answer, 503) && rest(stream).await.is_empty(), "{answer:?}");
    assert_eq!(door.refused(Refusal::PerOrigin), 1);
    assert_eq!(node.network.metrics().count(P2pEvent::WebSocketRefused), 1);
    // Pages of others and programs are let in beside them, and the places come back.
    let (answer, _other) = as_page_of(&node, "https://b.example").await;
    assert!(is(&answer, 101), "{answer:?}");
    let _program = upgraded(&node).await;
    drop(first);
    until("a place that is given back", || door.page_of("https://a.example").is_ok()).await;
}

#[tokio::test]
async fn pages_of_other_sites_are_refused_unless_they_are_listed() {
    let listed = |mut config: P2pConfig| {
        let site = "https://page.example".parse().unwrap();
        config.web.page_origins = PageOrigins::default().with(site);
        config
    };
    let (closed, open) = (over_web_socket().await, listening(WEB_SOCKET, listed).await);
    let mut refused = 0;
    for (origin, by_closed, by_open) in [
        ("https://page.example", 403, 101),
        ("https://evil.example", 403, 403),
        ("null", 403, 403),
        ("https://page.example\r\nOrigin: https://evil.example", 403, 101),
    ] {
        for (node, expected) in [(&closed, by_closed), (&open, by_open)] {
            let (answer, stream) = as_page_of(node, origin).await;
            let status = format!("HTTP/1.1 {expected} ");
            assert!(answer.starts_with(status.as_bytes()), "{origin}: {answer:?}");
            if expected == 403 {
                assert!(rest(stream).await.is_empty());
                refused += 1;
            }
        }
    }
    let count = |node: &Node| node.network.metrics().count(P2pEvent::WebSocketRefused);
    until("they are counted", || count(&closed) + count(&open) == refused).await;
}

#[tokio::test]
async fn nodes_gossip_over_web_sockets_and_show_it() {
    let (node, peer) = (over_web_socket().await, over_web_socket().await);
    let address = node.network.listen_addresses().remove(0);
    assert!(address.contains("/ws/p2p/"), "{address}");
    peer.network.add_peer(&address.parse().unwrap()).unwrap();
    until("they are linked", || is_linked(&node) && is_linked(&peer)).await;
    for linked in [&node, &peer] {
        let peers = linked.network.peers(PeerClass::Connected);
        assert!(peers[0].address.contains("/ws"), "{}", peers[0].address);
    }
}

#[tokio::test]
async fn a_certificate_is_verified_by_the_name_in_the_address() {
    let files = Files::new();
    let node = listening("/ip4/127.0.0.1/tcp/0/tls/ws", |config| files.known_to(config)).await;
    let address = node.network.listen_addresses().remove(0);
    for place in ["/ip4/127.0.0.1/", "/dns4/localhost/"] {
        let peer = listening("/ip4/127.0.0.1/tcp/0", |config| files.known_to(config)).await;
        let address = address.replace("/ip4/127.0.0.1/", place);
        peer.network.add_peer(&address.parse().unwrap()).unwrap();
        until("they are linked", || is_linked(&peer)).await;
        peer.root.cancel();
    }
    let other = address.replace("/tls/ws", "/tls/sni/other.example/ws");
    for (address, knows, words) in [
        (other, true, "is for other names"),
        (address, false, "is signed by nobody whom this node trusts"),
    ] {
        let peer = listening("/ip4/127.0.0.1/tcp/0", |config| match knows {
            true => files.known_to(config),
            false => config,
        });
        let peer = peer.await;
        let address: NodeAddress = address.parse().unwrap();
        peer.network.add_peer(&address).unwrap();
        let told = || {
            let dials = peer.network.dials();
            let last = dials.iter().find_map(|state| state.last_error.clone());
            last.unwrap_or_default()
        };
        until("the dial has failed", || !told().is_empty()).await;
        assert!(told().contains(words), "{}", told());
    }
}

#[tokio::test]
async fn bytes_written_and_closed_at_once_arrive_whole_in_both_directions() {
    let sent: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let (node, key) = (over_web_socket().await, new_key());
    let mut host = Host::dial(&key, &[ECHO], node.address()).await;
    let opened = node.network.open_stream(&key.identity(), vec![ECHO], PATIENCE).await;
    let mut ours = opened.unwrap().stream;
    let talk = async {
        ours.write_all(&sent).await.unwrap();
        ours.close().await.unwrap();
        drop(ours);
    };
    let listen = async {
        let (mut heard, mut theirs) = (Vec::new(), host.accepted.next().await.unwrap().stream);
        theirs.read_to_end(&mut heard).await.unwrap();
        heard
    };
    let ((), heard) = time::timeout(PATIENCE, async { tokio::join!(talk, listen) }).await.unwrap();
    assert_eq!(heard, sent);
    // The node leaves with all that it has written.
    let opened = node.network.open_stream(&key.identity(), vec![ECHO], PATIENCE).await;
    let mut ours = opened.unwrap().stream;
    let mut theirs = host.accepted.next().await.unwrap().stream;
    ours.write_all(&sent[..100_000]).await.unwrap();
    ours.close().await.unwrap();
    let (stopped, heard) = tokio::join!(node.network.stop(PATIENCE), async {
        let mut heard = Vec::new();
        theirs.read_to_end(&mut heard).await.unwrap();
        heard
    });
    assert_eq!((stopped, heard.len()), (runtime::Shutdown::Clean, 100_000));
}

#[tokio::test]
async fn a_stream_that_nobody_reads_takes_no_more_than_its_window() {
    let (node, key) = (over_web_socket().await, new_key());
    let mut host = Host::dial(&key, &[ECHO], node.address()).await;
    let opened = node.network.open_stream(&key.identity(), vec![ECHO], PATIENCE).await;
    let mut ours = opened.unwrap().stream;
    let _unread = host.accepted.next().await.unwrap();
    let mut taken = 0;
    while let Ok(Ok(count)) = time::timeout(Duration::from_secs(1), ours.write(&[7; 4096])).await {
        taken += count;
        assert!(taken <= 256 * 1024, "{taken} bytes were taken");
    }
    assert!(taken > 100 * 1024, "{taken}");
}

#[tokio::test]
async fn five_pings_come_back_on_one_stream() {
    for address in ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0/ws"] {
        let node = listening(address, |config| config).await;
        // The library's handlers answer only peers that offer the same protocol.
        let offered = [StreamProtocol::new(PING)];
        let host = Host::dial(&new_key(), &offered, node.address()).await;
        let mut stream = host.open(PING).await;
        for number in 0..5_u8 {
            stream.write_all(&[number; 32]).await.unwrap();
            stream.flush().await.unwrap();
            let mut answer = [0; 32];
            let read = time::timeout(PATIENCE, stream.read_exact(&mut answer)).await;
            read.unwrap_or_else(|_| panic!("ping {number} over {address}")).unwrap();
            assert_eq!(answer, [number; 32]);
        }
    }
}

#[tokio::test]
async fn other_requests_are_answered_closed_and_counted() {
    let node = over_web_socket().await;
    let without = |line: &str| HEAD.replace(line, "");
    for (number, (request, answer)) in [
        (HEAD.replace("GET", "POST"), "HTTP/1.1 405 "),
        (HEAD.replace("GET / ", "GET /other "), "HTTP/1.1 404 "),
        (without("Upgrade: websocket\r\n"), "HTTP/1.1 400 "),
        (without("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"), "HTTP/1.1 400 "),
        (HEAD.replace("13", "12"), "HTTP/1.1 400 "),
        ("garbage\r\n\r\n".to_owned(), ""),
        (format!("GET / HTTP/1.1\r\nHost: {}", "x".repeat(9_000)), ""),
    ]
    .into_iter()
    .enumerate()
    {
        let mut stream = connect(&node).await;
        // The node may close before it has read all of a head that is too long.
        let _ = stream.write_all(request.as_bytes()).await;
        let said = rest(stream).await;
        assert!(said.starts_with(answer.as_bytes()), "{request}: {said:?}");
        let counted = || node.network.metrics().count(P2pEvent::WebSocketRefused);
        until("it is counted", || counted() == number as u64 + 1).await;
    }
}

#[tokio::test]
async fn half_open_upgrades_and_slow_heads_end_at_the_deadline() {
    let node = over_web_socket().await;
    let began = Instant::now();
    let slow = async {
        let mut stream = connect(&node).await;
        for byte in HEAD.bytes() {
            time::sleep(Duration::from_millis(200)).await;
            if stream.write_all(&[byte]).await.is_err() {
                break;
            }
        }
        stream
    };
    let silent = async { rest(connect(&node).await).await };
    let upgraded_and_silent = async { rest(upgraded(&node).await).await };
    let all = async { tokio::join!(slow, silent, upgraded_and_silent) };
    let (_, silent, _) = time::timeout(3 * PATIENCE, all).await.expect("all of them end");
    assert!(silent.is_empty() && began.elapsed() >= Duration::from_secs(9));
}

#[tokio::test]
async fn broken_frames_end_their_connection_and_are_counted_and_no_other_peer_notices() {
    let node = over_web_socket().await;
    let honest = over_web_socket().await;
    honest.network.add_peer(&node.network.addresses()[0]).unwrap();
    until("they are linked", || is_linked(&node)).await;
    let long = [&[0x82, 0xff][..], &(1_u64 << 40).to_be_bytes(), &[0; 4]].concat();
    for (number, (bytes, code)) in [
        (frame(OpCode::Data(Data::Text), b"hello"), 1003_u16),
        (b"\x82\x05hello".to_vec(), 1002),
        (long, 1009),
        (vec![0xff; 64], 1002),
        (frame(OpCode::Data(Data::Continue), b"x"), 1002),
    ]
    .into_iter()
    .enumerate()
    {
        let mut stream = upgraded(&node).await;
        stream.write_all(&bytes).await.unwrap();
        let said = rest(stream).await;
        let close = [&[0x88][..], &code.to_be_bytes()].concat();
        let told = said.windows(4).any(|four| four[0] == close[0] && four[2..4] == close[1..3]);
        // Data that the node had not read turns its last words into a reset.
        assert!(told || said.is_empty(), "{bytes:x?}: {said:x?}");
        let counted = || node.network.metrics().count(P2pEvent::WebSocketFault);
        until("it is counted", || counted() == number as u64 + 1).await;
    }
    // Killed within a message, and gone with a close frame before anything was said.
    for bytes in
        [frame(OpCode::Data(Data::Binary), b"hello"), frame(OpCode::Control(Control::Close), b"")]
    {
        let mut stream = upgraded(&node).await;
        stream.write_all(&bytes[..bytes.len() - 1]).await.unwrap();
        drop(stream);
    }
    assert!(is_linked(&node) && is_linked(&honest));
}

#[tokio::test]
async fn nobody_listens_over_tls_without_a_certificate() {
    let address: Multiaddr = "/ip4/127.0.0.1/tcp/0/tls/ws".parse().unwrap();
    assert!(crate::needs_certificate(&address));
    let mut config = P2pConfig::new(gossip::NetworkId::new("net").unwrap(), new_key());
    config.listen = vec![address];
    let root = tokio_util::sync::CancellationToken::new();
    let setup = broadcaster::Setup::new(&NetworkProfile::TANDEM);
    let broadcaster = broadcaster::Broadcaster::start(setup, &root);
    let refused = crate::P2pNetwork::start(config, broadcaster, &root).await.unwrap_err();
    let cause = std::error::Error::source(&refused).map(ToString::to_string);
    assert!(cause.unwrap_or_default().contains("there is no certificate"), "{refused}");
}
