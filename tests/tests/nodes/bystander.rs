//! Two honest peers of a relay, while others send it everything that can be wrong: the honest ones notice nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use discovery::PEER_FILE;
use gossip::{
    ConnectPolicy, Inbound, NetworkId, NetworkProfile, PeerClass, Tag, Validation,
    wire::{features::VoteCompression, vote},
};
use tandem::{
    Bootstrap, DnsServer, Mode, NodeBuilder, ProxyProtocol, ProxyRules, Relaying, Running, Shutdown,
};
use testkit::{
    dns::Scripted,
    harness::{RawPeer, next_of, rest_of},
    http::certificate::Certificate,
    votes::VotingPeer,
    wait::{soon, until},
    websocket::{RawWebSocket, upgrade_request},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

/// The address from which the relay expects a proxy.
const PROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// Longest delay of an honest vote. Chosen: a vote takes a millisecond, and a busy machine may stop a process for a while.
const LATE: Duration = Duration::from_secs(5);

fn network() -> NetworkId {
    NetworkId::new("bystander-v1").unwrap()
}

async fn peer(address: SocketAddr) -> RawWebSocket {
    let request = upgrade_request(&NetworkProfile::ALGORAND, &network());
    RawWebSocket::connect(address, &request).await.unwrap()
}

async fn socket(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

/// Sends bytes, and waits until the relay has ended the connection.
async fn is_ended(mut stream: TcpStream, bytes: &[u8]) {
    // The relay may end the connection before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = soon("the end of the connection", stream.read_to_end(&mut answer)).await;
}

/// A relay, and two peers of which one sends votes that the other one hears.
struct Scene {
    relay: Running,
    sender: RawWebSocket,
    listener: RawWebSocket,
    number: u64,
}

impl Scene {
    /// Does something wrong while votes pass: each of them arrives, in order, and not late.
    async fn unnoticed(&mut self, what: &str, wrong: impl Future<Output = ()>) {
        let is_over = AtomicBool::new(false);
        let wrong = async {
            wrong.await;
            is_over.store(true, Ordering::Relaxed);
        };
        let Self { sender, listener, number, .. } = self;
        let votes = async {
            let mut after = 0;
            while after < 20 {
                after += u32::from(is_over.load(Ordering::Relaxed));
                *number += 1;
                let (vote, began) = (format!("vote {number}"), Instant::now());
                sender.send(Tag::AV, vote.as_bytes()).await.unwrap();
                assert_eq!(next_of(listener, Tag::AV).await, vote, "{what}");
                assert!(began.elapsed() < LATE, "{what}: {:?}", began.elapsed());
                time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::join!(votes, wrong);
        let peers = || self.relay.node().peers(PeerClass::Connected).len();
        until(&format!("the others are gone: {what}"), || peers() == 2).await;
        let budget = self.relay.broadcaster().budget();
        until(&format!("memory is given back: {what}"), || budget.used() == 0).await;
    }
}

async fn lists_of_tags(address: SocketAddr) {
    let long = [&b"\x01\x04tags\x2f"[..], &b"AV,".repeat(15), b"AV"].concat();
    for bad in [
        &b""[..],
        b"\x21",
        b"\x01\x04tags\x00",
        b"\x01\x04tags\x05AV,zz",
        b"\x01\x04tags\x03AV,",
        b"\x01\x03tag\x02AV",
        b"\x01\x00\x00",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        &long,
    ] {
        let mut peer = peer(address).await;
        peer.send(Tag::MI, bad).await.unwrap();
        rest_of(&mut peer).await;
    }
}

async fn votes(address: SocketAddr) {
    let (long, longest) = (vec![7; 1_229], vec![7; 1_228]);
    for bad in [&b""[..], b"\x83", b"vot", &longest, &long] {
        let mut peer = peer(address).await;
        // The relay may end the connection at the announced length.
        let _ = peer.send(Tag::AV, bad).await;
        rest_of(&mut peer).await;
    }
    for bad in [&b""[..], &[0xfe], &longest, &long[..100]] {
        let votes = VoteCompression::Stateful(2_048);
        let mut peer = VotingPeer::connect(address, &network(), votes).await.unwrap();
        peer.raw.send(Tag::VP, bad).await.unwrap();
        assert_eq!(next_of(&mut peer.raw, Tag::VP).await, vote::ABORT[..]);
    }
}

async fn certificates(address: SocketAddr, other: &Certificate) {
    let local = Ipv4Addr::LOCALHOST;
    for bad in [&[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0][..], &[0x16, 3, 1, 0xff, 0xff], &[0x16; 20_000]]
    {
        let mut stream = socket(local, address).await;
        let _ = stream.write_all(bad).await;
        // The relay would wait for the rest as long as for a head; the test does not.
        drop(stream);
    }
    is_ended(socket(local, address).await, &[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0]).await;
    // A client that does not trust the relay's certificate.
    let name = "localhost".try_into().unwrap();
    let stream = socket(local, address).await;
    assert!(soon("a handshake", other.connector().connect(name, stream)).await.is_err());
}

async fn preambles(address: SocketAddr) {
    let long = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff"[..], &[0; 2000]].concat();
    for bad in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
        b"PROXY TCP4 0.0.0.0 127.0.0.1 1 2\r\n",
        b"PROXY UNKNOWN \xff\x1b[31m\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x2f\x11\0\x0c",
        &long,
    ] {
        is_ended(socket(PROXY, address).await, bad).await;
    }
}

// Issue 10, "Bad input": "a phonebook file, DNS answer, certificate, PROXY header, vote or MI that is wrong in any way gets
// the answer of the facts or a one-line error, costs a bounded amount, and nobody else notices".
#[tokio::test]
async fn honest_peers_notice_nothing_of_what_others_send_wrong() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let raving = Scripted::start(move |question| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        let mut answer = question.to_vec().unwrap();
        match number % 3 {
            0 => answer.truncate(answer.len() / 2),
            1 => answer[2..12].fill(0xff),
            _ => answer = vec![0xc0; 512],
        }
        Some(answer)
    })
    .await;
    let (dir, own, other) =
        (tempfile::tempdir().unwrap(), Certificate::generate(), Certificate::generate());
    std::fs::write(dir.path().join(PEER_FILE), b"redb\x1a\x0a\xa9\x0d\x0a and no more").unwrap();

    let proxies = ProxyRules::default()
        .with_trusted(vec![format!("{PROXY}/32").parse().unwrap()])
        .with_protocol(ProxyProtocol::On);
    let service = NetworkProfile::ALGORAND.dns;
    let validator = |message: &Inbound| match message.body.starts_with(b"vote ") {
        true => Validation::Accept,
        false => Validation::Reject,
    };
    let relay = NodeBuilder::new(network())
        .profile(&NetworkProfile::ALGORAND)
        .mode(Mode::WebSocket)
        .relaying(Relaying::Accepted)
        .validator(Tag::AV, validator)
        .data_dir(dir.path())
        .tls(own.files())
        .proxies(proxies)
        .bootstrap(Bootstrap::parse("a.example", &network(), &service).unwrap().remove(0))
        .dns_servers(vec![DnsServer::At(raving.address)]);
    let relay = relay.start(&CancellationToken::new()).await.unwrap();
    let put_aside = format!("{PEER_FILE}.aside");
    until("the damaged file is put aside", || dir.path().join(&put_aside).exists()).await;
    let url = relay.ws_url().unwrap();
    let address = url.strip_prefix("http://").unwrap().parse().unwrap();
    let (sender, listener) = (peer(address).await, peer(address).await);
    let mut scene = Scene { relay, sender, listener, number: 0 };

    scene.unnoticed("lists of tags", lists_of_tags(address)).await;
    scene.unnoticed("votes", votes(address)).await;
    scene.unnoticed("certificates", certificates(address, &other)).await;
    scene.unnoticed("preambles", preambles(address)).await;
    let node = scene.relay.node();
    let answers = async {
        let before = asked.load(Ordering::Relaxed);
        node.connect_outgoing(ConnectPolicy::FillMesh);
        until("DNS is asked again", || asked.load(Ordering::Relaxed) > before + 2).await;
    };
    scene.unnoticed("answers of DNS servers", answers).await;
    drop((scene.sender, scene.listener));
    assert_eq!(scene.relay.stop(Duration::from_secs(5)).await, Shutdown::Clean);
}
