//! `tandem run`, in processes of its own.

#[cfg(test)]
mod support;

use std::time::{Duration, Instant};

use support::{Node, Process, eventually, finish, run, scratch};

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
    assert_eq!(second.event("peer_disconnected")["reason"], "remote_closed");
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
