//! The transport over real sockets: large streams, streams that nobody reads, floods at the port, and peers that
//! disappear.

use std::{future::poll_fn, net::SocketAddr, pin::Pin, time::Duration};

use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use gossip::{GossipNode as _, NetworkProfile, PeerClass};
use libp2p::{
    Multiaddr, PeerId, Transport as _,
    core::{
        Endpoint,
        muxing::StreamMuxer as _,
        transport::{DialOpts, ListenerId, PortUse, TransportEvent},
    },
    identity::Keypair,
    multiaddr::Protocol,
};
use mesh::{Door, InboundLimits, RateWindow};
use runtime::{Environment, TaskSet};
use tokio::{net::UdpSocket, time};
use tokio_util::sync::CancellationToken;

use super::{
    WebRtc, WebRtcCertificate, WebRtcError, WebRtcVersion, credentials::Credentials,
    handshake::Handshakes, path::Path,
};
use crate::{
    backlog::Backlog,
    config::libp2p_key,
    dial_hosts::DialHosts,
    metrics::{P2pEvent, P2pMetrics},
    muxer::Muxer,
    tests::host::{Node, PATIENCE, connection_tasks, new_key, until},
};

/// A node's transport.
struct Host {
    transport: WebRtc,
    metrics: P2pMetrics,
    backlog: Backlog,
    peer: PeerId,
}

impl Host {
    fn new(version: WebRtcVersion) -> Self {
        let (key, metrics): (Keypair, _) = (libp2p_key(&new_key()), P2pMetrics::default());
        let backlog = Backlog::new(1 << 26, metrics.clone());
        let certificate = WebRtcCertificate::generate().unwrap();
        let owner = (connection_tasks(), backlog.clone());
        let handshakes = Handshakes::new((&key, &certificate), owner, version).unwrap();
        let outside = (Environment::system(), DialHosts::default());
        let peer = key.public().to_peer_id();
        let transport = WebRtc::new(
            outside,
            handshakes,
            #[cfg(feature = "quic")]
            crate::udp_ports::UdpPorts::new(
                std::collections::BTreeSet::new(),
                Environment::system(),
                (connection_tasks(), metrics.clone()),
            ),
        );
        Self { transport, metrics, backlog, peer }
    }

    /// A node that listens, and its address.
    async fn listening() -> (Self, Multiaddr) {
        let mut host = Self::new(WebRtcVersion::V1);
        let anywhere = "/ip4/127.0.0.1/udp/0/webrtc-direct".parse().unwrap();
        host.transport.listen_on(ListenerId::next(), anywhere).unwrap();
        let TransportEvent::NewAddress { listen_addr, .. } = host.next().await else {
            panic!("no address")
        };
        (host, listen_addr)
    }

    async fn next(
        &mut self,
    ) -> TransportEvent<<WebRtc as libp2p::Transport>::ListenerUpgrade, WebRtcError> {
        let event = poll_fn(|context| Pin::new(&mut self.transport).poll(context));
        time::timeout(PATIENCE, event).await.expect("an event")
    }

    async fn accept(&mut self) -> Result<(PeerId, Muxer), WebRtcError> {
        loop {
            if let TransportEvent::Incoming { upgrade, .. } = self.next().await {
                return upgrade.await;
            }
        }
    }

    async fn dial(&mut self, to: &Multiaddr) -> Result<(PeerId, Muxer), WebRtcError> {
        let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
        self.transport.dial(to.clone(), options).unwrap().await
    }

    fn counted(&self, event: P2pEvent) -> u64 {
        self.metrics.count(event)
    }
}

/// Both ends of a connection.
struct Ends {
    listener: Host,
    dialer: Host,
    theirs: Muxer,
    ours: Muxer,
}

async fn connect(version: WebRtcVersion) -> Ends {
    let (mut listener, address) = Host::listening().await;
    let mut dialer = Host::new(version);
    let both = async { tokio::join!(listener.accept(), dialer.dial(&address)) };
    let (accepted, dialled) = time::timeout(PATIENCE, both).await.expect("a handshake");
    let ((them, theirs), (us, ours)) = (accepted.unwrap(), dialled.unwrap());
    assert_eq!((them, us), (dialer.peer, listener.peer));
    Ends { listener, dialer, theirs, ours }
}

