//! `tandem peer`: peers that an operator adds, removes and bans, of a node that runs, does not run, or was killed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::Duration,
};

use crate::support::{Ended, Node, eventually, finish, scratch, tandem};
use serde_json::Value;

const SOMEBODY: &str = "12D3KooWQYV9dGMFoRzNStwpXztXaBUjtPqi6aU76ZgUriHhKust";

fn peer(dir: &Path, arguments: &[&str]) -> Ended {
    let (what, rest) = arguments.split_first().unwrap();
    finish(tandem().args(["peer", what, "--data-dir"]).arg(dir).args(rest))
}

fn does(dir: &Path, arguments: &[&str]) {
    let ended = peer(dir, arguments);
    assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (Some(0), "", ""), "{arguments:?}");
}

fn listed(dir: &Path) -> Value {
    let listed = peer(dir, &["list", "--json"]);
    assert_eq!(listed.code, Some(0), "{listed:?}");
    serde_json::from_str(&listed.stdout).unwrap()
}

/// Those that are banned, in their order.
fn banned(dir: &Path) -> Vec<String> {
    let told = listed(dir);
    let bans = told["banned"].as_array().unwrap();
    bans.iter().map(|ban| ban["subject"].as_str().unwrap().to_owned()).collect()
}

fn status(node: &Node) -> Value {
    let told = finish(node.command("status").arg("--json"));
    serde_json::from_str(&told.stdout).unwrap()
}

fn has_peers(node: &Node, count: u64) -> Option<()> {
    (status(node)["peers"].as_u64() == Some(count)).then_some(())
}

// Issue 10, 4.
#[test]
fn a_banned_peer_goes_and_stays_out_until_the_ban_ends() {
    for transport in ["ws", "p2p"] {
        let (dir, other_dir) = (scratch(), scratch());
        let node = Node::start(dir.path(), &["--mode", transport]);
        let address = if transport == "ws" { node.ws() } else { node.p2p() };
        let other = Node::start(other_dir.path(), &["--mode", transport, "--peer", address]);
        let id = status(&other)["peer_id"].as_str().unwrap().to_owned();
        for subject in [&*id, "127.0.0.1", "127.0.0.0/8"] {
            eventually("a link", || has_peers(&node, 1));
            does(dir.path(), &["ban", subject, "--for", "1h", "--reason", "a test"]);
            assert_eq!(banned(dir.path()), [subject]);
            eventually("no link", || has_peers(&node, 0));
            let refused = format!(
                "tandem_door_refused_total{{reason=\"banned\",transport=\"{transport}\"}} "
            );
            eventually("a refusal", || {
                let told = finish(&mut node.command("metrics")).stdout;
                let line = told.lines().find_map(|line| line.strip_prefix(&*refused))?;
                (line != "0").then_some(())
            });
            assert_eq!(has_peers(&node, 0), Some(()), "{transport} {subject}");
            does(dir.path(), &["unban", subject]);
            assert_eq!(banned(dir.path()), [] as [&str; 0]);
        }
        eventually("a link again", || has_peers(&node, 1));
        other.stop();
        node.stop();
    }
}

