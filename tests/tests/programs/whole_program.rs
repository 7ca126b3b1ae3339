//! The program in several processes: nodes that are killed, restart, and meet across transports.

use std::fs;

use gossip::{Tag, wire::digest::Digest};
use serde_json::Value;
use tempfile::{TempDir, tempdir};
use testkit::{
    process::{Listener, Node},
    wait::{PATIENCE, until},
};
use tokio::time::Instant;

fn folder() -> TempDir {
    tempdir().expect("a temporary folder")
}

fn digest(tag: &str, body: &[u8]) -> String {
    Digest::of(tag.parse::<Tag>().expect("it is a tag"), body).to_string()
}

async fn hears(listener: &Listener, tag: &str, text: &str) {
    let digest = digest(tag, text.as_bytes());
    until(&format!("hearing {text}"), || listener.times(&digest) > 0).await;
}

fn disconnections(node: &Node) -> Vec<Value> {
    let events = node.events().into_iter();
    events.filter(|event| event["event"] == "peer_disconnected").collect()
}

/// Sends new messages until the listener has received one: a topic or a relay takes a moment to connect them.
async fn reaches(from: &Node, tag: &str, to: &Listener) {
    let deadline = Instant::now() + PATIENCE;
    let mut sent = Vec::new();
    while !sent.iter().any(|digest: &String| to.times(digest) > 0) {
        assert!(Instant::now() < deadline, "no message {tag} ever arrives");
        let text = format!("try {} of {tag}", sent.len());
        from.send(tag, &text).await;
        sent.push(digest(tag, text.as_bytes()));
    }
}

#[tokio::test]
async fn a_peer_that_is_killed_within_a_message_is_not_noticed_by_the_others() {
    let folders = [folder(), folder(), folder(), folder()];
    let mut relay = Node::run(folders[0].path(), &[]).await;
    let ws = relay.ws_address().to_owned();
    let p2p = relay.p2p[0].clone();
    let near = Node::run(folders[1].path(), &["--mode", "ws", "--peer", &ws]).await;
    let far = Node::run(folders[2].path(), &["--mode", "p2p", "--peer", &p2p]).await;
    let victim = Node::run(folders[3].path(), &["--mode", "ws", "--peer", &ws]).await;
    relay.has_peers(3).await;
    // The relay counts a peer before the peer counts the relay, so a victim alone with a paused relay may have no link.
    victim.has_peers(1).await;
    let (at_near, at_far) = (near.listen("AV,VB").await, far.listen("AV,VB").await);
    // The relay is paused, so that the first message is stuck halfway and the second one behind it.
    relay.signal("STOP").await;
    let mut sending = Vec::new();
    for number in 0..2_u8 {
        let file = folders[3].path().join(format!("large {number}"));
        fs::write(&file, vec![number; 5_000_000]).expect("a file can be written");
        let send = victim.sending("VB").arg("--file").arg(file).spawn();
        sending.push(send.expect("the program starts"));
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let peers = victim.peers().await;
        if peers.first().and_then(|relay| relay["queued_bytes"].as_u64()) >= Some(5_000_000) {
            break;
        }
        assert!(Instant::now() < deadline, "the message does not get stuck: {peers:?}");
    }
    let name = victim.peer_id.clone();
    victim.kill().await;
    relay.signal("CONT").await;
    let gone = |event: &Value| event["event"] == "peer_disconnected" && event["peer_id"] == *name;
    let gone = relay.event("the victim is gone", gone).await;
    assert_eq!(gone["reason"], "transport");
    assert!(near.send("AV", "from near").await);
    assert!(far.send("AV", "from far").await);
    hears(&at_far, "AV", "from near").await;
    hears(&at_near, "AV", "from far").await;
    for listener in [&at_near, &at_far] {
        let bundles = listener.heard().iter().filter(|message| message["tag"] == "VB").count();
        assert_eq!(bundles, 0, "nothing of what was broken off is heard");
    }
    assert_eq!(disconnections(&relay).len(), 1);
    for node in [near, far] {
        assert_eq!(disconnections(&node), Vec::<Value>::new());
        assert_eq!(node.terminate().await, Some(0));
    }
    assert_eq!(relay.terminate().await, Some(0));
}

