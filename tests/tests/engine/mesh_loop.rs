//! The mesh loop of a node, with dialers and sources of the test's own, on a paused clock.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use broadcaster::{Attached, Broadcaster, Dialer, LaneSinks, Link, LinkInfo, Setup, Ticket};
use gossip::{
    BoxFuture, ConnectPolicy, Direction, DisconnectReason, Identity, NetworkProfile, NodeAddress,
    Transport,
};
use mesh::{
    Added, AddressSource, BanSubject, DialFailure, Listed, MeshLimits, Role, SourceError, SourceId,
    SourceKind,
};
use runtime::TaskSet;
use testkit::memory::{MemoryPeer, Shape, pair};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

const SECOND: Duration = Duration::from_secs(1);
const THEM: Identity = Identity::from_ed25519([7; 32]);

fn ws(number: usize) -> NodeAddress {
    format!("h.e{number}.example{number}:1").parse().expect("it is an address")
}

fn p2p(number: u8) -> NodeAddress {
    let id = Identity::from_ed25519([number; 32]);
    format!("/ip4/10.{number}.0.1/tcp/1/p2p/{id}").parse().expect("it is an address")
}

fn node(limits: MeshLimits) -> Broadcaster {
    let setup = Setup::new(&NetworkProfile::TANDEM).mesh(limits);
    Broadcaster::start(setup, &CancellationToken::new())
}

fn learnt(node: &Broadcaster, address: NodeAddress) {
    let source = SourceId::of(SourceKind::Dns);
    assert_eq!(node.mesh().list(Listed::new(address, []), &source), Added::New);
}

fn configured(node: &Broadcaster, address: NodeAddress) {
    assert_eq!(node.mesh().configure(address), Added::New);
}

async fn next(dialer: &mut Dialer) -> Ticket {
    let ordered = time::timeout(3_600 * SECOND, dialer.next()).await;
    ordered.expect("an order comes").expect("the dialer is the current one")
}

/// A link of a peer, dialled by this node.
fn attach(node: &Broadcaster, tasks: &TaskSet, identity: Identity) -> (MemoryPeer, Attached) {
    let (near, far) = pair(Shape::default(), tasks);
    let (sink, source) = near.into_halves(node.assembly());
    let mut about = LinkInfo::new(Transport::WebSocket, Direction::Outbound, "here".to_owned());
    about.identity = Some(identity);
    let link = Link {
        about,
        sinks: LaneSinks::Shared(sink),
        sources: vec![source],
        greeting: Vec::new(),
        hooks: None,
        codec: None,
        gauge: None,
    };
    let attached = node.attach(node.next_link_id(), link).expect("the node runs");
    (MemoryPeer::new(far, identity), attached)
}

// Issue 10, 5: two loops each dialled their own fan-out.
#[tokio::test(start_paused = true)]
async fn both_transports_of_a_node_share_one_fan_out() {
    let node = node(MeshLimits::default());
    let mut over_ws = node.mesh().attach(Transport::WebSocket);
    let mut over_p2p = node.mesh().attach(Transport::Libp2p);
    for number in 1..=20 {
        learnt(&node, ws(usize::from(number)));
        learnt(&node, p2p(number));
    }
    let mut linked = linked_within(60 * SECOND, &mut over_ws, &mut over_p2p).await;
    assert_eq!(linked.len(), 4);
    // The next one is dialled soon after one has ended, over whatever transport.
    linked.remove(0).ended(DisconnectReason::RemoteClosed);
    assert_eq!(linked_within(SECOND, &mut over_ws, &mut over_p2p).await.len(), 1);
}

/// Makes a link of each order that comes within `time`, at once.
async fn linked_within(time: Duration, one: &mut Dialer, other: &mut Dialer) -> Vec<Ticket> {
    let (until, mut linked) = (Instant::now() + time, Vec::new());
    loop {
        let ordered = async {
            tokio::select! {
                ticket = one.next() => ticket,
                ticket = other.next() => ticket,
            }
        };
        let Ok(Some(mut ticket)) = time::timeout_at(until, ordered).await else { return linked };
        ticket.connected(None);
        linked.push(ticket);
    }
}

#[tokio::test(start_paused = true)]
async fn an_order_that_is_dropped_comes_again_with_a_back_off() {
    let node = node(MeshLimits::default());
    let mut dialer = node.mesh().attach(Transport::WebSocket);
    configured(&node, ws(1));
    let began = Instant::now();
    for _ in 0..10 {
        assert_eq!(next(&mut dialer).await.address(), &ws(1));
    }
    assert!(began.elapsed() > SECOND, "{:?}", began.elapsed());
    let mut ticket = next(&mut dialer).await;
    ticket.connected(None);
    time::advance(60 * SECOND).await;
    drop(ticket);
    let ended = Instant::now();
    assert_eq!(next(&mut dialer).await.address(), &ws(1));
    assert!(ended.elapsed() <= SECOND, "its link was stable");
}

