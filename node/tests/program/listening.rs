//! Addresses of the machine that appear and go while a node runs, shown as they do. The machine is a network
//! namespace of its own, where the test adds and removes addresses.

#[cfg(test)]
use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::support::{Process, scratch};

/// Addresses of the machine: the first from the start, the second while the node runs.
const ADDRESSES: [&str; 2] = ["10.77.0.1", "10.77.0.2"];

/// A shell in a network namespace of its own.
fn namespace(script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child"]);
    command.args(["--", "bash", "-c", script]);
    command.stdin(Stdio::piped());
    command
}

fn has_namespaces() -> bool {
    let tried = namespace("ip link set lo up && ip address add 10.77.0.9/32 dev lo");
    let tried = { tried }.stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

/// A node that listens on every address of its machine.
struct Machine(Process);

impl Machine {
    fn start(dir: &Path, more: &str) -> Self {
        let (first, second) = (ADDRESSES[0], ADDRESSES[1]);
        let (program, dir) = (env!("CARGO_BIN_EXE_tandem"), dir.display());
        let script = format!(
            "ip link set lo up && ip address add {first}/32 dev lo || exit 1
             '{program}' run --data-dir '{dir}' --mode p2p --listen-p2p /ip4/0.0.0.0/tcp/0 {more} < /dev/null &
             read -r && ip address add {second}/32 dev lo
             read -r && ip address del {second}/32 dev lo
             read -r"
        );
        Self(Process::spawn(&mut namespace(&script)))
    }

    /// Lets the shell do its next step.
    fn step(&mut self) {
        let stdin = self.0.child.stdin.as_mut().expect("it is a pipe");
        stdin.write_all(b"\n").expect("the shell reads");
    }

    /// Waits for an event with these addresses and no others.
    #[track_caller]
    fn shows(&self, expected: &[&str]) {
        loop {
            let event = self.0.json();
            if !["ready", "listening"].contains(&event["event"].as_str().unwrap_or_default()) {
                continue;
            }
            let shown = event["p2p"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let shown: Vec<&str> = shown.filter_map(|address| address.split('/').nth(2)).collect();
            if shown.len() == expected.len() && expected.iter().all(|ip| shown.contains(ip)) {
                return;
            }
        }
    }
}

// Issue 8, 8: addresses that came between the event `ready` and the first look were served and never shown.
#[test]
fn addresses_that_appear_later_are_shown_and_those_that_go_are_too() {
    if !has_namespaces() {
        eprintln!("skipped: this machine makes no network namespaces");
        return;
    }
    let dir = scratch();
    let mut machine = Machine::start(dir.path(), "--json");
    machine.shows(&["127.0.0.1", ADDRESSES[0]]);
    machine.step();
    machine.shows(&["127.0.0.1", ADDRESSES[0], ADDRESSES[1]]);
    machine.step();
    machine.shows(&["127.0.0.1", ADDRESSES[0]]);
}

// Issue 8, 8.
#[test]
fn addresses_that_appear_later_are_lines_of_the_text_output() {
    if !has_namespaces() {
        eprintln!("skipped: this machine makes no network namespaces");
        return;
    }
    let dir = scratch();
    let mut machine = Machine::start(dir.path(), "");
    let expect = |machine: &Machine, start: &str| {
        while !machine.0.line().starts_with(start) {}
    };
    for _ in 0..3 {
        // Two addresses in either order, and `ready` between or behind them.
        let line = machine.0.line();
        assert!(line == "ready" || line.starts_with("listening p2p /ip4/"), "{line}");
    }
    machine.step();
    expect(&machine, &format!("listening p2p /ip4/{}/tcp/", ADDRESSES[1]));
    machine.step();
    expect(&machine, &format!("no longer listening p2p /ip4/{}/tcp/", ADDRESSES[1]));
}
