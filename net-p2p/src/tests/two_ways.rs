//! A peer with two connections, a circuit and a direct one: votes run while its link moves to the better one, and when that
//! one dies. Issue 11, 2.

use std::time::Duration;

use gossip::{
    Admission, GossipNode, LinkPath, NetworkProfile, NodeAddress, Outbound, PeerClass, Tag,
};
use libp2p::{Multiaddr, multiaddr::Protocol};
use runtime::TaskSet;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    time,
};
use tokio_util::sync::CancellationToken;

use super::host::{Node, new_key, until};
use crate::{GossipStreams, ReachConfig, RelayLimits, metrics::P2pEvent};

/// Pause between two votes of a node. Chosen: a circuit carries 128 KiB, which more would use up on a busy machine.
const PAUSE: Duration = Duration::from_millis(20);

/// A way to a node that takes connections at once, and passes their bytes on when it is opened.
struct Detour {
    address: NodeAddress,
    open: CancellationToken,
    /// Ends every connection without a word, and takes no other.
    cut: CancellationToken,
    _tasks: TaskSet,
}

impl Detour {
    async fn to(node: &Node) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = listener.local_addr().unwrap().port();
        let there = address(node, "/tcp/", |text| !text.contains("/p2p-circuit"));
        let port = there.iter().find_map(|part| match part {
            Protocol::Tcp(port) => Some(port),
            _ => None,
        });
        let to = ("127.0.0.1", port.unwrap());
        let address = format!("/ip4/127.0.0.1/tcp/{here}/p2p/{}", node.network.identity());
        let (open, cut) = (CancellationToken::new(), CancellationToken::new());
        let tasks = TaskSet::new(&cut);
        let (each, opened) = (tasks.clone(), open.clone());
        tasks.spawn("detour", |cancel| async move {
            while let Some(Ok((mut near, _))) = cancel.run_until_cancelled(listener.accept()).await
            {
                let opened = opened.clone();
                each.spawn("one way", |cancel| async move {
                    let passing = async {
                        opened.cancelled().await;
                        let mut far = TcpStream::connect(to).await.unwrap();
                        // It fails when one end leaves.
                        let _ = copy_bidirectional(&mut near, &mut far).await;
                    };
                    cancel.run_until_cancelled(passing).await;
                });
            }
        });
        Self { address: NodeAddress::Multiaddr(address), open, cut, _tasks: tasks }
    }
}

fn address(node: &Node, part: &str, is_it: impl Fn(&str) -> bool) -> Multiaddr {
    let all = node.network.listen_addresses();
    let found = all.iter().find(|text| text.contains(part) && is_it(text));
    found.unwrap_or_else(|| panic!("{part}: {all:?}")).parse().unwrap()
}

fn has_circuit(node: &Node) -> bool {
    node.network.listen_addresses().iter().any(|text| text.contains("/p2p-circuit"))
}

/// The way of the one link of a node; `None` also for a moment in which the old one is still there beside the new one.
fn path(node: &Node) -> Option<LinkPath> {
    match &node.network.peers(PeerClass::Connected)[..] {
        [peer] => Some(peer.path),
        _ => None,
    }
}

/// Two nodes that vote, and how often each has.
struct Pair<'a> {
    nodes: [&'a Node; 2],
    votes: u32,
}