#[tokio::test(start_paused = true)]
async fn orders_wait_while_there_is_no_dialer_and_go_to_the_newest() {
    let node = node(MeshLimits::default());
    let first = node.mesh().attach(Transport::WebSocket);
    drop(first);
    configured(&node, ws(1));
    time::sleep(60 * SECOND).await;
    let mut second = node.mesh().attach(Transport::WebSocket);
    let mut third = node.mesh().attach(Transport::WebSocket);
    let ordered = time::timeout(SECOND, second.next()).await;
    // The order went to the second one at most before the third one came.
    drop(ordered);
    drop(second);
    assert_eq!(next(&mut third).await.address(), &ws(1));
}

/// A source with scripted answers, which notes when it is asked.
struct Script {
    kind: SourceKind,
    asked: Mutex<Vec<Instant>>,
    answers: Mutex<Vec<Answer>>,
}

#[derive(Clone, Copy)]
enum Answer {
    Lists(usize),
    Nothing,
    Fails,
    Hangs,
}

impl Default for Script {
    fn default() -> Self {
        let (asked, answers) = (Mutex::default(), Mutex::default());
        Self { kind: SourceKind::Dns, asked, answers }
    }
}

impl Script {
    /// The times at which it was asked, in seconds since `began`.
    fn asked_after(&self, began: Instant) -> Vec<f64> {
        let asked = self.asked.lock().expect("no panic");
        asked.iter().map(|at| (*at - began).as_secs_f64()).collect()
    }
}

impl AddressSource for Script {
    fn id(&self) -> SourceId {
        SourceId::named(self.kind, "script")
    }

    fn fetch(&self) -> BoxFuture<'_, Result<Vec<Listed>, SourceError>> {
        self.asked.lock().expect("no panic").push(Instant::now());
        let mut answers = self.answers.lock().expect("no panic");
        let answer = if answers.is_empty() { Answer::Nothing } else { answers.remove(0) };
        let source_id = self.id();
        Box::pin(async move {
            match answer {
                Answer::Lists(count) => {
                    Ok((0..count).map(|n| Listed::new(ws(n), [Role::relay()])).collect())
                }
                Answer::Nothing => Ok(Vec::new()),
                Answer::Fails => {
                    let cause = io::Error::other("no server answers").into();
                    Err(SourceError { source_id, cause })
                }
                Answer::Hangs => std::future::pending().await,
            }
        })
    }
}

// Source: wire facts 10.4.
#[tokio::test(start_paused = true)]
async fn a_source_that_fails_hangs_or_says_nothing_keeps_its_addresses() {
    let node = node(MeshLimits::default());
    let source = Arc::new(Script::default());
    *source.answers.lock().unwrap() =
        vec![Answer::Lists(3), Answer::Fails, Answer::Nothing, Answer::Hangs, Answer::Lists(2)];
    let began = Instant::now();
    node.mesh().add_source(source.clone()).unwrap();
    for (after, known) in [(1, 3), (61, 3), (121, 3), (211, 3), (271, 2)] {
        time::sleep_until(began + after * SECOND).await;
        assert_eq!(node.mesh().records().len(), known, "after {after} s");
    }
    let asked = source.asked.lock().unwrap().clone();
    let seconds: Vec<u64> = asked.iter().map(|at| (*at - began).as_secs()).collect();
    // The one that hung was given up after 30 s.
    assert_eq!(seconds, [0, 60, 120, 180, 270]);
}

