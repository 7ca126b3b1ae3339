//! Places that unknown peers can take on a libp2p port: by half-open sockets, and by complete connections.

use std::{
    future::poll_fn,
    io,
    net::Ipv4Addr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use broadcaster::PeerEvent;
use futures::{FutureExt, future::BoxFuture};
use gossip::{
    Admission, DisconnectReason, GossipNode, NetworkProfile, NodeAddress, Outbound, PeerClass, Tag,
};
use libp2p::{
    Multiaddr, PeerId, Transport,
    core::{
        Endpoint,
        muxing::{StreamMuxer, StreamMuxerBox},
        transport::{
            DialOpts, ListenerId, PortUse, TransportError, TransportEvent, upgrade::Version,
        },
    },
    multiaddr::Protocol,
    noise, yamux,
};
use mesh::{Door, InboundLimits, LoopbackRule, RateWindow, Refusal};
use runtime::TaskSet;
use tokio::{
    io::AsyncReadExt,
    net::{TcpSocket, TcpStream},
    time,
};
use tokio_util::{
    compat::{Compat, TokioAsyncReadCompatExt},
    sync::CancellationToken,
};

use super::host::{Host, Node, PATIENCE, new_key, until};
use crate::{P2pConfig, config::libp2p_key};

/// Limits that count every address of 127.0.0.0/8 as a host of its own, without a rate limit.
fn counted() -> InboundLimits {
    let off = RateWindow::OFF;
    InboundLimits::default()
        .with_loopback(LoopbackRule::Counted)
        .with_rate(off)
        .with_subnet_rate(off)
}

async fn guarded(limits: InboundLimits) -> (Node, Door) {
    let door = Door::new(limits);
    let lent = door.clone();
    let node = Node::start_with(&NetworkProfile::TANDEM, "net", new_key(), |mut config| {
        config.door = lent;
        config
    });
    (node.await, door)
}

async fn connect(from: Ipv4Addr, to: &Multiaddr) -> io::Result<TcpStream> {
    let port = to.iter().find_map(|part| match part {
        Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.connect((Ipv4Addr::LOCALHOST, port.unwrap()).into()).await
}

/// Dials from one loopback address.
struct From(Ipv4Addr);

impl Transport for From {
    type Output = Compat<TcpStream>;
    type Error = io::Error;
    type ListenerUpgrade = std::future::Pending<io::Result<Compat<TcpStream>>>;
    type Dial = BoxFuture<'static, io::Result<Compat<TcpStream>>>;

    fn listen_on(
        &mut self,
        _: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        Err(TransportError::MultiaddrNotSupported(address))
    }

    fn remove_listener(&mut self, _: ListenerId) -> bool {
        false
    }

    fn dial(
        &mut self,
        to: Multiaddr,
        _: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        let from = self.0;
        Ok(async move { Ok(connect(from, &to).await?.compat()) }.boxed())
    }

    fn poll(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Poll::Pending
    }
}

/// Makes a complete connection with a new identity from one loopback address.
async fn join(from: Ipv4Addr, to: Multiaddr) -> io::Result<(PeerId, StreamMuxerBox)> {
    let key = libp2p_key(&new_key());
    let mut transport = From(from)
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(&key).unwrap())
        .multiplex(yamux::Config::default())
        .boxed();
    let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
    transport.dial(to, options).unwrap().await
}

/// Open connections, and the number of them that the node has closed.
struct Crowd {
    tasks: TaskSet,
    ended: Arc<AtomicUsize>,
}

impl Crowd {
    fn new() -> Self {
        Self { tasks: TaskSet::new(&CancellationToken::new()), ended: Arc::default() }
    }

    fn keep(&self, mut muxer: StreamMuxerBox) {
        let ended = Arc::clone(&self.ended);
        self.tasks.spawn("kept", |_| async move {
            // Dropping an inbound stream refuses it.
            let over = poll_fn(|context| {
                while let Poll::Ready(stream) = Pin::new(&mut muxer).poll_inbound(context) {
                    if stream.is_err() {
                        return Poll::Ready(());
                    }
                }
                Pin::new(&mut muxer).poll(context).map(drop)
            });
            over.await;
            ended.fetch_add(1, Ordering::Relaxed);
        });
    }

    fn ended(&self) -> usize {
        self.ended.load(Ordering::Relaxed)
    }
}

// Issue 8, 27. Before, with 150 silent sockets of one address 2 of 20 honest dials succeeded; with 2,000 none.
#[tokio::test]
async fn silent_sockets_keep_no_honest_peer_out() {
    let (node, door) = guarded(counted()).await;
    let mut silent = Vec::new();
    for number in 0..1_000_u32 {
        let from = [127, 0, 1, u8::try_from(number % 10 + 1).unwrap()];
        // An evicted socket may be reset before this test gets it.
        silent.extend(connect(from.into(), &node.address()).await.ok());
    }
    until("a full door", || door.half_open() == 128).await;
    for number in 0..20 {
        let honest = join([127, 1, number, 1].into(), node.address());
        let (_peer, muxer) = time::timeout(PATIENCE, honest).await.unwrap().unwrap();
        drop(muxer);
    }
    assert!(door.refused(Refusal::HalfOpen) >= 872);
    // The evicted socket was really closed, not only removed from the counts.
    let closed = time::timeout(PATIENCE, silent[0].read(&mut [0; 64])).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    node.root.cancel();
}

// Issue 8, 27. Before, 2,600 complete connections with free identities took all places, and 0 of 10 honest
// peers got one.
#[tokio::test]
async fn a_full_node_takes_places_from_the_crowd_for_newcomers() {
    let (node, door) = guarded(counted().with_total(40)).await;
    let crowd = Crowd::new();
    for number in 0..40 {
        let from = [127, 0, 1, number / 8 + 1];
        crowd.keep(join(from.into(), node.address()).await.unwrap().1);
    }
    until("a full node", || door.peers() == 40).await;
    let honest = Crowd::new();
    for number in 0..10 {
        honest.keep(join([127, 1, number, 1].into(), node.address()).await.unwrap().1);
        let evicted = usize::from(number) + 1;
        until("one of the crowd is gone", || crowd.ended() == evicted).await;
    }
    assert_eq!((door.peers(), door.refused(Refusal::PeerEvicted)), (40, 10));
    assert_eq!(honest.ended(), 0);
    // Another connection of the crowd evicts no honest peer.
    let one_more = Crowd::new();
    if let Ok((_, muxer)) = join([127, 0, 1, 1].into(), node.address()).await {
        one_more.keep(muxer);
        until("it is refused", || one_more.ended() == 1).await;
    }
    assert_eq!((door.peers(), honest.ended(), crowd.ended()), (40, 0, 10));
    node.root.cancel();
}

// Issue 9, 5: an evicted libp2p peer ended as `transport`, and whoever had brought messages went like any other.
#[tokio::test]
async fn an_evicted_peer_ends_as_evicted_and_is_not_the_one_that_brought_messages() {
    let (node, door) = guarded(counted().with_total(2)).await;
    let mut events = node.broadcaster.events();
    let mut peers = Vec::new();
    for number in 1..=2 {
        let address = NodeAddress::Multiaddr(node.address().to_string());
        let dials = |config| P2pConfig { peers: vec![address], ..config };
        peers.push(Node::start_with(&NetworkProfile::TANDEM, "net", new_key(), dials).await);
        until("a link", || node.broadcaster.peers(PeerClass::Connected).len() == number).await;
    }
    // A message that is sent before this side has its link goes to nobody.
    let of_sender = || peers[1].broadcaster.peers(PeerClass::Connected).len();
    until("the sender has its link", || of_sender() == 1).await;
    // The newest would go first.
    let message = Outbound::new(Tag::VB, &b"new"[..]);
    until("sent", || peers[1].network.broadcast(message.clone()) == Ok(Admission::Queued)).await;
    until("heard", || !node.heard().is_empty()).await;
    let newcomer = Crowd::new();
    newcomer.keep(join([127, 1, 0, 1].into(), node.address()).await.unwrap().1);
    let reason = loop {
        let event = time::timeout(PATIENCE, events.recv()).await.unwrap().unwrap();
        if let PeerEvent::Disconnected(peer, reason) = event {
            assert_eq!(peer.identity, Some(peers[0].network.identity()));
            break reason;
        }
    };
    assert_eq!(reason, DisconnectReason::Evicted);
    assert_eq!(node.broadcaster.metrics().disconnects(DisconnectReason::Evicted), 1);
    assert_eq!((door.peers(), door.refused(Refusal::PeerEvicted)), (2, 1));
    peers.iter().chain([&node]).for_each(|node| node.root.cancel());
}

// Issue 8, 10. Before, `--max-inbound-per-ip` had no effect on libp2p.
#[tokio::test]
async fn a_host_gets_no_more_places_than_its_limit() {
    let (node, door) = guarded(counted().with_per_ip(2)).await;
    let crowd = Crowd::new();
    for _ in 0..4 {
        // A refused dialer may get the error before its own side of the handshake is done.
        if let Ok((_, muxer)) = join([127, 0, 1, 1].into(), node.address()).await {
            crowd.keep(muxer);
        }
    }
    until("two were refused", || door.refused(Refusal::PerIp) == 2).await;
    assert_eq!(door.peers(), 2);
    node.root.cancel();
}

// Issue 9, 5: a configured peer gets a place even if the node is full.
#[tokio::test]
async fn a_configured_peer_gets_a_place_in_a_full_node() {
    let (node, door) = guarded(counted().with_total(3)).await;
    let crowd = Crowd::new();
    for number in 0..3 {
        crowd.keep(join([127, 1, number, 1].into(), node.address()).await.unwrap().1);
    }
    let key = new_key();
    door.configure(key.identity());
    let host = Host::dial(&key, &[], node.address()).await;
    until("one of the crowd is gone", || crowd.ended() == 1).await;
    assert!(host.is_alive());
    assert_eq!(door.peers(), 3);
    node.root.cancel();
}