impl Pair<'_> {
    fn are(&self, on: LinkPath) -> bool {
        self.nodes.iter().all(|node| path(node) == Some(on))
    }

    /// Has both vote until `is_so`, and `more` times after it.
    async fn vote_until(&mut self, what: &str, more: u32, is_so: impl Fn(&Self) -> bool) {
        let deadline = time::Instant::now() + super::host::PATIENCE;
        let mut after = 0;
        while after < more {
            for (at, node) in self.nodes.iter().enumerate() {
                let vote = Outbound::new(Tag::VB, format!("{at} {}", self.votes).into_bytes());
                assert_eq!(node.network.broadcast(vote), Ok(Admission::Queued));
            }
            self.votes += 1;
            after += u32::from(is_so(self));
            assert!(time::Instant::now() < deadline, "never: {what}");
            time::sleep(PAUSE).await;
        }
    }

    /// Every vote from `first` on has come once.
    async fn have_all(&self, first: u32) {
        for (at, node) in self.nodes.iter().enumerate() {
            let expected: Vec<_> =
                (first..self.votes).map(|vote| format!("{} {vote}", 1 - at)).collect();
            let heard = || -> Vec<String> {
                let all = node.heard().into_iter().map(|body| String::from_utf8(body).unwrap());
                let number = |text: &String| text[2..].parse::<u32>().unwrap();
                let mut all: Vec<_> = all.filter(|text| number(text) >= first).collect();
                all.sort_by_key(number);
                all
            };
            until("every vote has come", || heard().len() >= expected.len()).await;
            assert_eq!(heard(), expected);
        }
    }
}

async fn relay(profile: &'static NetworkProfile) -> Node {
    let config = |mut config: crate::P2pConfig| {
        config.gossip = GossipStreams::Off;
        config.reach = ReachConfig::default().with_relay(RelayLimits::default());
        config
    };
    Node::start_with(profile, "net", new_key(), config).await
}

/// The time at which the direct connection is cut.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// As soon as the link has moved, while the circuit is still open.
    AtOnce,
    /// When the circuit has been closed.
    Later,
}

async fn moves_and_comes_back(profile: &'static NetworkProfile, when: Cut) {
    let relay = relay(profile).await;
    let through: Multiaddr = format!("{}/p2p-circuit", relay.address()).parse().unwrap();
    let listen = |mut config: crate::P2pConfig| {
        config.listen.push(through);
        config
    };
    let target = Node::start_with(profile, "net", new_key(), listen).await;
    until("there is a place", || has_circuit(&target)).await;
    let detour = Detour::to(&target).await;
    let circuit = address(&target, "/p2p-circuit", |_| true).to_string();
    let peers = vec![detour.address.clone(), NodeAddress::Multiaddr(circuit)];
    let dial = |mut config: crate::P2pConfig| {
        (config.listen, config.peers) = (Vec::new(), peers);
        config
    };
    let dialler = Node::start_with(profile, "net", new_key(), dial).await;
    let mut pair = Pair { nodes: [&target, &dialler], votes: 0 };
    until("both are linked over the circuit", || pair.are(LinkPath::Relayed)).await;

    pair.vote_until("votes run over the circuit", 10, |pair| pair.are(LinkPath::Relayed)).await;
    detour.open.cancel();
    let more = if when == Cut::AtOnce { 1 } else { 20 };
    pair.vote_until("the link moves", more, |pair| pair.are(LinkPath::Direct)).await;
    pair.have_all(0).await;
    let circuits = || relay.network.metrics().level(crate::P2pLevel::CircuitsCarried);
    if when == Cut::Later {
        until("the circuit is closed", || circuits() == 0).await;
    }

    detour.cut.cancel();
    let began = time::Instant::now();
    pair.vote_until("the circuit takes over", 1, |pair| pair.are(LinkPath::Relayed)).await;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let back = pair.votes;
    pair.vote_until("votes run again", 20, |pair| pair.are(LinkPath::Relayed)).await;
    pair.have_all(back).await;
    let begun = relay.network.metrics().count(P2pEvent::RelayCircuit);
    assert!(begun <= 1 + u64::from(when == Cut::Later), "{begun} circuits");
    for node in [&relay, &target, &dialler] {
        node.root.cancel();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_moves_from_a_circuit_without_loss_and_a_new_circuit_replaces_a_dead_connection() {
    moves_and_comes_back(&NetworkProfile::TANDEM, Cut::Later).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_circuit_that_is_still_open_takes_over_from_a_connection_that_dies() {
    moves_and_comes_back(&NetworkProfile::TANDEM, Cut::AtOnce).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_holds_among_existing_nodes() {
    moves_and_comes_back(&NetworkProfile::ALGORAND, Cut::Later).await;
}
