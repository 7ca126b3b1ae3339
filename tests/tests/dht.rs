//! Many nodes that know one other find each other in the DHT.

use std::time::Duration;

use gossip::{NetworkId, PeerClass};
use tandem::{Capability, DhtConfig, DhtMode, InboundLimits, Mode, NodeBuilder, Running};
use testkit::wait::PATIENCE;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

/// Nodes of the network. Source: issue 11.
const NODES: usize = 50;

/// Those that have every block.
const ARCHIVES: usize = 5;

async fn node(
    first: Option<&Running>,
    provides: &[Capability],
    root: &CancellationToken,
) -> Running {
    let dht =
        DhtConfig::default().with_mode(DhtMode::Server).with_provides(provides.iter().cloned());
    // All of them come from one address.
    let inbound = InboundLimits::default().with_per_ip(2 * NODES);
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

// Issue 11: 50 nodes, no addresses but one bootstrap; a fifth of them is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_know_one_other_find_relays_and_archives_and_replace_those_that_die() {
    let root = CancellationToken::new();
    let first = node(None, &[], &root).await;
    let mut nodes = Vec::new();
    for number in 1..NODES {
        let provides = if number <= ARCHIVES { vec![Capability::archival()] } else { Vec::new() };
        nodes.push(node(Some(&first), &provides, &root).await);
    }
    let began = Instant::now();
    let deadline = began + 2 * PATIENCE;
    let all = nodes.iter().enumerate().map(|(number, node)| async move {
        // An archive is not told of itself.
        let archives = if number < ARCHIVES { ARCHIVES - 1 } else { ARCHIVES };
        finds(node, &Capability::archival(), archives, deadline).await;
        finds(node, &Capability::gossip(), 8, deadline).await;
    });
    futures::future::join_all(all).await;
    println!("everybody found everything after {:?}", began.elapsed());
    let others = |node: &Running| node.node().peers(PeerClass::Connected).len();
    let is_meshed = |nodes: &[Running]| nodes.iter().all(|node| others(node) >= 3);
    while !is_meshed(&nodes) {
        assert!(
            Instant::now() < deadline,
            "the nodes have links: {:?}",
            nodes.iter().map(others).collect::<Vec<_>>()
        );
        time::sleep(Duration::from_millis(200)).await;
    }
    println!("everybody has links after {:?}", began.elapsed());
    let killed = Instant::now();
    let deadline = killed + 2 * PATIENCE;
    let rest = nodes.split_off(NODES / 5);
    drop(nodes);
    while !is_meshed(&rest) {
        assert!(
            Instant::now() < deadline,
            "the rest has links: {:?}",
            rest.iter().map(others).collect::<Vec<_>>()
        );
        time::sleep(Duration::from_millis(200)).await;
    }
    println!("the rest has links after {:?}", killed.elapsed());
}