type Stream = <Muxer as libp2p::core::muxing::StreamMuxer>::Substream;

async fn open(muxer: &mut Muxer) -> Stream {
    poll_fn(|context| Pin::new(&mut *muxer).poll_outbound(context)).await.unwrap()
}

async fn accepted(muxer: &mut Muxer) -> Stream {
    let stream = poll_fn(|context| Pin::new(&mut *muxer).poll_inbound(context));
    time::timeout(PATIENCE, stream).await.expect("a stream").unwrap()
}

fn socket_of(address: &Multiaddr) -> SocketAddr {
    let port = address.iter().find_map(|part| match part {
        Protocol::Udp(port) => Some(port),
        _ => None,
    });
    ([127, 0, 0, 1], port.unwrap()).into()
}

/// Passes datagrams on to `address` and back until its task ends. Returns the address to dial.
async fn proxy(tasks: &TaskSet, address: &Multiaddr) -> Multiaddr {
    let front = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let back = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    back.connect(socket_of(address)).await.unwrap();
    let port = front.local_addr().unwrap().port();
    tasks.spawn("proxy", |_cancel| async move {
        let (mut from_front, mut from_back) = ([0; 2_048], [0; 2_048]);
        let mut client = None;
        loop {
            tokio::select! {
                Ok((length, from)) = front.recv_from(&mut from_front) => {
                    client = Some(from);
                    let _ = back.send(&from_front[..length]).await;
                }
                Ok(length) = back.recv(&mut from_back) => {
                    if let Some(client) = client {
                        let _ = front.send_to(&from_back[..length], client).await;
                    }
                }
            }
        }
    });
    let replace = |part| match part {
        Protocol::Udp(_) => Protocol::Udp(port),
        other => other,
    };
    address.iter().map(replace).collect()
}

/// Echoes each stream of the peer until the connection ends.
async fn echo(muxer: &mut Muxer) {
    loop {
        let mut stream = accepted(muxer).await;
        let mut piece = vec![0; 8_192];
        while let Ok(bytes @ 1..) = stream.read(&mut piece).await {
            stream.write_all(&piece[..bytes]).await.unwrap();
        }
        stream.close().await.unwrap();
    }
}

// Issue 13, 3: the library's own transport breaks a stream at one message above 8 KiB.
#[tokio::test]
async fn streams_of_any_size_come_back_as_they_went() {
    for version in [WebRtcVersion::V1, WebRtcVersion::V2] {
        let Ends { mut theirs, mut ours, listener: _listener, dialer: _dialer } =
            connect(version).await;
        let asking = async {
            for size in [0, 1, 32, 32, 32, 32, 32, 200_000, 256 * 1024, 5 * 1024 * 1024] {
                let sent: Vec<u8> = (0..size).map(|at: usize| (at % 251) as u8).collect();
                let (mut reader, mut writer) = open(&mut ours).await.split();
                let write = async {
                    writer.write_all(&sent).await.unwrap();
                    writer.close().await.unwrap();
                };
                let mut heard = Vec::new();
                let (read, ()) = tokio::join!(reader.read_to_end(&mut heard), write);
                read.unwrap();
                assert!(heard == sent, "{version:?}: {size} bytes, {} came back", heard.len());
            }
        };
        let echoed = async {
            tokio::select! { () = asking => {}, () = echo(&mut theirs) => {} }
        };
        time::timeout(PATIENCE, echoed).await.expect("an echo");
    }
}

// Issue 13, 3.
#[tokio::test]
async fn a_reader_that_stops_stops_the_writer_and_nothing_is_lost_when_it_goes_on() {
    const BYTES: usize = 3 * 1024 * 1024;
    let Ends { listener, dialer, mut theirs, mut ours } = connect(WebRtcVersion::V1).await;
    let mut stream = open(&mut ours).await;
    let writing = async {
        stream.write_all(&vec![7; BYTES]).await.unwrap();
        stream.close().await.unwrap();
    };
    let reading = async {
        let mut stream = accepted(&mut theirs).await;
        let mut seen = 0;
        let settled = time::Instant::now() + Duration::from_secs(1);
        // Nobody reads: what both ends hold settles far below what is written.
        while time::Instant::now() < settled {
            seen = seen.max(listener.backlog.held()).max(dialer.backlog.held());
            time::sleep(Duration::from_millis(20)).await;
        }
        assert!((500_000..2 * 1024 * 1024).contains(&seen), "{seen} bytes are held");
        let begun = time::Instant::now();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard.len(), BYTES);
        // Without word of the room, the writer waits for its retransmission timeout, which has doubled meanwhile.
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    };
    time::timeout(PATIENCE, async { tokio::join!(writing, reading) }).await.expect("all bytes");
}

