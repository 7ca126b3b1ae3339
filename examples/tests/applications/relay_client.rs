//! A node that listens nowhere is called through a relay over TCP and WebSocket, also after the relay has come back.

use std::{path::Path, process::Command};

use crate::process::{Ended, PATIENCE, Process, eventually, finish};

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relay_client"));
    command.args(arguments);
    command
}

/// The next line that begins so, without its beginning.
#[track_caller]
fn next(process: &Process, start: &str) -> String {
    loop {
        if let Some(rest) = process.line().strip_prefix(start) {
            return rest.to_owned();
        }
    }
}

/// Runs a relay, and returns its addresses over TCP and WebSocket.
fn relay(dir: &Path, more: &[&str]) -> (Process, [String; 2]) {
    let arguments = [&["relay", "--data-dir", dir.to_str().unwrap()], more].concat();
    let relay = Process::spawn(&mut command(&arguments));
    let mut addresses = [next(&relay, "listening "), next(&relay, "listening ")];
    addresses.sort_by_key(|address| address.contains("/ws/"));
    (relay, addresses)
}

fn call(address: &str) -> Ended {
    finish(&mut command(&["call", address]))
}

// Issue 12, 7.
#[test]
fn a_node_that_nobody_can_dial_is_called_through_its_relay() {
    let dir = tempfile::tempdir().unwrap();
    let (first, [tcp, ws]) = relay(dir.path(), &[]);
    let mut server = Process::spawn(&mut command(&["serve", &ws]));
    let address = next(&server, "listening ");
    assert!(address.contains("/p2p-circuit/p2p/"), "{address}");
    // The same place is reached over the other transport of the relay.
    let identity = address.rsplit('/').next().unwrap();
    for address in [&address, &format!("{tcp}/p2p-circuit/p2p/{identity}")] {
        let called = call(address);
        assert_eq!(called.code, Some(0), "{called:?}");
        assert!(called.stdout.starts_with("hello 12D3Koo"), "{called:?}");
        assert!(called.stdout.ends_with(", you come over p2p"), "{called:?}");
    }

    first.signal("KILL");
    next(&server, "no longer at ");
    drop(first);
    assert_ne!(call(&address).code, Some(0));
    let port = |address: &str| address.split("/p2p/").next().unwrap().to_owned();
    let (_second, _) =
        relay(dir.path(), &["--listen-p2p", &port(&tcp), "--listen-p2p", &port(&ws)]);
    assert_eq!(next(&server, "listening "), address);
    eventually("it is called again", || (call(&address).code == Some(0)).then_some(()));
    server.signal("INT");
    assert!(server.wait(PATIENCE).success());
}
