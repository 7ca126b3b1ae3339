//! `tandem demo`, with every process.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]

#[cfg(test)]
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use crate::support::{self, Process, scratch, tandem};
use serde_json::Value;

/// A demo may take as long as all its deadlines together.
const PATIENCE: Duration = Duration::from_secs(120);

#[track_caller]
fn demo(more: &[&str]) -> Value {
    let files = scratch();
    let mut command = tandem();
    command.args(["demo", "--json"]).args(more).env("TMPDIR", files.path());
    let mut process = Process::spawn(&mut command);
    let status = process.wait(PATIENCE);
    let stderr: Vec<String> = process.stderr.iter().collect();
    assert!(status.success(), "{status}: {stderr:?}");
    let left = std::fs::read_dir(files.path()).map_or(0, Iterator::count);
    assert_eq!(left, 0, "the files of the nodes are gone");
    process.json()
}

fn sum(values: &Value, field: &str) -> u64 {
    values
        .as_array()
        .expect("an array")
        .iter()
        .map(|value| value[field].as_u64().expect("a number"))
        .sum()
}

#[test]
fn a_demo_loses_nothing_and_handles_nothing_twice() {
    let report = demo(&["--seconds", "2"]);
    assert_eq!((&report["lost"], &report["duplicated"]), (&0.into(), &0.into()));
    let nodes = &report["nodes"];
    assert_eq!(nodes.as_array().unwrap().len(), 5);
    // 5 nodes, 2 s, 100 votes and 100 transactions a second, and a proposal a second by one of them.
    assert_eq!(sum(nodes, "sent"), 5 * 2 * 200 + 2);
    assert_eq!(report["handled"], (5 * 2 * 200 + 2) * 4);
    let hybrid = &nodes[0]["heard"][0];
    assert_eq!((&hybrid["ws"], &hybrid["p2p"]), (&400.into(), &400.into()), "{report}");
    assert!(report["chaos"].is_null());
}

#[test]
fn a_demo_tells_exactly_what_a_killed_node_missed() {
    let report = demo(&["--seconds", "3", "--chaos"]);
    assert_eq!((&report["lost"], &report["duplicated"]), (&0.into(), &0.into()), "{report}");
    let chaos = &report["chaos"];
    assert_eq!(chaos["node"], "ws-1");
    let missed = chaos["missed_while_down"].as_u64().unwrap();
    assert!(missed > 0, "{report}");
    // The messages of the others are those that it heard and those that it missed.
    let nodes = report["nodes"].as_array().unwrap();
    let victim = nodes.iter().find(|node| node["node"] == "ws-1").unwrap();
    let by_others = sum(&report["nodes"], "sent") - victim["sent"].as_u64().unwrap();
    let heard = sum(&victim["heard"], "ws") + sum(&victim["heard"], "p2p");
    let again = chaos["heard_again"].as_u64().unwrap();
    assert_eq!(heard - again + missed, by_others, "{report}");
}

// Issue 12, 4.
#[test]
fn a_demo_with_a_dashboard_tells_its_address_and_loses_nothing() {
    let files = scratch();
    let mut command = tandem();
    command.args(["demo", "--json", "--dashboard", "--no-open", "--seconds", "3", "--chaos"]);
    let mut process = Process::spawn(command.env("TMPDIR", files.path()));
    let status = process.wait(PATIENCE);
    let told: Vec<String> = process.stderr.iter().collect();
    assert!(status.success(), "{status}: {told:?}");
    assert!(told.len() == 1 && told[0].starts_with("dashboard http://127.0.0.1:"), "{told:?}");
    assert!(told[0].contains("/#token="), "{told:?}");
    assert_eq!(process.json()["lost"], 0);
}

#[test]
fn nodes_of_a_demo_end_with_it() {
    let files = scratch();
    let mut command = tandem();
    let shown = ["demo", "--dashboard", "--no-open", "--seconds", "600"];
    command.args(shown).env("TMPDIR", files.path());
    let process = Process::spawn(&mut command);
    let children = |pid: u32| {
        let path = format!("/proc/{pid}/task/{pid}/children");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()
    };
    let nodes = support::eventually("five nodes run, and one that watches", || {
        // Children belong to the thread that started them, so every thread is asked.
        let threads = std::fs::read_dir(format!("/proc/{}/task", process.child.id())).ok()?;
        let nodes: Vec<u32> = threads
            .flatten()
            .flat_map(|thread| {
                let text = std::fs::read_to_string(thread.path().join("children"));
                let text = text.unwrap_or_default();
                text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()
            })
            .collect();
        (nodes.len() == 6).then_some(nodes)
    });
    assert_eq!(children(nodes[0]), [0; 0]);
    process.signal("KILL");
    support::eventually("no node is left", || {
        let alive = |pid: &u32| {
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // An orphan that has ended may wait for its new parent.
            !state.is_empty() && !state.contains(") Z ")
        };
        (!nodes.iter().any(alive)).then_some(())
    });
}

// Issue 13, 7.
#[test]
fn a_demo_serves_a_page_that_may_reach_its_relays_and_nobody_else() {
    let files = scratch();
    let mut command = tandem();
    command.args(["demo", "--json", "--browser", "--no-open", "--seconds", "3", "--rate", "0.2"]);
    let mut process = Process::spawn(command.env("TMPDIR", files.path()));
    let told = process.stderr.recv_timeout(PATIENCE).expect("the address is told");
    let page = told.strip_prefix("page http://").expect("it is that of the page");
    let ask = |path: &str| {
        let host = page.trim_end_matches('/');
        let mut stream = TcpStream::connect(host).expect("the page is served");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").expect("it is asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("the answer has a head");
        (head.to_owned(), body.to_owned())
    };
    let (_, network) = ask("/network");
    let network: Value = serde_json::from_str(&network).expect("the network is told as JSON");
    let relays: Vec<&str> = network["relays"]
        .as_array()
        .expect("there are relays")
        .iter()
        .map(|relay| relay["address"].as_str().expect("a relay has an address"))
        .collect();
    let modes: Vec<&str> = network["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|node| node["mode"].as_str())
        .collect();
    assert_eq!(modes, ["hybrid", "ws", "ws", "p2p", "p2p"]);
    assert!(network["nodes"][4]["peer_id"].as_str().is_some_and(|id| id.starts_with("12D3KooW")));
    let (head, html) = ask("/");
    let [one, other] = relays[..] else { panic!("{network}") };
    let ws = |address: &str| address.replacen("http", "ws", 1);
    let may = format!("connect-src 'self' {one} {other} {} {};", ws(one), ws(other));
    assert!(head.contains(&may) && head.contains("script-src 'self';"), "{head}");
    assert!(html.contains("demo.js") && ask("/tandem.js").1.contains("export class Node"));
    let status = process.wait(PATIENCE);
    assert!(status.success(), "{status}");
    assert_eq!(process.json()["lost"], 0);
}
