//! Peers that fall silent without a packet that says so: a hub whose process stands still, and a path that breaks. Both
//! transports notice the silence, and the dialer comes back.

use std::time::Duration;

use gossip::{Tag, wire::digest::Digest};
use serde_json::Value;
use tempfile::tempdir;
use testkit::{
    path::Path,
    process::{Listener, Node},
    wait::{PATIENCE, eventually},
};
use tokio::time::{Instant, sleep};

/// A silent peer is noticed within this time on both transports: issue 8, 28.
const SILENCE: Duration = Duration::from_secs(60);

/// Shortest life of a link whose end is not taken for a failed dial, which would be tried again later.
const LASTING_LINK: Duration = Duration::from_secs(11);

fn ended(node: &Node) -> Option<Value> {
    node.events().into_iter().find(|event| event["event"] == "peer_disconnected")
}

/// Sends new votes until the listener has received one: the way to it may still be coming up.
async fn reaches(from: &Node, to: &Listener) {
    let deadline = Instant::now() + PATIENCE;
    let mut sent = Vec::new();
    while !sent.iter().any(|digest: &String| to.times(digest) > 0) {
        assert!(Instant::now() < deadline, "no vote ever arrives");
        let text = format!("try {} of {}", sent.len(), from.peer_id);
        from.send("AV", &text).await;
        let vote = Tag(*b"AV");
        sent.push(Digest::of(vote, text.as_bytes()).to_string());
    }
}

// Issue 8, 28. The hub's sockets stay open while it stands still, so that only its silence tells. Both leaves wait
// at once: each ends its link, says why, and is linked again as soon as the hub goes on.
#[tokio::test]
async fn the_leaves_of_a_hub_that_stands_still_notice_it_and_come_back() {
    let folders = [(); 3].map(|()| tempdir().expect("a temporary folder"));
    let hub = Node::run(folders[0].path(), &[]).await;
    let ws = Node::run(folders[1].path(), &["--mode", "ws", "--peer", hub.ws_address()]).await;
    let p2p = Node::run(folders[2].path(), &["--mode", "p2p", "--peer", &hub.p2p[0]]).await;
    hub.has_peers(2).await;
    let (at_ws, at_p2p) = (ws.listen("AV").await, p2p.listen("AV").await);
    reaches(&ws, &at_p2p).await;
    reaches(&p2p, &at_ws).await;

    hub.signal("STOP").await;
    let silent = Instant::now();
    for (leaf, transport) in [(&ws, "ws"), (&p2p, "p2p")] {
        let left = (SILENCE + PATIENCE).saturating_sub(silent.elapsed());
        let what = format!("the leaf over {transport} notices");
        let event = eventually(&what, left, || ended(leaf)).await;
        assert_eq!(event["peer_id"], *hub.peer_id, "over {transport}");
        assert_eq!(event["transport"], transport);
        assert_eq!(event["reason"], "silent", "over {transport}");
    }

    hub.signal("CONT").await;
    reaches(&ws, &at_p2p).await;
    reaches(&p2p, &at_ws).await;
    hub.has_peers(2).await;
    for node in [ws, p2p, hub] {
        assert_eq!(node.terminate().await, Some(0));
    }
}

/// Two nodes with one link over a path that breaks once the link has lasted: both ends notice within their time.
async fn a_broken_path_is_noticed(mode: &str) {
    let folders = [(); 2].map(|()| tempdir().expect("a temporary folder"));
    let path = Path::start().await;
    let listener = Node::run(folders[0].path(), &["--mode", mode]).await;
    let address = listener.p2p.first().map_or_else(|| listener.ws_address(), String::as_str);
    path.leads_to(address);
    let peer = path.through(address);
    let dialer = Node::run(folders[1].path(), &["--mode", mode, "--peer", &peer]).await;
    let nodes = [&listener, &dialer];
    for node in nodes {
        node.has_peers(1).await;
    }
    sleep(LASTING_LINK).await;

    path.cut();
    let broken = Instant::now();
    for node in nodes {
        let left = (SILENCE + PATIENCE).saturating_sub(broken.elapsed());
        let event = eventually("the silence is noticed", left, || ended(node)).await;
        assert_eq!(event["reason"], "silent", "{event}");
    }
    for node in nodes {
        node.has_peers(1).await;
    }
    for node in [dialer, listener] {
        assert_eq!(node.terminate().await, Some(0));
    }
}

// Issue 8, 28.
#[tokio::test]
async fn a_path_of_websocket_that_breaks_is_noticed_at_both_ends_and_dialled_again() {
    a_broken_path_is_noticed("ws").await;
}

// Issue 8, 28. Before, the ping failed after 80 s, the connection closed, and its link lived on at both ends.
#[tokio::test]
async fn a_path_of_libp2p_that_breaks_is_noticed_at_both_ends_and_dialled_again() {
    a_broken_path_is_noticed("p2p").await;
}