// Issue 10, 4.
#[test]
fn decisions_are_taken_and_listed_whether_a_node_runs_or_not() {
    let folder = scratch();
    let dir = folder.path();
    does(dir, &["ban", SOMEBODY, "192.0.2.0/24", "--for", "7d", "--reason", "spam of\tvotes"]);
    // Issue 11, 7: the same by a command of its own.
    let ended = finish(tandem().args(["ban", "a.example:4160", "--data-dir"]).arg(dir));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    does(dir, &["add", "b.example:4160"]);
    let all = [SOMEBODY, "192.0.2.0/24", "a.example:4160"];
    let told = listed(dir);
    assert_eq!(banned(dir), all);
    assert_eq!(told["banned"][1]["reason"], "spam of votes");
    assert_eq!(told["banned"][1]["cause"], "operator");
    assert_eq!(told["added"][0]["address"], "b.example:4160");
    assert_eq!(told["members"]["epoch"], Value::Null);
    let until = |told: &Value, at: usize| told["banned"][at]["until"].as_u64().unwrap();
    // A day unless something else is said.
    let apart = until(&told, 1) - until(&told, 2);
    assert!((6 * 86_400 - 60..=6 * 86_400).contains(&apart), "{apart}");
    let node = Node::start(dir, &["--mode", "ws"]);
    assert_eq!(banned(dir), all);
    does(dir, &["unban", "a.example:4160"]);
    // A longer ban counts, a shorter one does not.
    does(dir, &["ban", SOMEBODY, "--for", "1s"]);
    assert!(until(&listed(dir), 0).abs_diff(until(&told, 0)) <= 2);
    does(dir, &["remove", "b.example:4160"]);
    node.stop();
    assert_eq!(banned(dir), all[..2]);
    assert_eq!(listed(dir)["added"], serde_json::json!([]));
    let table = peer(dir, &["list"]).stdout;
    assert!(table.contains("192.0.2.0/24") && table.contains("spam of votes"), "{table}");
    does(dir, &["unban", "192.0.2.0/24", SOMEBODY]);
    assert_eq!(banned(dir), [] as [&str; 0]);
}

#[test]
fn a_removed_peer_is_disconnected_and_not_dialled_again() {
    for transport in ["ws", "p2p"] {
        let (dir, other_dir) = (scratch(), scratch());
        let other = Node::start(other_dir.path(), &["--mode", transport]);
        let address = if transport == "ws" { other.ws() } else { other.p2p() };
        let node = Node::start(dir.path(), &["--mode", transport]);
        does(dir.path(), &["add", address]);
        eventually("a link", || has_peers(&node, 1));
        does(dir.path(), &["remove", address]);
        eventually("no link", || has_peers(&node, 0));
        thread::sleep(Duration::from_secs(2));
        assert_eq!(has_peers(&node, 0), Some(()), "{transport}");
        assert_eq!(has_peers(&other, 0), Some(()), "{transport}");
    }
}

// Issue 10, 4: bans survive a restart, and a kill.
#[test]
fn a_ban_survives_a_kill_a_few_seconds_later() {
    let folder = scratch();
    let node = Node::start(folder.path(), &["--mode", "ws"]);
    // Past the first write of a run, after which the next one comes a minute later.
    thread::sleep(Duration::from_secs(12));
    does(folder.path(), &["ban", "192.0.2.0/24", "--for", "1h"]);
    thread::sleep(Duration::from_secs(8));
    node.kill();
    assert_eq!(banned(folder.path()), ["192.0.2.0/24"]);
    let _again = Node::start(folder.path(), &["--mode", "ws"]);
    assert_eq!(banned(folder.path()), ["192.0.2.0/24"]);
}

