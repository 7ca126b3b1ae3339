//! `tandem phonebook`, and what a node knows of others after it was stopped or killed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[cfg(test)]
use std::{fs, path::Path, time::Duration};

use crate::support::{Ended, Node, eventually, finish, scratch, tandem};
use serde_json::Value;

fn phonebook(dir: &Path, arguments: &[&str]) -> Ended {
    let (what, rest) = arguments.split_first().unwrap();
    finish(tandem().args(["phonebook", what, "--data-dir"]).arg(dir).args(rest))
}

/// The entries, as a program reads them.
fn entries(dir: &Path) -> Vec<Value> {
    let listed = phonebook(dir, &["list", "--json"]);
    assert_eq!(listed.code, Some(0), "{listed:?}");
    serde_json::from_str(&listed.stdout).unwrap()
}

fn addresses(dir: &Path) -> Vec<String> {
    let told = |entry: &Value| entry["address"].as_str().unwrap().to_owned();
    entries(dir).iter().map(told).collect()
}

fn does(dir: &Path, arguments: &[&str]) {
    let ended = phonebook(dir, arguments);
    assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (Some(0), "", ""), "{arguments:?}");
}

// Issue 10, 3.
#[test]
fn addresses_are_added_listed_and_removed_whether_a_node_runs_or_not() {
    let folder = scratch();
    let dir = folder.path();
    does(dir, &["add", "192.0.2.1:4160", "b.example:4160", "--role", "archival"]);
    let told = entries(dir);
    assert_eq!(told.len(), 2);
    assert_eq!(told[0]["address"], "192.0.2.1:4160");
    assert_eq!(told[0]["roles"][0], "archival");
    assert_eq!(told[0]["sources"][0], "operator");
    let node = Node::start(dir, &[]);
    assert_eq!(addresses(dir), ["192.0.2.1:4160", "b.example:4160"]);
    let multiaddr =
        "/ip4/192.0.2.1/tcp/4190/p2p/12D3KooWQYV9dGMFoRzNStwpXztXaBUjtPqi6aU76ZgUriHhKust";
    does(dir, &["add", "a.example:4160", multiaddr]);
    does(dir, &["remove", "192.0.2.1:4160"]);
    let all = [multiaddr, "a.example:4160", "b.example:4160"];
    assert_eq!(addresses(dir), all);
    let of_role = phonebook(dir, &["export", "--role", "relay"]);
    assert_eq!(of_role.stdout, [multiaddr, "a.example:4160"].join("\n"));
    let table = phonebook(dir, &["list"]).stdout;
    assert!(table.trim_start().starts_with("ADDRESS") && table.contains("operator"), "{table}");
    node.stop();
    assert_eq!(addresses(dir), all);
    does(dir, &["remove", "b.example:4160"]);
    assert_eq!(addresses(dir), all[..2]);
    // Exported addresses can be added elsewhere.
    let exported = phonebook(dir, &["export"]).stdout;
    let other = scratch();
    let lines: Vec<&str> = ["add"].into_iter().chain(exported.lines()).collect();
    does(other.path(), &lines);
    assert_eq!(addresses(other.path()), all[..2]);
}

#[test]
fn a_mistake_in_a_command_is_told_in_one_line() {
    let folder = scratch();
    let missing = folder.path().join("missing");
    let nobody = phonebook(&missing, &["list"]);
    assert_eq!(nobody.code, Some(1));
    assert!(nobody.stderr.contains("no node runs on the data directory"), "{nobody:?}");
    assert!(!missing.exists());
    let unknown = phonebook(folder.path(), &["remove", "a.example:1"]);
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.stderr.ends_with("1 of the addresses are not in the phonebook"), "{unknown:?}");
    for wrong in [["add", "nonsense"], ["remove", "nonsense"]] {
        assert_eq!(phonebook(folder.path(), &wrong).code, Some(2), "{wrong:?}");
    }
    let elsewhere =
        "/ip4/192.0.2.1/udp/4190/quic/p2p/12D3KooWQYV9dGMFoRzNStwpXztXaBUjtPqi6aU76ZgUriHhKust";
    let refused = phonebook(folder.path(), &["add", elsewhere]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    let role = phonebook(folder.path(), &["add", "a.example:1", "--role", "Über"]);
    assert_eq!(role.code, Some(2), "{role:?}");
    let _node = Node::start(folder.path(), &["--mode", "ws"]);
    let libp2p = "/ip4/192.0.2.1/tcp/4190/p2p/12D3KooWQYV9dGMFoRzNStwpXztXaBUjtPqi6aU76ZgUriHhKust";
    let refused = phonebook(folder.path(), &["add", libp2p]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("mode ws does not dial"), "{refused:?}");
}

