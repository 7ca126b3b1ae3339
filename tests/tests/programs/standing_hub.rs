//! A hub whose process stands still: its leaves over both transports notice the silence, and come back.

use std::time::Duration;

use gossip::{Tag, wire::digest::Digest};
use serde_json::Value;
use tempfile::tempdir;
use testkit::{
    process::{Listener, Node},
    wait::{PATIENCE, eventually},
};
use tokio::time::Instant;

/// A silent peer is noticed within this time on both transports: issue 8, 28.
const SILENCE: Duration = Duration::from_secs(60);

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