/// The status and the body of an answer of the admin socket.
fn ask(node: &Node, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(node.dir.join("admin.sock")).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

// Issue 10, 4: the admin API had the members, and no test and no command.
#[test]
fn the_members_of_an_epoch_are_told_by_the_api_and_by_the_command() {
    let (folder, other_folder) = (scratch(), scratch());
    let node = Node::start(folder.path(), &["--mode", "ws"]);
    let other = Node::start(other_folder.path(), &["--mode", "ws"]);
    let id = status(&other)["peer_id"].as_str().unwrap().to_owned();
    let none = (200, "{\"epoch\":null,\"peer_ids\":[]}".to_owned());
    assert_eq!(ask(&node, "GET", "/v1/members", ""), none);
    for (wrong, told) in [
        ("", ""),
        ("{\"epoch\":1}", "missing field `members`"),
        ("{\"epoch\":-1,\"members\":[]}", "invalid value"),
        ("{\"epoch\":1,\"members\":[],\"x\":1}", "unknown field `x`"),
        ("{\"epoch\":1,\"members\":[{\"peer_id\":\"me\"}]}", ""),
        (
            &*format!(
                "{{\"epoch\":1,\"members\":[{{\"peer_id\":\"{id}\",\"addresses\":[\"x\"]}}]}}"
            ),
            "is no address",
        ),
    ] {
        let (code, body) = ask(&node, "POST", "/v1/members", wrong);
        assert_eq!(code, 400, "{wrong}: {body}");
        assert!(body.contains(told), "{wrong}: {body}");
    }
    assert_eq!(ask(&node, "GET", "/v1/members", ""), none);
    let set = format!(
        "{{\"epoch\":7,\"members\":[{{\"peer_id\":\"{id}\",\"addresses\":[\"{}\"]}}]}}",
        other.ws()
    );
    let now = (200, format!("{{\"epoch\":7,\"peer_ids\":[\"{id}\"]}}"));
    assert_eq!(ask(&node, "POST", "/v1/members", &set), now);
    eventually("the member is dialled", || has_peers(&other, 1));
    let (code, told) = ask(&node, "POST", "/v1/members", &set);
    assert_eq!(code, 400, "an epoch that is not newer: {told}");
    assert_eq!(ask(&node, "GET", "/v1/members", ""), now);

    let shown = peer(node.dir.as_path(), &["members"]);
    assert_eq!(shown.stdout, format!("epoch 7, and the one before it\n{id}"));
    let word = format!("{SOMEBODY}=a.example:1,b.example:2");
    let shown = peer(node.dir.as_path(), &["members", "--epoch", "8", &word, "--json"]);
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(shown["epoch"], 8);
    assert_eq!(shown["peer_ids"].as_array().unwrap().len(), 2, "of both epochs: {shown}");
    for wrong in [&["--epoch", "8", SOMEBODY][..], &["--epoch", "9", "nobody"], &["--epoch", "9"]] {
        let ended = peer(node.dir.as_path(), &[&["members"], wrong].concat());
        assert!(ended.code != Some(0) && ended.stdout.is_empty(), "{wrong:?}: {ended:?}");
    }
    node.stop();
    assert_ne!(peer(folder.path(), &["members"]).code, Some(0), "no node tells");
}

#[test]
fn a_mistake_in_a_command_is_told_in_one_line() {
    let folder = scratch();
    let dir = folder.path();
    for (wrong, told) in [
        (&["ban"][..], "required"),
        (&["ban", "nobody"], "names nobody to ban"),
        (&["ban", "192.0.2.1/24"], "names nobody to ban"),
        (&["ban", "192.0.2.0/33"], "names nobody to ban"),
        (&["ban", "192.0.2.1", "--for", "1w"], "write a whole number with s, m, h or d"),
        (&["ban", "192.0.2.1", "--for", "0s"], "write a whole number with s, m, h or d"),
        (&["ban", "192.0.2.1", "--for", "366d"], "write a whole number with s, m, h or d"),
        (&["unban"], "required"),
        (&["unban", "nobody"], "names nobody to ban"),
        (&["add", "nonsense"], "nonsense"),
        (&["add"], "required"),
        (&["remove", "nonsense"], "nonsense"),
        (&["remove"], "required"),
        (&["lits"], "lits"),
    ] {
        let ended = peer(dir, wrong);
        assert_eq!(ended.code, Some(2), "{wrong:?} {ended:?}");
        assert!(ended.stderr.contains(told), "{wrong:?} {ended:?}");
    }
    let missing = dir.join("missing");
    let nobody = peer(&missing, &["list"]);
    assert_eq!(nobody.code, Some(1));
    assert!(nobody.stderr.contains("no node runs on the data directory"), "{nobody:?}");
    assert!(!missing.exists());
    let unknown = || {
        let ended = peer(dir, &["unban", "192.0.2.1"]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("1 of them are not banned"), "{ended:?}");
        let ended = peer(dir, &["remove", "a.example:1"]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
    };
    unknown();
    let _node = Node::start(dir, &["--mode", "ws"]);
    unknown();
    let libp2p = format!("/ip4/192.0.2.1/tcp/4190/p2p/{SOMEBODY}");
    let refused = peer(dir, &["add", &libp2p]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("mode ws does not dial"), "{refused:?}");
    let settings = finish(tandem().args(["config", "--admit", "nobody"]));
    assert_eq!(settings.code, Some(2), "{settings:?}");
    assert!(settings.stderr.contains("neither everybody nor members"), "{settings:?}");
}
