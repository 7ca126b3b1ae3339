//! A burst of transactions through the admin way of a real node, as `tandem send` uses it.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]
#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

#[cfg(test)]
use std::{
    collections::HashSet,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crate::support::{Node, PATIENCE, Process, eventually, finish, scratch};
use serde_json::Value;

/// Number of bursts.
const BURSTS: usize = 3;

/// Number of senders at once. Chosen: fewer than half of the connections that the admin socket takes.
const SENDERS: usize = 25;

/// Number of transactions of each sender in one burst: 1,000 together, about those of a block.
const OF_EACH: usize = 40;

/// Length of a transaction, in bytes.
const BYTES: usize = 300;

/// Submits a transaction over a connection of its own, as every `tandem send` does, and returns the answer.
fn submit(socket: &Path, body: &[u8]) -> (String, Value) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = "POST /v1/send?tag=TX HTTP/1.1\r\nHost: tandem\r\nContent-Length: ";
    let request = [format!("{head}{}\r\n\r\n", body.len()).as_bytes(), body].concat();
    stream.write_all(&request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), serde_json::from_str(body).unwrap())
}

/// Submits a transaction until the node takes it: full queues refuse, and lose nothing. Returns its digest.
fn give(socket: &Path, body: &[u8]) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (head, answer) = submit(socket, body);
        if head.starts_with("HTTP/1.1 200 ") {
            assert_eq!((&answer["written"], &answer["given_up"]), (&1.into(), &0.into()));
            return answer["digest"].as_str().unwrap().to_owned();
        }
        assert!(head.starts_with("HTTP/1.1 503 "), "{head} {answer}");
        assert!(Instant::now() < deadline, "never taken: {answer}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Submits a burst with all senders at once, and returns the digests.
fn burst(socket: &Path, number: usize) -> HashSet<String> {
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let socket: PathBuf = socket.to_owned();
            thread::spawn(move || {
                let bodies = (0..OF_EACH).map(|message| {
                    let mut body = format!("{number} {sender} {message}").into_bytes();
                    body.resize(BYTES, b'.');
                    body
                });
                bodies.map(|body| give(&socket, &body)).collect::<Vec<_>>()
            })
        })
        .collect();
    senders.into_iter().flat_map(|sender| sender.join().unwrap()).collect()
}

/// Waits until a listener has heard all of these.
fn hears(listener: &Process, mut missing: HashSet<String>) {
    let deadline = Instant::now() + PATIENCE;
    while !missing.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(line) = listener.stdout.recv_timeout(left) else {
            panic!("{} transactions are missing", missing.len());
        };
        let message: Value = serde_json::from_str(&line).unwrap();
        missing.remove(message["digest"].as_str().unwrap_or_default());
    }
}

// Issue 8, 22: the way of `tandem send`.
#[test]
fn a_burst_through_the_admin_socket_arrives() {
    let dirs = [scratch(), scratch()];
    let node = Node::start(dirs[0].path(), &[]);
    let peer = Node::start(dirs[1].path(), &["--mode", "p2p", "--peer", node.p2p()]);
    let listener = Process::spawn(peer.command("listen").args(["--json", "--tags", "TX"]));
    listener.expect_on_stderr("listening");
    let socket = dirs[0].path().join("admin.sock");
    // No event tells that the peer is subscribed.
    let mut probes = 0_u32;
    let probe = eventually("the peer is served on the topic", || {
        probes += 1;
        let (_, answer) = submit(&socket, format!("probe {probes}").as_bytes());
        (answer["written"] == 1).then(|| answer["digest"].as_str().unwrap().to_owned())
    });
    hears(&listener, HashSet::from([probe]));
    for number in 0..BURSTS {
        let sent = burst(&socket, number);
        assert_eq!(sent.len(), SENDERS * OF_EACH);
        hears(&listener, sent);
    }
    for side in [&node, &peer] {
        let metrics = finish(&mut side.command("metrics")).stdout;
        for counter in ["topic_peer_muted", "topic_peer_full"] {
            let none = format!("tandem_p2p_{counter}_total 0");
            assert!(metrics.lines().any(|line| line == none), "{counter}: {metrics}");
        }
    }
}