// Issue 10, 5: existing nodes wait up to 60 s.
#[tokio::test(start_paused = true)]
async fn a_node_that_lost_its_last_peer_asks_its_sources_within_six_seconds() {
    let (node, tasks) = (node(MeshLimits::default()), TaskSet::new(&CancellationToken::new()));
    let source = Arc::new(Script::default());
    node.mesh().add_source(source.clone()).unwrap();
    let (peer, mut link) = attach(&node, &tasks, THEM);
    time::sleep(5 * SECOND).await;
    assert_eq!(source.asked.lock().unwrap().len(), 1);
    drop(peer);
    link.ended().await;
    let lost = Instant::now();
    time::sleep(6 * SECOND).await;
    let asked = source.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked[1] - lost >= 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_told_to_connect_asks_its_sources_at_once() {
    let node = node(MeshLimits::default());
    let source = Arc::new(Script::default());
    node.mesh().add_source(source.clone()).unwrap();
    time::sleep(10 * SECOND).await;
    node.connect_outgoing(ConnectPolicy::FillMesh, Transport::WebSocket);
    time::sleep(SECOND).await;
    assert_eq!(source.asked.lock().unwrap().len(), 2);
}

// Issue 11, 4: a node below its fan-out searched the DHT once a minute.
#[tokio::test(start_paused = true)]
async fn a_node_below_its_fan_out_asks_directories_after_growing_waits() {
    let node = node(MeshLimits::default());
    let source = Arc::new(Script { kind: SourceKind::Directory, ..Script::default() });
    let began = Instant::now();
    node.mesh().add_source(source.clone()).unwrap();
    time::sleep(600 * SECOND).await;
    let asked = source.asked_after(began);
    assert!(asked[1] <= 2.0 && asked[5] < 60.0, "{asked:?}");
    let waits: Vec<f64> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(waits.iter().all(|wait| (0.99..60.1).contains(wait)), "{waits:?}");
    assert!(asked.len() <= 20, "{asked:?}");
    // With as many links as it wants it asks once a minute.
    let mut dialer = node.mesh().attach(Transport::WebSocket);
    let mut other = node.mesh().attach(Transport::Libp2p);
    (1..=4).for_each(|number| learnt(&node, ws(number)));
    let mut linked = linked_within(SECOND, &mut dialer, &mut other).await;
    assert_eq!(linked.len(), 4);
    time::sleep(120 * SECOND).await;
    let before = source.asked_after(began).len();
    time::sleep(240 * SECOND).await;
    assert_eq!(source.asked_after(began).len(), before + 4);
    // It asks soon after it has lost one.
    let lost = Instant::now();
    assert!(node.mesh().remove(&ws(1)));
    let ended = linked.iter().position(|ticket| ticket.address() == &ws(1)).unwrap();
    linked.remove(ended).ended(DisconnectReason::RemoteClosed);
    time::sleep(10 * SECOND).await;
    let since =
        source.asked_after(began).into_iter().filter(|at| *at > (lost - began).as_secs_f64());
    assert!(since.count() >= 2, "{:?}", source.asked_after(began));
}

// Issue 11, 4.
#[tokio::test(start_paused = true)]
async fn a_peer_that_comes_and_goes_makes_a_node_ask_no_more_often() {
    let node = node(MeshLimits::default());
    let source = Arc::new(Script { kind: SourceKind::Directory, ..Script::default() });
    node.mesh().add_source(source.clone()).unwrap();
    let mut dialer = node.mesh().attach(Transport::WebSocket);
    configured(&node, ws(1));
    let began = Instant::now();
    while began.elapsed() < 600 * SECOND {
        let mut ticket = next(&mut dialer).await;
        ticket.connected(None);
        time::sleep(SECOND).await;
        ticket.ended(DisconnectReason::RemoteClosed);
    }
    let asked = source.asked_after(began);
    assert!(asked.len() <= 20, "{asked:?}");
}

// Issue 10, 4.
#[tokio::test(start_paused = true)]
async fn a_banned_node_is_disconnected_stays_out_and_is_dialled_after_the_ban() {
    let (node, tasks) = (node(MeshLimits::default()), TaskSet::new(&CancellationToken::new()));
    let mut dialer = node.mesh().attach(Transport::WebSocket);
    configured(&node, ws(1));
    let mut ticket = next(&mut dialer).await;
    let (_peer, mut link) = attach(&node, &tasks, THEM);
    ticket.connected(Some(THEM));
    time::sleep(20 * SECOND).await;
    node.ban(BanSubject::Identity(THEM), 100 * SECOND, "spam").unwrap();
    let reason = link.ended().await;
    assert_eq!(reason, DisconnectReason::Banned);
    ticket.ended(reason);
    // Another link of it, as after a dial of its own, ends at once.
    let (_again, mut link) = attach(&node, &tasks, THEM);
    let ended = time::timeout(SECOND, link.ended()).await;
    assert_eq!(ended, Ok(DisconnectReason::Banned));
    let banned = Instant::now();
    assert_eq!(next(&mut dialer).await.address(), &ws(1));
    assert!(banned.elapsed() > 90 * SECOND, "{:?}", banned.elapsed());
    assert_eq!(node.mesh().bans(), []);
}

// Source: wire facts 11.4.
#[tokio::test(start_paused = true)]
async fn a_learnt_peer_is_replaced_after_five_minutes_without_progress() {
    let (node, tasks) = (node(MeshLimits::default()), TaskSet::new(&CancellationToken::new()));
    let (_peer, mut link) = attach(&node, &tasks, THEM);
    let quiet = time::timeout(1_000 * SECOND, link.ended()).await;
    assert!(quiet.is_err(), "nobody ever told of progress");
    for _ in 0..10 {
        node.mesh().network_advanced();
        assert!(time::timeout(299 * SECOND, link.ended()).await.is_err());
    }
    let began = Instant::now();
    let ended = time::timeout(600 * SECOND, link.ended()).await;
    assert_eq!(ended, Ok(DisconnectReason::CliqueResolving));
    assert!(began.elapsed() <= 2 * SECOND, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_address_that_fails_is_told_to_the_operator_with_its_next_try() {
    let node = node(MeshLimits::default());
    let mut dialer = node.mesh().attach(Transport::WebSocket);
    configured(&node, ws(1));
    next(&mut dialer).await.failed(DialFailure::RetryAfter(60 * SECOND), "too many");
    let state = node.mesh().dials().states(Transport::WebSocket).remove(0);
    assert_eq!((state.failures, state.last_error.as_deref()), (1, Some("too many")));
    assert_eq!(state.next_try, Some((Instant::now() + 60 * SECOND).into_std()));
    assert!(node.mesh().dials().states(Transport::Libp2p).is_empty());
}
