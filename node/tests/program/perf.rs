//! `tandem perf`: a measurement between processes, and everything that can be wrong with it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]

use std::net::TcpListener;

use crate::support::{Node, finish, scratch, tandem};
use serde_json::Value;

// Issue 11, 7.
#[test]
fn latency_and_throughput_to_a_node_are_measured() {
    let folder = scratch();
    let node = Node::start(folder.path(), &["--service", "perf"]);
    let perf = |more: &[&str]| finish(tandem().args(["perf", node.p2p()]).args(more));
    let sizes = ["--upload", "3MB", "--download", "2MiB", "--runs", "2"];
    let ended = perf(&[&sizes[..], &["--json"]].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let measured: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(measured["latency_us"].as_array().unwrap().len(), 20);
    for (direction, bytes) in [("upload", 3_000_000), ("download", 2 << 20)] {
        assert_eq!(measured[direction]["bytes"], bytes);
        let rates = measured[direction]["mbit_per_s"].as_array().unwrap();
        assert!(
            rates.len() == 2 && rates.iter().all(|rate| rate.as_f64() > Some(0.0)),
            "{rates:?}"
        );
    }
    let plot = folder.path().join("plot.svg");
    let ended = perf(&[&sizes[..], &["--plot", plot.to_str().unwrap()]].concat());
    let drawn = std::fs::read_to_string(plot).unwrap();
    assert_eq!(drawn.matches("<circle").count(), 20 + 2 + 2, "{drawn}");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let names: Vec<_> = ended.stdout.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(names, ["latency", "upload", "download"]);
    // Nothing is measured in a direction in which nothing moves.
    let ended = perf(&["--upload", "0", "--download", "1", "--runs", "1"]);
    assert!(ended.code == Some(0) && !ended.stdout.contains("upload"), "{ended:?}");
    // The bound of a node is a GiB, and more is refused before it moves; Yamux has no reset for a half that is left.
    let ended = perf(&["--upload", "0", "--download", "2GiB", "--runs", "1"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("0 bytes came"), "{ended:?}");
    node.stop();
}

#[test]
fn a_measurement_that_cannot_be_made_says_why() {
    let folder = scratch();
    let node = Node::start(folder.path(), &[]);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let id = node.p2p().rsplit('/').next().unwrap();
    let silent = format!("/ip4/127.0.0.1/tcp/{}/p2p/{id}", silent.local_addr().unwrap().port());
    for (arguments, code, told) in [
        (&["127.0.0.1:4160"][..], 2, "is no multiaddr"),
        (&["/ip4/127.0.0.1/tcp/1"], 2, "does not end with /p2p/ID"),
        (&[node.p2p(), "--upload", "1 MB"], 2, "a whole number of bytes"),
        (&[node.p2p(), "--upload", "99999999999GiB"], 2, "a whole number of bytes"),
        (&[node.p2p(), "--runs", "0"], 2, "0 is not in 1..=1000"),
        (&[node.p2p(), "--plot", "/nonexistent/plot.svg"], 1, "cannot write /nonexistent/plot.svg"),
        (&[node.p2p()], 1, "the peer speaks none of the protocols"),
        (&[&silent, "--max-time", "0.5"], 1, "no stream was opened in time"),
    ] {
        let ended = finish(tandem().arg("perf").args(arguments));
        assert_eq!(ended.code, Some(code), "{arguments:?} {ended:?}");
        assert!(ended.stderr.contains(told), "{arguments:?} {ended:?}");
        assert_eq!(ended.stderr.trim_end().lines().count(), 1, "{ended:?}");
    }
    node.stop();
    for arguments in [["run", "--mode", "ws"], ["config", "--mode", "ws"]] {
        let refused = finish(tandem().args(arguments).args(["--service", "perf"]));
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.stderr.contains("perf is measured over libp2p"), "{refused:?}");
    }
}
