//! Values outlive the node that put them and the first one that kept them, and have one owner.

use std::{path::Path, process::Command};

use crate::process::{Ended, PATIENCE, Process, finish};

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_key_value"));
    command.args(arguments);
    command
}

/// Runs a node that keeps values, and returns its addresses over TCP and WebSocket.
fn keep(peer: Option<&str>) -> (Process, [String; 2]) {
    let arguments = peer.map(|peer| ["--peer", peer]);
    let process = Process::spawn(command(&["keep"]).args(arguments.iter().flatten()));
    let address = || process.line().strip_prefix("listening ").unwrap().to_owned();
    let mut addresses = [address(), address()];
    addresses.sort_by_key(|address| address.contains("/ws/"));
    assert_eq!(process.line(), "ready");
    (process, addresses)
}

#[track_caller]
fn done(ended: &Ended) -> &str {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    &ended.stdout
}

// Issue 12, 7.
#[test]
fn values_are_kept_by_others_and_changed_by_their_owner_alone() {
    let (first, [first_tcp, first_ws]) = keep(None);
    let (mut second, [second_tcp, second_ws]) = keep(Some(&first_ws));
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let put = |value: &str, peer: &str, more: &[&str]| {
        finish(command(&["put", value, "--peer", peer]).args(more))
    };
    let get = |key: &str, peer: &str| finish(&mut command(&["get", key, "--peer", peer]));
    let content = put("some \u{1b} words", &first_tcp, &[]);
    let key = done(&content);
    assert!(key.starts_with("/content/"), "{key}");
    assert_eq!(done(&get(key, &second_ws)), r"some \u{1b} words");

    let signed = |dir: &Path, value: &str| {
        put(value, &second_tcp, &["--name", "head", "--data-dir", dir.to_str().unwrap()])
    };
    let (one, other) = (signed(dirs[0].path(), "one"), signed(dirs[1].path(), "other"));
    let (one, other) = (done(&one), done(&other));
    assert_ne!(one, other, "each owner has keys of its own");
    assert_eq!(done(&get(one, &first_ws)), "one");
    assert_eq!(done(&signed(dirs[0].path(), "two")), one);
    assert_eq!(done(&get(one, &first_tcp)), "two");
    assert_eq!(done(&get(other, &first_tcp)), "other");

    first.signal("KILL");
    drop(first);
    assert_eq!(done(&get(key, &second_tcp)), r"some \u{1b} words");
    assert_eq!(done(&get(one, &second_ws)), "two");
    for (arguments, told) in [
        (&["get", "no key"][..], "a key is /NAMESPACE/REST"),
        (&["put", "", "--peer", &second_tcp], "a value is 1 to 4096 bytes"),
        (&["put", "x", "--name", "a/b", "--peer", &second_tcp], "a key is /NAMESPACE/REST"),
    ] {
        let ended = finish(&mut command(arguments));
        assert_ne!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stderr.contains(told), "{ended:?}");
    }
    second.signal("INT");
    assert!(second.wait(PATIENCE).success());
}
