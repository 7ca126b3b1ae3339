//! The log survives its leader: nothing that was acknowledged is lost, and the leader catches up.

use std::{path::Path, process::Command};

use axum::http::Method;
use serde_json::Value;

use crate::{
    client::Client,
    process::{PATIENCE, Process, eventually},
};

/// Lines until the leader is killed, and again after that. Chosen: the log is replaced by snapshots meanwhile.
const LINES: usize = 40;

struct Member {
    process: Process,
    ws: String,
    p2p: String,
}

impl Member {
    fn run(dir: &Path, id: usize, more: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_replicated_log"));
        command.args(["run", "--id", &id.to_string(), "--compact-after", "15", "--data-dir"]);
        let process = Process::spawn(command.arg(dir.join(id.to_string())).args(more));
        let (mut ws, mut p2p) = (String::new(), String::new());
        loop {
            let line = process.line();
            match line.strip_prefix("listening ") {
                Some(address) if address.starts_with('/') => p2p = address.to_owned(),
                Some(address) => ws = address.to_owned(),
                None => break assert_eq!(line, "ready"),
            }
        }
        Self { process, ws, p2p }
    }
}

/// Appends a line through whichever member answers first, beginning with the one that did last time.
fn append(client: &Client, addresses: &[&str], at: &mut usize, line: &str) {
    eventually("a majority has the line", || {
        let sent = client.send(Method::POST, addresses[*at % addresses.len()], "/log", line);
        let done = matches!(&sent, Ok((status, _)) if status.is_success());
        *at += usize::from(!done);
        done.then_some(())
    });
}

fn lines(client: &Client, address: &str) -> Option<Vec<String>> {
    serde_json::from_str(&client.get(address, "/log")?).ok()
}

/// A number of what a member tells of itself: the leader that it knows, or where its log begins.
fn state(client: &Client, address: &str, name: &str) -> Option<usize> {
    let state: Value = serde_json::from_str(&client.get(address, "/state")?).ok()?;
    usize::try_from(state[name].as_u64()?).ok()
}

// Issue 12, 7.
#[test]
fn nothing_that_was_acknowledged_is_lost_with_the_leader() {
    let (dir, client) = (tempfile::tempdir().unwrap(), Client::new());
    let mut members: Vec<_> = (1..=3).map(|id| Member::run(dir.path(), id, &[])).collect();
    // The first is called over TCP by the others, the second and the third over libp2p.
    let addresses = [members[0].ws.clone(), members[1].p2p.clone(), members[2].p2p.clone()];
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let group = serde_json::json!({"1": addresses[0], "2": addresses[1], "3": addresses[2]});
    let founded = client.send(Method::PUT, addresses[0], "/members", &group.to_string()).unwrap();
    assert_eq!(founded.1, "founded\n");
    for (path, method, body) in [
        ("/log", Method::POST, ""),
        ("/log", Method::POST, &"x".repeat(8 * 1024 + 1)),
        ("/raft/vote", Method::POST, "{}"),
        ("/members", Method::PUT, &group.to_string()),
    ] {
        let (status, text) = client.send(method, addresses[0], path, body).unwrap();
        assert!(status.is_client_error() && text.lines().count() == 1, "{path}: {status} {text}");
    }
    let mut watch = Command::new(env!("CARGO_BIN_EXE_replicated_log"));
    let watch = Process::spawn(watch.arg("watch").args(&addresses));
    assert_eq!(watch.line(), "ready");

    let (mut at, mut sent) = (0, Vec::new());
    for number in 0..LINES {
        sent.push(format!("line {number} \u{1b}[31m"));
        append(&client, &addresses, &mut at, sent.last().unwrap());
    }
    let killed = eventually("there is a leader", || state(&client, addresses[0], "leader"));
    members[killed - 1].process.signal("KILL");
    members[killed - 1].process.wait(PATIENCE);
    for number in LINES..2 * LINES {
        sent.push(format!("line {number} \u{1b}[31m"));
        append(&client, &addresses, &mut at, sent.last().unwrap());
    }
    let other = addresses[killed % 3];
    assert_ne!(state(&client, other, "leader"), Some(killed));
    // The killed one needs a snapshot: what it has missed is in no log any more.
    eventually("the log is replaced by a snapshot", || {
        state(&client, other, "log_from").filter(|from| *from > LINES + 10)
    });

    // It comes back with its log, at the address by which the others know it.
    let dead = &members[killed - 1];
    let p2p = dead.p2p.split("/p2p/").next().unwrap().to_owned();
    let back = ["--listen-ws", &dead.ws.clone(), "--listen-p2p", &p2p];
    members[killed - 1] = Member::run(dir.path(), killed, &back);
    for address in addresses {
        let there = eventually("the member has all lines", || {
            lines(&client, address).filter(|lines| lines.last() == sent.last())
        });
        // A line of which the acknowledgement was lost may be there twice, and the other ones are there once.
        let mut once = there.clone();
        once.dedup();
        assert_eq!(once, sent, "{address}");
        assert!(there.len() <= sent.len() + 2, "{there:?}");
    }
    let mut followed: Vec<String> = Vec::new();
    while followed.last().is_none_or(|line| !line.ends_with(r"line 79 \u{1b}[31m")) {
        followed.push(watch.line());
    }
    assert_eq!(followed[0], r"1 line 0 \u{1b}[31m");
    assert!(followed.len() >= sent.len(), "{followed:?}");
    for mut process in members.into_iter().map(|member| member.process).chain([watch]) {
        process.signal("INT");
        assert!(process.wait(PATIENCE).success());
    }
}
