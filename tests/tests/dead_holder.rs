//! A holder of an identity that dies without a word: its socket swallows everything and is never closed. A
//! newcomer with the same key takes its place, over real transports.
#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use broadcaster::{Broadcaster, Limits, Relaying, Setup};
use bytes::Bytes;
use gossip::{
    Admission, GossipNode, Identity, Keypair, LinkId, NetworkId, NetworkProfile, NodeAddress,
    Outbound, PeerClass, Tag, Transport,
};
use mesh::{Door, InboundLimits};
use net_hybrid::{HybridConfig, HybridNetwork};
use net_p2p::P2pConfig;
use net_ws::WsConfig;
use runtime::TaskSet;
use testkit::{recorder::Recorder, wait::until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

const SECOND: Duration = Duration::from_secs(1);
/// The key of the holder, and of the newcomer.
const TWIN: [u8; 32] = [7; 32];
/// A newcomer takes over within five seconds, once it is there. The rest is what a dial and a handshake take on a
/// busy machine.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(20);

struct Node {
    network: HybridNetwork,
    broadcaster: Broadcaster,
    heard: Recorder,
    root: CancellationToken,
}

impl Node {
    /// A node that is known under `name` over WebSocket.
    async fn start(profile: &'static NetworkProfile, seed: [u8; 32], name: Option<String>) -> Self {
        let (root, heard) = (CancellationToken::new(), Recorder::default());
        // The node blames no peer before the newcomer is there, however slow the machine is.
        let limits = Limits::default().with_write_timeout(60 * SECOND);
        let setup = Setup::new(profile).limits(limits).relaying(Relaying::Accepted);
        let setup = [Tag::AV, Tag::VB]
            .into_iter()
            .fold(setup, |setup, tag| setup.handler(tag, Arc::new(heard.clone())));
        let broadcaster = Broadcaster::start(setup, &root);
        let network = NetworkId::new("dead-holder").expect("the name is a short path segment");
        let mut ws = WsConfig::new(network.clone());
        ws.listen = Some("127.0.0.1:0".to_owned());
        ws.public_address = name;
        let mut p2p = P2pConfig::new(network, Keypair::from_seed(seed));
        p2p.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().expect("it is a multiaddr")];
        p2p.door = Door::new(InboundLimits::default().with_per_ip(100));
        let config = HybridConfig { ws, p2p };
        let network = HybridNetwork::start(config, broadcaster.clone(), &root).await;
        Self { network: network.expect("the node starts"), broadcaster, heard, root }
    }

    fn address(&self, transport: Transport) -> NodeAddress {
        match transport {
            Transport::Libp2p => self.network.p2p().addresses().remove(0),
            _ => self.network.ws().addresses().remove(0),
        }
    }

    fn dial(&self, transport: Transport, address: &NodeAddress) {
        match transport {
            Transport::Libp2p => {
                self.network.p2p().add_peer(address).expect("the address can be dialled");
            }
            _ => self.network.ws().add_peer(address),
        }
    }

    fn link_to(&self, identity: &Identity) -> Option<LinkId> {
        self.broadcaster.peer_of(identity)
    }

    fn say(&self, tag: Tag, body: impl Into<Bytes>) {
        let admission = self.network.broadcast(Outbound::new(tag, body.into()));
        assert_eq!(admission, Ok(Admission::Queued));
    }

    async fn stop(self) {
        // The connections of a holder that is cut off do not let themselves be closed.
        let _ = self.network.stop(SECOND).await;
        let _ = self.broadcaster.stop(SECOND).await;
        self.root.cancel();
    }

    fn queued_for(&self, link: LinkId) -> usize {
        let peers = self.network.peers(PeerClass::Connected);
        peers.iter().find(|peer| peer.id == link).map_or(0, |peer| peer.queued_bytes)
    }
}

/// A TCP proxy in front of a node, as a path that can break: once cut, its connections move no further byte and
/// end never. New connections are carried.
struct Proxy {
    address: SocketAddr,
    target: Arc<OnceLock<SocketAddr>>,
    cut: Arc<Mutex<CancellationToken>>,
    _tasks: TaskSet,
}

impl Proxy {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let target = Arc::<OnceLock<SocketAddr>>::default();
        let cut = Arc::<Mutex<CancellationToken>>::default();
        let tasks = TaskSet::new(&CancellationToken::new());
        let (to, current, each) = (Arc::clone(&target), Arc::clone(&cut), tasks.clone());
        tasks.spawn("proxy", |cancel| async move {
            while let Some(Ok((near, _))) = cancel.run_until_cancelled(listener.accept()).await {
                let target = *to.get().expect("the target is known before anybody dials");
                let Ok(far) = TcpStream::connect(target).await else { continue };
                let cut = current.lock().expect("no panic").clone();
                each.spawn("proxied", |cancel| async move {
                    cancel.run_until_cancelled(carry(near, far, cut)).await;
                });
            }
        });
        Self { address, target, cut, _tasks: tasks }
    }

    fn cut(&self) {
        std::mem::take(&mut *self.cut.lock().expect("no panic")).cancel();
    }
}

/// Carries bytes both ways until the path is cut, and then holds both sockets for ever.
async fn carry(mut near: TcpStream, mut far: TcpStream, cut: CancellationToken) {
    let (mut near_read, mut near_write) = near.split();
    let (mut far_read, mut far_write) = far.split();
    let copies = async {
        tokio::join!(copy(&mut near_read, &mut far_write), copy(&mut far_read, &mut near_write));
    };
    if cut.run_until_cancelled(copies).await.is_none() {
        std::future::pending::<()>().await;
    }
}

