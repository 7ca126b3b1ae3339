//! Output that cannot be written, that nobody reads, and whose reader has gone.

#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

#[cfg(test)]
use std::{
    fs::File,
    io::{BufRead, BufReader, PipeReader, Read},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::support::{self, Node, Process, eventually, finish, run, scratch, tandem};
use serde_json::Value;
use tempfile::TempDir;

/// A libp2p address at which nobody with this ID is, so that dialling it is worth a warning.
fn wrong_id(address: &str) -> String {
    let (address, _) = address.rsplit_once('/').unwrap();
    format!("{address}/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN")
}

fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

/// The output of `tandem status --json`.
fn status(dir: &TempDir) -> Value {
    let told = finish(tandem().args(["status", "--json", "--data-dir"]).arg(dir.path()));
    assert_eq!(told.code, Some(0), "{told:?}");
    serde_json::from_str(&told.stdout).unwrap()
}

/// Waits until the admin API of a node answers.
fn answers(dir: &TempDir) {
    eventually("the node answers", || {
        let told = finish(tandem().args(["status", "--data-dir"]).arg(dir.path()));
        (told.code == Some(0)).then_some(())
    });
}

#[track_caller]
fn ends_in_time(mut node: Process, code: i32) {
    node.signal("TERM");
    let asked = Instant::now();
    let status = node.wait(Duration::from_secs(8));
    assert!(asked.elapsed() < Duration::from_secs(6), "{:?}", asked.elapsed());
    assert_eq!(status.code(), Some(code));
}

// Issue 8, 1.
#[test]
fn a_log_that_cannot_be_written_ends_nothing_and_is_counted() {
    let hub_dir = scratch();
    let hub = support::Node::start(hub_dir.path(), &[]);
    for log in ["warn", "trace"] {
        let dir = scratch();
        let mut command = run(dir.path());
        command.args(["--log", log, "--peer", hub.p2p(), "--peer", &wrong_id(hub.p2p())]);
        command.stdout(Stdio::null()).stderr(full());
        let node = Process::of(command.spawn().unwrap());
        answers(&dir);
        let lost = eventually("a line is counted as lost", || {
            status(&dir)["lines_lost"]["log"].as_u64().filter(|lost| *lost > 0)
        });
        assert!(lost > 0);
        eventually("the libp2p half works", || (status(&dir)["peers"] == 1).then_some(()));
        ends_in_time(node, 0);
    }
}

// Issue 8, 1.
#[test]
fn a_log_whose_reader_has_gone_ends_nothing() {
    let dir = scratch();
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = run(dir.path());
    command.args(["--log", "debug"]).stdout(Stdio::null()).stderr(writer);
    let node = Process::of(command.spawn().unwrap());
    drop(command);
    drop(reader);
    answers(&dir);
    ends_in_time(node, 0);
}

/// Has a node log until lines are lost: every connection over libp2p is worth some 20 kB of trace, a pipe
/// takes 64 KiB, and the program keeps a MiB.
#[track_caller]
fn lose_lines(dir: &TempDir) {
    let p2p = format!("{}/health", status(dir)["p2p"][0].as_str().unwrap());
    eventually("lines are lost", || {
        let asked = finish(tandem().args(["http", &p2p]));
        assert_eq!(asked.code, Some(0), "{asked:?}");
        status(dir)["lines_lost"]["log"].as_u64().filter(|lost| *lost > 0)
    });
}

/// A node that says much to pipes that nobody reads.
fn unread(json: bool) -> (Process, PipeReader, PipeReader, TempDir) {
    let dir = scratch();
    let (out, out_writer) = std::io::pipe().unwrap();
    let (err, err_writer) = std::io::pipe().unwrap();
    let mut command = run(dir.path());
    command.args(["--log", "trace"]).stdout(out_writer).stderr(err_writer);
    if json {
        command.arg("--json");
    }
    let node = Process::of(command.spawn().unwrap());
    (node, out, err, dir)
}

// Issue 8, 2.
#[test]
fn output_that_nobody_reads_delays_nothing() {
    let (node, mut out, mut err, dir) = unread(true);
    answers(&dir);
    lose_lines(&dir);
    let asked = Instant::now();
    status(&dir);
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    ends_in_time(node, 0);
    let (mut told, mut log) = (String::new(), String::new());
    out.read_to_string(&mut told).unwrap();
    err.read_to_string(&mut log).unwrap();
    assert!(told.starts_with("{\"event\":\"ready\""), "{told}");
    assert!(log.len() >= 4_096, "{}", log.len());
}

// Issue 8, 2.
#[test]
fn a_log_that_is_read_again_says_how_many_lines_are_missing() {
    let (node, _out, err, dir) = unread(false);
    answers(&dir);
    lose_lines(&dir);
    let lines = BufReader::new(err).lines().map_while(Result::ok);
    let told = lines.take(200_000).find(|line| line.contains("lines of the log were lost"));
    assert!(told.is_some());
    ends_in_time(node, 0);
}

// Issue 8, 1 and 3.
#[test]
fn a_reader_that_has_read_enough_ends_a_command_quietly() {
    let (a, b) = (scratch(), scratch());
    let first = support::Node::start(a.path(), &["--mode", "ws"]);
    let second = support::Node::start(b.path(), &["--mode", "ws", "--peer", first.ws()]);
    first.event("peer_connected");
    second.event("peer_connected");
    let mut listener =
        first.command("listen").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let listener = listener.as_mut().unwrap();
    let mut err = BufReader::new(listener.stderr.take().unwrap());
    let mut line = String::new();
    err.read_line(&mut line).unwrap();
    assert_eq!(line, "listening\n");
    drop(listener.stdout.take());
    let ended = eventually("the listener ends", || {
        let sent =
            finish(second.command("send").args(["--tag", "AV", &std::process::id().to_string()]));
        assert_eq!(sent.code, Some(0), "{sent:?}");
        listener.try_wait().unwrap()
    });
    assert_eq!(ended.code(), Some(0));
    line.clear();
    err.read_to_string(&mut line).unwrap();
    assert_eq!(line, "");
}

#[track_caller]
fn tells_that_it_could_not_write(command: &mut Command, what: &str) {
    let child = command.stdout(full()).stderr(Stdio::piped()).spawn().unwrap();
    let ended = child.wait_with_output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{what}: {told}");
    let last = told.lines().last().unwrap_or_default();
    assert!(last.starts_with("error: cannot write standard output: "), "{what}: {told}");
    assert!(!told.contains("12D3KooW"), "{what}: an identity was told: {told}");
}

// Issue 8, 16.
#[test]
fn a_command_whose_output_cannot_be_written_fails() {
    let dir = scratch();
    let node = support::Node::start(dir.path(), &[]);
    tells_that_it_could_not_write(tandem().arg("keygen"), "keygen");
    tells_that_it_could_not_write(tandem().arg("config"), "config");
    tells_that_it_could_not_write(tandem().args(["completions", "bash"]), "completions");
    tells_that_it_could_not_write(tandem().arg("--help"), "help");
    tells_that_it_could_not_write(tandem().arg("--version"), "version");
    tells_that_it_could_not_write(&mut node.command("peers"), "peers");
    tells_that_it_could_not_write(&mut node.command("status"), "status");
    let health = format!("{}/health", node.ws());
    tells_that_it_could_not_write(tandem().args(["http", &health]), "http");
}

// Issue 8, 16.
#[test]
fn a_reader_that_has_gone_is_no_failure() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ended = tandem().arg("config").stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(ended.stderr, b"");
}

// Issue 12, 6.
#[test]
fn every_line_of_a_log_in_json_is_an_object() {
    let (dir, other) = (scratch(), scratch());
    let log = ["--log-format", "json", "--log", "info"];
    // The warning about topics is no event of the log.
    let more = ["--topic", "chat", "--peer", "127.0.0.1:1"];
    let node = Node::start(dir.path(), &[&log[..], &more].concat());
    let peer = Node::start(other.path(), &["--mode", "ws", "--peer", node.ws()]);
    node.event("peer_connected");
    peer.stop();
    node.event("peer_disconnected");
    let lines = node.stop();
    assert!(!lines.is_empty());
    let objects: Vec<serde_json::Value> =
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    for object in &objects {
        for field in ["timestamp", "level", "target"] {
            assert!(object[field].is_string(), "{field}: {object}");
        }
    }
    let says = |word: &str| {
        let text = |object: &Value| object["message"].as_str().unwrap_or_default().contains(word);
        objects.iter().any(text)
    };
    assert!(says("topics go over libp2p only") && says("a peer connected"), "{objects:?}");
}
