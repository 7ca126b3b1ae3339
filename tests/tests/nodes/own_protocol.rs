//! Streams with an application's own protocol, between whole nodes and with a plain rust-libp2p swarm.
//!
//! Issue 9, 13: other libraries let an application register its own protocol (rust-libp2p's streams, iroh's
//! `ProtocolHandler`). Before, Tandem did not.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{
    AsyncReadExt as _, AsyncWriteExt as _, StreamExt,
    future::{Either, join_all, select},
};
use gossip::{Direction, Identity, NetworkId, NodeAddress, PeerClass};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, noise, tcp, yamux};
use libp2p_stream::Control;
use runtime::TaskSet;
use tandem::{
    AcceptLimits, Mode, NodeBuilder, OpenError, P2pEvent, PeerStream, Running, Shutdown,
    StartError, Streams,
};
use testkit::wait::{soon, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

const ECHO: &str = "/own-protocol/echo/1";
const LIMIT: Duration = Duration::from_secs(20);

type AnyError = Box<dyn std::error::Error + Send + Sync>;

fn builder(mode: Mode) -> NodeBuilder {
    NodeBuilder::new(NetworkId::new("own-protocol").expect("a name")).mode(mode)
}

/// Echoes everything that arrives, with the sender's name in front.
async fn echo(mut stream: PeerStream) {
    let mut text = Vec::new();
    if stream.read_to_end(&mut text).await.is_ok() {
        let name = format!("{} ", stream.identity());
        // A failed write means that the peer has disconnected.
        let _ = stream.write_all(&[name.as_bytes(), &text].concat()).await;
        let _ = stream.shutdown().await;
    }
}

async fn start(builder: NodeBuilder) -> Running {
    builder.start(&CancellationToken::new()).await.expect("the node starts")
}

/// Two nodes linked over libp2p; the second one dialled the first.
async fn two(first: NodeBuilder, second: NodeBuilder) -> [Running; 2] {
    let first = start(first).await;
    let address: NodeAddress = first.p2p_addresses()[0].parse().expect("an address");
    let second = start(second.peer(address)).await;
    for node in [first.node(), second.node()] {
        until("the nodes are connected", || !node.peers(PeerClass::Connected).is_empty()).await;
    }
    [first, second]
}

fn streams(node: &Running) -> Streams {
    node.streams().expect("it has a libp2p side")
}

async fn echoed(streams: &Streams, peer: &Identity, text: &[u8]) -> Result<Vec<u8>, AnyError> {
    let mut stream = streams.open(peer, ECHO, LIMIT).await?;
    assert_eq!((stream.identity(), stream.protocol()), (*peer, ECHO));
    assert_eq!(stream.direction(), Direction::Outbound);
    stream.write_all(text).await?;
    stream.shutdown().await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

fn count(node: &Running, event: P2pEvent) -> u64 {
    node.p2p_metrics().expect("it has a libp2p side").count(event)
}

#[tokio::test]
async fn either_node_opens_streams_to_the_other_and_knows_its_identity() {
    for mode in [Mode::Hybrid, Mode::Libp2p] {
        let nodes =
            Box::pin(two(builder(mode).accept(ECHO, echo), builder(mode).accept(ECHO, echo))).await;
        for (from, to) in [(0, 1), (1, 0)] {
            let (from, to) = (&nodes[from], &nodes[to]);
            // Longer than a window of the muxer.
            for text in [&b""[..], b"hello", &vec![7; 600_000]] {
                let (streams, id) = (streams(from), to.identity());
                let answer = soon("an echo", echoed(&streams, &id, text)).await;
                let answer = answer.expect("it answers");
                let name = format!("{} ", from.identity());
                assert_eq!(answer, [name.as_bytes(), text].concat());
            }
        }
        for node in nodes {
            assert_eq!(node.stop(Duration::from_secs(5)).await, Shutdown::Clean);
        }
    }
}

#[tokio::test]
async fn a_stream_that_cannot_be_opened_says_why() {
    let [first, second] = Box::pin(two(builder(Mode::Libp2p), builder(Mode::Libp2p))).await;
    let from = streams(&second);
    let stranger = gossip::Keypair::from_seed([7; 32]).identity();
    let failed =
        async |peer: &Identity, name: &str| from.open(peer, name, LIMIT).await.unwrap_err();
    assert!(matches!(failed(&stranger, ECHO).await, OpenError::NotConnected));
    assert!(matches!(failed(&first.identity(), ECHO).await, OpenError::Unsupported));
    assert!(matches!(failed(&first.identity(), "echo").await, OpenError::Malformed { .. }));
    let zero = from.open(&first.identity(), ECHO, Duration::ZERO).await.unwrap_err();
    assert!(matches!(zero, OpenError::TimedOut), "{zero}");
    let ever = from.open(&first.identity(), ECHO, Duration::MAX).await.unwrap_err();
    assert!(matches!(ever, OpenError::Unsupported), "{ever}");
    // The handle does not keep the node running.
    assert_eq!(second.stop(Duration::from_secs(5)).await, Shutdown::Clean);
    assert!(matches!(failed(&first.identity(), ECHO).await, OpenError::Closed));
}

#[tokio::test]
async fn a_protocol_that_no_stream_would_reach_is_refused_at_the_start() {
    let refused = async |builder: NodeBuilder, expected: &str| {
        let error = builder.start(&CancellationToken::new()).await.expect_err(expected);
        assert!(error.is_misconfiguration(), "{error}");
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        let told = format!("{error}: {source}");
        assert!(told.contains(expected), "{told}");
        error
    };
    let without = refused(builder(Mode::WebSocket).accept(ECHO, echo), "they need libp2p").await;
    assert!(matches!(without, StartError::NoStreams { .. }), "{without:?}");
    for mode in [Mode::Hybrid, Mode::Libp2p] {
        let two = builder(mode).accept(ECHO, echo).accept(ECHO, echo);
        refused(two, "there are two acceptors for /own-protocol/echo/1").await;
        refused(builder(mode).accept("echo", echo), "\"echo\" is no name of a protocol").await;
        let own = builder(mode).accept("/ipfs/ping/1.0.0", echo);
        refused(own, "/ipfs/ping/1.0.0 is a protocol of the node itself").await;
        let never = AcceptLimits::default().with_time(Duration::ZERO);
        refused(builder(mode).accept_with(ECHO, never, echo), "cannot be limited so").await;
    }
    assert!(start(builder(Mode::WebSocket)).await.streams().is_none());
}

#[tokio::test]
async fn an_acceptor_that_panics_loses_its_stream_and_nothing_else() {
    const PANICS: &str = "/own-protocol/panics/1";
    // Once in the call itself, and once in its future.
    let panics = |stream: PeerStream| {
        assert_ne!(stream.identity(), gossip::Keypair::from_seed([9; 32]).identity(), "at once");
        async move {
            let _stream = stream;
            panic!("a bug of the application");
        }
    };
    let server = builder(Mode::Libp2p).accept(PANICS, panics).accept(ECHO, echo);
    let early = builder(Mode::Libp2p).key(gossip::Keypair::from_seed([9; 32]));
    let [server, early] = Box::pin(two(server, early)).await;
    let address: NodeAddress = server.p2p_addresses()[0].parse().expect("an address");
    let late = start(builder(Mode::Libp2p).peer(address)).await;
    until("both are connected", || server.node().peers(PeerClass::Connected).len() == 2).await;
    let id = server.identity();
    for client in [&early, &late] {
        let mut stream = streams(client).open(&id, PANICS, LIMIT).await.expect("it is accepted");
        let read = soon("the stream is reset", stream.read_u8()).await;
        assert!(read.is_err(), "{read:?}");
        let answer = echoed(&streams(client), &id, b"still").await.expect("it answers");
        assert!(answer.ends_with(b" still"));
    }
    assert_eq!(count(&server, P2pEvent::AcceptorPanicked), 2);
    assert_eq!(server.stop(Duration::from_secs(5)).await, Shutdown::Clean);
}

#[tokio::test]
async fn a_stream_whose_time_is_over_is_reset_and_its_place_is_free() {
    let limits = AcceptLimits::default()
        .with_at_once(NonZeroUsize::MIN)
        .with_per_peer(NonZeroUsize::MIN)
        .with_time(Duration::from_millis(200));
    let hold = |stream: PeerStream| async move {
        let _stream = stream;
        std::future::pending().await
    };
    let server = builder(Mode::Libp2p).accept_with(ECHO, limits, hold);
    let [server, client] = Box::pin(two(server, builder(Mode::Libp2p))).await;
    for round in 1..=3 {
        let open = streams(&client);
        let mut stream = open.open(&server.identity(), ECHO, LIMIT).await.expect("it is accepted");
        let read = soon("the stream is reset", stream.read_u8()).await;
        assert!(read.is_err(), "{read:?}");
        until("it is counted", || count(&server, P2pEvent::AcceptorTimedOut) == round).await;
    }
    assert_eq!(count(&server, P2pEvent::AcceptorFull), 0);
}

/// Holds every stream until its peer closes it, and counts the streams held at a time.
#[derive(Clone, Default)]
struct Crowd {
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Crowd {
    fn hold(&self, mut stream: PeerStream) -> impl Future<Output = ()> + Send + use<> {
        let crowd = self.clone();
        async move {
            let now = crowd.now.fetch_add(1, Ordering::SeqCst) + 1;
            crowd.most.fetch_max(now, Ordering::SeqCst);
            // Reports that the stream got a place, and then holds it until the peer has disconnected.
            let _ = stream.write_all(b"!").await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
            crowd.now.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

#[tokio::test]
async fn the_places_of_a_peer_and_of_a_protocol_are_bounded() {
    let crowd = Crowd::default();
    let holds = crowd.clone();
    let limits = AcceptLimits::default()
        .with_at_once(NonZeroUsize::new(6).expect("six"))
        .with_per_peer(NonZeroUsize::new(4).expect("four"));
    let hold = move |stream: PeerStream| holds.hold(stream);
    let server = builder(Mode::Libp2p).accept_with(ECHO, limits, hold);
    let [server, first] = Box::pin(two(server, builder(Mode::Libp2p))).await;
    let address: NodeAddress = server.p2p_addresses()[0].parse().expect("an address");
    let second = start(builder(Mode::Libp2p).peer(address)).await;
    until("both are connected", || server.node().peers(PeerClass::Connected).len() == 2).await;

    let take = async |client: &Running, wanted: usize| {
        let (streams, id) = (streams(client), server.identity());
        let mut held = Vec::new();
        for _ in 0..wanted {
            // A stream without a place is negotiated, and then reset.
            let mut stream = streams.open(&id, ECHO, LIMIT).await.expect("it is agreed on");
            if soon("a verdict", stream.read_u8()).await.is_ok() {
                held.push(stream);
            }
        }
        held
    };
    let of_first = take(&first, 7).await;
    assert_eq!(of_first.len(), 4, "its share");
    let refused = P2pEvent::AcceptorFullForPeer;
    let by_queue = P2pEvent::AcceptQueueFullForConnection;
    assert_eq!(count(&server, refused) + count(&server, by_queue), 3);
    let of_second = take(&second, 4).await;
    assert_eq!(of_second.len(), 2, "what is left");
    assert_eq!(count(&server, P2pEvent::AcceptorFull), 2);
    drop(of_first);
    until("the places are free", || crowd.now.load(Ordering::SeqCst) == 2).await;
    assert_eq!(take(&second, 4).await.len(), 2, "its share is four");
    assert_eq!(crowd.most.load(Ordering::SeqCst), 6);
}

/// A plain rust-libp2p swarm with streams only, connected to a node.
struct Plain {
    control: Control,
    id: PeerId,
    accepted: libp2p_stream::IncomingStreams,
    _tasks: TaskSet,
}

impl Plain {
    async fn connect(to: &Running) -> Self {
        let mut swarm: Swarm<libp2p_stream::Behaviour> = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .expect("a transport")
            .with_behaviour(|_| libp2p_stream::Behaviour::new())
            .expect("a behaviour")
            .with_swarm_config(|config| config.with_idle_connection_timeout(LIMIT))
            .build();
        let mut control = swarm.behaviour().new_control();
        let accepted = control.accept(StreamProtocol::new(ECHO)).expect("nobody else accepts it");
        let id = *swarm.local_peer_id();
        let address: Multiaddr = to.p2p_addresses()[0].parse().expect("an address");
        swarm.dial(address).expect("it can be dialled");
        let connected = async {
            while !matches!(
                swarm.select_next_some().await,
                libp2p::swarm::SwarmEvent::ConnectionEstablished { .. }
            ) {}
        };
        soon("it is connected", connected).await;
        let tasks = TaskSet::new(&CancellationToken::new());
        tasks.spawn("plain swarm", |_cancel| async move {
            loop {
                swarm.select_next_some().await;
            }
        });
        Self { control, id, accepted, _tasks: tasks }
    }
}

#[tokio::test]
async fn a_plain_swarm_and_a_node_open_streams_to_each_other() {
    let node = start(builder(Mode::Hybrid).accept(ECHO, echo)).await;
    let mut plain = Plain::connect(&node).await;
    let id = PeerId::from_bytes(node.identity().peer_id_bytes()).expect("a peer ID");
    let name = plain.id.to_string();

    let opened = plain.control.open_stream(id, StreamProtocol::new(ECHO)).await;
    let mut stream = opened.expect("the node accepts it");
    stream.write_all(b"from plain").await.expect("it is taken");
    stream.close().await.expect("its half is closed");
    let mut answer = Vec::new();
    soon("an echo", stream.read_to_end(&mut answer)).await.expect("it comes whole");
    assert_eq!(String::from_utf8(answer).expect("text"), format!("{name} from plain"));

    let identity = Identity::from_peer_id_bytes(&plain.id.to_bytes()).expect("an identity");
    let (asked, answered) =
        tokio::join!(async { echoed(&streams(&node), &identity, b"from node").await }, async {
            let (from, mut stream) = plain.accepted.next().await.expect("the node opens one");
            let mut text = Vec::new();
            stream.read_to_end(&mut text).await.expect("it comes whole");
            stream.write_all(b"plain heard ").await.expect("it is taken");
            stream.write_all(&text).await.expect("it is taken");
            stream.close().await.expect("it is closed");
            from
        });
    assert_eq!(answered, id);
    assert_eq!(asked.expect("it answers"), b"plain heard from node");
}

// A flood of streams, and peers that disconnect in the middle of one.
#[tokio::test]
async fn a_flood_of_streams_costs_its_sender_its_places_and_others_nothing() {
    let crowd = Crowd::default();
    let holds = crowd.clone();
    let hold = move |stream: PeerStream| holds.hold(stream);
    let node = start(builder(Mode::Libp2p).accept(ECHO, hold)).await;
    let id = PeerId::from_bytes(node.identity().peer_id_bytes()).expect("a peer ID");
    let flooder = Plain::connect(&node).await;
    let opened = join_all((0..200).map(|_| {
        let mut control = flooder.control.clone();
        async move { control.open_stream(id, StreamProtocol::new(ECHO)).await }
    }));
    let held = soon("the flood is answered", opened).await;

    let mut honest = Plain::connect(&node).await;
    let opened = honest.control.open_stream(id, StreamProtocol::new(ECHO)).await;
    let mut stream = opened.expect("the node accepts it");
    let mut mark = [0];
    soon("an honest peer is served", stream.read_exact(&mut mark)).await.expect("it is");
    assert!(crowd.most.load(Ordering::SeqCst) <= 8 + 1, "eight of one peer");
    // The connection breaks in the middle of every stream.
    drop((held, flooder));
    until("the places are free", || crowd.now.load(Ordering::SeqCst) == 1).await;
    drop((stream, honest));
    until("all places are free", || crowd.now.load(Ordering::SeqCst) == 0).await;
    let stopped = std::pin::pin!(node.stop(Duration::from_secs(5)));
    let late = std::pin::pin!(tokio::time::sleep(Duration::from_secs(10)));
    let Either::Left((shutdown, _)) = select(stopped, late).await else { panic!("it hangs") };
    assert_eq!(shutdown, Shutdown::Clean);
}
