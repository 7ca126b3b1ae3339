//! Whole nodes on an in-memory network with a paused clock. For a run that depends on the seed alone, libp2p's
//! timers have to be paused too: see `tests/simulation`.

#![allow(clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use gossip::{
    Admission, Inbound, Keypair, NetworkId, NodeAddress, Outbound, PeerClass, Tag, Verdict,
};
use tandem::{Environment, Mode, NodeBuilder, Running, memory::Network};
use testkit::simulation::{self, MESSAGES, NODES};
use tokio::{
    sync::mpsc,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

const YEAR_SECS: i64 = 365 * 24 * 3_600;
const MODES: [Mode; 2] = [Mode::WebSocket, Mode::Libp2p];

// Issue 9, 9.
#[tokio::test(start_paused = true)]
async fn three_hybrid_nodes_in_memory_hear_each_other_over_both_transports() {
    let trace = simulation::run(1).await;
    for node in 0..NODES {
        let heard = trace.iter().filter(|handled| handled.node == node);
        let about: Vec<_> = heard.map(|handled| handled.about).collect();
        let each: BTreeSet<_> = about.iter().copied().collect();
        assert_eq!(each.len(), (NODES - 1) * MESSAGES, "node {node} misses some");
        assert_eq!(about.len(), each.len(), "node {node} handled some twice");
    }
}

fn ip(last: [u8; 2]) -> IpAddr {
    Ipv4Addr::new(10, 0, last[0], last[1]).into()
}

const US: [u8; 2] = [0, 1];
const THEM: [u8; 2] = [0, 2];

fn builder(mode: Mode, environment: Environment, at: [u8; 2]) -> NodeBuilder {
    NodeBuilder::new(NetworkId::new("memory").expect("a name"))
        .mode(mode)
        .environment(environment)
        .listen_ws(format!("{}:4190", ip(at)))
        .listen_p2p([format!("/ip4/{}/tcp/4191", ip(at))])
}

async fn start(builder: NodeBuilder) -> Running {
    Box::pin(builder.start(&CancellationToken::new())).await.expect("a node in memory starts")
}

/// The address of a node on the host `host`.
fn address(mode: Mode, host: &str, key: &Keypair) -> NodeAddress {
    let kind = if host.parse::<Ipv4Addr>().is_ok() { "ip4" } else { "dns4" };
    match mode {
        Mode::WebSocket => format!("{host}:4190").parse().expect("an address"),
        Mode::Libp2p | Mode::Hybrid => {
            let id = key.identity();
            NodeAddress::Multiaddr(format!("/{kind}/{host}/tcp/4191/p2p/{id}"))
        }
    }
}

fn links(node: &Running) -> usize {
    node.node().peers(PeerClass::Connected).len()
}

/// Waits until a node has `count` links, and returns the time it took.
async fn until_linked(node: &Running, count: usize) -> Duration {
    let began = Instant::now();
    let linked = async {
        while links(node) != count {
            time::sleep(Duration::from_millis(10)).await;
        }
    };
    time::timeout(Duration::from_secs(300), linked).await.expect("it is linked in five minutes");
    began.elapsed()
}

// Issue 8, 13.
#[tokio::test(start_paused = true)]
async fn a_hundred_dead_peers_delay_neither_the_first_link_nor_its_redial() {
    for mode in MODES {
        let network = Network::new(1);
        let (theirs, environment) = (Keypair::from_seed([2; 32]), network.host(ip(THEM)));
        let them = builder(mode, environment.clone(), THEM).key(theirs.clone());
        let them = start(them).await;
        let mut us = builder(mode, network.host(ip(US)), US);
        for dead in 0..100 {
            let at = [1, dead];
            network.silence(ip(at));
            let nobody = Keypair::from_seed([100 + dead % 100; 32]);
            us = us.peer(address(mode, &ip(at).to_string(), &nobody));
        }
        let us = start(us.peer(address(mode, &ip(THEM).to_string(), &theirs))).await;
        let took = until_linked(&us, 1).await;
        assert!(took < Duration::from_secs(7), "{mode:?}: first link after {took:?}");

        time::sleep(Duration::from_secs(60)).await;
        assert_eq!(links(&us), 1, "{mode:?}");
        // The node was stopped for the test; the result does not matter.
        let _ = them.stop(Duration::from_secs(1)).await;
        until_linked(&us, 0).await;
        let them = start(builder(mode, environment, THEM).key(theirs.clone())).await;
        let took = until_linked(&us, 1).await;
        assert!(took < Duration::from_secs(4), "{mode:?}: again after {took:?}");
        drop((us, them));
    }
}

// Issue 9, 10, and issue 8, 5.
#[tokio::test(start_paused = true)]
async fn a_dead_first_address_of_a_name_makes_no_peer_unreachable() {
    for mode in MODES {
        let network = Network::new(1);
        let silent = ip([9, 9]);
        network.silence(silent);
        network.name("them.example", &[silent, ip(THEM)]);
        let theirs = Keypair::from_seed([2; 32]);
        let router = axum::Router::new().route("/name", axum::routing::get(|| async { "them" }));
        let them = builder(mode, network.host(ip(THEM)), THEM).key(theirs.clone());
        let them = start(them.http(router)).await;
        let there = address(mode, "them.example", &theirs);
        let us = start(builder(mode, network.host(ip(US)), US).peer(there.clone())).await;
        let took = until_linked(&us, 1).await;
        assert!(took < Duration::from_secs(2), "{mode:?}: linked after {took:?}");

        let caller = start(builder(mode, network.host(ip([0, 3])), [0, 3]).outward()).await;
        let began = Instant::now();
        let client = caller.node().http_client(&there).expect("an address to call");
        let answer = client.get("/name").await.expect("it answers");
        assert!(
            answer.status().is_success() && began.elapsed() < Duration::from_secs(2),
            "{mode:?}"
        );
        drop((us, them, caller));
    }
}

/// Two linked hybrids, and the messages that the second one receives.
async fn pair(network: &Network) -> ([Running; 2], [Environment; 2], mpsc::Receiver<Inbound>) {
    let (heard, hears) = mpsc::channel(64);
    let heard = Arc::new(heard);
    let theirs = Keypair::from_seed([2; 32]);
    let environments = [US, THEM].map(|at| network.host(ip(at)));
    let them = builder(Mode::Hybrid, environments[1].clone(), THEM).key(theirs.clone()).handler(
        Tag::AV,
        move |message: Inbound| {
            let heard = Arc::clone(&heard);
            async move {
                heard.send(message).await.expect("the test listens");
                Verdict::Ignore
            }
        },
    );
    let them = start(them).await;
    let us = builder(Mode::Hybrid, environments[0].clone(), US)
        .peer(address(Mode::WebSocket, &ip(THEM).to_string(), &theirs))
        .peer(address(Mode::Libp2p, &ip(THEM).to_string(), &theirs));
    let us = start(us).await;
    until_linked(&us, 1).await;
    // By then both transports have been dialled, and one link has won.
    time::sleep(Duration::from_secs(10)).await;
    assert_eq!((links(&us), links(&them)), (1, 1));
    ([us, them], environments, hears)
}

/// Sends a vote until it arrives, and returns the time it took.
async fn until_heard(us: &Running, hears: &mut mpsc::Receiver<Inbound>, vote: &str) -> Duration {
    let began = Instant::now();
    loop {
        let admission = us.node().broadcast(Outbound::new(Tag::AV, vote.to_owned()));
        assert_eq!(admission, Ok(Admission::Queued));
        if let Ok(Some(message)) = time::timeout(Duration::from_secs(1), hears.recv()).await {
            assert_eq!(message.body, vote.as_bytes());
            return began.elapsed();
        }
        assert!(began.elapsed() < Duration::from_secs(120), "nothing is heard any more");
    }
}

// Issue 8, 31; threats and goals, row 38.
#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_jumps_by_a_year_changes_nothing() {
    let network = Network::new(1);
    let ([us, them], environments, mut hears) = pair(&network).await;
    let id = us.node().peers(PeerClass::Connected)[0].id;
    for (jump, vote) in [(YEAR_SECS, "later"), (-2 * YEAR_SECS, "earlier")] {
        environments.iter().for_each(|environment| environment.clock().set_by(jump));
        let took = until_heard(&us, &mut hears, vote).await;
        assert!(took < Duration::from_secs(1), "{vote}: {took:?}");
        time::sleep(Duration::from_secs(120)).await;
        assert_eq!(
            us.node().peers(PeerClass::Connected)[0].id,
            id,
            "{vote}: the link is another one"
        );
    }
    drop(them);
}

// Issue 8, 31.
#[tokio::test(start_paused = true)]
async fn a_process_that_stood_still_for_75_seconds_goes_on() {
    let network = Network::new(1);
    let ([us, them], _environments, mut hears) = pair(&network).await;
    until_heard(&us, &mut hears, "before").await;
    time::advance(Duration::from_secs(75)).await;
    let took = until_heard(&us, &mut hears, "after").await;
    assert!(took < Duration::from_secs(5), "heard again after {took:?}");
    until_linked(&us, 1).await;
    drop(them);
}

// Issue 8, 31: the same, from the other end.
#[tokio::test(start_paused = true)]
async fn a_peer_that_stood_still_for_75_seconds_is_reached_again() {
    let network = Network::new(1);
    let ([us, them], _environments, mut hears) = pair(&network).await;
    until_heard(&us, &mut hears, "before").await;
    network.cut(ip(US), ip(THEM));
    time::sleep(Duration::from_secs(75)).await;
    network.mend(ip(US), ip(THEM));
    let took = until_heard(&us, &mut hears, "after").await;
    assert!(took < Duration::from_secs(15), "heard again after {took:?}");
    drop(them);
}