// As node-datachannel does at once, and this node after 256 streams.
#[tokio::test]
async fn an_id_is_used_again_while_somebody_holds_the_stream_that_had_it() {
    const STREAMS: usize = 600;
    let Ends { listener: _listener, dialer: _dialer, mut theirs, mut ours } =
        connect(WebRtcVersion::V1).await;
    let opening = async {
        for number in 0..STREAMS {
            let mut stream = open(&mut ours).await;
            stream.write_all(&number.to_be_bytes()).await.unwrap();
            stream.close().await.unwrap();
        }
    };
    let taking = async {
        let mut held = std::collections::VecDeque::new();
        for number in 0..STREAMS {
            let mut stream = accepted(&mut theirs).await;
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, number.to_be_bytes());
            stream.close().await.unwrap();
            held.push_back(stream);
            if held.len() > 300 {
                held.pop_front();
            }
        }
    };
    time::timeout(PATIENCE, async { tokio::join!(opening, taking) }).await.expect("all streams");
}

// Issue 13, 3.
#[tokio::test]
async fn a_connection_that_is_closed_in_order_loses_nothing() {
    const BYTES: usize = 400_000;
    let Ends { listener: _listener, dialer: _dialer, mut theirs, mut ours } =
        connect(WebRtcVersion::V1).await;
    let mut stream = open(&mut ours).await;
    let write = async {
        stream.write_all(&vec![7; BYTES]).await.unwrap();
        // Not even the stream is closed.
        let closing = poll_fn(|context| Pin::new(&mut ours).poll_close(context));
        drop_later(stream, closing).await.unwrap();
    };
    let read = async {
        let mut stream = accepted(&mut theirs).await;
        let mut heard = Vec::new();
        // The end is one of the connection's, or a whole stream's: whichever comes first.
        let _ = stream.read_to_end(&mut heard).await;
        heard.len()
    };
    let (_, heard) = time::timeout(PATIENCE, async { tokio::join!(write, read) }).await.unwrap();
    assert_eq!(heard, BYTES);
}

async fn drop_later<T>(stream: Stream, closing: impl Future<Output = T>) -> T {
    let done = closing.await;
    drop(stream);
    done
}

// Issue 13, 3: as `kill -9` leaves it, without a last word.
#[tokio::test]
async fn a_peer_that_disappears_is_noticed() {
    let tasks = TaskSet::new(&CancellationToken::new());
    let (mut listener, address) = Host::listening().await;
    let through = proxy(&tasks, &address).await;
    let mut dialer = Host::new(WebRtcVersion::V1);
    let both = async { tokio::join!(listener.accept(), dialer.dial(&through)) };
    let (accepting, dialled) = time::timeout(PATIENCE, both).await.expect("a handshake");
    let ((_, mut theirs), (_, mut ours)) = (accepting.unwrap(), dialled.unwrap());
    let mut stream = open(&mut ours).await;
    stream.write_all(b"x").await.unwrap();
    let mut heard = accepted(&mut theirs).await;
    heard.read_exact(&mut [0]).await.unwrap();
    drop(tasks);
    time::pause();
    let begun = time::Instant::now();
    let end = poll_fn(|context| Pin::new(&mut theirs).poll(context));
    let end = time::timeout(PATIENCE, end).await.expect("an end").unwrap_err();
    assert!(end.to_string().contains("silent"), "{end}");
    assert!(begun.elapsed() < Duration::from_secs(35));
    assert!(heard.read(&mut [0]).await.is_err());
}

