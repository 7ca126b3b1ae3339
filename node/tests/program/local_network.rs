//! Two nodes on a bridge, each in a network namespace of its own, find each other by multicast DNS.

#[cfg(test)]
use std::{
    path::Path,
    process::{Command, Stdio},
};

use crate::support::{Process, eventually, scratch, tandem};

/// Makes a bridge with two ports, each in a namespace whose shell runs what follows, and waits for its input to end.
const BRIDGE: &str = "set -e
    ip link add bridge type bridge && ip link set bridge up
    for number in 1 2; do
        unshare --net sleep 600 & shell=$!
        until [[ $(readlink /proc/$shell/ns/net) != $(readlink /proc/$$/ns/net) ]]; do sleep 0.01; done
        ip link add port$number type veth peer name eth0 netns $shell
        ip link set port$number master bridge up
        inside=\"nsenter --target $shell --net\"
        $inside ip link set lo up
        $inside ip address add 10.78.0.$number/24 dev eth0
        $inside ip link set eth0 up
        eval \"node$number=\\$inside\"
    done";

/// A shell in a network namespace of its own.
fn namespace(script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args([
        "--user",
        "--map-root-user",
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
    ]);
    command.args(["--mount-proc", "--", "bash", "-c", script]);
    command.stdin(Stdio::piped());
    command
}

// Issue 11, 4.
#[test]
fn two_nodes_on_a_bridge_find_each_other() {
    let tried = { namespace(BRIDGE) }.stderr(Stdio::null()).status();
    if !tried.is_ok_and(|status| status.success()) {
        eprintln!("skipped: this machine makes no bridges in network namespaces");
        return;
    }
    let folders = [scratch(), scratch()];
    let program = env!("CARGO_BIN_EXE_tandem");
    let run = |number: usize| {
        let dir = folders[number - 1].path().display();
        format!(
            "$node{number} '{program}' run --mode p2p --mdns on --data-dir '{dir}' \\
                --listen-p2p /ip4/10.78.0.{number}/tcp/4190 < /dev/null &"
        )
    };
    let script = format!("{BRIDGE}\n{}\n{}\nread -r", run(1), run(2));
    let bridge = Process::spawn(&mut namespace(&script));
    let told = |arguments: &[&str], folder: &Path| {
        let told = tandem().args(arguments).arg("--data-dir").arg(folder).output();
        String::from_utf8(told.unwrap().stdout).unwrap()
    };
    for (folder, other) in folders.iter().zip(["10.78.0.2", "10.78.0.1"]) {
        let folder = folder.path();
        eventually("the other node is a peer", || {
            told(&["peers", "--json"], folder).contains(other).then_some(())
        });
    }
    // The one that started first may hear of the other one only by its dial.
    eventually("the phonebook of one of them has it from mDNS", || {
        let has = |folder: &Path| told(&["phonebook", "list", "--json"], folder).contains("mdns");
        folders.iter().any(|folder| has(folder.path())).then_some(())
    });
    drop(bridge);
}
