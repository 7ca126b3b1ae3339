//! The memory of the program for peers that say nothing.

use gossip::{NetworkId, NetworkProfile};
use tempfile::tempdir;
use testkit::{
    process::Node,
    wait::PATIENCE,
    websocket::{upgrade, upgrade_request},
};
use tokio::{net::TcpStream, time};

/// Peers that have come when the memory is first read, so that what a node sets up once is not counted.
const FIRST: usize = 100;

/// Peers that come after them.
const MORE: usize = 600;

/// Most memory for one of them, in bytes. Chosen: the 16 KiB of issue 10, and 2 MiB of other growth among all.
const MOST: usize = 16 * 1024 + 2 * 1024 * 1024 / MORE;

// Issue 10, "Shown by": 33.6 KiB. Each task kept its loop four times, and every peer a read buffer.
#[tokio::test]
async fn a_websocket_peer_that_says_nothing_takes_little_memory() {
    let folder = tempdir().expect("a temporary folder");
    let arguments = ["--max-inbound-per-ip", "2000", "--log", "warn"];
    let node = Node::run(folder.path(), &arguments).await;
    let mut peers = Vec::new();
    connect(&node, &mut peers, FIRST).await;
    let base = node.resident_bytes().expect("the system tells");
    connect(&node, &mut peers, FIRST + MORE).await;
    let grown = node.resident_bytes().expect("the system tells").saturating_sub(base);
    assert!(grown <= MOST * MORE, "{} bytes for a peer", grown / MORE);
}

/// Connects until there are `count` peers.
async fn connect(node: &Node, peers: &mut Vec<TcpStream>, count: usize) {
    let address = node.ws_address().parse().expect("it is a socket address");
    let network = NetworkId::new("tandem").expect("it is a name");
    let request = upgrade_request(&NetworkProfile::TANDEM, &network);
    while peers.len() < count {
        let asked = time::timeout(PATIENCE, upgrade(address, &request));
        let (stream, head) = asked.await.expect("the port answers").expect("it answers whole");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        peers.push(stream);
    }
    node.has_peers(count).await;
}
