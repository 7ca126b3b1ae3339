//! The words of a node about itself when something is wrong.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]
#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

#[cfg(test)]
use std::{net::TcpListener, time::Duration};

use crate::support::{Node, eventually, finish, scratch, tandem};
use serde_json::Value;

fn status(node: &Node) -> Value {
    let told = finish(node.command("status").arg("--json"));
    assert_eq!(told.code, Some(0), "{told:?}");
    serde_json::from_str(&told.stdout).unwrap()
}

/// A port on which nobody listens.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The lines that a node has logged so far.
fn logged(node: &Node) -> Vec<String> {
    std::iter::from_fn(|| node.process.stderr.recv_timeout(Duration::from_millis(200)).ok())
        .collect()
}

#[track_caller]
fn tells_of(address: &str, more: &[&str], expected: &str) {
    let dir = scratch();
    let node = Node::start(dir.path(), &[&["--peer", address], more].concat());
    let event = node.event("peer_unreachable");
    assert_eq!(event["address"], address, "{event}");
    let error = event["error"].as_str().unwrap();
    assert!(error.contains(expected), "{event}");
    let dial = eventually("it was tried several times", || {
        let dial = status(&node)["dials"][0].clone();
        (dial["failures"].as_u64() > Some(2)).then_some(dial)
    });
    assert_eq!((&dial["address"], &dial["outcome"]), (&address.into(), &"failed".into()), "{dial}");
    assert!(dial["last_error"].as_str().unwrap().contains(expected), "{dial}");
    let table = finish(&mut node.command("peers"));
    assert!(table.stdout.contains("NOT CONNECTED") && table.stdout.contains(address), "{table:?}");
    // Told once, however often it was tried.
    let told = logged(&node);
    let lines = told.iter().filter(|line| line.contains("a configured peer cannot be reached"));
    assert_eq!(lines.count(), 1, "{told:?}");
}

// Issue 8, 8 and 20.
#[test]
fn a_peer_that_cannot_be_reached_is_told_once_and_shown() {
    let port = free_port();
    tells_of(&format!("127.0.0.1:{port}"), &[], "Connection refused");
    let id = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
    tells_of(&format!("/ip4/127.0.0.1/tcp/{port}/p2p/{id}"), &[], "Connection refused");
}

// Issue 8, 20.
#[test]
fn a_peer_of_another_network_is_told_to_be_one() {
    let dir = scratch();
    let other = Node::start(dir.path(), &["--network", "other"]);
    let ws = other.ws().trim_start_matches("http://").to_owned();
    tells_of(&ws, &["--network", "mine"], "412");
    tells_of(other.p2p(), &["--network", "mine"], "is it of this network");
}

// Issue 8, 30.
#[test]
fn a_node_whose_data_directory_has_gone_is_degraded_until_it_is_back() {
    let parent = scratch();
    let dir = parent.path().join("data");
    let node = Node::start(&dir, &[]);
    let health = || {
        let asked = finish(tandem().args(["http", &format!("{}/health", node.ws())]));
        let health: Value = serde_json::from_str(&asked.stdout).unwrap();
        health
    };
    assert_eq!(health()["state"], "serving");
    let away = parent.path().join("away");
    std::fs::rename(&dir, &away).unwrap();
    let health_now = eventually("the node says that it is degraded", || {
        let health = health();
        (health["state"] == "degraded").then_some(health)
    });
    assert_eq!(health_now["reasons"], serde_json::json!(["disk_broken"]));
    std::fs::rename(&away, &dir).unwrap();
    eventually("the node is well again", || (health()["state"] == "serving").then_some(()));
    let told = logged(&node);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("nothing can be written to the data directory"), "{told:?}");
}

/// The start of the line that counts connections refused for too many of one host.
fn refused_per_ip(transport: &str) -> String {
    format!("tandem_door_refused_total{{reason=\"per_ip\",transport=\"{transport}\"}} ")
}

// Issue 9, 5, and issue 8, 30: refusals of the door and the state of the node are metrics.
#[test]
fn metrics_are_printed_with_bounded_labels() {
    let dirs = [scratch(), scratch(), scratch()];
    let hub = Node::start(dirs[0].path(), &["--max-inbound-per-ip", "1"]);
    let metrics = || finish(&mut hub.command("metrics")).stdout;
    let has = |line: &str| metrics().lines().any(|known| known == line);
    for transport in ["ws", "p2p"] {
        let none = format!("{}0", refused_per_ip(transport));
        assert!(has(&none), "{}", metrics());
    }
    assert!(has("tandem_health{state=\"serving\"} 1") && has("tandem_health{state=\"failing\"} 0"));
    assert!(has("tandem_health_reason{reason=\"topic_peers_muted\"} 0"));
    assert!(metrics().ends_with("# EOF"));
    let ws = hub.ws().trim_start_matches("http://").to_owned();
    let _first = Node::start(dirs[1].path(), &["--mode", "ws", "--peer", &ws]);
    eventually("the place is taken", || has("tandem_door_taken{place=\"peers\"} 1").then_some(()));
    // The other transport meets the same bound.
    let _second = Node::start(dirs[2].path(), &["--mode", "p2p", "--peer", hub.p2p()]);
    eventually("it is refused", || {
        let (refused, metrics) = (refused_per_ip("p2p"), metrics());
        let count = metrics.lines().find_map(|line| line.strip_prefix(&refused))?;
        (count != "0").then_some(())
    });
    assert!(has(&format!("{}0", refused_per_ip("ws"))), "it was not refused over WebSocket");
}
