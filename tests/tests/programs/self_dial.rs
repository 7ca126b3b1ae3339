//! A node that is given addresses of its own, on another port and by a name, finds that out at the first dial.

use std::time::Duration;

use serde_json::Value;
use tempfile::tempdir;
use testkit::{admin::Admin, path::Path, process::Node, wait::PATIENCE};
use tokio::time::{self, Instant};

/// Shortest time to the next dial of an address that is the node's own: no other failure backs off for so long.
/// Source: `mesh::phonebook::MAX_DELAY`, an hour, less what has passed.
const LONG: u64 = 3_000_000;

/// The state of every configured address.
async fn dials(admin: &Admin) -> Vec<Value> {
    let status = admin.ask("GET", "/v1/node", b"").await.expect("the node answers");
    let status: Value = serde_json::from_str(&status).expect("the answer is JSON");
    status["dials"].as_array().cloned().unwrap_or_default()
}

/// Waits until every configured address has been found to be the node's own.
async fn own_addresses(admin: &Admin, count: usize) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let dials = dials(admin).await;
        if dials.len() == count
            && dials.iter().all(|dial| dial["next_try_ms"].as_u64() > Some(LONG))
        {
            return;
        }
        assert!(Instant::now() < deadline, "not all are found to be the node's own: {dials:?}");
        time::sleep(Duration::from_millis(100)).await;
    }
}

// Issue 8, 31; row 5 of the threats. The paths forward to the node's own ports, as a second address of its host does.
#[tokio::test]
async fn a_node_dials_each_of_its_own_addresses_once() {
    let folder = tempdir().expect("a temporary folder");
    let (ws, p2p) = (Path::start().await, Path::start().await);
    // The identity of a node is that of its folder.
    let before = Node::run(folder.path(), &[]).await;
    let identity = before.peer_id.clone();
    assert_eq!(before.terminate().await, Some(0));
    let (ws_port, p2p_port) = (ws.address.port(), p2p.address.port());
    let peers = [
        format!("127.0.0.1:{ws_port}"),
        format!("localhost:{ws_port}"),
        format!("/ip4/127.0.0.1/tcp/{p2p_port}/p2p/{identity}"),
        format!("/dns4/localhost/tcp/{p2p_port}/p2p/{identity}"),
    ];
    let arguments: Vec<&str> = peers.iter().flat_map(|peer| ["--peer", peer]).collect();
    let node = Node::run(folder.path(), &arguments).await;
    ws.leads_to(node.ws_address());
    p2p.leads_to(&node.p2p[0]);
    let admin = Admin::of(folder.path());
    own_addresses(&admin, peers.len()).await;
    assert!(node.peers().await.is_empty());
    assert_eq!(node.terminate().await, Some(0));
}