// Issue 10, 3: anchors are dialled first after a restart.
#[test]
fn a_peer_of_the_last_run_is_dialled_again_though_nobody_names_it_any_more() {
    for transport in ["ws", "p2p"] {
        let (relay_dir, dir) = (scratch(), scratch());
        let relay = Node::start(relay_dir.path(), &["--mode", transport]);
        let address = if transport == "ws" { relay.ws() } else { relay.p2p() };
        let first = Node::start(dir.path(), &["--mode", transport, "--peer", address]);
        first.event("peer_connected");
        eventually("it worked", || {
            let told = entries(dir.path());
            (told[0]["connected"] == true).then_some(())
        });
        first.stop();
        let told = entries(dir.path());
        assert_eq!(told[0]["connected"], true, "{told:?}");
        assert!(told[0]["last_seen"].as_u64() > Some(1_700_000_000), "{told:?}");
        let again = Node::start(dir.path(), &["--mode", transport]);
        again.event("peer_connected");
    }
}

// Issue 10, 3: a torn file is put aside with a warning, and never a reason not to start.
#[test]
fn a_node_starts_with_any_peer_store() {
    let folder = scratch();
    let store = folder.path().join("peers.redb");
    does(folder.path(), &["add", "a.example:4160"]);
    let whole = fs::read(&store).unwrap();
    for damage in ["torn", "foreign", "folder", "empty"] {
        match damage {
            "torn" => fs::write(&store, &whole[..whole.len() / 2]).unwrap(),
            "foreign" => fs::write(&store, "a few notes of somebody").unwrap(),
            "folder" => {
                fs::remove_file(&store).unwrap();
                fs::create_dir(&store).unwrap();
            }
            _ => fs::write(&store, "").unwrap(),
        }
        let node = Node::start(folder.path(), &[]);
        assert_eq!(addresses(folder.path()), [] as [&str; 0], "{damage}");
        let log = node.stop();
        let told = log.iter().filter(|line| line.contains("the peer store was put aside")).count();
        assert_eq!(told, usize::from(damage != "empty"), "{damage}: {log:?}");
    }
    let off = Node::start(folder.path(), &["--peer-store", "off"]);
    does(folder.path(), &["add", "b.example:4160"]);
    off.stop();
    assert_eq!(addresses(folder.path()), [] as [&str; 0]);
}

#[test]
fn a_killed_node_keeps_what_it_knew_a_while_before() {
    let (relay_dir, dir) = (scratch(), scratch());
    let relay = Node::start(relay_dir.path(), &["--mode", "ws"]);
    let node = Node::start(dir.path(), &["--mode", "ws"]);
    does(dir.path(), &["add", relay.ws()]);
    node.event("peer_connected");
    // It writes ten seconds after its start.
    std::thread::sleep(Duration::from_secs(11));
    node.kill();
    eventually("the directory is free", || {
        let listed = phonebook(dir.path(), &["list", "--json"]);
        (listed.code == Some(0)).then_some(())
    });
    let told = entries(dir.path());
    assert_eq!((told.len(), &told[0]["connected"]), (1, &true.into()), "{told:?}");
    let again = Node::start(dir.path(), &["--mode", "ws"]);
    again.event("peer_connected");
}

#[test]
fn an_added_address_survives_a_crash_a_few_seconds_later() {
    let folder = scratch();
    let node = Node::start(folder.path(), &["--mode", "ws"]);
    // Past the first write of a run, after which the next one comes a minute later.
    std::thread::sleep(Duration::from_secs(12));
    does(folder.path(), &["add", "192.0.2.1:4160"]);
    std::thread::sleep(Duration::from_secs(8));
    node.kill();
    assert_eq!(addresses(folder.path()), ["192.0.2.1:4160"]);
}

// Issue 10, 2: a bootstrap that finds nobody is not silent.
#[test]
fn a_name_that_leads_to_no_node_is_told() {
    let folder = scratch();
    let arguments = ["--bootstrap", "nodes.example", "--dns-server", "127.0.0.1:1"];
    let node = Node::start(folder.path(), &arguments);
    let told = eventually("a warning", || node.process.stderr.try_recv().ok());
    assert!(told.contains("DNS leads to no node"), "{told}");
    assert!(told.contains("dns:nodes.example") && told.contains("failures=1"), "{told}");
    let metrics = finish(&mut node.command("metrics")).stdout;
    assert!(metrics.contains("tandem_dns_looks_total{outcome=\"nothing\"} "), "{metrics}");
}
