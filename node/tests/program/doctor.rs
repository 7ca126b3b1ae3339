//! `tandem doctor`, on a healthy place and on sick ones, and `tandem config init` and `schema`.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]
#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt, path::Path};

use serde_json::Value;

use crate::support::{Ended, Node, finish, scratch, tandem};

fn doctor(dir: &Path, more: &[&str]) -> (Ended, Vec<Value>) {
    let mut command = tandem();
    command.args(["doctor", "--json", "--data-dir"]).arg(dir);
    command.args(["--listen-ws", "127.0.0.1:0", "--listen-p2p", "/ip4/127.0.0.1/tcp/0"]);
    let ended = finish(command.args(more));
    let findings = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (ended, findings)
}

/// The finding of a check that is of that state.
#[track_caller]
fn find<'a>(findings: &'a [Value], check: &str, state: &str) -> &'a Value {
    let is_it = |finding: &&Value| finding["check"] == check && finding["state"] == state;
    findings.iter().find(is_it).unwrap_or_else(|| panic!("{check} {state}: {findings:?}"))
}

// Issue 12, 5.
#[test]
fn a_healthy_place_is_told_so_whether_a_node_runs_there_or_not() {
    let (dir, other) = (scratch(), scratch());
    for place in [dir.path(), other.path()] {
        fs::set_permissions(place, fs::Permissions::from_mode(0o700)).unwrap();
    }
    let node = Node::start(dir.path(), &["--mode", "ws"]);
    for place in [dir.path(), other.path()] {
        let (ended, findings) = doctor(place, &["--mode", "ws", "--peer", node.ws()]);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
        for check in ["configuration", "data directory", "ports", "names", "peers", "reachability"]
        {
            find(&findings, check, "ok");
        }
        for check in ["descriptors", "clock", "space"] {
            assert!(findings.iter().any(|finding| finding["check"] == check), "{check}");
        }
        assert!(findings.iter().all(|finding| finding["state"] != "failure"), "{findings:?}");
    }
    // It is said to listen for others, and nobody has come.
    let (ended, findings) =
        doctor(dir.path(), &["--mode", "p2p", "--listen-p2p", "/ip4/0.0.0.0/tcp/0"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let finding = find(&findings, "reachability", "warning");
    assert!(finding["do"].as_str().unwrap().contains("on another machine"), "{finding}");
    node.stop();
}

// Issue 12, 5.
#[test]
fn everything_that_is_wrong_is_told_with_what_to_do() {
    let (dir, taken) = (scratch(), TcpListener::bind("127.0.0.1:0").unwrap());
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let cert = dir.path().join("cert.pem").display().to_string();
    fs::write(&cert, "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n").unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let flags =
        ["--metrics", &address, "--tls-cert", &cert, "--tls-key", "/nowhere/key", "--peer", &gone];
    let named = ["--peer", "nobody.invalid:4160"];
    let (ended, findings) = doctor(dir.path(), &[&flags[..], &named].concat());
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for (check, state, says) in [
        ("data directory", "warning", dir.path().to_str().unwrap()),
        ("ports", "failure", &*address),
        ("certificates", "failure", &*cert),
        ("names", "failure", "nobody.invalid"),
        ("peers", "warning", &*gone),
    ] {
        let finding = find(&findings, check, state);
        assert!(finding["says"].as_str().unwrap().contains(says), "{finding}");
        assert!(finding["do"].is_string(), "{finding}");
    }
    let (ended, findings) = doctor(dir.path(), &["--mode", "both"]);
    assert_eq!((ended.code, findings.len()), (Some(1), 1), "{ended:?}");
    find(&findings, "configuration", "failure");
}

// Issue 12, 6.
#[test]
fn a_first_file_is_written_once_and_can_be_used() {
    let dir = scratch();
    let file = dir.path().join("tandem.toml");
    let written = finish(tandem().args(["config", "init"]).arg(&file));
    assert_eq!((written.code, written.stdout.as_str()), (Some(0), ""), "{written:?}");
    let again = finish(tandem().args(["config", "init"]).arg(&file));
    assert_eq!(again.code, Some(1), "a file that is there stays: {again:?}");
    let shown = |arguments: &[&str]| finish(tandem().arg("config").args(arguments));
    let with = shown(&["--config", file.to_str().unwrap(), "--data-dir", "/d"]);
    assert_eq!((with.code, with.stdout), (Some(0), shown(&["--data-dir", "/d"]).stdout));
    let printed = shown(&["init"]);
    assert_eq!(printed.stdout.trim(), fs::read_to_string(&file).unwrap().trim());
    let schema: Value = serde_json::from_str(&shown(&["schema"]).stdout).unwrap();
    assert_eq!(schema["properties"]["mode"]["default"], "hybrid");
}
