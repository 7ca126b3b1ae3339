//! The upkeep of the peers that are there: the fan-out, the ranking, idle links, tests of untried addresses.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]

use std::{net::SocketAddr, time::Duration};

use broadcaster::{
    Attached, Broadcaster, DialResult, Dialer, LaneSinks, Link, LinkInfo, Setup, Ticket,
};
use futures::future::join_all;
use gossip::{
    Direction, DisconnectReason, Identity, NetworkProfile, NodeAddress, PeerClass, Tag, Transport,
};
use mesh::{Added, DialFailure, LearntHosts, Listed, MeshLimits, SourceId, SourceKind};
use runtime::TaskSet;
use testkit::{
    harness::{Harness, RawPeer},
    memory::{MemoryPeer, Shape, pair},
    networks::{P2p, Ws},
    wait::until,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn ws(number: u8) -> NodeAddress {
    format!("h.e{number}.example{number}:1").parse().expect("it is an address")
}

fn identity(number: u8) -> Identity {
    Identity::from_ed25519([number; 32])
}

/// A node with so many learnt addresses, its dialer, and the tasks of its peers.
struct Bench {
    node: Broadcaster,
    dialer: Dialer,
    tasks: TaskSet,
    peers: u8,
}

/// A link that was dialled, as both ends see it.
struct Dialled {
    ticket: Ticket,
    peer: MemoryPeer,
    link: Attached,
}

impl Bench {
    fn new(limits: MeshLimits, learnt: u8) -> Self {
        let setup = Setup::new(&NetworkProfile::TANDEM).mesh(limits);
        let node = Broadcaster::start(setup, &CancellationToken::new());
        let dialer = node.mesh().attach(Transport::WebSocket);
        for number in 0..learnt {
            let source = SourceId::of(SourceKind::Dns);
            assert_eq!(node.mesh().list(Listed::new(ws(number), []), &source), Added::New);
        }
        Self { node, dialer, tasks: TaskSet::new(&CancellationToken::new()), peers: 0 }
    }

    /// The next order to dial, if it comes within a time.
    async fn ordered(&mut self, within: Duration) -> Option<Ticket> {
        time::timeout(within, self.dialer.next()).await.ok().flatten()
    }

    /// Makes a link of an order.
    fn answer(&mut self, mut ticket: Ticket) -> Dialled {
        self.peers += 1;
        let identity = identity(self.peers);
        let (near, far) = pair(Shape::default(), &self.tasks);
        let (sink, source) = near.into_halves(self.node.assembly());
        let address = ticket.address().to_string();
        let mut about = LinkInfo::new(Transport::WebSocket, Direction::Outbound, address);
        about.identity = Some(identity);
        about.http_address = Some(ticket.address().clone());
        let link = Link {
            about,
            sinks: LaneSinks::Shared(sink),
            sources: vec![source],
            greeting: Vec::new(),
            hooks: None,
            codec: None,
            gauge: None,
        };
        let link = self.node.attach(self.node.next_link_id(), link).expect("the node runs");
        ticket.connected(Some(identity));
        Dialled { ticket, peer: MemoryPeer::new(far, identity), link }
    }

    /// Makes links of the orders that come at once.
    async fn fill(&mut self) -> Vec<Dialled> {
        let mut dialled = Vec::new();
        while let Some(ticket) = self.ordered(SECOND).await {
            dialled.push(self.answer(ticket));
        }
        dialled
    }

    fn outgoing(&self) -> usize {
        self.node.peers(PeerClass::ConnectedOut).len()
    }
}

// Issue 10, 5: sixteen links came up and stayed where four are the fan-out.
#[tokio::test(start_paused = true)]
async fn links_that_come_up_late_are_let_go_above_the_fan_out() {
    let mut bench = Bench::new(MeshLimits::default(), 40);
    let (mut waiting, mut links) = (Vec::new(), Vec::new());
    let end = Instant::now() + 20 * SECOND;
    while Instant::now() < end {
        let next = waiting.first().map_or(end, |(at, _)| *at);
        match time::timeout_at(next, bench.dialer.next()).await {
            Ok(Some(ticket)) => waiting.push((Instant::now() + SECOND, ticket)),
            Ok(None) => panic!("the dialer is the current one"),
            Err(_elapsed) if waiting.is_empty() => {}
            Err(_elapsed) => {
                let (_, ticket) = waiting.remove(0);
                links.push(bench.answer(ticket));
            }
        }
    }
    assert!(links.len() > 4, "only {} dials were answered", links.len());
    assert_eq!((bench.outgoing(), waiting.len()), (4, 0));
    for late in links.drain(4..).map(|mut dialled| async move {
        let reason = dialled.link.ended().await;
        dialled.ticket.ended(reason);
        reason
    }) {
        assert_eq!(late.await, DisconnectReason::Surplus);
    }
    // Their addresses have shown that they work, and are the first to be dialled when there is room.
    let kept = links.remove(0);
    drop(kept.peer);
    kept.ticket.ended(DisconnectReason::RemoteClosed);
    assert!(bench.ordered(2 * SECOND).await.is_some());
    assert!(bench.node.mesh().records().iter().all(|record| record.failures <= 1));
}

// Issue 10, 5; source: wire facts 11.3.
#[tokio::test(start_paused = true)]
async fn the_peer_that_brings_votes_last_is_replaced_by_another() {
    let mut bench = Bench::new(MeshLimits::default().with_feeler_every(None), 40);
    let mut dialled = bench.fill().await;
    assert_eq!(dialled.len(), 4);
    let (began, mut vote) = (Instant::now(), 0_u32);
    let slow = loop {
        time::sleep(SECOND / 5).await;
        vote += 1;
        for (place, one) in dialled.iter_mut().enumerate() {
            let late = if place == 2 { 1 } else { 0 };
            // A link that was let go takes no more.
            let _ = one.peer.send(Tag::AV, &(vote - late).to_be_bytes()).await;
        }
        let ended = time::timeout(Duration::ZERO, dialled[2].link.ended()).await;
        if let Ok(reason) = ended {
            break (dialled.remove(2), reason);
        }
        assert!(began.elapsed() < 5 * MINUTE, "nobody was let go");
    };
    let (slow, reason) = slow;
    assert_eq!(reason, DisconnectReason::LeastPerforming);
    assert!(began.elapsed() > MINUTE, "{:?}", began.elapsed());
    let left = slow.ticket.address().clone();
    slow.ticket.ended(reason);
    let ticket = bench.ordered(5 * SECOND).await.expect("another one is dialled");
    assert_ne!(ticket.address(), &left);
}

#[tokio::test(start_paused = true)]
async fn the_slowest_peer_stays_if_there_is_no_other_address() {
    let mut bench = Bench::new(MeshLimits::default().with_fan_out(2), 2);
    let mut dialled = bench.fill().await;
    assert_eq!(dialled.len(), 2);
    for vote in 1..5 * 600_u32 {
        time::sleep(SECOND / 5).await;
        for (place, one) in dialled.iter_mut().enumerate() {
            let late = if place == 1 { 1 } else { 0 };
            one.peer.send(Tag::AV, &(vote - late).to_be_bytes()).await.expect("the link is up");
        }
    }
    assert_eq!(bench.outgoing(), 2);
}

// Source: wire facts 11.4.
#[tokio::test(start_paused = true)]
async fn a_link_that_carries_nothing_while_others_do_is_let_go() {
    let mut bench = Bench::new(MeshLimits::default().with_feeler_every(None), 2);
    let mut dialled = bench.fill().await;
    for one in &mut dialled {
        let quiet = time::timeout(30 * MINUTE, one.link.ended()).await;
        assert!(quiet.is_err(), "nobody has anything to say");
    }
    let began = Instant::now();
    let mut silent = dialled.remove(0);
    loop {
        dialled[0].peer.send(Tag::AV, &began.elapsed().as_secs().to_be_bytes()).await.unwrap();
        if let Ok(reason) = time::timeout(MINUTE, silent.link.ended()).await {
            assert_eq!(reason, DisconnectReason::Idle);
            break;
        }
        assert!(began.elapsed() < 10 * MINUTE, "the silent one stays");
    }
    assert_eq!(bench.outgoing(), 1);
}

// Source: threats and goals, row 23.
#[tokio::test(start_paused = true)]
async fn an_untried_address_is_tested_and_let_go_while_the_fan_out_is_reached() {
    let mut bench = Bench::new(MeshLimits::default().with_fan_out(1), 2);
    let kept = bench.fill().await;
    assert_eq!(kept.len(), 1);
    let ticket = bench.ordered(5 * MINUTE).await.expect("the other address is tested");
    let mut tested = bench.answer(ticket);
    let reason = tested.link.ended().await;
    assert_eq!(reason, DisconnectReason::Surplus);
    tested.ticket.ended(reason);
    assert!(bench.ordered(10 * MINUTE).await.is_none(), "it is tested once");
    let works = |record: &mesh::Record| record.failures == 0 && record.worked;
    assert_eq!(bench.node.mesh().records().iter().filter(|record| works(record)).count(), 1);
}

/// A way to a node on which each connection is answered a second late.
async fn late(address: &NodeAddress, tasks: &TaskSet) -> NodeAddress {
    let text = address.to_string();
    let port = text.split(['/', ':']).filter_map(|part| part.parse::<u16>().ok()).next();
    let to: SocketAddr = ([127, 0, 0, 1], port.expect("it has a port")).into();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let own = listener.local_addr().expect("it is bound").port();
    let inner = tasks.clone();
    tasks.spawn("late listener", |_cancel| async move {
        while let Ok((mut near, _)) = listener.accept().await {
            inner.spawn("late connection", move |_cancel| async move {
                time::sleep(SECOND).await;
                let Ok(mut far) = TcpStream::connect(to).await else { return };
                // The end of either side ends both.
                let _ = copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    text.replace(&to.port().to_string(), &own.to_string()).parse().expect("it is an address")
}

// Issue 10, 5: the same over real sockets.
async fn late_links_are_let_go<H: Harness>(transport: Transport) {
    let tasks = TaskSet::new(&CancellationToken::new());
    let limits = MeshLimits::default().with_feeler_every(None);
    let hub = H::start(Setup::new(&NetworkProfile::TANDEM).mesh(limits)).await;
    let others = join_all((0..8).map(|_| H::start(Setup::new(&NetworkProfile::TANDEM)))).await;
    let mesh = hub.broadcaster().mesh();
    for other in &others {
        let address = late(&other.gossip().addresses()[0], &tasks).await;
        let listed = Listed::new(address, []);
        assert_eq!(mesh.list(listed, &SourceId::of(SourceKind::Dns)), Added::New);
    }
    let dials = || mesh.metrics().dials(DialResult::Connected, transport);
    until("more dials are answered than are wanted", || dials() > 4).await;
    let all = || others.iter().map(|other| other.gossip().peers(PeerClass::Connected).len());
    until("four links stay", || {
        hub.gossip().peers(PeerClass::ConnectedOut).len() == 4 && all().sum::<usize>() == 4
    })
    .await;
}

// Issue 10, 2: a name in DNS could have a node send requests into the network that it stands in.
async fn a_learnt_name_of_this_machine_is_dialled_where_all_hosts_are<H: Harness>(
    transport: Transport,
    named: impl Fn(&str) -> String,
) {
    for (hosts, connects) in [(LearntHosts::Any, true), (LearntHosts::Public, false)] {
        let limits = MeshLimits::default().with_learnt_hosts(hosts);
        let one = H::start(Setup::new(&NetworkProfile::TANDEM).mesh(limits)).await;
        let other = H::start(Setup::new(&NetworkProfile::TANDEM)).await;
        let address = named(&other.gossip().addresses()[0].to_string());
        let mesh = one.broadcaster().mesh();
        let listed = Listed::new(address.parse().expect("it is an address"), []);
        assert_eq!(mesh.list(listed, &SourceId::of(SourceKind::Dns)), Added::New);
        let result = if connects {
            DialResult::Connected
        } else {
            DialResult::Failed(DialFailure::Unreachable)
        };
        until("it is dialled", || mesh.metrics().dials(result, transport) > 0).await;
        let linked = || other.gossip().peers(PeerClass::Connected).len();
        until("the other end agrees", || linked() == usize::from(connects)).await;
    }
}

#[tokio::test]
async fn a_learnt_name_over_websocket_leads_to_public_hosts_where_only_these_are_dialled() {
    let named = |address: &str| address.replace("127.0.0.1", "localhost");
    a_learnt_name_of_this_machine_is_dialled_where_all_hosts_are::<Ws>(Transport::WebSocket, named)
        .await;
}

// Issue 10, 2: names over libp2p were dialled whatever they led to.
#[tokio::test]
async fn a_learnt_name_over_libp2p_leads_to_public_hosts_where_only_these_are_dialled() {
    let named = |address: &str| address.replace("/ip4/127.0.0.1/", "/dns4/localhost/");
    a_learnt_name_of_this_machine_is_dialled_where_all_hosts_are::<P2p>(Transport::Libp2p, named)
        .await;
}

// Issue 10, 3: the store had a column that no transport filled.
async fn a_round_trip_is_known<H: Harness>() {
    let started = || H::start(Setup::new(&NetworkProfile::TANDEM));
    let (one, other) = (started().await, started().await);
    one.dial(&other).await;
    let rtt = || one.gossip().peers(PeerClass::ConnectedOut).first().and_then(|peer| peer.rtt);
    until("the round-trip time is known", || rtt().is_some()).await;
    assert!(rtt().is_some_and(|rtt| rtt < 10 * SECOND), "{:?}", rtt());
    // It stays with the address when the link has ended.
    drop(other);
    let kept = || one.broadcaster().mesh().records().first().and_then(|record| record.rtt);
    until("the phonebook keeps it", || kept().is_some()).await;
}

#[tokio::test]
async fn a_round_trip_over_websocket_is_known_and_kept() {
    a_round_trip_is_known::<Ws>().await;
}

#[tokio::test]
async fn a_round_trip_over_libp2p_is_known_and_kept() {
    a_round_trip_is_known::<P2p>().await;
}

#[tokio::test]
async fn late_links_above_the_fan_out_are_let_go_over_websocket() {
    late_links_are_let_go::<Ws>(Transport::WebSocket).await;
}

#[tokio::test]
async fn late_links_above_the_fan_out_are_let_go_over_libp2p() {
    late_links_are_let_go::<P2p>(Transport::Libp2p).await;
}