#[tokio::test]
async fn a_node_that_was_killed_comes_back_as_itself_and_hears_again() {
    for mode in ["ws", "p2p", "hybrid"] {
        let folders = [folder(), folder()];
        let mut relay = Node::run(folders[0].path(), &[]).await;
        let ws = relay.ws_address().to_owned();
        let address = if mode == "ws" { &ws } else { &relay.p2p[0].clone() };
        let arguments = ["--mode", mode, "--peer", address];
        let first = Node::run(folders[1].path(), &arguments).await;
        let name = first.peer_id.clone();
        relay.has_peers(1).await;
        first.kill().await;
        relay.has_peers(0).await;
        let again = Node::run(folders[1].path(), &arguments).await;
        assert_eq!(again.peer_id, name, "over {mode}");
        let listener = again.listen("AV").await;
        reaches(&relay, "AV", &listener).await;
        let told = relay.peers().await;
        assert_eq!(told.len(), 1);
        assert_eq!(told[0]["peer_id"], *name, "over {mode}");
        let ended = |event: &Value| event["event"] == "peer_disconnected";
        relay.event("the first one is gone", ended).await;
    }
}

#[tokio::test]
async fn the_peers_of_a_relay_find_it_again_when_it_comes_back() {
    let folders = [folder(), folder(), folder()];
    let relay = Node::run(folders[0].path(), &[]).await;
    let ws = relay.ws_address().to_owned();
    let (p2p, name) = (relay.p2p[0].clone(), relay.peer_id.clone());
    let near = Node::run(folders[1].path(), &["--mode", "ws", "--peer", &ws]).await;
    let far = Node::run(folders[2].path(), &["--mode", "p2p", "--peer", &p2p]).await;
    let (at_near, at_far) = (near.listen("AV").await, far.listen("AV").await);
    reaches(&near, "AV", &at_far).await;
    relay.kill().await;
    let port = p2p.split("/p2p/").next().expect("a multiaddr has a place");
    let back = ["--listen-ws", &ws, "--listen-p2p", port];
    let relay = Node::run(folders[0].path(), &back).await;
    assert_eq!(relay.peer_id, name);
    reaches(&near, "AV", &at_far).await;
    reaches(&far, "AV", &at_near).await;
    assert_eq!(relay.terminate().await, Some(0));
}

#[tokio::test]
async fn a_websocket_node_and_a_libp2p_node_talk_through_a_hybrid_relay() {
    let folders = [folder(), folder(), folder()];
    let relay = Node::run(folders[0].path(), &[]).await;
    let near = Node::run(folders[1].path(), &["--mode", "ws", "--peer", relay.ws_address()]).await;
    let far = Node::run(folders[2].path(), &["--mode", "p2p", "--peer", &relay.p2p[0]]).await;
    assert!(near.p2p.is_empty() && far.ws.is_none());
    relay.has_peers(2).await;
    let tags = "AV,PP,TX,VB";
    let (at_near, at_far) = (near.listen(tags).await, far.listen(tags).await);
    for (from, to) in [(&near, &at_far), (&far, &at_near)] {
        for tag in tags.split(',') {
            // Transactions travel on a topic, whose mesh takes a moment to form.
            reaches(from, tag, to).await;
            let text = format!("a message {tag} of {}", from.peer_id);
            assert!(from.send(tag, &text).await || tag == "TX");
            hears(to, tag, &text).await;
        }
    }
    // Sent again within the window, the message is a duplicate; the next one in its lane arrives after it.
    assert!(near.send("AV", &format!("a message AV of {}", near.peer_id)).await);
    assert!(near.send("AV", "the last one").await);
    hears(&at_far, "AV", "the last one").await;
    for (from, to, carried) in [(&near, &at_far, "p2p"), (&far, &at_near, "ws")] {
        for tag in tags.split(',') {
            let text = format!("a message {tag} of {}", from.peer_id);
            assert_eq!(to.times(&digest(tag, text.as_bytes())), 1, "{text}");
        }
        assert!(to.heard().iter().all(|message| message["transport"] == carried));
    }
    assert_eq!(disconnections(&relay), Vec::<Value>::new());
}