async fn copy(from: &mut (impl AsyncReadExt + Unpin), to: &mut (impl AsyncWriteExt + Unpin)) {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        match from.read(&mut bytes).await {
            Ok(0) | Err(_) => break,
            Ok(read) => {
                if to.write_all(&bytes[..read]).await.is_err() {
                    break;
                }
            }
        }
    }
    // The other end may be gone already.
    let _ = to.shutdown().await;
}

/// The port of a listening node, whichever way it is written.
fn port_of(address: &NodeAddress) -> u16 {
    let text = address.to_string();
    let digits = |text: &str| -> String { text.chars().take_while(char::is_ascii_digit).collect() };
    let port = match text.split_once("/tcp/") {
        Some((_, rest)) => digits(rest),
        None => digits(text.rsplit(':').next().unwrap_or_default()),
    };
    port.parse().expect("an address has a port")
}

/// The same address at another port.
fn through(address: &NodeAddress, proxy: &Proxy) -> NodeAddress {
    let text = address.to_string();
    let (from, to) = (port_of(address).to_string(), proxy.address.port().to_string());
    text.replacen(&from, &to, 1).parse().expect("it stays an address")
}

/// Kills the holder of an identity, and expects the newcomer in its place.
async fn takes_over(
    profile: &'static NetworkProfile,
    holder_by: Transport,
    newcomer_by: Transport,
) {
    let shown = format!("{}: {holder_by:?}, then {newcomer_by:?}", profile.name);
    let proxy = Proxy::start().await;
    let name = proxy.address.to_string();
    let node = Node::start(profile, [1; 32], Some(name)).await;
    let witness = Node::start(profile, [2; 32], None).await;
    let address = node.address(holder_by);
    let target = SocketAddr::from(([127, 0, 0, 1], port_of(&address)));
    proxy.target.set(target).expect("it is set once");
    let holder = Node::start(profile, TWIN, None).await;
    let twin = holder.network.p2p().identity();
    holder.dial(holder_by, &through(&address, &proxy));
    until(&format!("{shown}: the holder is there"), || node.link_to(&twin).is_some()).await;
    let held = node.link_to(&twin).expect("it is there");
    witness.dial(Transport::Libp2p, &node.address(Transport::Libp2p));
    until("the witness is there", || node.network.peers(PeerClass::Connected).len() == 2).await;
    // Messages that the node took from the holder go on, although the holder dies at once.
    for number in 0..50 {
        holder.say(Tag::AV, format!("of the holder {number}"));
    }
    node.heard.hears(b"of the holder 49").await;
    proxy.cut();
    holder.stop().await;
    // More than the sockets hold, so that what comes behind it is not written.
    let mut sent = 0_u8;
    while node.queued_for(held) == 0 {
        assert!(sent < 60, "{shown}: the sockets take everything");
        node.say(Tag::VB, vec![sent; 1_000_000]);
        sent += 1;
        time::sleep(SECOND / 5).await;
    }
    for number in 0..100 {
        // Of the lane that is full: on libp2p each lane has a stream of its own.
        node.say(Tag::VB, format!("for the twin {number}"));
    }
    assert_eq!(node.link_to(&twin), Some(held), "{shown}: nothing told of its death");
    let newcomer = Node::start(profile, TWIN, None).await;
    let (began, address) = (Instant::now(), node.address(newcomer_by));
    let address = if newcomer_by == holder_by { through(&address, &proxy) } else { address };
    newcomer.dial(newcomer_by, &address);
    let is_new = |link: LinkId| link != held;
    until(&format!("{shown}: taken over"), || node.link_to(&twin).is_some_and(is_new)).await;
    assert!(began.elapsed() < TAKEN_OVER_WITHIN, "{shown}: after {:?}", began.elapsed());
    for number in 0..100 {
        let body = format!("for the twin {number}");
        newcomer.heard.hears(body.as_bytes()).await;
        assert_eq!(newcomer.heard.times(body.as_bytes()), 1, "{shown}: {body}");
    }
    for number in 0..50 {
        witness.heard.hears(format!("of the holder {number}").as_bytes()).await;
    }
    node.say(Tag::AV, "after");
    newcomer.heard.hears(b"after").await;
    newcomer.say(Tag::AV, "back");
    witness.heard.hears(b"back").await;
    for node in [node, witness, newcomer] {
        node.stop().await;
    }
}

// Issue 9, 6: with a holder that is dead and says nothing, its identity was nobody's for a minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_takes_over_from_a_dead_holder_on_websocket() {
    let (ws, p2p) = (Transport::WebSocket, Transport::Libp2p);
    takes_over(&NetworkProfile::TANDEM, ws, ws).await;
    takes_over(&NetworkProfile::TANDEM, ws, p2p).await;
    takes_over(&NetworkProfile::ALGORAND, ws, ws).await;
    takes_over(&NetworkProfile::ALGORAND, ws, p2p).await;
}

// Issue 9, 6.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_takes_over_from_a_dead_holder_on_libp2p() {
    let p2p = Transport::Libp2p;
    takes_over(&NetworkProfile::TANDEM, p2p, p2p).await;
    takes_over(&NetworkProfile::ALGORAND, p2p, p2p).await;
}
