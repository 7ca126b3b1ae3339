//! Many nodes that know one other find each other in the DHT.

use std::time::Duration;

use gossip::{Identity, NetworkId, PeerClass, PeerInfo};
use tandem::{Capability, DhtConfig, DhtMode, InboundLimits, Mode, NodeBuilder, Running};
use testkit::wait::PATIENCE;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

/// Nodes of the network, unless `TANDEM_DHT_NODES` says otherwise. Chosen: a test of seconds; with 50 it takes half a minute.
const NODES: usize = 16;

/// Those that have every block.
const ARCHIVES: usize = 3;

/// Links that every node has in the end, at least. Chosen: half of the fan-out, because a node with as many as it wants
/// keeps addresses for others.
const LINKS: usize = 2;

async fn node(
    first: Option<&Running>,
    provides: &[Capability],
    root: &CancellationToken,
) -> Running {
    let dht =
        DhtConfig::default().with_mode(DhtMode::Server).with_provides(provides.iter().cloned());
    // All of them come from one address.
    let inbound = InboundLimits::default().with_per_ip(2 * count());
    let mut builder = NodeBuilder::new(NetworkId::new("dht-v1").expect("the name is short"))
        .mode(Mode::Libp2p)
        .inbound_limits(inbound)
        .dht(dht);
    if let Some(first) = first {
        builder = builder.peer(first.node().addresses()[0].clone());
    }
    builder.start(root).await.expect("the node starts")
}

/// Searches until as many are found, each with an address.
async fn finds(node: &Running, capability: &Capability, wanted: usize, deadline: Instant) {
    loop {
        let limit = Duration::from_secs(5);
        let found = node.view().find_providers(capability.clone(), wanted, limit).await;
        let found = found.expect("the node takes part");
        if found.iter().filter(|provider| !provider.addresses.is_empty()).count() >= wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{capability}: {} of {wanted}", found.len());
        time::sleep(Duration::from_millis(200)).await;
    }
}

fn count() -> usize {
    std::env::var("TANDEM_DHT_NODES").map_or(NODES, |text| text.parse().expect("it is a number"))
}

/// Waits until every node has links, none of them with one of the dead.
async fn are_linked(nodes: &[Running], dead: &[Identity], deadline: Instant) {
    let links = |node: &Running| {
        let peers = node.node().peers(PeerClass::Connected);
        let is_dead = |peer: &PeerInfo| peer.identity.is_some_and(|id| dead.contains(&id));
        if peers.iter().any(is_dead) { 0 } else { peers.len() }
    };
    while nodes.iter().any(|node| links(node) < LINKS) {
        let all: Vec<usize> = nodes.iter().map(links).collect();
        assert!(Instant::now() < deadline, "links of the nodes: {all:?}");
        time::sleep(Duration::from_millis(200)).await;
    }
}

// Issue 11: nodes with no addresses but one bootstrap; it and a fifth of the others are killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_know_one_other_find_relays_and_archives_and_replace_those_that_die() {
    let root = CancellationToken::new();
    let first = node(None, &[], &root).await;
    let mut nodes = Vec::new();
    for number in 1..count() {
        let provides = if number <= ARCHIVES { vec![Capability::archival()] } else { Vec::new() };
        nodes.push(node(Some(&first), &provides, &root).await);
    }
    let began = Instant::now();
    let deadline = began + 2 * PATIENCE;
    let all = nodes.iter().enumerate().map(|(number, node)| async move {
        // An archive is not told of itself.
        let archives = if number < ARCHIVES { ARCHIVES - 1 } else { ARCHIVES };
        finds(node, &Capability::archival(), archives, deadline).await;
        finds(node, &Capability::gossip(), 4, deadline).await;
    });
    futures::future::join_all(all).await;
    println!("everybody found everything after {:?}", began.elapsed());
    are_linked(&nodes, &[], deadline).await;
    println!("everybody has links after {:?}", began.elapsed());
    let killed = Instant::now();
    let rest = nodes.split_off(count() / 5);
    // The one that all of them were told of is among the dead.
    nodes.push(first);
    let dead: Vec<Identity> = nodes.iter().map(Running::identity).collect();
    drop(nodes);
    are_linked(&rest, &dead, killed + 2 * PATIENCE).await;
    println!("the rest has links after {:?}", killed.elapsed());
}
