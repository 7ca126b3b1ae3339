//! `tandem trace`: the way of a message through several nodes.

#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

use std::{fs, path::Path, process::Command};

use crate::api::call::call;
use crate::support::{Ended, Node, eventually, finish, scratch, tandem};

/// Sends a message, and returns its digest.
fn send(node: &Node, text: &str) -> String {
    let sent = finish(node.command("send").args(["--tag", "TX", "--json", text]));
    assert_eq!(sent.code, Some(0), "{sent:?}");
    let sent: serde_json::Value = serde_json::from_str(&sent.stdout).unwrap();
    sent["digest"].as_str().unwrap().to_owned()
}

fn trace<'a>(args: impl IntoIterator<Item = &'a str>, nodes: &[&Path]) -> Ended {
    let mut command: Command = tandem();
    command.arg("trace").args(args);
    for node in nodes {
        command.arg("--node").arg(node);
    }
    finish(&mut command)
}

/// A node over WebSocket, a hybrid that relays, a node over libp2p.
fn line(dirs: [&Path; 3], one_in: &str) -> [Node; 3] {
    let sample = ["--trace-one-in", one_in];
    let relay = Node::start(
        dirs[1],
        &[&sample[..], &["--relay", "on", "--admin-listen", "127.0.0.1:0"]].concat(),
    );
    let ws = Node::start(dirs[0], &[&sample[..], &["--mode", "ws", "--peer", relay.ws()]].concat());
    let p2p =
        Node::start(dirs[2], &[&sample[..], &["--mode", "p2p", "--peer", relay.p2p()]].concat());
    eventually("two peers of the relay", || {
        let peers = finish(relay.command("peers").arg("--json"));
        let peers: serde_json::Value = serde_json::from_str(&peers.stdout).ok()?;
        let known = peers.as_array()?.iter().filter(|peer| peer["peer_id"].is_string());
        (known.count() == 2).then_some(())
    });
    [ws, relay, p2p]
}

// Issue 12, 3.
#[test]
fn the_way_of_a_message_over_both_transports_is_a_tree() {
    let scratches = [scratch(), scratch(), scratch()];
    let dirs = [scratches[0].path(), scratches[1].path(), scratches[2].path()];
    let nodes = line(dirs, "1");
    let digest = send(&nodes[0], "traced");
    let tree = eventually("all three nodes in one line of descent", || {
        let told = trace([&*digest], &dirs);
        let lines: Vec<&str> = told.stdout.lines().collect();
        let is_tree = matches!(lines[..], [_, _, relay, last]
            if relay.starts_with("└─ ") && last.starts_with("   └─ "));
        is_tree.then(|| told.stdout.clone())
    });
    let lines: Vec<&str> = tree.lines().collect();
    let says = |line: &str, words: &[&str]| words.iter().all(|word| line.contains(word));
    assert!(says(lines[0], &["TX 6 B", &digest]), "{tree}");
    let names = dirs.map(|dir| dir.display().to_string());
    assert!(says(lines[1], &[&names[0], "sent +0 us", "written to 1"]), "{tree}");
    assert!(says(lines[2], &[&names[1], "came over ws +", "accepted +"]), "{tree}");
    assert!(says(lines[3], &[&names[2], "came over p2p", " +"]), "{tree}");

    // The relay through its admin port, from a file; a node that is not there is told of.
    let page = finish(nodes[1].command("dashboard").arg("--no-open"));
    let gone = scratch();
    let list = format!(
        "# three nodes\n{}\n{}\n\n{}\n",
        names[0],
        page.stdout.trim(),
        gone.path().display()
    );
    let file = gone.path().join("nodes");
    fs::write(&file, list).unwrap();
    let told = trace([&*digest, "--nodes", file.to_str().unwrap()], &dirs[2..]);
    assert_eq!((told.code, told.stdout.lines().count()), (Some(0), 4), "{told:?}");
    assert!(told.stderr.contains("no node runs"), "{told:?}");
    assert!(!format!("{told:?}").contains("token="), "{told:?}");

    // The same as the dashboard has it: from one node, which asks the others.
    let order = serde_json::json!({"nodes": [dirs[0], dirs[2], gone.path()]}).to_string();
    let told = call(dirs[1], "POST", &format!("/v1/traces/{digest}/tree"), &order).json();
    let line = |at: usize| told["lines"][at].as_str().unwrap_or_default().to_owned();
    assert!(line(1).starts_with(&names[0]) && line(2).starts_with("└─ this node"), "{told}");
    assert!(line(3).starts_with(&format!("   └─ {}", names[2])), "{told}");
    assert_eq!(told["missing"].as_array().unwrap().len(), 1, "{told}");

    let json = trace([&*digest, "--json"], &dirs);
    let ways: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(ways.as_array().unwrap().len(), 3);
    let list = trace([], &dirs);
    assert_eq!(list.stdout.matches(&digest).count(), 3, "{list:?}");
    assert!(list.stdout.contains("keeps the way of every message"), "{list:?}");
    nodes.into_iter().for_each(|node| drop(node.stop()));
}

// Issue 12, 3.
#[test]
fn a_message_that_nobody_knows_and_wrong_words_are_told_in_one_line() {
    let dir = scratch();
    let node = Node::start(dir.path(), &["--mode", "ws"]);
    let unknown = "ab".repeat(32);
    let cases: [(&[&str], i32, &str); 6] = [
        (&[&unknown], 1, "none of the nodes that answered keeps"),
        (&["abc"], 2, "64 hexadecimal digits"),
        (&["--watch"], 2, "DIGEST"),
        (&[&unknown, "--node", "http://x/"], 2, "http://HOST:PORT/#token=TOKEN"),
        (&[&unknown, "--nodes", "/nowhere"], 1, "/nowhere"),
        (&[&unknown, "--node", "http://127.0.0.1:1/#token=secret"], 1, "none of the nodes"),
    ];
    for (args, code, says) in cases {
        let told = trace(args.iter().copied(), &[dir.path()]);
        assert_eq!(told.code, Some(code), "{args:?}: {told:?}");
        assert!(told.stderr.contains(says) && !told.stderr.contains("secret"), "{told:?}");
    }
    node.stop();
}

// Issue 12, 3.
#[test]
fn a_message_that_is_waited_for_is_traced_without_a_sample() {
    let scratches = [scratch(), scratch(), scratch()];
    let dirs = [scratches[0].path(), scratches[1].path(), scratches[2].path()];
    let nodes = line(dirs, "0");
    let other = send(&nodes[0], "another one");
    let dry = finish(nodes[0].command("send").args(["--tag", "TX", "--dry-run", "awaited"]));
    let digest = dry.stdout.trim();
    let watching = trace([digest, "--watch"], &dirs);
    assert!(watching.stdout.starts_with("3 nodes keep the way"), "{watching:?}");
    assert_eq!(send(&nodes[0], "awaited"), digest);
    eventually("the way through all three", || {
        (trace([digest], &dirs).stdout.lines().count() == 4).then_some(())
    });
    assert_eq!(trace([&*other], &dirs).code, Some(1));
    nodes.into_iter().for_each(|node| drop(node.stop()));
}