// Issue 13, 3.
#[tokio::test]
async fn garbage_and_checks_of_strangers_cost_no_connection_and_are_counted() {
    let (mut listener, address) = Host::listening().await;
    let to = socket_of(&address);
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut random = Environment::system().random();
    for number in 0..2_000_u32 {
        let garbage = [&[(number % 256) as u8][..], &number.to_be_bytes(), &[0; 40]].concat();
        let _ = stranger.send_to(&garbage, to).await;
        let credentials = Credentials::draw(WebRtcVersion::V2, &mut random);
        let now = time::Instant::now().into_std();
        let check = Path::dialer(credentials, to, now).poll_check(now).unwrap();
        let _ = stranger.send_to(&check, to).await;
        if number % 50 == 0 {
            time::sleep(Duration::from_millis(1)).await;
        }
    }
    let mut dialer = Host::new(WebRtcVersion::V1);
    let both = async { tokio::join!(listener.accept(), dialer.dial(&address)) };
    // An honest peer gets in behind them, and is the first that the door hears of.
    let (accepted, dialled) = time::timeout(PATIENCE, both).await.expect("a handshake");
    assert_eq!((accepted.unwrap().0, dialled.unwrap().0), (dialer.peer, listener.peer));
    until("the garbage is counted", || listener.counted(P2pEvent::WebRtcStray) >= 1_000).await;
    // A check is answered with no more bytes than it has.
    let mut answer = [0; 2_048];
    let length = time::timeout(PATIENCE, stranger.recv(&mut answer)).await.unwrap().unwrap();
    assert!((20..=100).contains(&length), "{length} bytes");
}

// Issue 13, 3: each is a check, and the beginning of a handshake, from an address of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn honest_peers_get_in_beside_handshakes_that_are_begun_and_left() {
    const HANDSHAKES: usize = 400;
    let off = RateWindow::OFF;
    let door = Door::new(InboundLimits::default().with_rate(off).with_subnet_rate(off));
    let lent = door.clone();
    let node = Node::start_with(&NetworkProfile::TANDEM, "net", new_key(), |mut config| {
        config.listen = vec!["/ip4/127.0.0.1/udp/0/webrtc-direct".parse().unwrap()];
        config.door = lent;
        config
    });
    let node = node.await;
    let to = socket_of(&node.address());
    let most = door.limits().half_open_total;
    let (mut random, mut strangers, mut seen) = (Environment::system().random(), Vec::new(), 0);
    for number in 0..HANDSHAKES {
        let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let now = time::Instant::now().into_std();
        let credentials = Credentials::draw(WebRtcVersion::V1, &mut random);
        let check = Path::dialer(credentials, to, now).poll_check(now).unwrap();
        stranger.send_to(&check, to).await.unwrap();
        let answered = time::timeout(PATIENCE, stranger.recv(&mut [0; 2_048])).await;
        answered.expect("an answer").unwrap();
        let hello = [&[22, 254, 253][..], &[0; 8], &[0, 40, 1], &[0; 39]].concat();
        stranger.send_to(&hello, to).await.unwrap();
        strangers.push(stranger);
        seen = seen.max(door.half_open());
        assert!(seen <= most, "{seen} half-open handshakes");
        if number % 100 == 99 {
            let peer = Node::start_with(&NetworkProfile::TANDEM, "net", new_key(), |config| config);
            let peer = peer.await;
            let own = node.network.listen_addresses()[0].parse().unwrap();
            peer.network.add_peer(&own).unwrap();
            until("an honest peer gets in", || {
                !peer.network.peers(PeerClass::Connected).is_empty()
            })
            .await;
        }
    }
    assert!(seen > 0, "no handshake came to the door");
}

// Issue 13, 3.
#[tokio::test]
async fn a_peer_with_another_certificate_than_its_address_says_is_refused() {
    let (mut listener, address) = Host::listening().await;
    let (_other, elsewhere) = Host::listening().await;
    let hash = elsewhere.iter().find(|part| matches!(part, Protocol::Certhash(_))).unwrap();
    let mut forged: Multiaddr =
        address.iter().filter(|part| !matches!(part, Protocol::Certhash(_))).collect();
    forged.push(hash);
    let mut dialer = Host::new(WebRtcVersion::V1);
    let accepting = async {
        // It ends when the dialer has gone.
        let _ = listener.accept().await;
        std::future::pending::<()>().await;
    };
    let dialled = tokio::select! { dialled = dialer.dial(&forged) => dialled, () = accepting => unreachable!() };
    let refused = dialled.err().unwrap().to_string();
    assert!(refused.contains("another certificate"), "{refused}");
}
