//! A program that is killed and comes back at once with the same key: its old link ends with a FIN, or without a
//! word because its path was cut before.

use std::time::Duration;

use futures::future::join_all;
use gossip::{Tag, wire::digest::Digest};
use serde_json::Value;
use tempfile::tempdir;
use testkit::{
    path::Path,
    process::{Listener, Node},
    wait::{PATIENCE, until},
};
use tokio::time::Instant;

/// Longest time from the start of the new process until its peer uses the new link, without an answer of the old
/// one that has to be waited for. Chosen: what a process takes to start and shake hands on a busy machine.
const STARTS_WITHIN: Duration = Duration::from_secs(4);
/// Time in which the old link may answer a ping.
const PING: Duration = Duration::from_secs(5);

/// The way in which the old link ends.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// The system closes the socket of the killed process.
    Told,
    /// The path swallows everything, so nothing tells of the death.
    Untold,
}

/// The profiles, with the arguments of each, and the transports.
const NETWORKS: [[&str; 4]; 2] = [
    ["--profile", "tandem", "--network", "killed-holder"],
    ["--profile", "algorand", "--network", "killed-holder-v1"],
];

async fn hears(listener: &Listener, text: &str) {
    let digest = Digest::of(Tag::AV, text.as_bytes()).to_string();
    until(&format!("hearing {text}"), || listener.times(&digest) > 0).await;
}

/// The number of the link to a peer.
async fn link_to(node: &Node, name: &str) -> Option<Value> {
    let peers = node.peers().await;
    peers.into_iter().find(|peer| peer["peer_id"] == *name).map(|peer| peer["peer"].clone())
}

/// Kills a node, starts it again, and measures the time until its peer has the new link.
async fn comes_back(network: [&str; 4], mode: &str, death: Death) {
    let shown = format!("{} over {mode}, {death:?}", network[1]);
    let folders = [tempdir(), tempdir()].map(|folder| folder.expect("a temporary folder"));
    let path = Path::start().await;
    let name = path.address.to_string();
    // Over WebSocket existing nodes prove their identity only where they have a name.
    let named = |name| if mode == "ws" { vec!["--public-address", name] } else { Vec::new() };
    let arguments = [&network[..], &["--mode", mode], &named(&name)].concat();
    let node = Node::run(folders[0].path(), &arguments).await;
    let address = if mode == "ws" { node.ws_address() } else { &node.p2p[0] };
    path.leads_to(address);
    let address = path.through(address);
    let dialling = ["--mode", mode, "--peer", &address];
    let arguments = [&network[..], &dialling, &named("twin:1")].concat();
    let first = Node::run(folders[1].path(), &arguments).await;
    let (twin, began) = (first.peer_id.clone(), Instant::now());
    let old = loop {
        if let Some(link) = link_to(&node, &twin).await {
            break link;
        }
        assert!(began.elapsed() < PATIENCE, "{shown}: it never comes");
    };
    if let Death::Untold = death {
        path.cut();
    }
    first.kill().await;
    let began = Instant::now();
    let again = Node::run(folders[1].path(), &arguments).await;
    let limit = match death {
        Death::Told => STARTS_WITHIN,
        Death::Untold => STARTS_WITHIN + PING,
    };
    loop {
        let link = link_to(&node, &twin).await;
        if link.is_some_and(|link| link != old) {
            break;
        }
        assert!(began.elapsed() < 3 * limit, "{shown}: never");
    }
    let after = began.elapsed();
    eprintln!("{shown}: after {after:?}");
    assert!(after < limit, "{shown}: after {after:?}");
    let (at_node, at_twin) = (node.listen("AV").await, again.listen("AV").await);
    assert!(node.send("AV", "to the twin").await, "{shown}");
    hears(&at_twin, "to the twin").await;
    assert!(again.send("AV", "of the twin").await, "{shown}");
    hears(&at_node, "of the twin").await;
    assert_eq!(node.peers().await.len(), 1, "{shown}");
}

async fn comes_back_everywhere(death: Death) {
    let cases = NETWORKS
        .into_iter()
        .flat_map(|network| ["ws", "p2p"].map(|mode| comes_back(network, mode, death)));
    join_all(cases).await;
}

// Issue 9, 6.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_is_back_at_once() {
    comes_back_everywhere(Death::Told).await;
}

// Issue 9, 6: over libp2p in the profile algorand it took 10 s with a key greater than the peer's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_whose_path_was_cut_is_back_within_the_time_of_a_ping() {
    comes_back_everywhere(Death::Untold).await;
}
