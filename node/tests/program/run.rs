//! `tandem run`, in processes of its own.

#[cfg(test)]
use std::time::{Duration, Instant};

use crate::support::{self, Node, Process, eventually, finish, run, scratch};
use gossip::{
    NetworkId, Request, Tag,
    wire::{
        block::{BlockAnswer, BlockRequest},
        digest::Digest,
    },
};
use tandem::{Mode, NodeBuilder, PeerEvent};
use tokio_util::sync::CancellationToken;

#[test]
fn a_node_says_where_it_listens_and_that_it_is_ready() {
    let dir = scratch();
    let mut process = Process::spawn(&mut run(dir.path()));
    let ws = process.line();
    assert!(ws.starts_with("listening ws http://127.0.0.1:") && !ws.ends_with(":0"), "{ws}");
    let p2p = process.line();
    assert!(p2p.starts_with("listening p2p /ip4/127.0.0.1/tcp/"), "{p2p}");
    assert!(p2p.contains("/p2p/12D3KooW") && !p2p.contains("/tcp/0/"), "{p2p}");
    assert_eq!(process.line(), "ready");
    process.signal("INT");
    assert!(process.wait(Duration::from_secs(5)).success());
    assert_eq!(process.stdout.iter().count(), 0, "nothing else is on standard output");
    assert_eq!(process.stderr.iter().collect::<Vec<_>>(), [""; 0], "nor on standard error");
}

#[test]
fn a_node_of_one_transport_listens_on_that_alone() {
    for (mode, ws, p2p) in [("ws", true, 0), ("p2p", false, 1)] {
        let dir = scratch();
        let node = Node::start(dir.path(), &["--mode", mode]);
        assert_eq!(node.ready["ws"].is_string(), ws, "{}", node.ready);
        assert_eq!(node.ready["p2p"].as_array().unwrap().len(), p2p, "{}", node.ready);
    }
}

#[test]
fn a_node_stops_within_five_seconds_of_a_signal_even_with_peers() {
    let (a, b) = (scratch(), scratch());
    let mut first = Node::start(a.path(), &[]);
    let second = Node::start(b.path(), &["--peer", first.ws(), "--peer", first.p2p()]);
    first.event("peer_connected");
    let asked = Instant::now();
    first.process.signal("TERM");
    assert!(first.process.wait(Duration::from_secs(5)).success());
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    // Met over both transports, one of the two links was closed as the duplicate.
    let reason = eventually("the link that was kept ends", || {
        let reason = second.event("peer_disconnected")["reason"].clone();
        (reason != "duplicate").then_some(reason)
    });
    assert_eq!(reason, "remote_closed");
    assert!(!a.path().join("admin.sock").exists(), "the admin socket is gone");
}

#[test]
fn peers_come_identify_themselves_and_go_with_a_reason() {
    for transport in ["ws", "p2p"] {
        let (a, b) = (scratch(), scratch());
        let first = Node::start(a.path(), &["--mode", transport]);
        let address = if transport == "ws" { first.ws() } else { first.p2p() };
        let mut second = Node::start(b.path(), &["--mode", transport, "--peer", address]);
        let came = first.event("peer_connected");
        assert_eq!((&came["transport"], &came["direction"]), (&transport.into(), &"in".into()));
        let identity = match came["peer_id"].is_string() {
            true => came["peer_id"].clone(),
            false => first.event("peer_identified")["peer_id"].clone(),
        };
        assert_eq!(identity, second.ready["peer_id"]);
        second.process.signal("TERM");
        assert!(second.process.wait(Duration::from_secs(5)).success());
        let went = first.event("peer_disconnected");
        assert_eq!((&went["peer"], &went["reason"]), (&came["peer"], &"remote_closed".into()));
    }
}

#[test]
fn a_node_that_was_killed_and_started_again_is_the_same_node() {
    let (a, b) = (scratch(), scratch());
    let hub = Node::start(a.path(), &[]);
    let mut leaf = Node::start(b.path(), &["--peer", hub.ws()]);
    hub.event("peer_connected");
    leaf.process.signal("KILL");
    leaf.process.wait(Duration::from_secs(5));
    hub.event("peer_disconnected");
    let again = Node::start(b.path(), &["--peer", hub.p2p()]);
    assert_eq!(again.ready["peer_id"], leaf.ready["peer_id"]);
    hub.event("peer_connected");
    let peers = eventually("the peer is identified", || {
        let peers = finish(hub.command("peers").arg("--json"));
        let peers: serde_json::Value = serde_json::from_str(&peers.stdout).unwrap();
        peers[0]["peer_id"].is_string().then_some(peers)
    });
    assert_eq!(peers.as_array().unwrap().len(), 1);
    assert_eq!(peers[0]["peer_id"], leaf.ready["peer_id"]);
}

#[test]
fn a_file_and_the_environment_configure_a_node() {
    let dir = scratch();
    let file = dir.path().join("tandem.toml");
    std::fs::write(&file, "mode = \"ws\"\nlisten_ws = \"127.0.0.1:0\"\n").unwrap();
    let mut command = support::tandem();
    command.arg("run").arg("--json").env("TANDEM_CONFIG", &file);
    command.env("TANDEM_DATA_DIR", dir.path().join("data"));
    let process = Process::spawn(&mut command);
    let ready = process.json();
    assert_eq!(ready["p2p"], serde_json::json!([]));
    assert!(dir.path().join("data").join("identity.pem").exists());
}

#[test]
fn a_node_passes_on_what_its_peers_send_unless_it_is_told_not_to() {
    for (relay, heard) in [("on", ["first", "last"].as_slice()), ("off", &["last"])] {
        let (a, b, c) = (scratch(), scratch(), scratch());
        let hub = Node::start(a.path(), &["--relay", relay]);
        let speaker = Node::start(b.path(), &["--mode", "ws", "--peer", hub.ws()]);
        let listener = Node::start(c.path(), &["--mode", "p2p", "--peer", hub.p2p()]);
        hub.event("peer_connected");
        hub.event("peer_connected");
        let listening = |node: &Node| {
            let process = Process::spawn(node.command("listen").arg("--json"));
            process.expect_on_stderr("listening");
            process
        };
        let (at_hub, at_listener) = (listening(&hub), listening(&listener));
        let send = |node: &Node, body: &str| {
            let sent = finish(node.command("send").args(["--tag", "VB", body]));
            assert_eq!(sent.code, Some(0), "{sent:?}");
        };
        send(&speaker, "first");
        at_hub.json();
        // On the same connection and in the same lane, so what was passed on came before it.
        send(&hub, "last");
        for body in heard {
            let digest = Digest::of(Tag::VB, body.as_bytes()).to_string();
            assert_eq!(at_listener.json()["digest"], digest, "relay {relay}");
        }
    }
}

#[tokio::test]
async fn a_node_answers_a_block_request_with_the_latest_round_it_has() {
    let dir = scratch();
    let node = Node::start(dir.path(), &[]);
    let network = NetworkId::new("tandem").unwrap();
    let asker = NodeBuilder::new(network).mode(Mode::WebSocket).peer(node.ws().parse().unwrap());
    let mut asker = asker.start(&CancellationToken::new()).await.unwrap();
    let PeerEvent::Connected(peer) = asker.events().recv().await.unwrap() else {
        panic!("another event");
    };
    let request = Request { topics: BlockRequest { round: 9 }.topics() };
    let answer = asker.node().request(peer.id, request).await.unwrap();
    let answer = BlockAnswer::decode(&answer.topics);
    assert_eq!(answer, Ok(BlockAnswer::Unavailable { latest: Some(0) }));
}
